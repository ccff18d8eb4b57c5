//! Control records: what brokers write among the records for one another.
//!
//! The key is a version and a type. Of the values only that of the end of a transaction is read
//! here; those of the Raft log are messages of the protocol.

use bytes::Bytes;

use crate::batch::{BatchBuilder, BatchOptions, BuildError, RecordRef};

/// What a control record is about, by the number in its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ControlType {
    /// A transaction ended and its records are void.
    Abort,
    /// A transaction ended and its records count.
    Commit,
    /// A Raft leader took over.
    LeaderChange,
    /// Start of a metadata snapshot.
    SnapshotHeader,
    /// End of a metadata snapshot.
    SnapshotFooter,
    /// Version of the Raft protocol.
    KraftVersion,
    /// Set of Raft voters.
    KraftVoters,
    /// A type that is not known; to be skipped.
    Unknown(i16),
}

impl ControlType {
    /// The type of a number.
    pub fn from_id(id: i16) -> ControlType {
        match id {
            0 => ControlType::Abort,
            1 => ControlType::Commit,
            2 => ControlType::LeaderChange,
            3 => ControlType::SnapshotHeader,
            4 => ControlType::SnapshotFooter,
            5 => ControlType::KraftVersion,
            6 => ControlType::KraftVoters,
            id => ControlType::Unknown(id),
        }
    }

    /// Number in keys.
    pub fn id(self) -> i16 {
        match self {
            ControlType::Abort => 0,
            ControlType::Commit => 1,
            ControlType::LeaderChange => 2,
            ControlType::SnapshotHeader => 3,
            ControlType::SnapshotFooter => 4,
            ControlType::KraftVersion => 5,
            ControlType::KraftVoters => 6,
            ControlType::Unknown(id) => id,
        }
    }

    /// The key of such a record: version 0 and the number.
    pub fn key(self) -> [u8; 4] {
        let [high, low] = self.id().to_be_bytes();
        [0, 0, high, low]
    }

    /// Reads a key. Later versions may add fields at the end, which are passed over.
    pub fn from_key(key: &[u8]) -> Result<ControlType, ControlError> {
        let &[version_high, version_low, high, low, ..] = key else {
            return Err(ControlError::TooShort);
        };
        let version = i16::from_be_bytes([version_high, version_low]);
        if version < 0 {
            return Err(ControlError::InvalidVersion(version));
        }
        Ok(ControlType::from_id(i16::from_be_bytes([high, low])))
    }
}

/// Why a record is not a control record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// The key or value is missing or has fewer bytes than the first version.
    #[error("the key or value of the control record is too short")]
    TooShort,
    /// A version is negative.
    #[error("version {0} of a control record")]
    InvalidVersion(i16),
    /// Not the end of a transaction.
    #[error("control record of type {0} where the end of a transaction was needed")]
    NotEndOfTransaction(i16),
}

/// The end of a transaction, as written to each partition that took part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransactionMarker {
    /// Whether the transaction's records count.
    pub committed: bool,
    /// Epoch of the transaction coordinator that decided.
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    /// The type in the record's key.
    pub fn control_type(&self) -> ControlType {
        if self.committed {
            ControlType::Commit
        } else {
            ControlType::Abort
        }
    }

    /// The value of the record: version 0 and the coordinator's epoch.
    pub fn value(&self) -> [u8; 6] {
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        value
    }

    /// Reads a marker out of a record of a control batch.
    pub fn from_record(record: &RecordRef<'_>) -> Result<EndTransactionMarker, ControlError> {
        let control_type = ControlType::from_key(record.key.ok_or(ControlError::TooShort)?)?;
        let committed = match control_type {
            ControlType::Commit => true,
            ControlType::Abort => false,
            other => return Err(ControlError::NotEndOfTransaction(other.id())),
        };
        let &[version_high, version_low, a, b, c, d, ..] =
            record.value.ok_or(ControlError::TooShort)?
        else {
            return Err(ControlError::TooShort);
        };
        let version = i16::from_be_bytes([version_high, version_low]);
        if version < 0 {
            return Err(ControlError::InvalidVersion(version));
        }
        Ok(EndTransactionMarker {
            committed,
            coordinator_epoch: i32::from_be_bytes([a, b, c, d]),
        })
    }

    /// The control batch that ends the transaction of a producer, to be appended to a partition.
    pub fn to_batch(
        &self,
        producer_id: i64,
        producer_epoch: i16,
        timestamp_ms: i64,
    ) -> Result<Bytes, BuildError> {
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id,
            producer_epoch,
            transactional: true,
            control: true,
            ..BatchOptions::default()
        });
        let key = self.control_type().key();
        builder.append(timestamp_ms, Some(&key), Some(&self.value()), [])?;
        builder.build()
    }
}
