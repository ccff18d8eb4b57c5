//! A log for programs that want one and have no Kafka: keys and values in, offsets out.
//!
//! - [`Journal`]: open, append, read, follow, keep small, compact;
//! - [`Options`]: what may be chosen (`options`);
//! - [`Entries`]: reads from an offset to the end (`read`);
//! - [`Follower`] and [`Tail`]: the same, and waits for more: on a thread, or as a task (`follow`).
//!
//! ```text
//! append ─ BatchBuilder ─ Log::append_as_leader ─ one write into the active segment
//!                               └ wakes followers and tails
//! read ─── Log::read: where the batches lie ─ up to 1 MiB at a time ─ checksum ─ entries, which
//!          share the bytes that were read
//! ```
//!
//! The directory is that of a Kafka partition, so that Kafka's tools read it.

mod error;
mod follow;
mod once;
mod options;
mod read;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use klamm_env::Env;
use klamm_records::compression::Codec;
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch, Scratch};

pub use error::JournalError;
pub use follow::{Follower, Tail};
use once::OpenOnce;
pub use options::Options;
pub use read::{Entries, Entry};

use crate::cleaner::{Cleaner, CleanerConfig};
use crate::log::{Log, LogOpen};
use crate::producer_state::AppendOrigin;
use crate::storage::lock;

/// No epochs here: there is one writer, which is this program.
const LEADER_EPOCH: i32 = 0;

/// A log of keys and values on disk. Clones are handles to the same journal; all methods take
/// `&self` and may be called from any thread.
///
/// Offsets count records from 0. They are dense until [`compact`](Journal::compact) leaves gaps,
/// and never change.
///
/// An append is in the page cache when it returns: it survives the end of the process. What shall
/// survive that of the machine takes a [`flush`](Journal::flush), or
/// [`Options::sync_each_append`].
///
/// No thread runs in the background. A program that lives for long calls
/// [`maintain`](Journal::maintain) every few seconds.
#[derive(Clone, Debug)]
pub struct Journal {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    log: Log,
    env: Env,
    codec: Codec,
    /// Contexts of the codec.
    scratch: Mutex<Scratch>,
    /// Dropped after the log.
    _once: OpenOnce,
}

impl Journal {
    /// Opens the journal in a directory, or begins one there. After a crash, what the crash cut
    /// off within an append is dropped; everything before it is there.
    ///
    /// # Errors
    /// [`JournalError::InUse`] if this program has the directory open already: clone the handle.
    /// [`JournalError::Log`]: another process has it open, its files are not a log's, or the disk
    /// failed.
    pub fn open(dir: impl Into<PathBuf>) -> Result<Journal, JournalError> {
        Journal::open_with(dir, Options::default())
    }

    /// Opens a journal with other options than the usual ones. They are not kept in the directory:
    /// what was written with others stays readable.
    ///
    /// # Errors
    /// As [`Journal::open`]; [`JournalError::Options`] if the options contradict each other.
    pub fn open_with(dir: impl Into<PathBuf>, options: Options) -> Result<Journal, JournalError> {
        let config = options.log_config()?;
        let dir = dir.into();
        let once = OpenOnce::claim(&*options.env.fs, &dir)?;
        let log = Log::open(LogOpen::standalone(dir, config, options.env.clone()))?;
        Ok(Journal {
            inner: Arc::new(Inner {
                log,
                env: options.env,
                codec: options.compression.into(),
                scratch: Mutex::new(Scratch::new()),
                _once: once,
            }),
        })
    }

    /// Appends a record; its offset.
    ///
    /// # Errors
    /// [`JournalError::Log`]: the record is larger than a segment, the journal is closed, or the
    /// disk failed. Nothing was appended.
    pub fn append(
        &self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<u64, JournalError> {
        self.append_one(Some(key.as_ref()), Some(value.as_ref()))
    }

    /// Appends a record without a key; its offset. [`compact`](Journal::compact) drops such
    /// records.
    ///
    /// # Errors
    /// As [`append`](Journal::append).
    pub fn push(&self, value: impl AsRef<[u8]>) -> Result<u64, JournalError> {
        self.append_one(None, Some(value.as_ref()))
    }

    /// Appends a record that says that a key has no value any more; its offset.
    /// [`compact`](Journal::compact) then drops the key's earlier records, and in the end this
    /// one.
    ///
    /// # Errors
    /// As [`append`](Journal::append).
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<u64, JournalError> {
        self.append_one(Some(key.as_ref()), None)
    }

    /// Appends records together, all or none, and faster than one by one; their offsets.
    ///
    /// # Errors
    /// As [`append`](Journal::append), where all of them together count as one.
    pub fn append_all<K, V>(
        &self,
        records: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Range<u64>, JournalError>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let now_ms = self.now_ms();
        let mut batch = self.batch();
        for (key, value) in records {
            batch.append(now_ms, Some(key.as_ref()), Some(value.as_ref()), [])?;
        }
        if batch.is_empty() {
            return Ok(self.end()..self.end());
        }
        self.append_batch(batch, now_ms)
    }

    /// The entries from an offset on, up to what is the end now. Offsets below
    /// [`start`](Journal::start) count as the start; from the end on there is nothing.
    pub fn read(&self, from: u64) -> Entries {
        Entries::new(self.clone(), from, self.end())
    }

    /// The entries from an offset on, for ever: at the end the thread sleeps until there is more.
    pub fn follow(&self, from: u64) -> Follower {
        Follower::new(self.clone(), from)
    }

    /// The entries from an offset on, for ever, for a task of any async runtime.
    pub fn tail(&self, from: u64) -> Tail {
        Tail::new(self.clone(), from)
    }

    /// Offset of the first record that has not been dropped by age or size.
    pub fn start(&self) -> u64 {
        self.inner.log.log_start_offset().unsigned_abs()
    }

    /// The offset that the next record gets.
    pub fn end(&self) -> u64 {
        self.inner.log.log_end_offset().unsigned_abs()
    }

    /// Whether no record can be read.
    pub fn is_empty(&self) -> bool {
        self.start() == self.end()
    }

    /// Bytes on disk, without indexes.
    pub fn size_bytes(&self) -> u64 {
        self.inner.log.size_bytes()
    }

    /// The offset of the first record that was appended at a time or later (milliseconds since
    /// 1970), if there is one.
    ///
    /// # Errors
    /// [`JournalError::Log`]: damage, or the disk.
    pub fn offset_at(&self, wall_ms: i64) -> Result<Option<u64>, JournalError> {
        let found = self.inner.log.offset_for_timestamp(wall_ms)?;
        Ok(found.map(|found| found.offset.unsigned_abs()))
    }

    /// Makes all that was appended so far survive the end of the machine.
    ///
    /// # Errors
    /// [`JournalError::Log`] if the disk failed; the journal is closed to appends then.
    pub fn flush(&self) -> Result<(), JournalError> {
        Ok(self.inner.log.flush(i64::MAX)?)
    }

    /// What is due now and then: drops what [`Options::keep_for`] and [`Options::keep_bytes`] no
    /// longer keep, syncs finished segments, gives back files and memory that are not in use.
    ///
    /// # Errors
    /// [`JournalError::Log`] if the disk failed; a later call goes on.
    pub fn maintain(&self) -> Result<(), JournalError> {
        let (log, now_ms) = (&self.inner.log, self.now_ms());
        log.apply_retention(now_ms, log.log_end_offset())?;
        Ok(log.tick(now_ms)?)
    }

    /// Drops everything below an offset; whole segments go from the disk.
    ///
    /// # Errors
    /// [`JournalError::Log`]: the offset lies behind the end, or the disk failed.
    pub fn drop_before(&self, offset: u64) -> Result<(), JournalError> {
        let log = &self.inner.log;
        log.set_high_watermark(i64::MAX);
        log.delete_records_before(i64::try_from(offset).unwrap_or(i64::MAX))?;
        self.maintain()
    }

    /// Drops each record for whose key there is a later one, and removals that are older than
    /// [`Options::keep_removals_for`]. Offsets and order of the others stay; records without a key
    /// go. What it read is written anew, so call it now and then, on a thread of its own: appends
    /// and reads go on meanwhile. It does not look at what was appended since it began.
    ///
    /// Takes 24 bytes of memory a key and up to 1 MiB more; with more keys than fit into 128 MiB
    /// it takes several passes.
    ///
    /// # Errors
    /// [`JournalError::Compaction`]: the journal was closed or its start moved meanwhile, or the
    /// disk failed. Nothing is lost, and part of the work may be done.
    pub fn compact(&self) -> Result<(), JournalError> {
        let (log, now_ms) = (&self.inner.log, self.now_ms());
        // All that was appended may be compacted: nobody else has to confirm it.
        log.set_high_watermark(i64::MAX);
        log.roll()?;
        let mut cleaner = Cleaner::new(CleanerConfig::default(), self.inner.env.rng.next_u64());
        loop {
            let target = log.cleanable(now_ms)?;
            if target.first_dirty_offset >= target.end_offset {
                break;
            }
            let report = cleaner.clean(log, &target, now_ms, &())?;
            if report.cleaned_to <= target.first_dirty_offset {
                break;
            }
        }
        Ok(log.tick(now_ms)?)
    }

    /// Makes everything durable and ends the journal for all its handles; followers and tails
    /// end. The last handle to be dropped does the same, but cannot tell of a failure.
    ///
    /// # Errors
    /// [`JournalError::Log`] if the disk failed. The next open then verifies what was written.
    pub fn close(&self) -> Result<(), JournalError> {
        Ok(self.inner.log.close()?)
    }

    fn append_one(&self, key: Option<&[u8]>, value: Option<&[u8]>) -> Result<u64, JournalError> {
        let now_ms = self.now_ms();
        let mut batch = self.batch();
        batch.append(now_ms, key, value, [])?;
        Ok(self.append_batch(batch, now_ms)?.start)
    }

    fn batch(&self) -> BatchBuilder {
        BatchBuilder::new(BatchOptions {
            codec: self.inner.codec,
            ..BatchOptions::default()
        })
    }

    fn append_batch(&self, batch: BatchBuilder, now_ms: i64) -> Result<Range<u64>, JournalError> {
        let bytes = if self.inner.codec == Codec::NONE {
            batch.build()?
        } else {
            batch.build_with(&mut lock(&self.inner.scratch))?
        };
        let batch = PreparedBatch::trusted(bytes).map_err(JournalError::Batch)?;
        let appended = self.inner.log.append_as_leader(
            &mut [batch],
            LEADER_EPOCH,
            now_ms,
            AppendOrigin::Client,
        )?;
        Ok(appended.first_offset.unsigned_abs()..appended.last_offset.unsigned_abs() + 1)
    }

    fn now_ms(&self) -> i64 {
        self.inner.env.clock.wall_ms()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Whoever wants to know calls `close`. What could not be synced the next open verifies.
        let _ = self.log.close();
    }
}
