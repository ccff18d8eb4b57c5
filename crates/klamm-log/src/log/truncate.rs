use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::LogError;
use crate::log::loader::rebuild_producers;
use crate::log::{Log, State};
use crate::segment::Segment;

impl Log {
    /// Removes all batches that reach `offset`; the log then ends there. If that is within a batch
    /// the log ends where the batch began: it never claims offsets that it does not hold (Kafka's
    /// would). Returns false if it ended at `offset` or before; then only epochs without a record are
    /// forgotten.
    ///
    /// # Errors
    /// The disk's. The log goes offline if the truncation was under way.
    pub fn truncate_to(&self, offset: i64) -> Result<bool, LogError> {
        let mut state = self.open_state()?;
        let end = self.log_end_offset();
        if offset >= end {
            // An epoch in which this replica led and appended nothing starts at the end. It goes
            // all the same, or the leader would find forever that the logs part.
            state.epochs.truncate_from_end(end);
            return Ok(false);
        }
        let first = self.segment_base_offsets().first().copied();
        let result = if first.is_none_or(|first| offset < first) {
            // What is in the remote tier stays.
            let start = self.log_start_offset().min(offset);
            let start = state.config.remote_storage.then_some(start);
            self.start_anew(&mut state, offset, start)
        } else {
            self.truncate_within(&mut state, offset)
        };
        self.offline_if_failed(result)?;
        Ok(true)
    }

    /// Removes everything; the log is empty at `offset`, and its start is there or at `start`.
    ///
    /// # Errors
    /// The disk's. The log goes offline if the truncation was under way.
    pub fn truncate_fully_and_start_at(
        &self,
        offset: i64,
        start: Option<i64>,
    ) -> Result<(), LogError> {
        let mut state = self.open_state()?;
        let result = self.start_anew(&mut state, offset, start);
        self.offline_if_failed(result)
    }

    pub(super) fn offline_if_failed(&self, result: Result<(), LogError>) -> Result<(), LogError> {
        if result.is_err() {
            self.set_offline();
        }
        result
    }

    fn truncate_within(&self, state: &mut State, offset: i64) -> Result<(), LogError> {
        let last_kept = self.segment_at(offset);
        let cut = match last_kept.as_ref().map(|segment| segment.translate(offset)) {
            // Of damage nothing is kept: where it would be cut nobody knows.
            Some(Err(LogError::Corrupt { offset: lost, .. })) => Some(lost),
            Some(found) => found?.map(|batch| batch.meta.base_offset),
            None => None,
        };
        let offset = cut.map_or(offset, |begin| begin.min(offset));
        // The end goes first, so that readers turn back before the bytes are gone.
        self.shrink_marks(offset)?;
        let removed = self.edit_segments(|segments| segments.split_off(&(offset + 1)));
        if let Some(active) = last_kept {
            state.active = active;
        }
        self.remove_from_end(state, removed)?;
        state.producers.remove_snapshots_above(offset)?;
        // Nor may any of them come back behind what is written in their place.
        self.dir.sync()?;
        state.active.truncate_to(offset, self.env.clock.wall_ms())?;
        state.epochs.truncate_from_end(offset);
        self.start.fetch_min(offset, Ordering::SeqCst);
        let start = self.log_start_offset();
        let segments = self.all_segments();
        rebuild_producers(
            &mut state.producers,
            &segments,
            start,
            offset,
            self.env.clock.wall_ms(),
            false,
        )?;
        self.publish_transactions(state);
        self.leave_gap(state, offset)
    }

    /// After a truncation to `end`, begins a new segment if compaction has left nothing right below
    /// that. Behind a gap recovery could not tell whether a batch lies below the recovery point:
    /// what a crash leaves there would be taken for damage of what had been synced.
    fn leave_gap(&self, state: &mut State, end: i64) -> Result<(), LogError> {
        if self.cleaned_to().is_none() {
            return Ok(());
        }
        match state.active.read_next_offset() {
            Ok(next) if next < end => self.roll_to(state, end),
            Ok(_) | Err(LogError::Corrupt { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn start_anew(
        &self,
        state: &mut State,
        offset: i64,
        start: Option<i64>,
    ) -> Result<(), LogError> {
        // A crash can bring back any of the segments: they are all looked at then.
        let first = self.segment_base_offsets().first().copied();
        self.shrink_marks(first.map_or(offset, |first| first.min(offset)))?;
        let removed = self.edit_segments(std::mem::take);
        self.remove_from_end(state, removed)?;
        state.producers.reset(offset)?;
        // Before there is another segment, which they would overlap.
        self.dir.sync()?;
        let segment = Segment::create(&self.dir.get(), offset, &state.config, &self.env)?;
        self.dir.sync()?;
        let segment = Arc::new(segment);
        self.edit_segments(|segments| segments.insert(offset, segment.clone()));
        state.active = segment;
        if state.config.remote_storage {
            state.epochs.truncate_from_end(offset);
        } else {
            state.epochs.clear();
        }
        state.epochs.write_if_dirty()?;
        self.publish_transactions(state);
        self.start.store(start.unwrap_or(offset), Ordering::SeqCst);
        self.end.store(offset, Ordering::SeqCst);
        let high_watermark = self.log_start_offset();
        self.high_watermark.store(high_watermark, Ordering::SeqCst);
        self.duty.note_watermark();
        Ok(())
    }

    /// Takes back what the log vouches for above `end`, on disk first: a recovery point above
    /// the cut would keep recovery from looking at what is written there next.
    fn shrink_marks(&self, end: i64) -> Result<(), LogError> {
        self.truncations.fetch_add(1, Ordering::SeqCst);
        self.checkpoint_due.store(true, Ordering::SeqCst);
        self.durable.fetch_min(end, Ordering::SeqCst);
        self.recovery_point.fetch_min(end, Ordering::SeqCst);
        if self.cleaned_to.fetch_min(end, Ordering::SeqCst) > end {
            self.cleaned_moved.store(true, Ordering::SeqCst);
        }
        self.highest_tiered.fetch_min(end - 1, Ordering::SeqCst);
        // Before the checkpoint, which stays below it.
        self.end.store(end, Ordering::SeqCst);
        if self.standalone.is_some() {
            // Below the new end, as always: see `recovery_checkpoint`.
            self.write_own_checkpoints(self.recovery_point().min(end - 1).max(0))?;
        }
        if self.high_watermark.fetch_min(end, Ordering::SeqCst) > end {
            self.duty.note_watermark();
        }
        Ok(())
    }

    /// Moves the start of the log up to `offset`; records below can no longer be read, and
    /// segments wholly below go with the next round of retention. Does nothing if the start is
    /// there or above.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] above the high watermark.
    pub fn delete_records_before(&self, offset: i64) -> Result<(), LogError> {
        let mut state = self.open_state()?;
        if offset > self.high_watermark() {
            return Err(LogError::OffsetOutOfRange {
                requested: offset,
                log_start: self.log_start_offset(),
                log_end: self.high_watermark(),
            });
        }
        self.raise_start(&mut state, offset);
        Ok(())
    }

    pub(super) fn raise_start(&self, state: &mut State, offset: i64) {
        if offset > self.log_start_offset() {
            self.start.store(offset, Ordering::SeqCst);
            state.epochs.truncate_from_start(offset);
            state.producers.on_log_start(offset);
            self.publish_transactions(state);
        }
    }

    /// Removes segments that a truncation has taken out of the map, the last one first. Names that
    /// are not synced one by one may go to the disk in any order. Recovery of a log without gaps
    /// removes what lies behind one that is missing, so that one sync of all will do. In a compacted
    /// log such a gap proves nothing: there each is durable before the next goes, and a crash leaves
    /// the log cut off farther behind, but whole up to there.
    fn remove_from_end(
        &self,
        state: &mut State,
        removed: BTreeMap<i64, Arc<Segment>>,
    ) -> Result<(), LogError> {
        let from_end = removed.into_values().rev();
        if self.cleaned_to().is_some() || state.config.compact {
            self.remove_one_by_one(state, from_end)
        } else {
            self.remove_segments(state, from_end)
        }
    }

    /// Renames the files of segments that are out of the map, and has them removed later.
    pub(super) fn remove_segments(
        &self,
        state: &mut State,
        segments: impl IntoIterator<Item = Arc<Segment>>,
    ) -> Result<(), LogError> {
        let due_ms = self
            .env
            .clock
            .wall_ms()
            .saturating_add(state.config.file_delete_delay_ms);
        for segment in segments {
            // A reader that is still at it makes no new files under the old names.
            segment.retire();
            let mut files = segment.mark_deleted()?;
            segment.release();
            files.extend(state.producers.mark_snapshot_deleted(segment.base_offset));
            state.removals.push((due_ms, files));
        }
        Ok(())
    }
}
