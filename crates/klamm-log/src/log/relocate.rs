//! Moving a log to another log directory while it is open (KIP-113).
//!
//! A second log, the *future* one, is made in the other directory. It copies the current one step
//! by step ([`Log::copy_from`]) while that takes appends, and once it holds the same it takes its
//! place ([`Log::take_place_of`]): under the locks of both, their directories are renamed and
//! their files exchanged. The current log stays the same value, so that whoever holds it, waits
//! for it or listens to it does not notice; the future one is left with the old files.

use std::sync::atomic::Ordering;

use klamm_env::FileExt;

use crate::AppendInfo;
use crate::error::{IoContext, LogError};
use crate::log::upkeep::rebase;
use crate::log::{Log, State};
use crate::storage::lock;

/// What one step of a copy did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyStep {
    /// Bytes copied.
    pub bytes: u64,
    /// Offsets that are still to be copied.
    pub lag: i64,
}

/// Which of the two logs of a move failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveSide {
    /// The one that is copied.
    Source,
    /// The copy.
    Target,
}

/// Why a move cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", match side { MoveSide::Source => "the log that moves", MoveSide::Target => "its copy" })]
pub struct MoveError {
    /// Whose failure it is.
    pub side: MoveSide,
    /// What happened.
    pub error: LogError,
}

trait Side<T> {
    fn of_source(self) -> Result<T, MoveError>;
    fn of_target(self) -> Result<T, MoveError>;
}

impl<T> Side<T> for Result<T, LogError> {
    fn of_source(self) -> Result<T, MoveError> {
        self.map_err(|error| MoveError {
            side: MoveSide::Source,
            error,
        })
    }

    fn of_target(self) -> Result<T, MoveError> {
        self.map_err(|error| MoveError {
            side: MoveSide::Target,
            error,
        })
    }
}

impl Log {
    /// Begins or ends a move. From the return of this on no clean changes the log until it ends.
    pub(crate) fn set_moving(&self, moving: bool) {
        let _state = lock(&self.state);
        self.moving.store(moving, Ordering::SeqCst);
    }

    /// Takes over that `source` may have gaps, so that those of this copy are no damage.
    pub(crate) fn expect_gaps_of(&self, source: &Log) {
        if let Some(offset) = source.cleaned_to() {
            self.set_cleaned_to(offset);
        }
    }

    /// Copies the next batches of `source`, about `bytes_max` bytes and at least one batch, as they
    /// are there. What `source` has cut off at either end is cut off here, too. `buffer` is scratch
    /// space.
    ///
    /// # Errors
    /// The disks'. Damaged batches of the source are not copied.
    pub fn copy_from(
        &self,
        source: &Log,
        bytes_max: usize,
        buffer: &mut Vec<u8>,
        now_ms: i64,
    ) -> Result<CopyStep, MoveError> {
        let before = source.truncations.load(Ordering::SeqCst);
        let lag = || (source.log_end_offset() - self.log_end_offset()).max(0);
        self.cut_off_what_differs(source).of_target()?;
        let start = source.log_start_offset();
        if self.log_end_offset() < start {
            self.truncate_fully_and_start_at(start, None).of_target()?;
        }
        let bytes_max = bytes_max.min(self.config().segment_bytes as usize);
        let read = match source.read(self.log_end_offset(), bytes_max, i64::MAX, true) {
            // Retention or a truncation was faster; the next step sees what is left.
            Err(LogError::OffsetOutOfRange { .. }) => {
                return Ok(CopyStep {
                    bytes: 0,
                    lag: lag().max(1),
                });
            }
            read => read.of_source()?,
        };
        buffer.resize(read.len, 0);
        let mut filled = 0;
        for part in &read.parts {
            let slice = &mut buffer[filled..filled + part.len];
            let done = part.file.read_exact_at(slice, part.position);
            if source.truncations.load(Ordering::SeqCst) != before {
                return Ok(CopyStep {
                    bytes: 0,
                    lag: lag().max(1),
                });
            }
            done.at("read", &source.dir()).of_source()?;
            filled += part.len;
        }
        let bytes = self.append_copy(buffer, start, now_ms)?;
        self.set_high_watermark(source.high_watermark());
        self.follow_start(source.log_start_offset()).of_target()?;
        Ok(CopyStep { bytes, lag: lag() })
    }

    fn append_copy(&self, bytes: &[u8], start: i64, now_ms: i64) -> Result<u64, MoveError> {
        let appended = match self.append_fetched(bytes, i32::MAX, now_ms) {
            // The source begins within a batch, from which an empty copy has to begin, too.
            Err(LogError::UnexpectedAppendOffset { first, .. })
                if self.log_end_offset() == self.log_start_offset() =>
            {
                self.truncate_fully_and_start_at(first, Some(start))
                    .of_target()?;
                self.append_fetched(bytes, i32::MAX, now_ms)
            }
            appended => appended,
        };
        let mut taken = appended_bytes(appended)?;
        while let Some(rest) = bytes.get(taken as usize..).filter(|rest| !rest.is_empty()) {
            // A segment's worth each time.
            match appended_bytes(self.append_fetched(rest, i32::MAX, now_ms))? {
                0 => break,
                more => taken += more,
            }
        }
        Ok(taken)
    }

    /// Truncates to the point up to which this log and `source` have the same leader epochs, and
    /// so the same batches.
    fn cut_off_what_differs(&self, source: &Log) -> Result<(), LogError> {
        let from = self.log_start_offset().max(source.log_start_offset());
        let end = self.log_end_offset();
        if end < from {
            return Ok(());
        }
        let both = end.min(source.log_end_offset());
        let common = agreement(&self.epochs(), &source.epochs(), from, both);
        if common < end {
            self.truncate_to(common)?;
        }
        Ok(())
    }

    /// Moves the start up to that of the log which this one copies.
    fn follow_start(&self, start: i64) -> Result<(), LogError> {
        if start > self.log_start_offset() && start <= self.log_end_offset() {
            let mut state = self.open_state()?;
            self.raise_start(&mut state, start);
        }
        Ok(())
    }

    /// Puts this log's files in the place of `current`'s, if it holds the same: makes them durable,
    /// renames the directory of `current` to `doomed_name` and this log's to what that was called,
    /// and exchanges the files. `current` goes on with them; this log is left with those that are
    /// to be removed. Returns false, and changes nothing, if the logs differ.
    ///
    /// Appends to `current` wait for as long as this takes: two renames, and syncs of whatever was
    /// copied since this log was last flushed.
    ///
    /// # Errors
    /// The disks'. After a crash within, the files are there as a future log or in `current`'s
    /// place: those of `current` are given up only when this log's are durable.
    pub(crate) fn take_place_of(
        &self,
        current: &Log,
        doomed_name: &str,
    ) -> Result<bool, MoveError> {
        let mut old = current.open_state().of_source()?;
        let mut new = self.open_state().of_target()?;
        let end = current.log_end_offset();
        let start = current.log_start_offset();
        let same = self.log_end_offset() == end
            && self.log_start_offset() == start
            && agreement(&new.epochs.entries(), &old.epochs.entries(), start, end) == end;
        if !same {
            return Ok(false);
        }
        new.producers.take_over(&old.producers, end);
        self.make_durable(&mut new, end).of_target()?;
        let (source, target) = (current.dir.get(), self.dir.get());
        let (place, staged) = (source.path(), target.path());
        let doomed = place.with_file_name(doomed_name);
        let moved = match place.file_name() {
            Some(name) => staged.with_file_name(name),
            None => staged.clone(),
        };
        current.layout.fetch_add(1, Ordering::SeqCst);
        if let Err(error) = rename_durably(current, &place, &doomed) {
            current.take_back(&doomed, &place);
            return Err(error).of_source();
        }
        if let Err(error) = rename_durably(self, &staged, &moved) {
            self.take_back(&moved, &staged);
            current.take_back(&doomed, &place);
            return Err(error).of_target();
        }
        source.set_path(&doomed);
        target.set_path(&moved);
        old.exchange_files(&mut new, &moved);
        current.exchange_segments(self);
        let former = current.dir.replace(target);
        self.dir.replace(former);
        let recovery_point = self.recovery_point.load(Ordering::SeqCst);
        current
            .recovery_point
            .store(recovery_point, Ordering::SeqCst);
        current.durable.store(end, Ordering::SeqCst);
        current.publish_transactions(&old);
        for log in [current, self] {
            log.truncations.fetch_add(1, Ordering::SeqCst);
        }
        drop((old, new));
        current.durable_watch.notify(end);
        Ok(true)
    }

    /// Undoes a renaming, which may not have happened. If not even that can be had the directory is
    /// lost for now; the next start finds it by either name.
    fn take_back(&self, from: &std::path::Path, to: &std::path::Path) {
        match rename_durably(self, from, to) {
            Err(LogError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => self.set_offline(),
            Ok(()) => {}
        }
    }

    fn exchange_segments(&self, other: &Log) {
        self.edit_segments(|mine| {
            other.edit_segments(|theirs| std::mem::swap(mine, theirs));
            for log in [self, other] {
                log.layout.fetch_add(1, Ordering::SeqCst);
                log.truncations.fetch_add(1, Ordering::SeqCst);
            }
        });
    }

    /// Makes all files durable, with the log's lock held.
    fn make_durable(&self, state: &mut State, end: i64) -> Result<(), LogError> {
        let from = self.recovery_point();
        let result = || -> Result<(), LogError> {
            state.identity.settle(&self.dir.get())?;
            state.epochs.write_if_dirty()?;
            state.producers.take_snapshot()?;
            for segment in self.all_segments() {
                let next = self.segment_after(segment.base_offset);
                if next.is_none_or(|next| next.base_offset > from) {
                    segment.sync()?;
                    state.sync_snapshot(segment.base_offset, &*self.dir.fs)?;
                }
            }
            state.sync_snapshot(end, &*self.dir.fs)?;
            self.dir.sync()?;
            state.identity.set_settled();
            Ok(())
        }();
        if result.is_err() {
            self.set_offline();
            return result;
        }
        self.durable.store(end, Ordering::SeqCst);
        self.recovery_point.store(end, Ordering::SeqCst);
        Ok(())
    }
}

impl State {
    /// Exchanges what belongs to files with `other`, whose log holds the same in the directory
    /// `dir`.
    fn exchange_files(&mut self, other: &mut State, dir: &std::path::Path) {
        std::mem::swap(&mut self.active, &mut other.active);
        std::mem::swap(&mut self.removals, &mut other.removals);
        rebase(&mut self.removals, dir);
        // They go with their directory.
        other.removals.clear();
        std::mem::swap(&mut self.producers, &mut other.producers);
        self.epochs.move_to(dir);
    }
}

fn rename_durably(log: &Log, from: &std::path::Path, to: &std::path::Path) -> Result<(), LogError> {
    log.dir.fs.rename(from, to).at("rename", from)?;
    match to.parent() {
        Some(parent) => log.dir.fs.sync_dir(parent).at("sync", parent),
        None => Ok(()),
    }
}

/// How many bytes of a copy were appended, or whose failure it was that there are none.
fn appended_bytes(appended: Result<AppendInfo, LogError>) -> Result<u64, MoveError> {
    match appended {
        Ok(info) => Ok(info.bytes),
        Err(error @ (LogError::InvalidBatch { .. } | LogError::OffsetsOutOfOrder { .. })) => {
            Err(error).of_source()
        }
        Err(error) => Err(error).of_target(),
    }
}

/// The offset up to which two logs with these leader epochs (epoch and start offset, ascending)
/// agree, looking at `from..end` only.
fn agreement(mine: &[(i32, i64)], theirs: &[(i32, i64)], from: i64, end: i64) -> i64 {
    let epoch_of = |epochs: &[(i32, i64)], offset| {
        let after = epochs.partition_point(|&(_, start)| start <= offset);
        after.checked_sub(1).map(|index| epochs[index].0)
    };
    let starts = mine.iter().chain(theirs).map(|&(_, start)| start);
    let mut boundaries: Vec<i64> = starts
        .filter(|&start| start > from)
        .chain([from])
        .filter(|&start| start < end)
        .collect();
    boundaries.sort_unstable();
    boundaries
        .into_iter()
        .find(|&offset| epoch_of(mine, offset) != epoch_of(theirs, offset))
        .unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_agree_while_their_epochs_do() {
        let mine = [(1, 0), (3, 10), (5, 20)];
        assert_eq!(agreement(&mine, &mine, 0, 30), 30);
        assert_eq!(agreement(&mine, &mine[..2], 0, 30), 20);
        assert_eq!(agreement(&mine[..2], &mine, 0, 30), 20);
        assert_eq!(agreement(&mine, &[(1, 0), (4, 10), (5, 20)], 0, 30), 10);
        assert_eq!(agreement(&mine, &[(2, 0)], 0, 30), 0);
        // Epochs that ended before the first offset that both hold do not count, nor does one
        // that has no records.
        assert_eq!(agreement(&mine, &[(3, 12), (5, 20)], 12, 30), 30);
        assert_eq!(agreement(&mine, &[(1, 0), (3, 10)], 0, 20), 20);
        // Messages of before epochs have none.
        assert_eq!(agreement(&[], &[], 0, 7), 7);
        assert_eq!(agreement(&[], &[(0, 3)], 0, 7), 3);
    }
}
