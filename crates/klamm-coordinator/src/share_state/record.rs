//! The records of `__share_group_state`, in Kafka's bytes.

use bytes::Bytes;
use klamm_protocol::record_frame::record_type;
use klamm_protocol::share_records::{
    ShareRecord, ShareSnapshotKey, ShareSnapshotValue, ShareUpdateKey, ShareUpdateValue,
};
use klamm_protocol::{ByteStr, RecordKey};
use klamm_records::Uuid;

use crate::runtime::{CoordinatorRecord, EncodedRecord, RecordError};

/// The version of all values.
const VERSION: i16 = 0;

/// What a state is kept for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShareStateKey {
    /// The share group.
    pub group_id: ByteStr,
    /// The topic.
    pub topic_id: Uuid,
    /// The number of its partition.
    pub partition: i32,
}

impl ShareStateKey {
    /// The text by which the partition of `__share_group_state` and its coordinator are found.
    pub fn coordinator_key(&self) -> String {
        format!("{}:{}:{}", self.group_id, self.topic_id, self.partition)
    }

    /// The key in memory of its own.
    pub(super) fn detached(&self) -> Self {
        ShareStateKey {
            group_id: self.group_id.detached(),
            ..self.clone()
        }
    }
}

/// A record of `__share_group_state`.
#[derive(Clone, Debug, PartialEq)]
pub enum ShareStateRecord {
    /// A whole state (type 0); none if it was deleted.
    Snapshot(ShareStateKey, Option<Box<ShareSnapshotValue>>),
    /// What changed since (type 1).
    Update(ShareStateKey, Option<Box<ShareUpdateValue>>),
    /// A record of a later release, which is passed over.
    Unknown,
}

impl CoordinatorRecord for ShareStateRecord {
    fn encode(&self) -> Result<EncodedRecord, RecordError> {
        let record = match self {
            ShareStateRecord::Snapshot(key, value) => ShareRecord::ShareSnapshot(
                ShareSnapshotKey {
                    group_id: key.group_id.clone(),
                    topic_id: key.topic_id,
                    partition: key.partition,
                },
                value.as_deref().cloned(),
            ),
            ShareStateRecord::Update(key, value) => ShareRecord::ShareUpdate(
                ShareUpdateKey {
                    group_id: key.group_id.clone(),
                    topic_id: key.topic_id,
                    partition: key.partition,
                },
                value.as_deref().cloned(),
            ),
            ShareStateRecord::Unknown => return Err(RecordError::MissingKey),
        };
        let kind = record.record_type();
        let (key, value) = record
            .encode(VERSION)
            .map_err(|source| RecordError::Unwritable { kind, source })?;
        Ok(EncodedRecord { key, value })
    }

    fn decode(key: Option<Bytes>, value: Option<Bytes>) -> Result<Self, RecordError> {
        let key = key.ok_or(RecordError::MissingKey)?;
        let malformed = |kind| move |source| RecordError::Malformed { kind, source };
        let kind = record_type(&key).map_err(malformed(-1))?;
        if kind != ShareSnapshotKey::RECORD_TYPE && kind != ShareUpdateKey::RECORD_TYPE {
            tracing::warn!(kind, "passed over a record of a later release");
            return Ok(ShareStateRecord::Unknown);
        }
        let record = ShareRecord::decode(key, value).map_err(malformed(kind))?;
        Ok(match record {
            ShareRecord::ShareSnapshot(key, value) => ShareStateRecord::Snapshot(
                ShareStateKey {
                    group_id: key.group_id.detached(),
                    topic_id: key.topic_id,
                    partition: key.partition,
                },
                value.map(Box::new),
            ),
            ShareRecord::ShareUpdate(key, value) => ShareStateRecord::Update(
                ShareStateKey {
                    group_id: key.group_id.detached(),
                    topic_id: key.topic_id,
                    partition: key.partition,
                },
                value.map(Box::new),
            ),
        })
    }
}
