//! Zstandard with contexts that are kept from one batch to the next.

use ::zstd::zstd_safe::zstd_sys::ZSTD_EndDirective;
use ::zstd::zstd_safe::{
    CCtx, CParameter, DCtx, InBuffer, OutBuffer, ResetDirective, get_error_name,
};

use super::gzip::Piece;
use super::{Compression, CompressionError, PIECE_LEN};

/// A context that grew beyond this (a frame may ask for a window of 128 MiB) is not kept.
const CONTEXT_LEN_KEPT: usize = 16 << 20;

#[derive(Default)]
pub(super) struct Context {
    decompress: Option<DCtx<'static>>,
    compress: Option<CCtx<'static>>,
}

pub(crate) struct Decoder<'a> {
    context: &'a mut DCtx<'static>,
    input: InBuffer<'a>,
    /// Whether the last call ended on the end of a frame.
    between_frames: bool,
    /// Whether the last call filled its room, so that the context may hold more.
    more: bool,
}

fn corrupt(reason: &'static str) -> CompressionError {
    CompressionError::Corrupt {
        compression: Compression::Zstd,
        reason,
    }
}

impl<'a> Decoder<'a> {
    pub(super) fn new(
        context: &'a mut Context,
        input: &'a [u8],
    ) -> Result<Decoder<'a>, CompressionError> {
        if context
            .decompress
            .as_ref()
            .is_some_and(|kept| kept.sizeof() > CONTEXT_LEN_KEPT)
        {
            context.decompress = None;
        }
        let context = context.decompress.get_or_insert_with(DCtx::create);
        context
            .reset(ResetDirective::SessionOnly)
            .map_err(|_| corrupt("the decoder cannot be reset"))?;
        Ok(Decoder {
            context,
            input: InBuffer::around(input),
            between_frames: true,
            more: false,
        })
    }

    pub(super) fn next_piece(&mut self, out: &mut Vec<u8>) -> Result<usize, CompressionError> {
        let start = out.len();
        while out.len() == start {
            if self.input.pos() == self.input.src.len() && !self.more {
                return if self.between_frames {
                    Ok(0)
                } else {
                    Err(CompressionError::UnexpectedEnd(Compression::Zstd))
                };
            }
            let mut piece = Piece::new(out, start);
            let mut room = OutBuffer::around(piece.room());
            let hint = self
                .context
                .decompress_stream(&mut room, &mut self.input)
                .map_err(|code| corrupt(get_error_name(code)))?;
            let written = room.pos();
            piece.keep(written);
            self.between_frames = hint == 0;
            self.more = written == PIECE_LEN && hint != 0;
        }
        Ok(out.len() - start)
    }
}

pub(super) fn compress(
    context: &mut Context,
    level: i32,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let failed = CompressionError::EncoderFailed(Compression::Zstd);
    if context
        .compress
        .as_ref()
        .is_some_and(|kept| kept.sizeof() > CONTEXT_LEN_KEPT)
    {
        context.compress = None;
    }
    let context = context.compress.get_or_insert_with(CCtx::create);
    context
        .reset(ResetDirective::SessionAndParameters)
        .and_then(|_| context.set_parameter(CParameter::CompressionLevel(level)))
        .and_then(|_| context.set_parameter(CParameter::ContentSizeFlag(false)))
        .map_err(|_| failed)?;
    let mut input = InBuffer::around(input);
    loop {
        let start = out.len();
        let mut piece = Piece::new(out, start);
        let mut room = OutBuffer::around(piece.room());
        let left = context
            .compress_stream2(&mut room, &mut input, ZSTD_EndDirective::ZSTD_e_end)
            .map_err(|_| failed)?;
        let written = room.pos();
        piece.keep(written);
        if left == 0 {
            return Ok(());
        }
    }
}
