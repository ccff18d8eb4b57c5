//! gzip: the member format of RFC 1952 by hand around a reused inflater.

use flate2::{Compress, Crc, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Compression, CompressionError, PIECE_LEN};

/// Magic, deflate, no flags, no time, no extra flags, unknown system: what Java writes.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

#[derive(Default)]
pub(super) struct Context(Option<Decompress>);

pub(crate) struct Decoder<'a> {
    inflate: &'a mut Decompress,
    input: &'a [u8],
    crc: Crc,
    finished: bool,
}

fn corrupt(reason: &'static str) -> CompressionError {
    CompressionError::Corrupt {
        compression: Compression::Gzip,
        reason,
    }
}

const CUT_SHORT: CompressionError = CompressionError::UnexpectedEnd(Compression::Gzip);

impl<'a> Decoder<'a> {
    pub(super) fn new(
        context: &'a mut Context,
        input: &'a [u8],
    ) -> Result<Decoder<'a>, CompressionError> {
        let mut decoder = Decoder {
            inflate: context.0.get_or_insert_with(|| Decompress::new(false)),
            input,
            crc: Crc::new(),
            finished: false,
        };
        decoder.start_member()?;
        Ok(decoder)
    }

    fn start_member(&mut self) -> Result<(), CompressionError> {
        const TEXT_ENDS_WITH_ZERO: [u8; 2] = [1 << 3, 1 << 4];
        let start = self.input;
        let header: [u8; 10] = self.take()?;
        if header[..3] != HEADER[..3] {
            return Err(corrupt("not a gzip header"));
        }
        let flags = header[3];
        if flags & (1 << 2) != 0 {
            let len = usize::from(u16::from_le_bytes(self.take()?));
            self.input = self.input.get(len..).ok_or(CUT_SHORT)?;
        }
        for flag in TEXT_ENDS_WITH_ZERO {
            if flags & flag != 0 {
                let end = self
                    .input
                    .iter()
                    .position(|&byte| byte == 0)
                    .ok_or(CUT_SHORT)?;
                self.input = &self.input[end + 1..];
            }
        }
        if flags & (1 << 1) != 0 {
            let mut crc = Crc::new();
            crc.update(&start[..start.len() - self.input.len()]);
            if crc.sum() as u16 != u16::from_le_bytes(self.take()?) {
                return Err(corrupt("header checksum does not match"));
            }
        }
        self.inflate.reset(false);
        self.crc.reset();
        Ok(())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], CompressionError> {
        let (taken, rest) = self.input.split_first_chunk().ok_or(CUT_SHORT)?;
        self.input = rest;
        Ok(*taken)
    }

    pub(super) fn next_piece(&mut self, out: &mut Vec<u8>) -> Result<usize, CompressionError> {
        let start = out.len();
        while !self.finished && out.len() == start {
            out.reserve(PIECE_LEN);
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let mut piece = Piece::new(out, start);
            let status = self
                .inflate
                .decompress(self.input, piece.room(), FlushDecompress::None)
                .map_err(|_| corrupt("not a deflate stream"))?;
            let read = (self.inflate.total_in() - read) as usize;
            let written = (self.inflate.total_out() - written) as usize;
            piece.keep(written);
            self.input = &self.input[read..];
            self.crc.update(&out[start..]);
            match status {
                Status::StreamEnd => self.end_member()?,
                Status::Ok | Status::BufError if read == 0 && written == 0 => {
                    return Err(CUT_SHORT);
                }
                Status::Ok | Status::BufError => {}
            }
        }
        Ok(out.len() - start)
    }

    fn end_member(&mut self) -> Result<(), CompressionError> {
        let crc = u32::from_le_bytes(self.take()?);
        let len = u32::from_le_bytes(self.take()?);
        if crc != self.crc.sum() || len != self.inflate.total_out() as u32 {
            return Err(corrupt("trailer does not match the content"));
        }
        // Java's reader goes on where another member follows and ignores anything else.
        let more = self.input.starts_with(&HEADER[..2]);
        self.finished = !more || self.start_member().is_err();
        Ok(())
    }
}

/// A zeroed piece of room at the end of a buffer, cut back to what was filled.
pub(super) struct Piece<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Piece<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, start: usize) -> Piece<'a> {
        out.resize(start + PIECE_LEN, 0);
        Piece { out, start }
    }

    pub(super) fn room(&mut self) -> &mut [u8] {
        &mut self.out[self.start..]
    }

    pub(super) fn keep(self, len: usize) {
        self.out.truncate(self.start + len);
    }
}

pub(super) fn compress(
    level: i32,
    input: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let failed = CompressionError::EncoderFailed(Compression::Gzip);
    let level = match u32::try_from(level) {
        Ok(level) => flate2::Compression::new(level),
        Err(_) => flate2::Compression::default(),
    };
    out.extend_from_slice(&HEADER);
    let mut deflate = Compress::new(level, false);
    loop {
        let read = deflate.total_in() as usize;
        out.reserve((input.len() - read) / 2 + 1024);
        let status = deflate
            .compress_vec(&input[read..], out, FlushCompress::Finish)
            .map_err(|_| failed)?;
        match status {
            Status::StreamEnd => break,
            Status::Ok | Status::BufError => {}
        }
    }
    let mut crc = Crc::new();
    crc.update(input);
    out.extend_from_slice(&crc.sum().to_le_bytes());
    out.extend_from_slice(&(input.len() as u32).to_le_bytes());
    Ok(())
}
