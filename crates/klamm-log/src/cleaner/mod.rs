//! Log compaction: of each key the last record is kept.
//!
//! - [`candidate`]: which part of a log can be compacted, how urgent that is, and which segments
//!   become one.
//! - [`offset_map`]: the last offset of each key in the dirty part.
//! - [`transactions`]: which batches were aborted, which markers are still needed.
//! - [`filter`]: what stays of a batch.
//! - [`run`]: one clean of one log.
//! - [`throttle`]: a bound on what is read and written a second.
//!
//! How a clean goes: the dirty part is read and the last offset of each key noted in the map, as
//! far as it has room. Then everything from the start of the log to where the map ends is copied
//! into new segments (`.cleaned`), without the records of which the map knows a newer one, and
//! segment group by segment group takes the place of the old ones. How that survives a crash, and
//! readers and truncations do not suffer from it, stands in `log/clean.rs`.
//!
//! Nothing here knows threads: [`Cleaner::clean`] takes a log, the time and a [`Pace`], which may
//! sleep and may end the clean. `manager/cleaning.rs` chooses the log and keeps the checkpoints.
//!
//! The rules are those of Kafka's cleaner (KIP-58, KIP-354, KIP-534).

mod candidate;
mod filter;
mod offset_map;
mod run;
mod throttle;
mod transactions;

use std::ops::ControlFlow;

use crate::error::LogError;
use filter::Buffers;
use offset_map::OffsetMap;

pub use candidate::Cleanable;
pub use throttle::Throttle;

/// What one thread may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CleanerConfig {
    /// Bytes for the offsets of keys (`log.cleaner.dedupe.buffer.size`, shared by all threads).
    pub map_bytes: usize,
    /// Share of them that may be filled (`log.cleaner.io.buffer.load.factor`).
    pub map_load_factor: f64,
    /// Bytes that are read, and collected before they are written, at a time
    /// (`log.cleaner.io.buffer.size`, shared by all threads).
    pub io_buffer_bytes: usize,
}

impl Default for CleanerConfig {
    fn default() -> Self {
        CleanerConfig {
            map_bytes: 128 << 20,
            map_load_factor: 0.9,
            io_buffer_bytes: 512 << 10,
        }
    }
}

/// Compacts logs, one at a time. Holds memory only while it does.
#[derive(Debug)]
pub struct Cleaner {
    config: CleanerConfig,
    map: OffsetMap,
    buffers: Buffers,
}

impl Cleaner {
    /// A cleaner. `seed` must be secret, or somebody who chooses keys could make two of them look
    /// alike.
    pub fn new(config: CleanerConfig, seed: u64) -> Cleaner {
        Cleaner {
            map: OffsetMap::new(config.map_bytes, config.map_load_factor, seed),
            buffers: Buffers::default(),
            config,
        }
    }

    /// What it was made with.
    pub fn config(&self) -> CleanerConfig {
        self.config
    }
}

/// How fast a clean goes, and whether it goes on.
pub trait Pace {
    /// Told of the bytes that were just read or written; may sleep. A break ends the clean.
    fn after_io(&self, bytes: u64) -> ControlFlow<()>;
}

/// As fast as it goes.
impl Pace for () {
    fn after_io(&self, _: u64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Why a clean did not come to its end. Groups of segments that were replaced before stay so.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// The log was truncated, closed or deleted meanwhile, or segments were removed by retention.
    #[error("the log changed under the clean")]
    Disturbed,
    /// The [`Pace`] ended it.
    #[error("the clean was ended")]
    Stopped,
    /// The files, or what they hold.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What a clean did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CleanReport {
    /// First offset of the part that was dirty.
    pub first_dirty_offset: i64,
    /// First offset that is dirty now.
    pub cleaned_to: i64,
    /// Bytes read to learn the last offset of each key.
    pub map_bytes_read: u64,
    /// Records read for that.
    pub map_records_read: u64,
    /// The filled share of the memory for keys.
    pub map_utilization: f64,
    /// Bytes of the segments that were replaced.
    pub bytes_read: u64,
    /// Bytes of those in their place.
    pub bytes_written: u64,
    /// Records before.
    pub records_read: u64,
    /// Records after.
    pub records_written: u64,
    /// Records that were dropped because they have no key.
    pub records_without_key: u64,
    /// Segments before.
    pub segments_read: usize,
    /// Segments after.
    pub segments_written: usize,
}

#[cfg(test)]
mod tests;
