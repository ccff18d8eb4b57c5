//! Snappy in the framing of the Java library `snappy-java` ("xerial"), or as one raw block.

use super::{Compression, CompressionError};

const MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Magic, version 1, compatible with version 1.
const HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
const BLOCK_LEN: usize = 32 * 1024;
/// A snappy element of 3 bytes gives at most 64; a block that claims more lies.
const RATIO_MAX: usize = 64;

pub(crate) struct Decoder<'a> {
    input: &'a [u8],
    framed: bool,
    started: bool,
}

fn corrupt(reason: &'static str) -> CompressionError {
    CompressionError::Corrupt {
        compression: Compression::Snappy,
        reason,
    }
}

const CUT_SHORT: CompressionError = CompressionError::UnexpectedEnd(Compression::Snappy);

impl<'a> Decoder<'a> {
    pub(super) fn new(input: &'a [u8]) -> Decoder<'a> {
        Decoder {
            input,
            framed: input.starts_with(&MAGIC),
            started: false,
        }
    }

    pub(super) fn next_piece(&mut self, out: &mut Vec<u8>) -> Result<usize, CompressionError> {
        if !self.framed {
            let input = std::mem::take(&mut self.input);
            return if input.is_empty() && self.started {
                Ok(0)
            } else {
                self.started = true;
                decompress_block(input, out)
            };
        }
        loop {
            // A stream may hold further streams, each with a header of its own.
            if self.input.starts_with(&MAGIC) {
                let (header, rest) = self.input.split_first_chunk::<16>().ok_or(CUT_SHORT)?;
                let version = i32::from_be_bytes([header[8], header[9], header[10], header[11]]);
                if version < 1 {
                    return Err(corrupt("written by a version that is not known"));
                }
                self.input = rest;
            }
            if self.input.is_empty() {
                return Ok(0);
            }
            let (len, rest) = self.input.split_first_chunk().ok_or(CUT_SHORT)?;
            let len = u32::from_be_bytes(*len) as usize;
            let (block, rest) = rest.split_at_checked(len).ok_or(CUT_SHORT)?;
            self.input = rest;
            let written = decompress_block(block, out)?;
            if written > 0 {
                return Ok(written);
            }
        }
    }
}

fn decompress_block(block: &[u8], out: &mut Vec<u8>) -> Result<usize, CompressionError> {
    let len = snap::raw::decompress_len(block).map_err(|_| corrupt("not a snappy block"))?;
    if len > block.len().saturating_mul(RATIO_MAX) {
        return Err(corrupt("a block claims a length that it cannot have"));
    }
    let start = out.len();
    out.resize(start + len, 0);
    snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(|_| corrupt("not a snappy block"))
}

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    out.extend_from_slice(&HEADER);
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(BLOCK_LEN) {
        let start = out.len();
        out.resize(start + 4 + snap::raw::max_compress_len(block.len()), 0);
        let len = encoder
            .compress(block, &mut out[start + 4..])
            .map_err(|_| CompressionError::EncoderFailed(Compression::Snappy))?;
        out[start..start + 4].copy_from_slice(&(len as u32).to_be_bytes());
        out.truncate(start + 4 + len);
    }
    Ok(())
}
