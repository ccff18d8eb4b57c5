//! What compaction needs of a log, and how compacted segments take the place of others.
//!
//! New segments are written beside the log as `.cleaned`. Putting one in place of a group goes in
//! steps, each durable before the next begins, so that a crash at any moment leaves the old or
//! the new segments and never a mix:
//!
//! 1. The `.cleaned` files and their names are synced. A start removes them.
//! 2. They are renamed to `.swap` and that is synced. From here on a start completes the rest; as
//!    long as one of the files is still `.cleaned` it removes all of them.
//! 3. The old `.log` files become `.deleted`, the new one gets its name, synced together. Should
//!    only part of that survive, the start knows the replaced range from the new file; an old
//!    segment beyond the last batch of it may come back as it was, with all its indexes, and is
//!    compacted again.
//! 4. The old indexes become `.deleted`, the new ones get their names. A start does the same: an
//!    index without a `.log` is removed, one that is `.swap` takes its place.
//!
//! A segment that is split becomes several, from the last to the first in step 2: those that are
//! `.swap` lie above those that are still `.cleaned`, by which a start knows that it is to remove
//! them.
//!
//! Readers take no lock. While segments are replaced `layout` is counted up, before the first
//! name changes and when the new segment is in the map; a reader that sees it move looks again.
//! Old segments are retired first: their files are not opened by name any more, those that are
//! open stay readable for whoever has them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::cleaner::CleanError;
use crate::config::LogConfig;
use crate::error::{IoContext, LogError};
use crate::log::{Log, State};
use crate::names::{CLEANED_SUFFIX, FileKind, SWAP_SUFFIX};
use crate::segment::Segment;
use crate::storage::lock;

/// The files of a segment; the indexes before the batches, without which they are nothing.
const KINDS: [FileKind; 4] = [
    FileKind::TxnIndex,
    FileKind::TimeIndex,
    FileKind::Index,
    FileKind::Log,
];

/// The files that a segment has.
fn kinds_of(segment: &Segment) -> impl Iterator<Item = FileKind> + use<> {
    let has_txn_index = segment.txn_index().exists();
    KINDS
        .into_iter()
        .filter(move |kind| *kind != FileKind::TxnIndex || has_txn_index)
}

/// A log as a clean found it.
#[derive(Debug)]
pub(crate) struct CleaningView {
    segments: Vec<Arc<Segment>>,
    truncations: u64,
    pub(crate) last_stable_offset: i64,
    pub(crate) config: Arc<LogConfig>,
}

impl CleaningView {
    /// Where the active segment begins.
    pub(crate) fn active_base(&self) -> i64 {
        self.segments.last().map_or(0, |active| active.base_offset)
    }

    /// The segments that begin below `end`.
    pub(crate) fn below(&self, end: i64) -> &[Arc<Segment>] {
        let count = self.segments.partition_point(|s| s.base_offset < end);
        &self.segments[..count]
    }

    /// The segments with offsets in `from..end`.
    pub(crate) fn range(&self, from: i64, end: i64) -> &[Arc<Segment>] {
        let below = self.below(end);
        if from >= end {
            return &[];
        }
        let first = below.partition_point(|s| s.base_offset <= from);
        &below[first.saturating_sub(1)..]
    }

    /// The segments with offsets from `from` on, without the active one.
    pub(crate) fn sealed_from(&self, from: i64) -> &[Arc<Segment>] {
        self.range(from, self.active_base())
    }
}

/// What a producer is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastRecord {
    /// Offset of its last record that is no marker.
    pub(crate) data_offset: Option<i64>,
    pub(crate) epoch: i16,
}

impl Log {
    /// The offset up to which the log was compacted; none if it never was.
    pub fn cleaned_to(&self) -> Option<i64> {
        let offset = self.cleaned_to.load(Ordering::SeqCst);
        (offset >= 0).then_some(offset)
    }

    /// Notes how far the log was compacted by an earlier process.
    pub fn set_cleaned_to(&self, offset: i64) {
        let offset = offset.max(0);
        if self.cleaned_to.swap(offset, Ordering::SeqCst) != offset {
            self.note_cleaned_moved();
        }
    }

    /// Notes that the log may have gaps from now on, if it does not say so yet: nothing is
    /// compacted, but a follower gets what its leader has left.
    pub(crate) fn expect_compaction(&self) {
        let start = self.log_start_offset();
        // Failing means that there is something already.
        let set = self
            .cleaned_to
            .compare_exchange(-1, start, Ordering::SeqCst, Ordering::SeqCst);
        if set.is_ok() {
            self.note_cleaned_moved();
        }
    }

    fn note_cleaned_moved(&self) {
        self.cleaned_moved.store(true, Ordering::SeqCst);
        self.duty.note_use();
    }

    /// Whether [`cleaned_to`](Log::cleaned_to) has changed since this was last asked.
    pub(crate) fn take_cleaned_moved(&self) -> bool {
        self.cleaned_moved.swap(false, Ordering::SeqCst)
    }

    /// Calls `look` again if segments were replaced while it looked at them.
    pub(crate) fn with_segments<T>(
        &self,
        look: impl Fn() -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        // Looking opens files.
        self.duty.note_use();
        loop {
            let layout = self.layout.load(Ordering::SeqCst);
            let result = look();
            if result.is_err() {
                // A replacement that is under way holds the lock.
                drop(lock(&self.state));
            }
            if self.layout.load(Ordering::SeqCst) == layout {
                return result;
            }
        }
    }

    pub(crate) fn cleaning_view(&self) -> Result<CleaningView, LogError> {
        let high_watermark = self.high_watermark();
        let last_stable_offset = self.last_stable_offset(high_watermark);
        // Not as something that changes the log: idle ones are looked at, too.
        let state = lock(&self.state);
        self.check_status()?;
        Ok(CleaningView {
            segments: self.all_segments(),
            truncations: self.truncations.load(Ordering::SeqCst),
            last_stable_offset,
            config: state.config.clone(),
        })
    }

    /// Whether what a clean has seen still holds: nothing was truncated, the log is open and does
    /// not move.
    pub(crate) fn is_undisturbed(&self, view: &CleaningView) -> bool {
        self.check_status().is_ok()
            && self.truncations.load(Ordering::SeqCst) == view.truncations
            && !self.moving.load(Ordering::SeqCst)
    }

    /// Whether retention removed segments that a clean has seen.
    pub(crate) fn has_lost_first(&self, view: &CleaningView) -> bool {
        let first = view.segments.first().map(|segment| segment.base_offset);
        self.segment_base_offsets().first().copied() != first
    }

    pub(crate) fn check_undisturbed(&self, view: &CleaningView) -> Result<(), CleanError> {
        if self.is_undisturbed(view) {
            Ok(())
        } else {
            Err(CleanError::Disturbed)
        }
    }

    pub(crate) fn last_records_of_producers(&self) -> BTreeMap<i64, LastRecord> {
        let producers = lock(&self.state).producers.active();
        producers
            .into_iter()
            .map(|producer| {
                let last = LastRecord {
                    data_offset: (producer.last_offset >= 0).then_some(producer.last_offset),
                    epoch: producer.producer_epoch,
                };
                (producer.producer_id, last)
            })
            .collect()
    }

    /// An empty segment for what is kept of `group`, beside the log.
    pub(crate) fn create_cleaned(
        &self,
        view: &CleaningView,
        group: &[Arc<Segment>],
    ) -> Result<Segment, LogError> {
        let dir = self.dir.get().for_cleaned();
        let base_offset = group.first().map_or(0, |first| first.base_offset);
        let config = LogConfig {
            preallocate: false,
            ..(*view.config).clone()
        };
        let cleaned = Segment::create(&dir, base_offset, &config, &self.env)?;
        // Where the first old segment has an index of aborted transactions the new one gets one,
        // too, that takes its name. A start need not guess whose it is then.
        if group
            .first()
            .is_some_and(|first| first.txn_index().exists())
        {
            cleaned.txn_index().create()?;
        }
        Ok(cleaned)
    }

    /// Removes the files of a segment that did not get in place. What cannot be removed now is at
    /// the next start, or overwritten by the next clean.
    pub(crate) fn discard_cleaned(&self, cleaned: &Segment) {
        cleaned.release();
        if self.is_offline() {
            // It may have failed halfway into its place. By those that are still `.cleaned` a start
            // sees that; without them it would give the old segment the new one's indexes.
            return;
        }
        for kind in KINDS {
            let path = self
                .dir
                .file_with(cleaned.base_offset, kind, CLEANED_SUFFIX);
            let _ = self.dir.remove_if_exists(&path);
        }
    }

    /// Makes several segments of one whose offsets are too far apart. Returns whether it did: one
    /// that is damaged cannot be split.
    pub(crate) fn split_segment(
        &self,
        view: &CleaningView,
        segment: &Arc<Segment>,
    ) -> Result<bool, CleanError> {
        let beside = self.dir.get().for_cleaned();
        let Some(parts) = segment.split(&beside, &view.config, &self.env)? else {
            return Ok(false);
        };
        let replaced = self.replace_segments(view, std::slice::from_ref(segment), &parts);
        if replaced.is_err() {
            parts.iter().for_each(|part| self.discard_cleaned(part));
        }
        replaced.map(|()| true)
    }

    /// Puts compacted segments, whose files are durable, in the place of `old`.
    pub(crate) fn replace_segments(
        &self,
        view: &CleaningView,
        old: &[Arc<Segment>],
        cleaned: &[Segment],
    ) -> Result<(), CleanError> {
        self.dir.sync()?;
        let mut state = self.open_state().map_err(|_| CleanError::Disturbed)?;
        self.check_undisturbed(view)?;
        let in_place = |segment: &Arc<Segment>| {
            self.segment_at(segment.base_offset)
                .is_some_and(|found| Arc::ptr_eq(&found, segment))
        };
        if !old.iter().all(in_place) {
            return Err(CleanError::Disturbed);
        }
        let result = self.swap_in(&mut state, old, cleaned);
        if result.is_err() {
            // Only a start can tell what the files are.
            self.set_offline();
        }
        result?;
        drop(state);
        // Otherwise the indexes would be renamed by the next start.
        self.dir.sync()?;
        Ok(())
    }

    fn swap_in(
        &self,
        state: &mut State,
        old: &[Arc<Segment>],
        cleaned: &[Segment],
    ) -> Result<(), LogError> {
        // From the end on, each durable before the next: a start takes those for finished that lie
        // below the first which is not.
        for part in cleaned.iter().rev() {
            part.release();
            for kind in kinds_of(part) {
                self.rename(part.base_offset, kind, CLEANED_SUFFIX, SWAP_SUFFIX)?;
            }
            self.dir.sync()?;
        }
        self.layout.fetch_add(1, Ordering::SeqCst);
        for segment in old {
            segment.retire();
        }
        let due_ms = self
            .env
            .clock
            .wall_ms()
            .saturating_add(state.config.file_delete_delay_ms);
        let mut removed = Vec::new();
        for segment in old {
            removed.extend(segment.mark_file_deleted(FileKind::Log)?);
        }
        for part in cleaned {
            self.rename(part.base_offset, FileKind::Log, SWAP_SUFFIX, "")?;
        }
        self.dir.sync()?;
        for segment in old {
            removed.extend(segment.mark_indexes_deleted()?);
            if cleaned
                .iter()
                .all(|part| part.base_offset != segment.base_offset)
            {
                removed.extend(state.producers.mark_snapshot_deleted(segment.base_offset));
            }
        }
        state.removals.push((due_ms, removed));
        let mut new = Vec::with_capacity(cleaned.len());
        for part in cleaned {
            for kind in kinds_of(part).filter(|kind| *kind != FileKind::Log) {
                self.rename(part.base_offset, kind, SWAP_SUFFIX, "")?;
            }
            new.push(Segment::unloaded(
                &self.dir.get(),
                part.base_offset,
                part.size(),
                part.txn_index().exists(),
                &state.config,
                &self.env,
            ));
        }
        self.edit_segments(|segments| {
            for segment in old {
                segments.remove(&segment.base_offset);
            }
            for segment in new {
                segments.insert(segment.base_offset, Arc::new(segment));
            }
            // Within the lock of the map, so that whoever sees the new segments sees this.
            self.layout.fetch_add(1, Ordering::SeqCst);
        });
        Ok(())
    }

    fn rename(
        &self,
        base_offset: i64,
        kind: FileKind,
        from: &str,
        to: &str,
    ) -> Result<(), LogError> {
        let from = self.dir.file_with(base_offset, kind, from);
        let to = self.dir.file_with(base_offset, kind, to);
        self.dir.fs.rename(&from, &to).at("rename", &from)
    }

    /// Notes that the log is compacted up to `offset`, unless it was truncated meanwhile.
    pub(crate) fn finish_clean(&self, view: &CleaningView, offset: i64) -> Result<(), CleanError> {
        let _state = self.open_state().map_err(|_| CleanError::Disturbed)?;
        self.check_undisturbed(view)?;
        self.set_cleaned_to(offset);
        Ok(())
    }
}
