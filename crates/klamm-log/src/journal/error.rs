use std::path::PathBuf;

use klamm_records::BatchError;
use klamm_records::batch::BuildError;

use crate::cleaner::CleanError;
use crate::error::LogError;

/// Why a call on a [`Journal`](super::Journal) failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The log below: the disk, a limit, or a journal that was closed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Records of one append are larger together than any batch can be.
    #[error("the records cannot be put together: {0}")]
    Build(#[from] BuildError),
    /// A batch that was just built cannot be read.
    #[error("the batch is malformed: {0}")]
    Batch(#[source] BatchError),
    /// What is on disk at an offset is not what was written. It is not given out; reading goes on
    /// behind it only for those who ask for a later offset.
    #[error("the records from offset {offset} on are damaged: {problem}")]
    Damaged {
        /// Offset from which on nothing could be read.
        offset: u64,
        /// What is wrong.
        problem: BatchError,
    },
    /// This program has the directory open already.
    #[error("{} is open in this program already", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// A compaction did not come to its end.
    #[error(transparent)]
    Compaction(#[from] CleanError),
    /// Options that contradict each other or are out of bounds.
    #[error("{0}")]
    Options(&'static str),
}

impl JournalError {
    /// Whether the journal was closed.
    pub fn is_closed(&self) -> bool {
        matches!(self, JournalError::Log(LogError::Closed { .. }))
    }
}
