use crate::batch::{Base, BatchError, RecordError};
use crate::compression::{CompressionError, Decoder};
use crate::varint;

/// Reads a compressed body piece by piece; memory is one piece, whatever comes out in all.
pub(super) struct PieceReader<'a> {
    decoder: Decoder<'a>,
    piece: &'a mut Vec<u8>,
    at: usize,
    total: u64,
    limit: u64,
}

/// What a walk needs to know of a record.
pub(super) struct Walked {
    pub(super) offset: i64,
    pub(super) timestamp: i64,
    pub(super) has_key: bool,
}

/// Why a walk ends early.
pub(super) enum WalkError {
    Record(RecordError),
    Compression(CompressionError),
    /// More than the limit was decompressed.
    TooLarge {
        total: u64,
        limit: u64,
    },
}

impl From<RecordError> for WalkError {
    fn from(error: RecordError) -> WalkError {
        WalkError::Record(error)
    }
}

impl From<CompressionError> for WalkError {
    fn from(error: CompressionError) -> WalkError {
        WalkError::Compression(error)
    }
}

impl WalkError {
    pub(super) fn at(self, index: i32) -> super::ProduceError {
        match self {
            WalkError::Record(error) => {
                super::ProduceError::Malformed(BatchError::Record { index, error })
            }
            WalkError::Compression(error) => super::ProduceError::Undecodable(error),
            WalkError::TooLarge { total, limit } => {
                super::ProduceError::TooLarge { size: total, limit }
            }
        }
    }
}

impl<'a> PieceReader<'a> {
    /// A reader that gives up once more than `limit` bytes came out. `piece` is room to use.
    pub(super) fn new(decoder: Decoder<'a>, piece: &'a mut Vec<u8>, limit: u64) -> Self {
        piece.clear();
        PieceReader {
            decoder,
            piece,
            at: 0,
            total: 0,
            limit,
        }
    }

    /// Whether bytes are left; decompresses the next piece if this one is used up.
    pub(super) fn fill(&mut self) -> Result<bool, WalkError> {
        if self.at < self.piece.len() {
            return Ok(true);
        }
        self.piece.clear();
        self.at = 0;
        let len = self.decoder.next_piece(self.piece)?;
        self.total += len as u64;
        if self.total > self.limit {
            return Err(WalkError::TooLarge {
                total: self.total,
                limit: self.limit,
            });
        }
        Ok(len > 0)
    }

    fn byte(&mut self) -> Result<u8, WalkError> {
        if !self.fill()? {
            return Err(RecordError::UnexpectedEnd.into());
        }
        let byte = self.piece[self.at];
        self.at += 1;
        Ok(byte)
    }

    /// Gathers a number that may straddle two pieces, then reads it from `read`.
    fn varint<T>(
        &mut self,
        len_max: usize,
        read: impl Fn(&mut &[u8]) -> Option<T>,
    ) -> Result<T, WalkError> {
        let rest = &self.piece[self.at..];
        if rest.len() >= len_max {
            let mut input = rest;
            let value = read(&mut input).ok_or(RecordError::InvalidVarint)?;
            self.at += rest.len() - input.len();
            return Ok(value);
        }
        let mut gathered = [0_u8; 10];
        for index in 0..len_max {
            gathered[index] = self.byte()?;
            if gathered[index] < 0x80 {
                return read(&mut &gathered[..=index])
                    .ok_or_else(|| RecordError::InvalidVarint.into());
            }
        }
        Err(RecordError::InvalidVarint.into())
    }

    fn i32(&mut self) -> Result<i32, WalkError> {
        self.varint(varint::VARINT_LEN_MAX, varint::read_i32)
    }

    fn i64(&mut self) -> Result<i64, WalkError> {
        self.varint(10, varint::read_i64)
    }

    /// Passes over bytes; a negative length is a null field and passes over none.
    fn skip(&mut self, len: i32) -> Result<(), WalkError> {
        let mut left = usize::try_from(len).unwrap_or(0);
        while left > 0 {
            if !self.fill()? {
                return Err(RecordError::UnexpectedEnd.into());
            }
            let step = left.min(self.piece.len() - self.at);
            self.at += step;
            left -= step;
        }
        Ok(())
    }

    /// Walks over a record as Kafka does where it keeps the batch: fields are passed over one by
    /// one, and the record's own length is not compared with them.
    pub(super) fn walk_record(&mut self, base: &Base) -> Result<Walked, WalkError> {
        self.i32()?;
        self.byte()?;
        let timestamp_delta = self.i64()?;
        let offset_delta = self.i32()?;
        let key_len = self.i32()?;
        self.skip(key_len)?;
        let value_len = self.i32()?;
        self.skip(value_len)?;
        let headers = self.i32()?;
        if headers < 0 {
            return Err(RecordError::InvalidHeaderCount(headers).into());
        }
        for _ in 0..headers {
            let header_key_len = self.i32()?;
            if header_key_len < 0 {
                return Err(RecordError::InvalidHeaderKeyLength(header_key_len).into());
            }
            self.skip(header_key_len)?;
            let header_value_len = self.i32()?;
            self.skip(header_value_len)?;
        }
        Ok(Walked {
            offset: base.offset(offset_delta),
            timestamp: base.timestamp(timestamp_delta),
            has_key: key_len >= 0,
        })
    }

    /// The bytes of a whole record without its length; copied to `room` only if they straddle two
    /// pieces. `room` grows as bytes come, not by what the length claims.
    pub(super) fn take_record<'r>(
        &'r mut self,
        room: &'r mut Vec<u8>,
    ) -> Result<&'r [u8], WalkError> {
        let declared = self.i32()?;
        let len = usize::try_from(declared).map_err(|_| RecordError::InvalidLength(declared))?;
        if self.piece.len() - self.at >= len {
            let start = self.at;
            self.at += len;
            return Ok(&self.piece[start..start + len]);
        }
        room.clear();
        while room.len() < len {
            if !self.fill()? {
                return Err(RecordError::UnexpectedEnd.into());
            }
            let step = (len - room.len()).min(self.piece.len() - self.at);
            room.extend_from_slice(&self.piece[self.at..self.at + step]);
            self.at += step;
        }
        Ok(room)
    }
}
