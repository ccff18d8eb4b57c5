//! The seam for tiered storage (KIP-405): closed segments are handed to a remote tier with their
//! indexes, and what is no longer on the local disk is read back through it.
//!
//! - [`RemoteStorage`] is where bytes go, [`RemoteMetadata`] where it is written down which segments
//!   are there: the two plug-ins, under Kafka's terms. [`DirectoryTier`] is both, in a directory;
//!   [`MemoryTier`] is both, for tests.
//! - [`TierState`] is what is known of one log's remote segments: pure, no I/O.
//! - [`RemoteLog`] drives a [`Log`](crate::Log) with them: uploads, reads, retention.
//!
//! A segment goes up once it is closed and all of it is committed and decided (below the last stable
//! offset). The log is told how far that got and removes local segments below only, by
//! `local_retention_ms` and `local_retention_bytes`; its start stays where it is. Total retention
//! moves the start and then removes remote segments.
//!
//! Each step is noted before it is taken: a copy that was begun and not finished, or a deletion that
//! was, is found again by [`RemoteLog::tidy`], and removed. Ids are never used twice, so that
//! whatever a failed copy left behind is in nobody's way.
//!
//! Two leaders can have uploaded different segments for the same offsets. A read goes by the epoch
//! that the log's own history has at the offset, and stops where the segment's records are of
//! another history.

mod directory;
mod lookup;
mod memory;
mod remote_log;
mod state;

use std::error::Error;
use std::fmt::Debug;

use klamm_records::Uuid;

use crate::log::LogSlice;

pub use directory::DirectoryTier;
pub use memory::MemoryTier;
pub use remote_log::{RemoteLog, RemoteRead};
pub use state::{InvalidTransition, TierState};

/// Where a remote segment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteSegmentState {
    /// `COPY_SEGMENT_STARTED`: its data may be there in part. Never read.
    CopyStarted,
    /// `COPY_SEGMENT_FINISHED`: it can be read.
    CopyFinished,
    /// `DELETE_SEGMENT_STARTED`: its data may be gone in part. Never read.
    DeleteStarted,
    /// `DELETE_SEGMENT_FINISHED`: nothing is left of it.
    DeleteFinished,
}

/// What is known of a segment in the remote tier (Kafka's `RemoteLogSegmentMetadata`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteSegment {
    /// Its id. Each attempt to copy a segment has one of its own.
    pub id: Uuid,
    /// First offset of the segment.
    pub start_offset: i64,
    /// Last offset of the segment.
    pub end_offset: i64,
    /// Largest timestamp of its records in milliseconds, -1 without.
    pub max_timestamp_ms: i64,
    /// Size of its file of batches.
    pub bytes: u64,
    /// The leader epochs of its records, with the first offset of each in this segment; ascending.
    pub epochs: Vec<(i32, i64)>,
    /// Where it is in its life.
    pub state: RemoteSegmentState,
}

/// What goes along with a file of batches (Kafka's `RemoteStorageManager.IndexType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IndexKind {
    /// Offset index.
    Offset,
    /// Time index.
    Timestamp,
    /// Index of aborted transactions; empty without any.
    Transaction,
    /// Producers' state at the end of the segment.
    ProducerSnapshot,
    /// Leader epochs up to the end of the segment, in the form of `leader-epoch-checkpoint`.
    LeaderEpoch,
}

/// A closed segment, as it is handed to the tier.
#[derive(Debug)]
pub struct SegmentData {
    /// The batches; their checksums were just verified.
    pub log: LogSlice,
    /// The indexes, by kind; all kinds.
    pub indexes: Vec<(IndexKind, Vec<u8>)>,
}

/// Why the tier could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TierError {
    /// It has no such segment, or no such index of it.
    #[error("remote segment {0} is not there")]
    NotFound(Uuid),
    /// The tier failed; another try may do.
    #[error("the remote tier failed: {0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
    /// The local log failed.
    #[error(transparent)]
    Log(#[from] crate::LogError),
    /// What the tier gave back is not what it was given.
    #[error("remote segment {id} is damaged at byte {position}")]
    Damaged {
        /// The segment.
        id: Uuid,
        /// Where in its file of batches.
        position: u64,
    },
    /// An event that does not follow from the segment's state.
    #[error(transparent)]
    Transition(#[from] InvalidTransition),
}

/// Where segments' data goes (Kafka's `RemoteStorageManager`). Calls block.
pub trait RemoteStorage: Debug + Send + Sync {
    /// Stores a segment (`copyLogSegmentData`). It must be durable on return; after an error there
    /// may be a part of it, which [`delete_segment`](Self::delete_segment) removes.
    ///
    /// # Errors
    /// [`TierError::Failed`].
    fn copy_segment(&self, segment: &RemoteSegment, data: &SegmentData) -> Result<(), TierError>;

    /// Bytes `from..to` of a segment's batches (`fetchLogSegment`); fewer at the end of the file.
    ///
    /// # Errors
    /// [`TierError::NotFound`], [`TierError::Failed`].
    fn fetch_segment(
        &self,
        segment: &RemoteSegment,
        from: u64,
        to: u64,
    ) -> Result<Vec<u8>, TierError>;

    /// An index of a segment (`fetchIndex`).
    ///
    /// # Errors
    /// [`TierError::NotFound`], [`TierError::Failed`].
    fn fetch_index(&self, segment: &RemoteSegment, kind: IndexKind) -> Result<Vec<u8>, TierError>;

    /// Removes whatever there is of a segment (`deleteLogSegmentData`); nothing is no error.
    ///
    /// # Errors
    /// [`TierError::Failed`].
    fn delete_segment(&self, segment: &RemoteSegment) -> Result<(), TierError>;
}

/// Where it is written down which segments there are (Kafka's `RemoteLogMetadataManager`), of one
/// partition. Calls block.
pub trait RemoteMetadata: Debug + Send + Sync {
    /// Notes a segment as it is now (`addRemoteLogSegmentMetadata`,
    /// `updateRemoteLogSegmentMetadata`); durable on return. One in the state
    /// [`DeleteFinished`](RemoteSegmentState::DeleteFinished) may be forgotten.
    ///
    /// # Errors
    /// [`TierError::Failed`]; it is then noted or not.
    fn put(&self, segment: &RemoteSegment) -> Result<(), TierError>;

    /// All segments (`listRemoteLogSegments`).
    ///
    /// # Errors
    /// [`TierError::Failed`].
    fn list(&self) -> Result<Vec<RemoteSegment>, TierError>;
}

#[cfg(test)]
mod tests;
