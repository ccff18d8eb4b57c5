use bytes::Bytes;

use super::header::{CRC_FROM, CRC_RANGE};
use super::{
    Attributes, BatchHeader, HEADER_LEN, Header, LOG_OVERHEAD, NO_PARTITION_LEADER_EPOCH,
    NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType, write_record,
};
use crate::compression::{Codec, CompressionError};
use crate::crc::crc32c;
use crate::scratch::Scratch;

/// What a batch is built with.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
    /// Codec and level of the body.
    pub codec: Codec,
    /// Whether the records carry the producer's timestamps or the broker's.
    pub timestamp_type: TimestampType,
    /// The broker's time in milliseconds, if it sets the timestamps; not used otherwise. The
    /// records keep the producer's all the same, as in Kafka: readers take this one.
    pub log_append_time: i64,
    /// Offset of the first record.
    pub base_offset: i64,
    /// Epoch of the leader.
    pub partition_leader_epoch: i32,
    /// Id of an idempotent producer.
    pub producer_id: i64,
    /// Epoch of an idempotent producer.
    pub producer_epoch: i16,
    /// Sequence number of the first record.
    pub base_sequence: i32,
    /// Whether the batch is part of a transaction.
    pub transactional: bool,
    /// Whether the records are control records.
    pub control: bool,
}

impl Default for BatchOptions {
    fn default() -> BatchOptions {
        BatchOptions {
            codec: Codec::NONE,
            timestamp_type: TimestampType::CreateTime,
            log_append_time: NO_TIMESTAMP,
            base_offset: 0,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            transactional: false,
            control: false,
        }
    }
}

/// Why a record does not fit into a batch, or a batch cannot be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The batch would be larger than its length field can say.
    #[error("the batch would exceed {} bytes", i32::MAX)]
    TooLarge,
    /// Offsets must rise, and stay within 2³¹ of the base offset.
    #[error("offset {offset} does not follow {last}")]
    InvalidOffset {
        /// The offset given.
        offset: i64,
        /// The offset before it.
        last: i64,
    },
    /// A timestamp is negative and not [`NO_TIMESTAMP`].
    #[error("timestamp {0} is negative")]
    InvalidTimestamp(i64),
    /// The codec failed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// Makes a record batch.
///
/// Field by field what Kafka's `MemoryRecordsBuilder` writes for magic 2, except that a builder
/// without records gives a valid empty batch instead of nothing.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    /// Room for the header, then the encoded records.
    out: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    offset_of_max_timestamp: i64,
    last_offset: i64,
    delete_horizon_ms: Option<i64>,
    /// What the header tells as the last offset, if not the last record's.
    stated_last_offset: Option<i64>,
}

impl BatchBuilder {
    /// A batch without records.
    pub fn new(options: BatchOptions) -> BatchBuilder {
        BatchBuilder::with_capacity(options, 0)
    }

    /// A batch without records, with room for `bytes` of them.
    pub fn with_capacity(options: BatchOptions, bytes: usize) -> BatchBuilder {
        let mut out = Vec::with_capacity(HEADER_LEN + bytes);
        out.resize(HEADER_LEN, 0);
        BatchBuilder {
            options,
            out,
            count: 0,
            base_timestamp: NO_TIMESTAMP,
            max_timestamp: NO_TIMESTAMP,
            offset_of_max_timestamp: -1,
            last_offset: options.base_offset.wrapping_sub(1),
            delete_horizon_ms: None,
            stated_last_offset: None,
        }
    }

    /// Notes when compaction may drop the batch's tombstones or marker, in milliseconds since the
    /// epoch (KIP-534). The header keeps it in the place of the first record's timestamp, so this
    /// comes before the first record.
    #[must_use]
    pub fn with_delete_horizon(mut self, delete_horizon_ms: i64) -> BatchBuilder {
        self.delete_horizon_ms = Some(delete_horizon_ms);
        self
    }

    /// Lets the batch claim offsets up to this one, whatever its last record's is: what compaction
    /// took out of a batch leaves a gap, not a shorter batch.
    #[must_use]
    pub fn with_last_offset(mut self, last_offset: i64) -> BatchBuilder {
        self.stated_last_offset = Some(last_offset);
        self
    }

    /// Appends a record at the next offset. `timestamp` is in milliseconds, [`NO_TIMESTAMP`] for
    /// none.
    pub fn append<'h, H>(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
    ) -> Result<(), BuildError>
    where
        H: IntoIterator<Item = Header<'h>>,
        H::IntoIter: ExactSizeIterator + Clone,
    {
        self.append_at(
            self.last_offset.wrapping_add(1),
            timestamp,
            key,
            value,
            headers,
        )
    }

    /// Appends a record at an offset of the caller's choice, as a compacted batch needs.
    pub fn append_at<'h, H>(
        &mut self,
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: H,
    ) -> Result<(), BuildError>
    where
        H: IntoIterator<Item = Header<'h>>,
        H::IntoIter: ExactSizeIterator + Clone,
    {
        let delta = offset
            .checked_sub(self.options.base_offset)
            .and_then(|delta| i32::try_from(delta).ok())
            .filter(|_| offset > self.last_offset)
            .ok_or(BuildError::InvalidOffset {
                offset,
                last: self.last_offset,
            })?;
        if timestamp < NO_TIMESTAMP {
            return Err(BuildError::InvalidTimestamp(timestamp));
        }
        let headers = headers.into_iter();
        let bytes = headers
            .clone()
            .map(|(key, value)| key.len() + len_of(value) + 10)
            .sum::<usize>()
            + len_of(key)
            + len_of(value)
            + 41;
        // Compressed batches are held to the same limit before compression: no reader takes more.
        if self.out.len() + bytes > i32::MAX as usize {
            return Err(BuildError::TooLarge);
        }
        if self.count == 0 {
            self.base_timestamp = self.delete_horizon_ms.unwrap_or(timestamp);
        }
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        write_record(&mut self.out, delta, timestamp_delta, key, value, headers);
        self.count += 1;
        self.last_offset = offset;
        if timestamp > self.max_timestamp {
            self.max_timestamp = timestamp;
            self.offset_of_max_timestamp = offset;
        }
        Ok(())
    }

    /// Records so far.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are no records yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of header and records so far, before compression.
    pub fn size_uncompressed(&self) -> usize {
        self.out.len()
    }

    /// Largest timestamp so far and the offset of the first record that has it.
    pub fn max_timestamp(&self) -> (i64, i64) {
        (self.max_timestamp, self.offset_of_max_timestamp)
    }

    /// The finished batch. Compressing takes a context from a scratch of its own; see
    /// [`BatchBuilder::build_with`].
    pub fn build(self) -> Result<Bytes, BuildError> {
        self.build_with(&mut Scratch::new())
    }

    /// The finished batch, compressed with the contexts of `scratch`.
    pub fn build_with(self, scratch: &mut Scratch) -> Result<Bytes, BuildError> {
        let compression = self.options.codec.compression();
        let last_offset_delta = self.last_offset_delta();
        let mut out = if self.options.codec == Codec::NONE {
            self.out
        } else {
            let mut out = Vec::with_capacity(HEADER_LEN + self.out.len() / 2);
            out.resize(HEADER_LEN, 0);
            scratch.compress(self.options.codec, &self.out[HEADER_LEN..], &mut out)?;
            out
        };
        let length = i32::try_from(out.len() - LOG_OVERHEAD).map_err(|_| BuildError::TooLarge)?;
        let max_timestamp = match self.options.timestamp_type {
            TimestampType::CreateTime => self.max_timestamp,
            TimestampType::LogAppendTime => self.options.log_append_time,
        };
        let header = BatchHeader {
            base_offset: self.options.base_offset,
            length,
            partition_leader_epoch: self.options.partition_leader_epoch,
            magic: 2,
            crc: 0,
            attributes: Attributes::new(
                compression,
                self.options.timestamp_type,
                self.options.transactional,
                self.options.control,
            )
            .with_delete_horizon(self.delete_horizon_ms.is_some()),
            last_offset_delta,
            base_timestamp: self.base_timestamp,
            max_timestamp,
            producer_id: self.options.producer_id,
            producer_epoch: self.options.producer_epoch,
            base_sequence: self.options.base_sequence,
            record_count: self.count,
        };
        out[..HEADER_LEN].copy_from_slice(&header.to_array());
        let crc = crc32c(&out[CRC_FROM..]);
        out[CRC_RANGE].copy_from_slice(&crc.to_be_bytes());
        Ok(out.into())
    }

    fn last_offset_delta(&self) -> i32 {
        let last = self.stated_last_offset.unwrap_or(self.last_offset);
        let delta = last.saturating_sub(self.options.base_offset).max(0);
        i32::try_from(delta).unwrap_or(i32::MAX)
    }
}

fn len_of(field: Option<&[u8]>) -> usize {
    field.map_or(0, <[u8]>::len)
}
