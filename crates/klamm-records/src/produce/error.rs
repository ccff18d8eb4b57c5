use std::fmt::{self, Write as _};

use crate::batch::{BatchError, RecordError};
use crate::compression::CompressionError;
use crate::ids::TopicPartition;

/// Kafka's name for a verdict over a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProduceErrorKind {
    /// UNKNOWN_SERVER_ERROR: Kafka has no better answer to a body that cannot be decompressed.
    UnknownServerError,
    /// CORRUPT_MESSAGE
    CorruptMessage,
    /// MESSAGE_TOO_LARGE
    MessageTooLarge,
    /// INVALID_TIMESTAMP
    InvalidTimestamp,
    /// UNSUPPORTED_COMPRESSION_TYPE
    UnsupportedCompressionType,
    /// INVALID_RECORD
    InvalidRecord,
}

impl ProduceErrorKind {
    /// Number on the wire.
    pub fn code(self) -> i16 {
        match self {
            ProduceErrorKind::UnknownServerError => -1,
            ProduceErrorKind::CorruptMessage => 2,
            ProduceErrorKind::MessageTooLarge => 10,
            ProduceErrorKind::InvalidTimestamp => 32,
            ProduceErrorKind::UnsupportedCompressionType => 76,
            ProduceErrorKind::InvalidRecord => 87,
        }
    }
}

/// Why a batch may not be appended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProduceError {
    /// The bytes do not start as a batch does.
    #[error(transparent)]
    Frame(BatchError),
    /// There is no whole batch.
    #[error("a produce request must hold a record batch for each partition")]
    NoBatch,
    /// There is more than one batch.
    #[error("a produce request must hold exactly one record batch for each partition")]
    ManyBatches,
    /// The batch is of the format before 0.11.
    #[error("a produce request must hold record batches of magic 2, not {0}")]
    OldMagic(i8),
    /// zstd in a request older than version 7.
    #[error("produce requests of version {0} must not use zstd")]
    ZstdTooEarly(i16),
    /// The client chose an offset.
    #[error("the base offset should be 0 and is {0}")]
    BaseOffset(i64),
    /// The batch exceeds `max.message.bytes`.
    #[error("the batch has {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// Bytes of the batch; of what was decompressed if that was given up.
        size: u64,
        /// Bytes allowed.
        limit: u64,
    },
    /// The checksum does not match, or the batch is smaller than a header.
    #[error(transparent)]
    Corrupt(BatchError),
    /// The attributes name no codec.
    #[error("compression codec {0} does not exist")]
    UnknownCompression(u8),
    /// The last offset lies before the first.
    #[error("the batch has an invalid offset range: last offset delta {0}")]
    OffsetRange(i32),
    /// The header says that there are no records, or fewer.
    #[error("the batch says to hold {0} records")]
    RecordCount(i32),
    /// Count and offset range contradict each other.
    #[error("the batch says to hold {count} records and has last offset delta {last_offset_delta}")]
    CountMismatch {
        /// Records as the header says.
        count: i32,
        /// As the header says.
        last_offset_delta: i32,
    },
    /// A client sent a control batch.
    #[error("clients may not write control records")]
    ControlBatch,
    /// An idempotent producer sent no sequence number.
    #[error("sequence number {sequence} from producer {producer_id}")]
    Sequence {
        /// As the header says.
        sequence: i32,
        /// As the header says.
        producer_id: i64,
    },
    /// The records are malformed.
    #[error(transparent)]
    Malformed(BatchError),
    /// The body cannot be decompressed.
    #[error(transparent)]
    Undecodable(CompressionError),
    /// The compressed records do not count up from offset 0, which Kafka cannot repair either.
    #[error("record {index} of the batch has offset {offset}")]
    OffsetGap {
        /// Place of the record in the batch, from 0.
        index: i32,
        /// Its offset in the batch.
        offset: i64,
    },
    /// The batch had to be rebuilt and could not.
    #[error("the batch cannot be rebuilt: {0}")]
    Rebuild(#[from] crate::batch::BuildError),
    /// Records break the topic's rules.
    #[error("{} of the batch's records were rejected", .0.records.len())]
    Rejected(RejectedRecords),
}

impl ProduceError {
    /// Kafka's name for the error.
    pub fn kind(&self) -> ProduceErrorKind {
        match self {
            ProduceError::Frame(_) | ProduceError::Corrupt(_) => ProduceErrorKind::CorruptMessage,
            ProduceError::ZstdTooEarly(_) => ProduceErrorKind::UnsupportedCompressionType,
            ProduceError::TooLarge { .. } => ProduceErrorKind::MessageTooLarge,
            // Java's exception for this one passes by Kafka's own handling.
            ProduceError::Malformed(BatchError::Record {
                error: RecordError::InvalidLengthVarint,
                ..
            }) => ProduceErrorKind::UnknownServerError,
            ProduceError::NoBatch
            | ProduceError::ManyBatches
            | ProduceError::OldMagic(_)
            | ProduceError::BaseOffset(_)
            | ProduceError::OffsetRange(_)
            | ProduceError::RecordCount(_)
            | ProduceError::CountMismatch { .. }
            | ProduceError::ControlBatch
            | ProduceError::Sequence { .. }
            | ProduceError::Malformed(_) => ProduceErrorKind::InvalidRecord,
            ProduceError::UnknownCompression(_)
            | ProduceError::Undecodable(_)
            | ProduceError::OffsetGap { .. }
            | ProduceError::Rebuild(_) => ProduceErrorKind::UnknownServerError,
            ProduceError::Rejected(rejected) => rejected.kind(),
        }
    }

    /// The text for the response's error message field; as in Kafka there is one only if single
    /// records were rejected.
    pub fn response_message(&self, partition: &TopicPartition) -> Option<String> {
        match self {
            ProduceError::Rejected(rejected) => Some(rejected.message(partition)),
            _ => None,
        }
    }

    /// The records that were rejected one by one, for the response's list of record errors.
    pub fn rejected_records(&self) -> &[RejectedRecord] {
        match self {
            ProduceError::Rejected(rejected) => &rejected.records,
            _ => &[],
        }
    }
}

/// The records that break a topic's rules; the whole batch is refused for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RejectedRecords {
    /// In the order of the batch; never empty.
    pub records: Vec<RejectedRecord>,
}

impl RejectedRecords {
    fn kind(&self) -> ProduceErrorKind {
        let of_timestamp = |record: &RejectedRecord| record.reason.is_of_timestamp();
        if self.records.iter().any(of_timestamp) {
            ProduceErrorKind::InvalidTimestamp
        } else {
            ProduceErrorKind::InvalidRecord
        }
    }

    fn message(&self, partition: &TopicPartition) -> String {
        if self.kind() == ProduceErrorKind::InvalidTimestamp {
            return "One or more records have been rejected due to invalid timestamp".to_owned();
        }
        let mut text = format!(
            "One or more records have been rejected due to {} record errors in total, \
             and only showing the first three errors at most: [",
            self.records.len()
        );
        for (place, record) in self.records.iter().take(3).enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "{separator}RecordError(batchIndex={}, message='{}')",
                record.batch_index,
                record.message(partition)
            );
        }
        text.push(']');
        text
    }
}

/// A record that breaks a topic's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RejectedRecord {
    /// Place of the record in the batch, from 0.
    pub batch_index: i32,
    /// The rule.
    pub reason: RecordReason,
}

impl RejectedRecord {
    /// The text for the response's record error.
    pub fn message(&self, partition: &TopicPartition) -> String {
        RecordMessage {
            reason: self.reason,
            partition,
        }
        .to_string()
    }
}

/// A rule of a topic that a record breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordReason {
    /// Records of a compacted topic need a key.
    MissingKey,
    /// The timestamp lies outside of the topic's bounds.
    TimestampOutOfRange {
        /// The record's, in milliseconds.
        timestamp: i64,
        /// The record's offset in the batch.
        offset: i64,
        /// Smallest allowed.
        earliest: i64,
        /// Largest allowed.
        latest: i64,
    },
    /// The producer claims that a broker set the timestamps.
    LogAppendTimeSet {
        /// The record's offset in the batch.
        offset: i64,
    },
}

impl RecordReason {
    fn is_of_timestamp(self) -> bool {
        self != RecordReason::MissingKey
    }
}

struct RecordMessage<'a> {
    reason: RecordReason,
    partition: &'a TopicPartition,
}

impl fmt::Display for RecordMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            RecordReason::MissingKey => write!(
                f,
                "Compacted topic cannot accept message without key in topic partition {}",
                self.partition
            ),
            RecordReason::TimestampOutOfRange {
                timestamp,
                offset,
                earliest,
                latest,
            } => write!(
                f,
                "Timestamp {timestamp} of message with offset {offset} is out of range. \
                 The timestamp should be within [{earliest}, {latest}]"
            ),
            RecordReason::LogAppendTimeSet { offset } => write!(
                f,
                "Invalid timestamp type in message with offset {offset}. \
                 Producer should not set timestamp type to LogAppendTime."
            ),
        }
    }
}
