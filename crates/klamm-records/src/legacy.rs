//! Messages of magic 0 and 1, which Kafka before 0.11 wrote. Read only: they may still lie in an
//! old data directory and are served as they are.
//!
//! ```text
//! offset i64 | size i32 | crc u32 (CRC-32 of all that follows) | magic i8 | attributes i8 |
//! timestamp i64 (magic 1) | key length i32 | key | value length i32 | value
//! ```
//!
//! A compressed message is a wrapper: its value is a compressed sequence of messages. Offsets
//! inside are absolute with magic 0. With magic 1 they count from 0 and the wrapper's offset is
//! that of the last one inside.

use crate::batch::{
    BatchError, Frame, Headers, LOG_OVERHEAD, NO_SEQUENCE, NO_TIMESTAMP, RecordRef,
};
use crate::compression::{Compression, CompressionError};
use crate::scratch::Scratch;

/// Smallest value of the size field: a message of magic 0 without key and value.
pub const OVERHEAD_V0: i32 = 14;
/// Smallest value of the size field for magic 1.
pub const OVERHEAD_V1: i32 = 22;

const LOG_APPEND_TIME: i8 = 1 << 3;

/// Why bytes are not a message of magic 0 or 1.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum LegacyError {
    /// The frame around the message is wrong.
    #[error(transparent)]
    Frame(#[from] BatchError),
    /// A key or value reaches past the end of the message, or bytes are left after them.
    #[error("the fields of the message do not fill it")]
    InvalidStructure,
    /// A compressed message has no value to decompress.
    #[error("a compressed message has no value")]
    EmptyWrapper,
    /// A message inside a compressed one is itself compressed or of another magic.
    #[error("a message inside a compressed one is compressed or of another magic")]
    InvalidInner,
    /// The value of a compressed message cannot be decompressed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// A message of magic 0 or 1 that borrows its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// Offset; of the last message inside if this one is compressed.
    pub offset: i64,
    /// 0 or 1.
    pub magic: i8,
    /// CRC-32 of the bytes after it.
    pub crc: u32,
    /// Bits 0-2 compression, 3 timestamp type (magic 1).
    pub attributes: i8,
    /// Milliseconds since the epoch; [`NO_TIMESTAMP`] with magic 0.
    pub timestamp: i64,
    /// Key, if there is one.
    pub key: Option<&'a [u8]>,
    /// Value, if there is one; the compressed messages if this one is a wrapper.
    pub value: Option<&'a [u8]>,
    bytes: &'a [u8],
}

impl<'a> Message<'a> {
    /// The message at the front of `bytes`; what follows it is left out.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, LegacyError> {
        let frame = Frame::peek(bytes)?.ok_or(BatchError::Truncated {
            needed: Frame::PEEK_LEN,
            available: bytes.len(),
        })?;
        let needed = match frame.magic {
            0 => OVERHEAD_V0,
            1 => OVERHEAD_V1,
            magic => return Err(BatchError::UnsupportedMagic(magic).into()),
        };
        if frame.size < needed as usize + LOG_OVERHEAD {
            return Err(BatchError::TooSmall {
                size: frame.size as i64,
            }
            .into());
        }
        let bytes = bytes.get(..frame.size).ok_or(BatchError::Truncated {
            needed: frame.size,
            available: bytes.len(),
        })?;
        let mut rest = &bytes[LOG_OVERHEAD..];
        let crc = u32::from_be_bytes(take(&mut rest)?);
        let [_magic, attributes] = take(&mut rest)?;
        let timestamp = match frame.magic {
            0 => NO_TIMESTAMP,
            _ => i64::from_be_bytes(take(&mut rest)?),
        };
        let key = take_field(&mut rest)?;
        let value = take_field(&mut rest)?;
        if !rest.is_empty() {
            return Err(LegacyError::InvalidStructure);
        }
        Ok(Message {
            offset: frame.offset,
            magic: frame.magic,
            crc,
            attributes: attributes as i8,
            timestamp,
            key,
            value,
            bytes,
        })
    }

    /// The whole message.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Codec of the messages inside; [`Compression::None`] if this is no wrapper.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let id = (self.attributes & 7) as u8;
        Compression::from_id(id).ok_or(BatchError::UnknownCompression(id))
    }

    /// Compares the checksum with the content.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = crc32fast::hash(&self.bytes[LOG_OVERHEAD + 4..]);
        if computed == self.crc {
            Ok(())
        } else {
            Err(BatchError::ChecksumMismatch {
                stored: self.crc,
                computed,
            })
        }
    }

    /// The message itself, or the messages inside if it is a wrapper, in the order of their
    /// offsets.
    pub fn records<'s>(&self, scratch: &'s mut Scratch) -> Result<Vec<RecordRef<'s>>, LegacyError>
    where
        'a: 's,
    {
        let compression = self.compression()?;
        if compression == Compression::None {
            return Ok(vec![self.to_record(self.offset, self.timestamp)]);
        }
        let value = self.value.ok_or(LegacyError::EmptyWrapper)?;
        let mut rest = scratch.decompress_as(compression, value, self.magic == 0)?;
        let mut inner = Vec::new();
        while !rest.is_empty() {
            let message = Message::parse(rest)?;
            if message.magic != self.magic || message.compression()? != Compression::None {
                return Err(LegacyError::InvalidInner);
            }
            rest = &rest[message.bytes.len()..];
            inner.push(message);
        }
        let last = inner.last().ok_or(LegacyError::EmptyWrapper)?.offset;
        let base = match self.magic {
            0 => 0,
            _ => self.offset.wrapping_sub(last),
        };
        let append_time = (self.attributes & LOG_APPEND_TIME != 0).then_some(self.timestamp);
        Ok(inner
            .iter()
            .map(|message| {
                let timestamp = append_time.unwrap_or(message.timestamp);
                message.to_record(base.wrapping_add(message.offset), timestamp)
            })
            .collect())
    }

    fn to_record(self, offset: i64, timestamp: i64) -> RecordRef<'a> {
        RecordRef {
            attributes: self.attributes,
            offset,
            timestamp,
            sequence: NO_SEQUENCE,
            key: self.key,
            value: self.value,
            headers: Headers::default(),
        }
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], LegacyError> {
    let (taken, rest) = input
        .split_first_chunk()
        .ok_or(LegacyError::InvalidStructure)?;
    *input = rest;
    Ok(*taken)
}

fn take_field<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, LegacyError> {
    let len = i32::from_be_bytes(take(input)?);
    let Ok(len) = usize::try_from(len) else {
        return Ok(None);
    };
    let (field, rest) = input
        .split_at_checked(len)
        .ok_or(LegacyError::InvalidStructure)?;
    *input = rest;
    Ok(Some(field))
}
