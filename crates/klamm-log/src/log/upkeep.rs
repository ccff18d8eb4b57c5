use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::agenda::NEVER;
use crate::checkpoints::{self, PartitionOffsets};
use crate::clean_shutdown;
use crate::error::{IoContext, LogError};
use crate::log::{Log, State, Status};
use crate::names::FileKind;
use crate::segment::Segment;
use crate::storage::lock;

/// Time after its last append, plus up to as much again, at which a log is made durable though nobody
/// asked for it; the second part spreads logs that fell idle together. It ends what a recovery has to look
/// at, and lets the file be closed.
const IDLE_FLUSH_MS: i64 = 60_000;

impl Log {
    /// Ends the active segment and begins a new one, unless it is empty.
    ///
    /// # Errors
    /// The disk's; the old segment stays active.
    pub fn roll(&self) -> Result<(), LogError> {
        let mut state = self.open_state()?;
        if state.active.size() == 0 {
            return Ok(());
        }
        let end = self.log_end_offset();
        self.roll_to(&mut state, end)
    }

    /// Begins a new segment at `offset`, which is the end of the log or, for a follower of a
    /// compacted log, above it.
    pub(super) fn roll_to(&self, state: &mut State, offset: i64) -> Result<(), LogError> {
        let old = state.active.clone();
        old.seal()?;
        state.producers.set_map_end(offset);
        state.producers.take_snapshot()?;
        let created = Segment::create(&self.dir.get(), offset, &state.config, &self.env);
        let segment = match created {
            Ok(segment) => Arc::new(segment),
            Err(error) => {
                // An empty segment that stays would be taken for the end of the log, whatever is
                // appended to the old one meanwhile. Nor may a crash bring it back.
                let file = self.dir.file(offset, FileKind::Log);
                let gone = self.dir.remove_if_exists(&file);
                if gone.and_then(|()| self.dir.sync()).is_err() {
                    self.set_offline();
                }
                return Err(error);
            }
        };
        self.edit_segments(|segments| segments.insert(offset, segment.clone()));
        old.forget_recent();
        self.sealed_at(offset);
        state.active = segment;
        Ok(())
    }

    /// Work that is due now and then, such as every second: flushes rolled segments and, by
    /// `flush_ms` or when nothing was appended for a minute or two, the active one; removes files
    /// whose time has come; forgets idle producers; gives back descriptors and memory that were
    /// not used since the last call.
    ///
    /// # Errors
    /// The disk's. What was not done is done by a later call.
    pub fn tick(&self, now_ms: i64) -> Result<(), LogError> {
        self.look_after(now_ms).map(drop)
    }

    /// As [`tick`](Log::tick). Returns when the next call is due if the log is not used until then.
    pub(crate) fn look_after(&self, now_ms: i64) -> Result<i64, LogError> {
        let (active_base, next_expiry, flush_ms, idle_flush_ms) = {
            // Not as something that changes the log, or it would never come to rest.
            let mut state = lock(&self.state);
            self.check_status()?;
            let next_expiry = state.producers.expire(now_ms);
            state.epochs.write_if_dirty()?;
            let flush_ms = state.last_flush_ms.saturating_add(state.config.flush_ms);
            let idle_ms = IDLE_FLUSH_MS + self.duty.spread(IDLE_FLUSH_MS);
            let end = self.log_end_offset();
            if state.rest.0 != end {
                state.rest = (end, now_ms);
            }
            let idle_flush_ms = state.rest.1.saturating_add(idle_ms);
            let active_base = state.active.base_offset;
            (active_base, next_expiry, flush_ms, idle_flush_ms)
        };
        if flush_ms <= now_ms {
            self.flush(i64::MAX)?;
        } else {
            self.flush(active_base)?;
        }
        let is_durable = || self.recovery_point() >= self.log_end_offset();
        if idle_flush_ms <= now_ms && !is_durable() && !self.request_sync() {
            self.flush(i64::MAX)?;
        }
        let next_removal = self.remove_due_files(now_ms)?;
        let mut holds_more = false;
        for segment in self.all_segments() {
            holds_more |= segment.release_if_idle();
        }
        if self.standalone.is_some() {
            self.write_own_checkpoints(self.recovery_checkpoint())?;
        }
        if holds_more {
            return Ok(now_ms.saturating_add(1));
        }
        let next_flush = (!is_durable()).then_some(flush_ms.min(idle_flush_ms));
        let due = [next_expiry, next_removal, next_flush];
        let first = due.into_iter().flatten().min();
        Ok(first.unwrap_or(NEVER).max(now_ms.saturating_add(1)))
    }

    /// Removes the files that waited for it long enough. Returns when the next have.
    fn remove_due_files(&self, now_ms: i64) -> Result<Option<i64>, LogError> {
        let (due, next) = {
            let mut state = lock(&self.state);
            let (due, later): (Vec<_>, Vec<_>) = std::mem::take(&mut state.removals)
                .into_iter()
                .partition(|(due_ms, _)| *due_ms <= now_ms);
            let next = later.iter().map(|(due_ms, _)| *due_ms).min();
            state.removals = later;
            (due, next)
        };
        for (_, files) in due {
            for file in files {
                self.dir.remove_if_exists(&file)?;
            }
        }
        Ok(next)
    }

    /// Whether [`apply_retention`](Log::apply_retention) may find something to remove: the log was
    /// changed since it last looked, or its oldest segment is too old by now.
    pub(crate) fn is_retention_due(&self, now_ms: i64) -> bool {
        self.retention_due_ms.load(Ordering::SeqCst) <= now_ms
    }

    /// When retention may find something to remove next, if nothing changes until then.
    fn next_retention(&self, state: &State) -> i64 {
        let Some(first) = self.all_segments().first().cloned() else {
            return NEVER;
        };
        if state.config.remote_storage {
            // An upload may have made room for it.
            return i64::MIN;
        }
        let is_active = first.base_offset == state.active.base_offset;
        let is_empty = is_active && first.size() == 0;
        if is_empty || !state.config.delete || state.config.retention_ms < 0 {
            return NEVER;
        }
        let end = self.segment_after(first.base_offset);
        let end = end.map_or_else(|| self.log_end_offset(), |next| next.base_offset);
        if end > self.high_watermark() {
            return i64::MIN;
        }
        match first.retention_timestamp() {
            Ok(ms) => ms
                .saturating_add(state.config.retention_ms)
                .saturating_add(1),
            Err(_) => i64::MIN,
        }
    }

    /// Removes the oldest segments that are below the log's start, past its retention time or
    /// beyond its retention size; none that reaches the high watermark. Returns how many. The
    /// start of the log moves with them.
    ///
    /// # Errors
    /// The disk's. The log goes offline if a removal was under way.
    pub fn apply_retention(&self, now_ms: i64, high_watermark: i64) -> Result<usize, LogError> {
        self.set_high_watermark(high_watermark);
        let mut state = self.open_state()?;
        let config = state.config.clone();
        let start = self.log_start_offset();
        let mut removed = self.remove_while(&mut state, |_, next_base| {
            Ok(next_base.is_some_and(|next| next <= start))
        })?;
        let (retention_ms, retention_bytes) = config.local_limits();
        if config.delete && retention_bytes >= 0 {
            let mut excess = self.size_bytes() as i64 - retention_bytes;
            removed += self.remove_while(&mut state, |segment, next_base| {
                let size = segment.size() as i64;
                let over = excess >= size && self.may_leave(next_base, &config);
                if over {
                    excess -= size;
                }
                Ok(over)
            })?;
        }
        if config.delete && retention_ms >= 0 {
            removed += self.remove_while(&mut state, |segment, next_base| {
                let age_ms = now_ms.saturating_sub(segment.retention_timestamp()?);
                if age_ms <= retention_ms || !self.may_leave(next_base, &config) {
                    return Ok(false);
                }
                // Before anything is deleted for it the timestamp is made sure of.
                segment.checked_max_timestamp()?;
                let age_ms = now_ms.saturating_sub(segment.retention_timestamp()?);
                Ok(age_ms > retention_ms)
            })?;
        }
        let next_ms = self.next_retention(&state);
        self.retention_due_ms.store(next_ms, Ordering::SeqCst);
        Ok(removed)
    }

    /// Removes segments from the oldest on while `condemned` holds, which is given the segment
    /// and the start of the next one.
    fn remove_while(
        &self,
        state: &mut State,
        mut condemned: impl FnMut(&Segment, Option<i64>) -> Result<bool, LogError>,
    ) -> Result<usize, LogError> {
        let segments = self.all_segments();
        let mut count = 0;
        for (index, segment) in segments.iter().enumerate() {
            let next_base = segments.get(index + 1).map(|next| next.base_offset);
            let end = next_base.unwrap_or_else(|| self.log_end_offset());
            let empty_active = next_base.is_none() && segment.size() == 0;
            // The start of the log must not pass the high watermark.
            if empty_active || end > self.high_watermark() || !condemned(segment, next_base)? {
                break;
            }
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        if count == segments.len() {
            // One segment must remain, also after a crash: it is all that says where the log ends.
            let end = self.log_end_offset();
            self.roll_to(state, end)?;
        }
        let start = segments
            .get(count)
            .map_or_else(|| self.log_end_offset(), |first| first.base_offset);
        // What is left must not depend on what goes: an older snapshot would need the batches behind it,
        // and show transactions as open whose markers are gone.
        state.sync_snapshot(start, &*self.dir.fs)?;
        if self.dir.has_new_names() {
            self.dir.sync()?;
        }
        if !state.config.remote_storage {
            self.raise_start(state, start);
        }
        let removed = self.edit_segments(|map| {
            let kept = map.split_off(&start);
            std::mem::replace(map, kept)
        });
        // Files that stay would be taken for the log's when it is opened again, and no flush looks
        // at them any more.
        let result = self.remove_one_by_one(state, removed.into_values());
        self.offline_if_failed(result)?;
        Ok(count)
    }

    /// Or a crash could bring back an old segment and not its successors.
    pub(super) fn remove_one_by_one(
        &self,
        state: &mut State,
        segments: impl Iterator<Item = Arc<Segment>>,
    ) -> Result<(), LogError> {
        for segment in segments {
            self.remove_segments(state, [segment])?;
            self.dir.sync()?;
        }
        Ok(())
    }

    /// Closes the log in order: everything is made durable, and a snapshot of the producers
    /// taken. The next open, if told that it is clean, verifies nothing.
    ///
    /// # Errors
    /// The disk's.
    pub fn close(&self) -> Result<(), LogError> {
        let _no_flush = lock(&self.flushing);
        let mut state = lock(&self.state);
        if self.status() == Status::Closed {
            return Ok(());
        }
        self.check_status()?;
        state.epochs.write_if_dirty()?;
        let mut changed = state.producers.take_snapshot()?;
        state.active.seal()?;
        let end = self.log_end_offset();
        let from = self.recovery_point();
        let segments = self.all_segments();
        for segment in &segments {
            let last = segment.base_offset == state.active.base_offset;
            let next = self.segment_after(segment.base_offset);
            if last || next.is_some_and(|next| next.base_offset > from) {
                changed |= segment.has_changed();
                segment.sync()?;
            }
            segment.release();
        }
        if changed {
            state.sync_snapshot(end, &*self.dir.fs)?;
        }
        if changed || self.dir.has_new_names() {
            self.dir.sync()?;
        }
        self.durable.store(end, Ordering::SeqCst);
        self.recovery_point.store(end, Ordering::SeqCst);
        self.status.store(Status::Closed as u8, Ordering::SeqCst);
        drop(state);
        // Whoever waits for more waits in vain.
        self.watch.notify(end);
        self.durable_watch.wake_sleepers();
        if let Some(guard) = &self.standalone {
            self.write_own_checkpoints(self.recovery_checkpoint())?;
            clean_shutdown::write(&*self.dir.fs, &self.dir.path(), -1)?;
            // Whoever still holds the closed log does not keep others from opening it.
            *lock(guard) = None;
        }
        Ok(())
    }

    /// Notes recovery point and start in the log's own directory.
    pub(super) fn write_own_checkpoints(&self, recovery_point: i64) -> Result<(), LogError> {
        let cleaned_to = self
            .cleaned_to()
            .map(|offset| (checkpoints::CLEANER, offset));
        let others = [
            (checkpoints::RECOVERY_POINT, recovery_point),
            (checkpoints::LOG_START, self.log_start_offset()),
        ];
        for (name, offset) in others.into_iter().chain(cleaned_to) {
            let path = self.dir.path().join(name);
            let key = self.topic_partition.clone();
            let noted = checkpoints::read_offsets(&*self.dir.fs, &path)?;
            if noted.get(&key) != Some(&offset) {
                let offsets = PartitionOffsets::from([(key, offset)]);
                checkpoints::write_offsets(&*self.dir.fs, &path, &offsets)?;
            }
        }
        Ok(())
    }

    /// Renames the log's directory. Open files and reads under way are not affected.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn rename_dir(&self, name: &str) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        let from = self.dir.path();
        let to = from.with_file_name(name);
        self.dir.fs.rename(&from, &to).at("rename", &from)?;
        self.dir.set_path(&to);
        state.epochs.set_dir(&to);
        rebase(&mut state.removals, &to);
        drop(state);
        match to.parent() {
            Some(parent) => self.dir.fs.sync_dir(parent).at("sync", parent),
            None => Ok(()),
        }
    }

    /// Takes no more calls and lets go of all files, without making anything durable: the log is
    /// about to be removed.
    pub(crate) fn abandon(&self) {
        self.status.store(Status::Closed as u8, Ordering::SeqCst);
        self.durable_watch.wake_sleepers();
        for segment in self.all_segments() {
            segment.release();
        }
    }
}

/// Gives files that wait for their removal the directory that they are in now.
pub(super) fn rebase(removals: &mut [(i64, Vec<PathBuf>)], dir: &Path) {
    for (_, files) in removals {
        for file in files {
            if let Some(name) = file.file_name() {
                *file = dir.join(name);
            }
        }
    }
}
