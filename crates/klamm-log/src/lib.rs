//! Kafka's storage engine as a crate: segments, indexes, recovery, retention.
//!
//! A [`Journal`] is a log of keys and values for a program of one's own, with nothing of Kafka to
//! know. What it is made of: a [`Log`] is one partition in one directory, in Kafka's format to the
//! byte; [`LogManager`] looks after the directories of a broker. They are synchronous: whoever
//! embeds them decides where they may block. A [`Flusher`] has the threads that make logs durable
//! in the background.
//!
//! What lives where:
//!
//! - [`Journal`]: open, append, read, follow, compact (`journal/`);
//! - [`Log`]: append, read, find, truncate, flush, retain (`log/`);
//! - [`Cleaner`]: compaction (`cleaner/`);
//! - [`tier`]: the seam for tiered storage;
//! - segments: one file of batches with its indexes (`segment/`, `index/`);
//! - producer state: sequence numbers and transactions (`producer_state/`);
//! - the small files beside the segments: [`checkpoints`], leader epochs, [`partition_metadata`],
//!   [`meta_properties`], [`clean_shutdown`];
//! - [`Flusher`]: group commit and writeback (`flusher/`);
//! - [`LogManager`]: log directories, their locks and checkpoints (`manager/`).
//!
//! A batch comes in as a [`PreparedBatch`](klamm_records::PreparedBatch), which was checked outside
//! of any lock; the log writes header and body with one system call. It goes out as [`LogSlice`]s:
//! parts of files, for `sendfile` or whatever else suits. Nothing in between copies records.
//!
//! # Durability
//! An append is in the page cache when it returns: it survives the end of the process, not that
//! of the machine. [`Log::flush`] makes it survive both, on the caller's thread; a [`Flusher`] does
//! so for many logs and many appends at a time. [`Log::durable_offset`] tells how far that is.
//! Recovery keeps every whole batch before the first damaged one, and at least all below the
//! recovery point.

#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod agenda;
mod batch;
pub mod checkpoints;
pub mod clean_shutdown;
mod cleaner;
mod config;
mod epoch_cache;
mod error;
mod files;
mod flusher;
mod index;
mod journal;
mod log;
mod manager;
pub mod meta_properties;
pub mod names;
pub mod partition_metadata;
mod producer_state;
mod segment;
mod storage;
#[cfg(test)]
mod test_support;
pub mod tier;
mod watch;

pub use cleaner::{CleanError, CleanReport, Cleanable, Cleaner, CleanerConfig, Pace, Throttle};
pub use config::LogConfig;
pub use epoch_cache::EpochEnd;
pub use error::{BatchFault, FileProblem, LogError};
pub use files::OpenFiles;
pub use flusher::{Flusher, SYNC_THREADS, WorkPlan};
pub use index::txn::AbortedTxn;
pub use journal::{Entries, Entry, Follower, Journal, JournalError, Options, Tail};
pub use klamm_records::Compression;
pub use log::{
    AppendInfo, CopyStep, Damage, Log, LogOpen, LogRead, LogSlice, MoveError, MoveSide,
    OffsetAndTimestamp, RecoveryReport, Truncation, UNKNOWN_LEADER_EPOCH,
};
pub use manager::{
    CleanRound, CleaningStatus, DirectoryInfo, LogManager, LogManagerConfig, ManagerError,
};
pub use producer_state::{ActiveProducer, AppendOrigin};
pub use watch::EndListener;
