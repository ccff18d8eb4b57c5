//! The fields of a batch's header that storage needs, for every format version that may lie on
//! disk: v2, and the v0 and v1 messages of old directories.

use klamm_records::crc;

use crate::error::BatchFault;

/// Offset and length fields that every version begins with.
pub(crate) const LOG_OVERHEAD: usize = 12;
/// Bytes that [`BatchMeta::parse`] wants to see, if the file has as many.
pub(crate) const HEADER_LEN: usize = 61;
const MAGIC_POSITION: usize = 16;
/// Where the checksummed part of a v2 batch begins.
const CRC_FROM: usize = 21;
const CRC_POSITION: usize = 17;
/// The smallest v0 and v1 messages: header, null key, null value.
const MESSAGE_LEN_MIN: [usize; 2] = [26, 34];
const LEGACY_CRC_FROM: usize = 16;
const ATTRIBUTE_TRANSACTIONAL: i16 = 1 << 4;
const ATTRIBUTE_CONTROL: i16 = 1 << 5;

/// "No producer" in a batch's header.
pub(crate) const NO_PRODUCER_ID: i64 = -1;
/// "No timestamp".
pub(crate) const NO_TIMESTAMP: i64 = -1;

/// A batch as storage sees it. For v0 and v1, which may be a compressed wrapper, the first offset
/// is not known without decompressing, so both offsets are the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchMeta {
    pub(crate) base_offset: i64,
    pub(crate) last_offset: i64,
    /// Whole length in bytes.
    pub(crate) size: usize,
    pub(crate) magic: i8,
    /// -1 for v0 and v1.
    pub(crate) leader_epoch: i32,
    attributes: i16,
    /// -1 for v0.
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
}

impl BatchMeta {
    /// Reads the header at the start of `bytes`, which may end within the batch but must have
    /// [`HEADER_LEN`] bytes if the batch has as many.
    pub(crate) fn parse(bytes: &[u8]) -> Result<BatchMeta, BatchFault> {
        if bytes.len() <= MAGIC_POSITION {
            return Err(BatchFault::Truncated);
        }
        let length = i32_at(bytes, 8);
        let size = usize::try_from(length)
            .map_err(|_| BatchFault::Length(length))?
            .saturating_add(LOG_OVERHEAD);
        let magic = bytes[MAGIC_POSITION] as i8;
        match magic {
            2 => Self::parse_v2(bytes, size),
            0 | 1 => Self::parse_legacy(bytes, size, magic),
            _ => Err(BatchFault::Magic(magic)),
        }
        .and_then(|meta| {
            if meta.base_offset < 0 || meta.last_offset < meta.base_offset {
                Err(BatchFault::Offset(meta.last_offset))
            } else {
                Ok(meta)
            }
        })
    }

    fn parse_v2(bytes: &[u8], size: usize) -> Result<BatchMeta, BatchFault> {
        if size < HEADER_LEN {
            return Err(BatchFault::Length(i32_at(bytes, 8)));
        }
        if bytes.len() < HEADER_LEN {
            return Err(BatchFault::Truncated);
        }
        let base_offset = i64_at(bytes, 0);
        Ok(BatchMeta {
            base_offset,
            last_offset: base_offset.saturating_add(i64::from(i32_at(bytes, 23))),
            size,
            magic: 2,
            leader_epoch: i32_at(bytes, 12),
            attributes: i16_at(bytes, 21),
            max_timestamp: i64_at(bytes, 35),
            producer_id: i64_at(bytes, 43),
            producer_epoch: i16_at(bytes, 51),
            base_sequence: i32_at(bytes, 53),
        })
    }

    fn parse_legacy(bytes: &[u8], size: usize, magic: i8) -> Result<BatchMeta, BatchFault> {
        let size_min = MESSAGE_LEN_MIN[magic as usize];
        if size < size_min {
            return Err(BatchFault::Length(i32_at(bytes, 8)));
        }
        if bytes.len() < size_min {
            return Err(BatchFault::Truncated);
        }
        let offset = i64_at(bytes, 0);
        Ok(BatchMeta {
            base_offset: offset,
            last_offset: offset,
            size,
            magic,
            leader_epoch: -1,
            attributes: i16::from(bytes[17] & 0x0f),
            max_timestamp: if magic == 1 {
                i64_at(bytes, 18)
            } else {
                NO_TIMESTAMP
            },
            producer_id: NO_PRODUCER_ID,
            producer_epoch: -1,
            base_sequence: -1,
        })
    }

    pub(crate) fn next_offset(&self) -> i64 {
        self.last_offset + 1
    }

    pub(crate) fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & ATTRIBUTE_TRANSACTIONAL != 0
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes & ATTRIBUTE_CONTROL != 0
    }

    /// Sequence number of the last record; wraps from `i32::MAX` to 0.
    pub(crate) fn last_sequence(&self) -> i32 {
        if self.base_sequence < 0 {
            return self.base_sequence;
        }
        add_sequence(
            self.base_sequence,
            (self.last_offset - self.base_offset) as i32,
        )
    }
}

/// Adds to a sequence number, which wraps from `i32::MAX` to 0.
pub(crate) fn add_sequence(sequence: i32, by: i32) -> i32 {
    (i64::from(sequence) + i64::from(by)).rem_euclid(1 << 31) as i32
}

/// Compares the checksum of a whole batch with its content.
pub(crate) fn verify_checksum(bytes: &[u8], magic: i8) -> Result<(), BatchFault> {
    let (stored, computed) = if magic >= 2 {
        (
            i32_at(bytes, CRC_POSITION) as u32,
            crc::crc32c(&bytes[CRC_FROM..]),
        )
    } else {
        (
            i32_at(bytes, LOG_OVERHEAD) as u32,
            crc32fast::hash(&bytes[LEGACY_CRC_FROM..]),
        )
    };
    if stored == computed {
        Ok(())
    } else {
        Err(BatchFault::Checksum)
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[at..at + N]);
    array
}

pub(crate) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(array(bytes, at))
}

pub(crate) fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(array(bytes, at))
}

pub(crate) fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(array(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(base: i64, length: i32, delta: i32) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        bytes[23..27].copy_from_slice(&delta.to_be_bytes());
        bytes
    }

    #[test]
    fn reads_a_v2_header() {
        let meta = BatchMeta::parse(&v2(5, 100, 3)).unwrap();
        assert_eq!((meta.base_offset, meta.last_offset, meta.size), (5, 8, 112));
        assert_eq!(meta.next_offset(), 9);
    }

    #[test]
    fn rejects_headers_that_cannot_be() {
        let fault = |bytes: &[u8]| BatchMeta::parse(bytes).unwrap_err();
        assert_eq!(fault(&[]), BatchFault::Truncated);
        assert_eq!(fault(&v2(5, 100, 3)[..60]), BatchFault::Truncated);
        assert_eq!(fault(&v2(5, 48, 3)), BatchFault::Length(48));
        assert_eq!(fault(&v2(5, -1, 3)), BatchFault::Length(-1));
        assert_eq!(fault(&v2(-5, 100, 3)), BatchFault::Offset(-2));
        assert_eq!(fault(&v2(5, 100, -1)), BatchFault::Offset(4));
        let mut bytes = v2(5, 100, 3);
        bytes[16] = 3;
        assert_eq!(fault(&bytes), BatchFault::Magic(3));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(add_sequence(i32::MAX, 1), 0);
        assert_eq!(add_sequence(i32::MAX - 1, 3), 1);
        assert_eq!(add_sequence(7, 3), 10);
    }
}
