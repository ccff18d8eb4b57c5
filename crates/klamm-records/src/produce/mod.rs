//! What a broker checks before it appends a produced batch, with Kafka's verdicts.
//!
//! [`validate`] does in one pass, outside of any lock, what Kafka spreads over
//! `ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords` and `LogValidator`. It
//! gives a [`PreparedBatch`]: the received bytes with a header of its own, or a rebuilt batch if
//! the topic wants another codec. Under the partition's lock only [`PreparedBatch::assign`]
//! remains, which touches the header alone.

mod error;
mod prepared;
mod validate;
mod walk;

pub use error::{ProduceError, ProduceErrorKind, RecordReason, RejectedRecord, RejectedRecords};
pub use prepared::PreparedBatch;
pub use validate::validate;

use crate::batch::TimestampType;
use crate::compression::{Codec, Compression};

/// A topic's `compression.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicCompression {
    /// Batches stay as the producer compressed them.
    Producer,
    /// Batches of another codec are compressed again with this one (or not at all).
    Codec(Codec),
}

impl TopicCompression {
    /// The codec that a batch received in `source` is stored in.
    fn target(self, source: Compression) -> Codec {
        match self {
            TopicCompression::Producer => Codec::from(source),
            TopicCompression::Codec(codec) => codec,
        }
    }
}

/// How closely a batch is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Validation {
    /// Every record, with Kafka's verdicts.
    #[default]
    Strict,
    /// A compressed batch is not decompressed: its header is believed once the checksum holds.
    /// Batches that are not compressed, that need another codec, or that go to a compacted topic
    /// are looked at as closely as ever, and so are those of the broker itself.
    Header,
}

/// What a topic and a request ask of a batch.
#[derive(Clone, Copy, Debug)]
pub struct ProduceRules {
    /// `max.message.bytes`: bytes that a batch may have, before and after a change of codec.
    pub max_message_bytes: i32,
    /// `compression.type`.
    pub compression: TopicCompression,
    /// Whether `cleanup.policy` holds `compact`: every record needs a key.
    pub compacted: bool,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`: how far a timestamp may lie in the past.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`: how far a timestamp may lie in the future.
    pub timestamp_after_max_ms: i64,
    /// Version of the Produce request, from 3.
    pub api_version: i16,
    /// Whether a client sent the batch. Coordinators may write control batches.
    pub from_client: bool,
    /// How closely to look.
    pub validation: Validation,
}

impl Default for ProduceRules {
    /// Kafka's defaults for a topic and the newest request.
    fn default() -> ProduceRules {
        ProduceRules {
            max_message_bytes: 1_048_588,
            compression: TopicCompression::Producer,
            compacted: false,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            api_version: 13,
            from_client: true,
            validation: Validation::Strict,
        }
    }
}

#[cfg(test)]
mod tests;
