//! What is on disk: syncing, telling who waits for it, and beginning the writing early.
//!
//! Two offsets. Below the *durable* offset all batches are on disk, with the names of their files:
//! a power cut cannot take them, and whoever acknowledges them need not wait any longer. Below the
//! *recovery point* the indexes and producer snapshots of all sealed segments are on disk too, so
//! that recovery need not look at those segments. It follows the durable offset.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use klamm_env::Fs;

use crate::error::LogError;
use crate::flusher::FlusherShared;
use crate::log::{Log, State};
use crate::segment::Segment;
use crate::storage::{lock, sync_file};
use crate::watch::EndListener;

/// New bytes of a log after which their writing to the device is begun.
const WRITEBACK_BYTES: u64 = 8 << 20;

/// How a log knows its flusher.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) flusher: Arc<FlusherShared>,
    pub(crate) id: u64,
    pub(crate) log: Weak<Log>,
    /// Bytes that were appended since writeback was last asked for.
    pub(crate) unwritten: AtomicU64,
    /// Bytes whose writeback was asked for and has not begun.
    pub(crate) pending: AtomicU64,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.flusher.pace.begun(self.pending.load(Ordering::SeqCst));
    }
}

impl State {
    /// Makes the snapshot at this offset durable, if there is one, with the log's lock held.
    pub(super) fn sync_snapshot(&self, offset: i64, fs: &dyn Fs) -> Result<(), LogError> {
        let file = self.producers.snapshot_file(offset);
        file.map_or(Ok(()), |path| sync_file(fs, &path))
    }
}

/// What one flush has to do, as of one moment.
struct Flush {
    truncations: u64,
    /// Where the log is flushed up to.
    to: i64,
    active_base: i64,
    /// Segments that may hold something that is not durable, the active one last if it is there.
    segments: Vec<Arc<Segment>>,
    new_names: bool,
}

impl Log {
    /// The offset below which all batches are on disk: a power cut does not take them.
    pub fn durable_offset(&self) -> i64 {
        self.durable.load(Ordering::SeqCst)
    }

    /// Makes everything below `offset` durable, and moves the durable offset and the recovery
    /// point there. Calls from several threads share syncs: one that waited for another finds
    /// its offset durable, or syncs for all that wait behind it.
    ///
    /// # Errors
    /// The disk's. After a failed sync the system may have dropped what it could not write, so
    /// the log goes offline: only recovery can tell what is there.
    pub fn flush(&self, offset: i64) -> Result<(), LogError> {
        self.check_status()?;
        if offset.min(self.log_end_offset()) <= self.recovery_point() {
            return Ok(());
        }
        let _one_at_a_time = lock(&self.flushing);
        let Some(flush) = self.plan_flush(offset)? else {
            return Ok(());
        };
        let result = self
            .sync_segments(&flush)
            .and_then(|()| self.sync_sealed(&flush));
        if result.is_err() {
            self.set_offline();
        }
        result
    }

    fn plan_flush(&self, offset: i64) -> Result<Option<Flush>, LogError> {
        let state = self.open_state()?;
        let to = offset.min(self.log_end_offset());
        let from = self.recovery_point();
        if to <= from {
            return Ok(None);
        }
        let mut segments = self.all_segments();
        let first = segments
            .partition_point(|segment| segment.base_offset <= from)
            .saturating_sub(1);
        segments.drain(..first);
        segments.retain(|segment| segment.base_offset < to);
        Ok(Some(Flush {
            truncations: self.truncations.load(Ordering::SeqCst),
            to,
            active_base: state.active.base_offset,
            new_names: segments.iter().any(|segment| segment.base_offset >= from),
            segments,
        }))
    }

    /// Makes batches durable: what acknowledgements wait for.
    fn sync_segments(&self, flush: &Flush) -> Result<(), LogError> {
        for segment in &flush.segments {
            if segment.has_changed() {
                self.unless_removed(segment, segment.sync_batches())?;
            }
        }
        if flush.new_names || self.dir.has_new_names() {
            self.dir.sync()?;
        }
        let mut state = lock(&self.state);
        state.last_flush_ms = self.env.clock.wall_ms();
        if self.truncations.load(Ordering::SeqCst) == flush.truncations {
            let before = self.durable.fetch_max(flush.to, Ordering::SeqCst);
            drop(state);
            if before < flush.to {
                self.durable_watch.notify(flush.to);
            }
        }
        Ok(())
    }

    /// Makes what belongs to sealed segments durable, which only recovery needs.
    fn sync_sealed(&self, flush: &Flush) -> Result<(), LogError> {
        let mut synced = false;
        for segment in &flush.segments {
            // The active one's indexes are made anew by recovery if need be.
            if segment.base_offset != flush.active_base {
                self.unless_removed(segment, segment.sync())?;
                self.sync_snapshot(segment.base_offset)?;
                synced = true;
            }
        }
        if synced && self.dir.has_new_names() {
            self.dir.sync()?;
        }
        let state = lock(&self.state);
        if self.truncations.load(Ordering::SeqCst) == flush.truncations {
            let mut to = flush.to;
            if state.active.base_offset != flush.active_base {
                // It was sealed meanwhile, and has indexes that nobody synced.
                to = to.min(state.active.base_offset - 1);
            }
            self.recovery_point.fetch_max(to, Ordering::SeqCst);
            self.checkpoint_due.fetch_or(synced, Ordering::SeqCst);
        }
        drop(state);
        // The recovery point is to be noted, and files can be closed now.
        self.duty.note_use();
        Ok(())
    }

    fn sync_snapshot(&self, offset: i64) -> Result<(), LogError> {
        let file = lock(&self.state).producers.snapshot_file(offset);
        let Some(path) = file else {
            return Ok(());
        };
        let result = sync_file(&*self.dir.fs, &path);
        // A truncation may have removed it.
        match result {
            Err(_) if lock(&self.state).producers.snapshot_file(offset).is_none() => Ok(()),
            result => result,
        }
    }

    /// Passes over the failure of a segment that was removed, or replaced, while it was synced.
    fn unless_removed(
        &self,
        segment: &Arc<Segment>,
        result: Result<(), LogError>,
    ) -> Result<(), LogError> {
        let Err(error) = result else {
            return Ok(());
        };
        // Whoever removes segments renames their files under this lock.
        let _settled = lock(&self.state);
        let there = self
            .segment_at(segment.base_offset)
            .is_some_and(|found| Arc::ptr_eq(&found, segment));
        if there { Err(error) } else { Ok(()) }
    }

    /// The recovery point as it may be noted on disk. It stays below the end of the log, because
    /// a roll would make it the start of the next segment, and recovery would then rely on
    /// indexes of this one that nobody has synced.
    pub(crate) fn recovery_checkpoint(&self) -> i64 {
        let state = lock(&self.state);
        let point = self.recovery_point();
        let active_base = state.active.base_offset;
        if point > active_base && !self.is_closed() {
            point.min(self.log_end_offset() - 1).max(active_base)
        } else {
            point
        }
    }

    /// Takes the recovery point back below `offset`, at which a new segment begins: the old one
    /// has just been sealed, and what was written for that is not durable.
    pub(super) fn sealed_at(&self, offset: i64) {
        self.recovery_point.fetch_min(offset - 1, Ordering::SeqCst);
    }

    pub(crate) fn set_attachment(&self, attachment: Attachment) {
        *self
            .attachment
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(attachment));
        // What was asked of a former flusher is asked of this one.
        self.sync_requested.store(false, Ordering::SeqCst);
        if lock(&self.state).config.group_sync && self.durable_offset() < self.log_end_offset() {
            self.request_sync();
        }
    }

    /// Whether the recovery point should be noted on disk before its time: segments were synced
    /// that recovery need not look at, or it was taken back.
    pub(crate) fn take_checkpoint_due(&self) -> bool {
        self.checkpoint_due.swap(false, Ordering::SeqCst)
    }

    fn attachment(&self) -> Option<Arc<Attachment>> {
        let attachment = self.attachment.read();
        attachment.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has everything that is in the log now made durable in the background, by the
    /// [`Flusher`](crate::Flusher) that the log is attached to. Returns false if it is attached
    /// to none.
    pub fn request_sync(&self) -> bool {
        let Some(attachment) = self.attachment() else {
            return false;
        };
        if !self.sync_requested.swap(true, Ordering::SeqCst) {
            attachment.flusher.request_sync(&attachment);
        }
        true
    }

    /// Calls `listener` with the durable offset whenever it has grown, for as long as it is held
    /// elsewhere. It runs on the thread that synced and must only pass the news on.
    pub fn subscribe_durable(&self, listener: &Arc<EndListener>) {
        self.durable_watch.subscribe(listener);
    }

    /// Sleeps until everything below `offset` is durable, for at most `timeout`. Returns whether
    /// it is.
    ///
    /// # Errors
    /// [`LogError::Offline`] or [`LogError::Closed`] if it will not become so.
    pub fn wait_for_durable(&self, offset: i64, timeout: Duration) -> Result<bool, LogError> {
        let reached = || self.durable_offset() >= offset;
        let over = || reached() || self.check_status().is_err();
        if !over() {
            self.durable_watch.wait(timeout, over);
        }
        if reached() {
            return Ok(true);
        }
        self.check_status().map(|()| false)
    }

    /// Whether an append would probably wait for the device, because it does not keep up with the
    /// appends to this log's directory. Then it is better made where waiting does no harm.
    pub fn is_stalled(&self) -> bool {
        self.attachment().is_some_and(|attachment| {
            let clock = &self.env.clock;
            attachment.flusher.pace.is_stalled(|| clock.monotonic())
        })
    }

    /// Notes an append of `bytes`, which took from `began` until now.
    pub(super) fn note_written(&self, state: &State, bytes: u64, began: Duration) {
        let Some(attachment) = self.attachment() else {
            return;
        };
        let now = self.env.clock.monotonic();
        let pace = &attachment.flusher.pace;
        pace.appended(now.saturating_sub(began), now);
        if state.config.group_sync {
            return;
        }
        let unwritten = attachment.unwritten.fetch_add(bytes, Ordering::SeqCst) + bytes;
        if unwritten >= WRITEBACK_BYTES {
            attachment.unwritten.store(0, Ordering::SeqCst);
            attachment.pending.fetch_add(unwritten, Ordering::SeqCst);
            pace.due(unwritten);
            attachment.flusher.request_writeback(&attachment);
        }
    }

    /// What a thread of the flusher does for a log with a sync requested.
    pub(crate) fn sync_job(&self) -> Result<(), LogError> {
        // Before the end is looked at: what is appended later asks again.
        self.sync_requested.store(false, Ordering::SeqCst);
        self.flush(i64::MAX)
    }

    /// What a thread of the flusher does for a log with writeback requested.
    pub(crate) fn writeback_job(&self) -> Result<(), LogError> {
        self.duty.note_use();
        for segment in self.all_segments().iter().rev() {
            // A failure comes up again with the sync that the segment gets in the end.
            if !matches!(segment.start_writeback(), Ok(true)) {
                break;
            }
        }
        if let Some(attachment) = self.attachment() {
            let begun = attachment.pending.swap(0, Ordering::SeqCst);
            attachment.flusher.pace.begun(begun);
        }
        Ok(())
    }
}
