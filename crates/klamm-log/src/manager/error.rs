use std::path::PathBuf;

use klamm_records::{TopicPartition, Uuid};

use crate::error::LogError;
use crate::log::MoveError;

/// Why log directories cannot be used, or a log cannot be managed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ManagerError {
    /// No log directory is configured.
    #[error("no log directory is configured")]
    NoDirs,
    /// Two configured paths are the same directory.
    #[error("{} is configured as a log directory twice", dir.display())]
    SameDirTwice {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process uses the directory.
    #[error("{} is in use by another process, which holds its lock file", dir.display())]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory belongs to another cluster.
    #[error(
        "{} belongs to cluster {found}, but this node is configured for cluster {expected}",
        dir.display()
    )]
    ClusterIdMismatch {
        /// The directory.
        dir: PathBuf,
        /// Cluster of this node.
        expected: String,
        /// Cluster in `meta.properties`.
        found: String,
    },
    /// The directory belongs to another node.
    #[error("{} belongs to node {found}, but this is node {expected}", dir.display())]
    NodeIdMismatch {
        /// The directory.
        dir: PathBuf,
        /// This node.
        expected: i32,
        /// Node in `meta.properties`.
        found: i32,
    },
    /// Two directories have the same id: one is a copy of the other.
    #[error(
        "{} and {} have the same directory id {id}: one is a copy of the other",
        dirs[0].display(), dirs[1].display()
    )]
    DuplicateDirectoryId {
        /// Their id.
        id: Uuid,
        /// The directories.
        dirs: [PathBuf; 2],
    },
    /// A partition has a log in two directories.
    #[error(
        "{partition} has a log in {} and in {}: remove the one that is out of date",
        dirs[0].display(), dirs[1].display()
    )]
    DuplicatePartition {
        /// The partition.
        partition: TopicPartition,
        /// The directories.
        dirs: [PathBuf; 2],
    },
    /// No directory of this id is online.
    #[error("no log directory with id {0} is online")]
    NoSuchDirectory(Uuid),
    /// No directory is online.
    #[error("all log directories are offline; the last failed with: {}", last_failure(.0))]
    AllFailed(Vec<LogError>),
    /// A log that is to be moved is not there, or not the copy of it.
    #[error("there is no log of {0}, or no copy of it in another directory")]
    NoSuchLog(TopicPartition),
    /// A log cannot be moved to where it is, or to two directories at once.
    #[error("{0} is in that directory, or moves to another one")]
    NotMovable(TopicPartition),
    /// A move cannot go on.
    #[error(transparent)]
    Move(#[from] MoveError),
    /// No directory is online any more.
    #[error("all log directories are offline")]
    AllOffline,
    /// A log's own.
    #[error(transparent)]
    Log(#[from] LogError),
}

fn last_failure(failures: &[LogError]) -> String {
    failures
        .last()
        .map_or_else(String::new, ToString::to_string)
}
