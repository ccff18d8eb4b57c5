//! One partition's log.
//!
//! - [`open`]: opening a directory; [`tidy`] finishes what a crash interrupted in it, [`loader`]
//!   recovers segments and producers.
//! - [`known`]: what is kept of a log from its orderly end to the next start.
//! - [`append`]: the leader's and the follower's way in.
//! - [`read`]: slices of files out.
//! - [`offsets`]: finding offsets by time and epoch, stable offsets, aborted transactions.
//! - [`truncate`]: cutting at the end and at the start.
//! - [`clean`]: how compacted segments take the place of others.
//! - [`durability`]: syncing, the durable offset, beginning writeback.
//! - [`upkeep`]: rolling, retention, closing.
//! - [`tiered`]: what is in a remote tier, and what may leave the local disk for that.
//! - [`relocate`]: moving to another directory while open; [`place`] is where the log is now.
//!
//! Who may do what at once: everything that changes the log holds the state lock, which is held
//! over one write and otherwise briefly. Readers take their segment out of the map of segments
//! and go on without any lock of the log. `end` is published after the bytes below it.

mod append;
mod clean;
mod durability;
mod identity;
mod known;
mod loader;
mod offsets;
mod open;
mod place;
mod read;
mod relocate;
mod tidy;
mod tiered;
mod truncate;
mod upkeep;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use klamm_env::{Env, LockGuard};
use klamm_records::TopicPartition;

use crate::agenda::Duty;
use crate::config::LogConfig;
use crate::epoch_cache::EpochCache;
use crate::error::LogError;
use crate::producer_state::{ActiveProducer, ProducerStates};
use crate::segment::Segment;
use crate::storage::lock;
use crate::watch::{EndListener, Watch};

use identity::Identity;
use place::Place;

pub use append::AppendInfo;
pub(crate) use clean::{CleaningView, LastRecord};
pub(crate) use durability::Attachment;
pub(crate) use known::{KnownLog, KnownSegment};
pub(crate) use offsets::first_record_in;
pub use offsets::{OffsetAndTimestamp, UNKNOWN_LEADER_EPOCH};
pub(crate) use open::LOCK_FILE;
pub use open::{Damage, LogOpen, RecoveryReport, Truncation};
pub use read::{LogRead, LogSlice};
pub use relocate::{CopyStep, MoveError, MoveSide};

/// One partition's log: batches in segments, with their indexes and producer state. Also of use
/// without any Kafka around it: see the crate's example.
///
/// All methods take `&self`; share a log in an [`Arc`]. Calls block on the file system, for an
/// append usually no longer than a copy into the page cache takes.
#[derive(Debug)]
pub struct Log {
    topic_partition: TopicPartition,
    env: Env,
    dir: Place,
    status: AtomicU8,
    state: Mutex<State>,
    segments: RwLock<BTreeMap<i64, Arc<Segment>>>,
    start: AtomicI64,
    end: AtomicI64,
    high_watermark: AtomicI64,
    durable: AtomicI64,
    recovery_point: AtomicI64,
    /// Held by whoever flushes; before the state lock.
    flushing: Mutex<()>,
    attachment: RwLock<Option<Arc<Attachment>>>,
    /// The recovery point on disk is too low or too high by more than the active segment.
    checkpoint_due: AtomicBool,
    /// A request to the flusher is under way that has not looked at the end of the log yet.
    sync_requested: AtomicBool,
    /// Whether transactions may hold back the last stable offset; spares readers the lock.
    has_transactions: AtomicBool,
    /// Counts truncations and moves, so that a flush which one overtook does not vouch for what
    /// came after, and a read does not put together what does not fit.
    truncations: AtomicU64,
    /// Counts steps of the replacement of segments by compacted ones: see [`clean`].
    layout: AtomicU64,
    /// The largest offset in the remote tier, -1 if none is: see [`tiered`].
    highest_tiered: AtomicI64,
    /// The offset up to which the log was compacted, -1 if it never was.
    cleaned_to: AtomicI64,
    /// [`cleaned_to`](Log::cleaned_to) has changed since that was last asked.
    cleaned_moved: AtomicBool,
    /// A copy of the log is made in another directory: it is not compacted meanwhile, or records
    /// could be copied whose tombstones are not.
    moving: AtomicBool,
    /// When the manager looks at the log next.
    duty: Duty,
    /// When retention may find something to remove next, by the wall clock.
    retention_due_ms: AtomicI64,
    /// Keeps its own recovery point, start offset and clean-shutdown marker.
    standalone: Option<Mutex<Option<Box<dyn LockGuard>>>>,
    watch: Watch,
    durable_watch: Watch,
    recovery: RecoveryReport,
}

/// What changes hold the lock for.
#[derive(Debug)]
struct State {
    config: Arc<LogConfig>,
    identity: Identity,
    active: Arc<Segment>,
    producers: ProducerStates,
    epochs: EpochCache,
    last_flush_ms: i64,
    /// Where the log ended when it was last looked after, and since when it does.
    rest: (i64, i64),
    /// Files renamed for removal, with the time at which it is due.
    removals: Vec<(i64, Vec<PathBuf>)>,
}

/// Whether the log takes calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Open = 0,
    /// A failure left the files in an unknown state.
    Offline = 1,
    Closed = 2,
}

impl Log {
    /// The partition this is the log of.
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    /// Whether the name of the log's directory may not be durable.
    pub(crate) fn is_new_dir(&self) -> bool {
        self.dir.is_new()
    }

    /// Notes that the directory above was made durable.
    pub(crate) fn set_dir_durable(&self) {
        self.dir.set_new(false);
    }

    /// The directory of the log's files.
    pub fn dir(&self) -> PathBuf {
        self.dir.path()
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<LogConfig> {
        lock(&self.state).config.clone()
    }

    /// Puts a configuration in force. What a segment was created with (jitter, index interval and
    /// size) stays until the next one.
    pub fn update_config(&self, config: LogConfig) {
        let mut state = lock(&self.state);
        state
            .producers
            .set_expiration_ms(config.producer_id_expiration_ms);
        if config.compact {
            self.expect_compaction();
        }
        state.config = Arc::new(config);
        self.note_use();
    }

    /// The first offset that may be read.
    pub fn log_start_offset(&self) -> i64 {
        self.start.load(Ordering::SeqCst)
    }

    /// The offset that the next record gets. Never goes back but by a truncation.
    pub fn log_end_offset(&self) -> i64 {
        self.end.load(Ordering::SeqCst)
    }

    /// The offset below which all is on disk, indexes of sealed segments included, so that
    /// recovery need not look at it. At or below the [durable offset](Log::durable_offset).
    pub fn recovery_point(&self) -> i64 {
        self.recovery_point.load(Ordering::SeqCst)
    }

    /// The high watermark that was set last, never above the end of the log. Retention and
    /// [`delete_records_before`](Log::delete_records_before) stay below it.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Ordering::SeqCst)
    }

    /// Sets the high watermark, cut to the bounds of the log; returns what was set. It may go
    /// back: a new leader can know less.
    pub fn set_high_watermark(&self, offset: i64) -> i64 {
        let bounded = offset
            .min(self.log_end_offset())
            .max(self.log_start_offset());
        if self.high_watermark.swap(bounded, Ordering::SeqCst) != bounded {
            self.duty.note_watermark();
        }
        bounded
    }

    /// Bytes of all batches.
    pub fn size_bytes(&self) -> u64 {
        self.segments
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .map(|segment| segment.size())
            .sum()
    }

    /// Base offsets of the segments; the last one is active.
    pub fn segment_base_offsets(&self) -> Vec<i64> {
        self.segments
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .copied()
            .collect()
    }

    /// Producers whose state the log holds, by id.
    pub fn active_producers(&self) -> Vec<ActiveProducer> {
        lock(&self.state).producers.active()
    }

    /// What opening found and did.
    pub fn recovery_report(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// Whether a disk failure took the log out of service.
    pub fn is_offline(&self) -> bool {
        self.status() == Status::Offline
            || self.status() == Status::Open && self.dir.get().failed.load(Ordering::SeqCst)
    }

    /// Takes the log out of service, as when its directory fails.
    pub fn set_offline(&self) {
        let (open, offline) = (Status::Open as u8, Status::Offline as u8);
        // A closed log stays closed.
        let _ = self
            .status
            .compare_exchange(open, offline, Ordering::SeqCst, Ordering::SeqCst);
        self.durable_watch.wake_sleepers();
        self.duty.note_use();
    }

    /// Calls `listener` with the end of the log after each append, and when the log is closed,
    /// for as long as it is held elsewhere. It runs on the appending thread and must only pass the news on.
    pub fn subscribe(&self, listener: &Arc<EndListener>) {
        self.watch.subscribe(listener);
    }

    /// Sleeps until the log holds `offset` or is closed, for at most `timeout`. Returns whether
    /// it holds the offset.
    pub fn wait_for(&self, offset: i64, timeout: Duration) -> bool {
        let holds = || self.log_end_offset() > offset;
        if !holds() {
            self.watch
                .wait(timeout, || holds() || self.status() != Status::Open);
        }
        holds()
    }

    /// Takes the log out of service if `error` means that its disk is failing. A later
    /// [`tick`](crate::LogManager::tick) finds it, and takes all logs of the directory offline.
    fn note_failure(&self, error: LogError) -> LogError {
        if error.is_disk_failure() {
            self.set_offline();
        }
        error
    }

    fn is_closed(&self) -> bool {
        self.status() == Status::Closed
    }

    fn status(&self) -> Status {
        match self.status.load(Ordering::SeqCst) {
            0 => Status::Open,
            1 => Status::Offline,
            _ => Status::Closed,
        }
    }

    pub(crate) fn check_open(&self) -> Result<(), LogError> {
        self.check_status()
    }

    fn check_status(&self) -> Result<(), LogError> {
        match self.status() {
            Status::Open => Ok(()),
            Status::Offline => Err(LogError::Offline { dir: self.dir() }),
            Status::Closed => Err(LogError::Closed { dir: self.dir() }),
        }
    }

    /// What changes the log begins with.
    fn open_state(&self) -> Result<MutexGuard<'_, State>, LogError> {
        let state = lock(&self.state);
        self.check_status()?;
        self.note_use();
        Ok(state)
    }

    pub(crate) fn duty(&self) -> &Duty {
        &self.duty
    }

    /// Notes that something may be due because of what happens now: files to be closed, segments to
    /// be flushed or removed.
    fn note_use(&self) {
        self.duty.note_use();
        if self.retention_due_ms.load(Ordering::SeqCst) != i64::MIN {
            self.retention_due_ms.store(i64::MIN, Ordering::SeqCst);
        }
    }

    /// The segment that holds `offset` or, in a gap, the one before it.
    fn segment_at(&self, offset: i64) -> Option<Arc<Segment>> {
        self.segments
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .range(..=offset)
            .next_back()
            .map(|(_, segment)| segment.clone())
    }

    /// The segment after the one that starts at `base_offset`.
    fn segment_after(&self, base_offset: i64) -> Option<Arc<Segment>> {
        self.segments
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .range(base_offset + 1..)
            .next()
            .map(|(_, segment)| segment.clone())
    }

    pub(crate) fn all_segments(&self) -> Vec<Arc<Segment>> {
        self.segments
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    fn edit_segments<T>(&self, edit: impl FnOnce(&mut BTreeMap<i64, Arc<Segment>>) -> T) -> T {
        edit(
            &mut self
                .segments
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn out_of_range(&self, requested: i64) -> LogError {
        LogError::OffsetOutOfRange {
            requested,
            log_start: self.log_start_offset(),
            log_end: self.log_end_offset(),
        }
    }

    fn publish_transactions(&self, state: &State) {
        self.has_transactions
            .store(state.producers.has_transactions(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod split_tests;
#[cfg(test)]
mod tests;
