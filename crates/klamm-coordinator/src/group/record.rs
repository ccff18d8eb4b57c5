//! The records of `__consumer_offsets`, in Kafka's bytes.
//!
//! The classic protocol and offsets use two of the record types, consumer groups seven, share groups
//! and streams groups six each. Those of types that are not known are passed over.

use bytes::Bytes;
use klamm_protocol::group_records::{
    GroupMetadataKey, GroupMetadataValue, LegacyOffsetCommitKey, LegacyOffsetCommitValue,
    OffsetCommitKey, OffsetCommitValue,
};
use klamm_protocol::record_frame::{decode_pair, encode_pair, record_type};
use klamm_protocol::{ByteStr, DecodeError, RecordKey};

use super::consumer::ConsumerRecord;
use super::share::ShareGroupRecord;
use super::streams::StreamsRecord;
use crate::runtime::{CoordinatorRecord, EncodedRecord, RecordError};

/// The version in which Kafka 4.3 writes group metadata.
const GROUP_METADATA_VERSION: i16 = 3;
/// The version in which Kafka 4.3 writes offsets.
const OFFSET_COMMIT_VERSION: i16 = 4;
/// The only version that can say when an offset expires; for clients that ask for a retention.
const EXPIRING_OFFSET_COMMIT_VERSION: i16 = 1;

/// A record of `__consumer_offsets`.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupRecord {
    /// A committed offset (types 0 and 1).
    OffsetCommit {
        /// Group, topic and partition.
        key: OffsetCommitKey,
        /// The offset; none if it was deleted.
        value: Option<OffsetCommitValue>,
    },
    /// A classic group (type 2).
    GroupMetadata {
        /// Name of the group.
        group_id: ByteStr,
        /// Its last generation; none if it was deleted.
        value: Option<GroupMetadataValue>,
    },
    /// A consumer group (types 3 to 8 and 16).
    Consumer(Box<ConsumerRecord>),
    /// A share group (types 10 to 15).
    Share(Box<ShareGroupRecord>),
    /// A streams group (types 17 and 19 to 23).
    Streams(Box<StreamsRecord>),
    /// A record of a type that is not known.
    Unknown {
        /// The record type.
        kind: i16,
        /// The key as it is.
        key: Bytes,
        /// The value as it is; none if the record was deleted.
        value: Option<Bytes>,
    },
}

impl GroupRecord {
    /// The record that deletes a committed offset.
    pub fn offset_tombstone(group_id: &ByteStr, topic: &ByteStr, partition: i32) -> GroupRecord {
        GroupRecord::OffsetCommit {
            key: OffsetCommitKey {
                group: group_id.clone(),
                topic: topic.clone(),
                partition,
            },
            value: None,
        }
    }
}

impl CoordinatorRecord for GroupRecord {
    fn encode(&self) -> Result<EncodedRecord, RecordError> {
        let (kind, encoded) = match self {
            GroupRecord::OffsetCommit { key, value } => {
                let expires = value
                    .as_ref()
                    .is_some_and(|value| value.expire_timestamp != -1);
                let version = if expires {
                    EXPIRING_OFFSET_COMMIT_VERSION
                } else {
                    OFFSET_COMMIT_VERSION
                };
                (
                    OffsetCommitKey::RECORD_TYPE,
                    encode_pair(key, value.as_ref(), version),
                )
            }
            GroupRecord::GroupMetadata { group_id, value } => {
                let key = GroupMetadataKey {
                    group: group_id.clone(),
                };
                (
                    GroupMetadataKey::RECORD_TYPE,
                    encode_pair(&key, value.as_ref(), GROUP_METADATA_VERSION),
                )
            }
            GroupRecord::Consumer(record) => (record.kind(), record.encode()),
            GroupRecord::Share(record) => (record.kind(), record.encode()),
            GroupRecord::Streams(record) => (record.kind(), record.encode()),
            GroupRecord::Unknown { kind, key, value } => (*kind, Ok((key.clone(), value.clone()))),
        };
        let (key, value) = encoded.map_err(|source| RecordError::Unwritable { kind, source })?;
        Ok(EncodedRecord { key, value })
    }

    fn decode(key: Option<Bytes>, value: Option<Bytes>) -> Result<Self, RecordError> {
        let key = key.ok_or(RecordError::MissingKey)?;
        let kind =
            record_type(&key).map_err(|source| RecordError::Malformed { kind: -1, source })?;
        let decoded = match kind {
            LegacyOffsetCommitKey::RECORD_TYPE => decode_legacy_offset(key, value),
            OffsetCommitKey::RECORD_TYPE => {
                decode_pair(key, value).map(|(key, value)| GroupRecord::OffsetCommit { key, value })
            }
            GroupMetadataKey::RECORD_TYPE => {
                decode_pair::<GroupMetadataKey>(key, value).map(|(key, value)| {
                    GroupRecord::GroupMetadata {
                        group_id: key.group,
                        value,
                    }
                })
            }
            _ => decode_newer(kind, key, value),
        };
        decoded.map_err(|source| RecordError::Malformed { kind, source })
    }
}

/// A record of one of the protocols whose groups are made by records alone, or of another.
fn decode_newer(kind: i16, key: Bytes, value: Option<Bytes>) -> Result<GroupRecord, DecodeError> {
    if let Some(decoded) = ConsumerRecord::decode(kind, key.clone(), value.clone()) {
        return decoded.map(GroupRecord::from);
    }
    if let Some(decoded) = ShareGroupRecord::decode(kind, key.clone(), value.clone()) {
        return decoded.map(GroupRecord::from);
    }
    match StreamsRecord::decode(kind, key.clone(), value.clone()) {
        Some(decoded) => decoded.map(GroupRecord::from),
        None => Ok(GroupRecord::Unknown { kind, key, value }),
    }
}

/// Kafka before 0.9 wrote offsets under type 0; they mean the same.
fn decode_legacy_offset(key: Bytes, value: Option<Bytes>) -> Result<GroupRecord, DecodeError> {
    let (key, value): (LegacyOffsetCommitKey, Option<LegacyOffsetCommitValue>) =
        decode_pair(key, value)?;
    Ok(GroupRecord::OffsetCommit {
        key: OffsetCommitKey {
            group: key.group,
            topic: key.topic,
            partition: key.partition,
        },
        value: value.map(|value| OffsetCommitValue {
            offset: value.offset,
            metadata: value.metadata,
            commit_timestamp: value.commit_timestamp,
            ..OffsetCommitValue::default()
        }),
    })
}
