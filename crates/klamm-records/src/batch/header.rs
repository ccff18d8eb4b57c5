use super::BatchError;
use crate::compression::Compression;

/// Bytes of a batch before its first record.
pub const HEADER_LEN: usize = 61;
/// Bytes that the length field of a batch does not count: base offset and the field itself.
pub const LOG_OVERHEAD: usize = 12;
/// "No timestamp", in milliseconds.
pub const NO_TIMESTAMP: i64 = -1;
/// Producer id of a producer that is not idempotent.
pub const NO_PRODUCER_ID: i64 = -1;
/// Producer epoch that goes with [`NO_PRODUCER_ID`].
pub const NO_PRODUCER_EPOCH: i16 = -1;
/// Sequence number that goes with [`NO_PRODUCER_ID`].
pub const NO_SEQUENCE: i32 = -1;
/// Leader epoch of a batch that no leader has seen yet.
pub const NO_PARTITION_LEADER_EPOCH: i32 = -1;

pub(crate) const MAGIC_AT: usize = 16;
const CRC_AT: usize = 17;
/// The checksum's own bytes.
pub(crate) const CRC_RANGE: std::ops::Range<usize> = CRC_AT..CRC_AT + 4;
/// First byte that the checksum covers.
pub(crate) const CRC_FROM: usize = 21;

/// Where a record's timestamp comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer set it.
    #[default]
    CreateTime,
    /// The broker set it when it appended the batch.
    LogAppendTime,
}

/// The flags of a batch.
///
/// Bits 0-2 compression, 3 timestamp type, 4 transactional, 5 control, 6 delete horizon. As in
/// Kafka, the high byte is carried along and never looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes(pub i16);

impl Attributes {
    const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;
    const DELETE_HORIZON: i16 = 1 << 6;

    /// Flags made of their parts; no delete horizon.
    pub fn new(
        compression: Compression,
        timestamp_type: TimestampType,
        transactional: bool,
        control: bool,
    ) -> Attributes {
        let mut bits = i16::from(compression.id());
        if timestamp_type == TimestampType::LogAppendTime {
            bits |= Attributes::LOG_APPEND_TIME;
        }
        if transactional {
            bits |= Attributes::TRANSACTIONAL;
        }
        if control {
            bits |= Attributes::CONTROL;
        }
        Attributes(bits)
    }

    /// The codec of the body, if its number names one.
    pub fn compression(self) -> Result<Compression, BatchError> {
        let id = (self.0 & 7) as u8;
        Compression::from_id(id).ok_or(BatchError::UnknownCompression(id))
    }

    /// Whether the body is compressed, with whatever codec.
    pub fn is_compressed(self) -> bool {
        self.0 & 7 != 0
    }

    /// Where the timestamps come from.
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Attributes::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch is part of a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & Attributes::TRANSACTIONAL != 0
    }

    /// Whether the batch holds control records, which consumers don't see.
    pub fn is_control(self) -> bool {
        self.0 & Attributes::CONTROL != 0
    }

    /// Whether the base timestamp stands for the time at which tombstones may go.
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Attributes::DELETE_HORIZON != 0
    }

    /// The same with the mark of a delete horizon set or not.
    #[must_use]
    pub fn with_delete_horizon(self, marked: bool) -> Attributes {
        let kept = self.0 & !Attributes::DELETE_HORIZON;
        Attributes(if marked {
            kept | Attributes::DELETE_HORIZON
        } else {
            kept
        })
    }

    /// The same flags with another timestamp type; bits that have no meaning are cleared, as
    /// Kafka clears them whenever it rewrites the flags.
    pub(crate) fn with_timestamp_type(self, timestamp_type: TimestampType) -> Attributes {
        let kept = self.0
            & (7 | Attributes::TRANSACTIONAL | Attributes::CONTROL | Attributes::DELETE_HORIZON);
        match timestamp_type {
            TimestampType::CreateTime => Attributes(kept),
            TimestampType::LogAppendTime => Attributes(kept | Attributes::LOG_APPEND_TIME),
        }
    }
}

/// The thirteen fields before the records of a batch, in the order of the wire, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; stays when compaction removes that record.
    pub base_offset: i64,
    /// Bytes after this field.
    pub length: i32,
    /// Epoch of the leader that appended the batch, [`NO_PARTITION_LEADER_EPOCH`] before that.
    pub partition_leader_epoch: i32,
    /// Format version: 2.
    pub magic: i8,
    /// CRC-32C of all bytes after this field.
    pub crc: u32,
    /// Flags.
    pub attributes: Attributes,
    /// Offset of the last record less the base offset; stays when compaction removes records.
    pub last_offset_delta: i32,
    /// Timestamp of the first record in milliseconds, or the delete horizon.
    pub base_timestamp: i64,
    /// Largest timestamp of the records in milliseconds, or the append time.
    pub max_timestamp: i64,
    /// [`NO_PRODUCER_ID`] if the producer is not idempotent.
    pub producer_id: i64,
    /// [`NO_PRODUCER_EPOCH`] if the producer is not idempotent.
    pub producer_epoch: i16,
    /// Sequence number of the first record; [`NO_SEQUENCE`] if the producer is not idempotent.
    pub base_sequence: i32,
    /// Records in the batch, compacted away ones not counted.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads a header from the front of `bytes`, which need not hold the records.
    ///
    /// Checks magic 2 and a length of at least a header; no other field is judged.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if let Some(&magic) = bytes.get(MAGIC_AT)
            && magic != 2
        {
            return Err(BatchError::UnsupportedMagic(magic as i8));
        }
        let Some(fixed) = bytes.first_chunk::<HEADER_LEN>() else {
            return Err(BatchError::Truncated {
                needed: HEADER_LEN,
                available: bytes.len(),
            });
        };
        let header = BatchHeader::from_array(fixed);
        if header.length < (HEADER_LEN - LOG_OVERHEAD) as i32 {
            return Err(BatchError::TooSmall {
                size: i64::from(header.length) + LOG_OVERHEAD as i64,
            });
        }
        Ok(header)
    }

    fn from_array(bytes: &[u8; HEADER_LEN]) -> BatchHeader {
        let mut at = 0;
        BatchHeader {
            base_offset: i64::from_be_bytes(take(bytes, &mut at)),
            length: i32::from_be_bytes(take(bytes, &mut at)),
            partition_leader_epoch: i32::from_be_bytes(take(bytes, &mut at)),
            magic: i8::from_be_bytes(take(bytes, &mut at)),
            crc: u32::from_be_bytes(take(bytes, &mut at)),
            attributes: Attributes(i16::from_be_bytes(take(bytes, &mut at))),
            last_offset_delta: i32::from_be_bytes(take(bytes, &mut at)),
            base_timestamp: i64::from_be_bytes(take(bytes, &mut at)),
            max_timestamp: i64::from_be_bytes(take(bytes, &mut at)),
            producer_id: i64::from_be_bytes(take(bytes, &mut at)),
            producer_epoch: i16::from_be_bytes(take(bytes, &mut at)),
            base_sequence: i32::from_be_bytes(take(bytes, &mut at)),
            record_count: i32::from_be_bytes(take(bytes, &mut at)),
        }
    }

    /// The bytes of the header, the checksum as it stands in the field.
    pub fn to_array(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        let mut at = 0;
        put(&mut bytes, &mut at, &self.base_offset.to_be_bytes());
        put(&mut bytes, &mut at, &self.length.to_be_bytes());
        put(
            &mut bytes,
            &mut at,
            &self.partition_leader_epoch.to_be_bytes(),
        );
        put(&mut bytes, &mut at, &self.magic.to_be_bytes());
        put(&mut bytes, &mut at, &self.crc.to_be_bytes());
        put(&mut bytes, &mut at, &self.attributes.0.to_be_bytes());
        put(&mut bytes, &mut at, &self.last_offset_delta.to_be_bytes());
        put(&mut bytes, &mut at, &self.base_timestamp.to_be_bytes());
        put(&mut bytes, &mut at, &self.max_timestamp.to_be_bytes());
        put(&mut bytes, &mut at, &self.producer_id.to_be_bytes());
        put(&mut bytes, &mut at, &self.producer_epoch.to_be_bytes());
        put(&mut bytes, &mut at, &self.base_sequence.to_be_bytes());
        put(&mut bytes, &mut at, &self.record_count.to_be_bytes());
        bytes
    }

    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        usize::try_from(self.length).unwrap_or(0) + LOG_OVERHEAD
    }

    /// Offset of the last record that the batch was built with.
    pub fn last_offset(&self) -> i64 {
        self.base_offset
            .wrapping_add(i64::from(self.last_offset_delta))
    }

    /// Offset that follows the batch.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    /// Codec of the body.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        self.attributes.compression()
    }

    /// Whether the producer is idempotent.
    pub fn has_producer_id(&self) -> bool {
        self.producer_id > NO_PRODUCER_ID
    }

    /// Sequence number of the last record, [`NO_SEQUENCE`] if there are none.
    pub fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            NO_SEQUENCE
        } else {
            increment_sequence(self.base_sequence, self.last_offset_delta)
        }
    }

    /// Time in milliseconds after which compaction may remove the batch's tombstones.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        self.attributes
            .has_delete_horizon()
            .then_some(self.base_timestamp)
    }

    /// Timestamp that stands for every record, where the broker set it.
    pub fn log_append_time(&self) -> Option<i64> {
        (self.attributes.timestamp_type() == TimestampType::LogAppendTime)
            .then_some(self.max_timestamp)
    }
}

fn take<const N: usize>(bytes: &[u8; HEADER_LEN], at: &mut usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[*at..*at + N]);
    *at += N;
    field
}

fn put(bytes: &mut [u8; HEADER_LEN], at: &mut usize, field: &[u8]) {
    bytes[*at..*at + field.len()].copy_from_slice(field);
    *at += field.len();
}

/// Sets the base offset of the batch that starts `bytes`; the checksum does not cover it. Does
/// nothing if `bytes` is shorter than the field.
pub fn set_base_offset(bytes: &mut [u8], base_offset: i64) {
    if let Some(field) = bytes.get_mut(..8) {
        field.copy_from_slice(&base_offset.to_be_bytes());
    }
}

/// Sets the leader epoch of the batch that starts `bytes`; the checksum does not cover it. Does
/// nothing if `bytes` is shorter than the field. For magic 2 alone: older formats have other data
/// there.
pub fn set_partition_leader_epoch(bytes: &mut [u8], epoch: i32) {
    if let Some(field) = bytes.get_mut(12..16) {
        field.copy_from_slice(&epoch.to_be_bytes());
    }
}

/// The sequence number `increment` after `sequence`; after 2³¹-1 comes 0.
pub fn increment_sequence(sequence: i32, increment: i32) -> i32 {
    if sequence > i32::MAX.wrapping_sub(increment) {
        increment
            .wrapping_sub(i32::MAX.wrapping_sub(sequence))
            .wrapping_sub(1)
    } else {
        sequence.wrapping_add(increment)
    }
}

/// The sequence number `decrement` before `sequence`; before 0 comes 2³¹-1.
pub fn decrement_sequence(sequence: i32, decrement: i32) -> i32 {
    if sequence < decrement {
        i32::MAX
            .wrapping_sub(decrement.wrapping_sub(sequence))
            .wrapping_add(1)
    } else {
        sequence.wrapping_sub(decrement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> BatchHeader {
        BatchHeader {
            base_offset: 0x0102_0304_0506_0708,
            length: 49,
            partition_leader_epoch: 7,
            magic: 2,
            crc: 0xdead_beef,
            attributes: Attributes(0x1234),
            last_offset_delta: 9,
            base_timestamp: -1,
            max_timestamp: i64::MAX,
            producer_id: 4000,
            producer_epoch: 3,
            base_sequence: i32::MAX - 3,
            record_count: 10,
        }
    }

    #[test]
    fn fields_round_trip() {
        let header = sample();
        assert_eq!(BatchHeader::parse(&header.to_array()), Ok(header));
        assert_eq!(header.last_sequence(), 5);
        assert_eq!(header.size(), HEADER_LEN);
    }

    #[test]
    fn patches_touch_their_field_alone() {
        let mut bytes = sample().to_array();
        set_base_offset(&mut bytes, 42);
        set_partition_leader_epoch(&mut bytes, 5);
        let expected = BatchHeader {
            base_offset: 42,
            partition_leader_epoch: 5,
            ..sample()
        };
        assert_eq!(BatchHeader::parse(&bytes), Ok(expected));
    }

    #[test]
    fn rejects_short_foreign_and_tiny() {
        let bytes = sample().to_array();
        assert_eq!(
            BatchHeader::parse(&bytes[..60]),
            Err(BatchError::Truncated {
                needed: 61,
                available: 60
            })
        );
        let mut old = bytes;
        old[MAGIC_AT] = 1;
        assert_eq!(
            BatchHeader::parse(&old),
            Err(BatchError::UnsupportedMagic(1))
        );
        let tiny = BatchHeader {
            length: 48,
            ..sample()
        };
        assert_eq!(
            BatchHeader::parse(&tiny.to_array()),
            Err(BatchError::TooSmall { size: 60 })
        );
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(increment_sequence(i32::MAX, 1), 0);
        assert_eq!(increment_sequence(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(decrement_sequence(0, 1), i32::MAX);
        assert_eq!(decrement_sequence(5, 5), 0);
    }
}
