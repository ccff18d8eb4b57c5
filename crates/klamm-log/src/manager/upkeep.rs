use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use klamm_records::Uuid;

use crate::checkpoints::PartitionOffsets;
use crate::clean_shutdown;
use crate::error::{IoContext, LogError};
use crate::flusher::Flusher;
use crate::log::{KnownLog, Log};
use crate::manager::directory::{Change, Checkpoint, Directory};
use crate::manager::manifest::{self, Manifest};
use crate::manager::{LogManager, ManagerError, Placed, Upkeep};
use crate::storage::lock;

/// What a round of upkeep has to do beside looking after the logs that are due.
struct Due {
    retention: bool,
    checkpoint: bool,
    high_watermarks: bool,
    /// Directories to remove.
    removals: Vec<PathBuf>,
}

/// What became of a log that was closed: its entry in the manifest, if it has one.
type Closed = Result<(String, KnownLog), LogError>;

/// What turned out to be due for the checkpoints of one directory.
#[derive(Clone, Copy, Debug)]
struct Turn {
    points: bool,
    cleaned: bool,
}

impl Upkeep {
    /// Where the wall clock was set back since the last round, nothing has to wait for longer than
    /// it would have without.
    fn follow_clock(&mut self, now_ms: i64) {
        let back_ms = self.last_round_ms.saturating_sub(now_ms);
        self.last_round_ms = now_ms;
        if back_ms <= 0 {
            return;
        }
        let rounds = [
            &mut self.last_retention_ms,
            &mut self.last_checkpoint_ms,
            &mut self.last_high_watermark_ms,
        ];
        let removals = self.removals.iter_mut().map(|(due_ms, _)| due_ms);
        for at_ms in rounds.into_iter().chain(removals) {
            *at_ms = at_ms.saturating_sub(back_ms);
        }
    }
}

impl LogManager {
    /// Work that is due now and then; call it about every second, on a thread that may block:
    /// flushes, retention, removal of deleted files, checkpoints, giving back idle descriptors.
    /// Logs that are idle and have nothing due cost nothing.
    /// Returns the directories that went offline since the last call.
    pub fn tick(&self, now_ms: i64) -> Vec<Uuid> {
        let due = self.take_due(now_ms);
        let online: Vec<bool> = self.directories.iter().map(|d| d.is_online()).collect();
        for (index, directory) in self.directories.iter().enumerate() {
            if directory.take_arrivals() {
                let synced = self.sync_new_dirs(index);
                if synced.is_err() {
                    directory.note_arrival();
                }
                self.fail_on_disk_error(index, synced);
            }
        }
        let turn = Turn {
            points: due.checkpoint,
            cleaned: false,
        };
        let mut turns = vec![turn; self.directories.len()];
        for log in self.agenda.take_due(now_ms) {
            if let Some(index) = self.directory_index_of(&log) {
                self.look_after(&log, index, now_ms, &mut turns[index]);
            }
        }
        if due.retention {
            self.retain(now_ms);
        }
        self.files.make_headroom();
        if self.files.take_failed() {
            for placed in self.placed() {
                if placed.log.is_offline() {
                    self.fail_directory(placed.directory);
                }
            }
        }
        for path in due.removals {
            // What cannot be removed now is found again at the next start.
            let _ = self.remove_dir(&path);
        }
        self.write_checkpoints(&turns, due.high_watermarks);
        self.directories
            .iter()
            .zip(online)
            .filter(|(directory, was_online)| *was_online && !directory.is_online())
            .map(|(directory, _)| directory.id())
            .collect()
    }

    fn take_due(&self, now_ms: i64) -> Due {
        let mut upkeep = lock(&self.upkeep);
        upkeep.follow_clock(now_ms);
        let due = |last: &mut i64, interval_ms| {
            let due = now_ms.saturating_sub(*last) >= interval_ms;
            if due {
                *last = now_ms;
            }
            due
        };
        let config = &self.config;
        let retention = due(&mut upkeep.last_retention_ms, config.retention_interval_ms);
        let checkpoint = due(
            &mut upkeep.last_checkpoint_ms,
            config.checkpoint_interval_ms,
        );
        let high_watermarks = due(
            &mut upkeep.last_high_watermark_ms,
            config.high_watermark_interval_ms,
        );
        let (removals, later): (Vec<_>, Vec<_>) = std::mem::take(&mut upkeep.removals)
            .into_iter()
            .partition(|(due_ms, _)| *due_ms <= now_ms);
        upkeep.removals = later;
        Due {
            retention,
            checkpoint,
            high_watermarks,
            removals: removals.into_iter().map(|(_, path)| path).collect(),
        }
    }

    /// The index of the directory that a log lies in; none if it was deleted.
    fn directory_index_of(&self, log: &Arc<Log>) -> Option<usize> {
        [&self.logs, &self.futures].into_iter().find_map(|logs| {
            let logs = logs.read().unwrap_or_else(PoisonError::into_inner);
            let placed = logs.get(log.topic_partition())?;
            Arc::ptr_eq(&placed.log, log).then_some(placed.directory)
        })
    }

    fn look_after(&self, log: &Arc<Log>, index: usize, now_ms: i64, turn: &mut Turn) {
        let directory = &self.directories[index];
        if !directory.is_online() {
            return;
        }
        if log.is_offline() {
            self.fail_directory(index);
            return;
        }
        let looked_after = log.look_after(now_ms);
        turn.points |= log.take_checkpoint_due();
        turn.cleaned |= log.take_cleaned_moved();
        directory.note_points_of(log);
        match &looked_after {
            Ok(next_ms) => log.duty().schedule(*next_ms),
            // Tried again.
            Err(_) => log.duty().note_use(),
        }
        self.fail_on_disk_error(index, looked_after.map(drop));
    }

    fn retain(&self, now_ms: i64) {
        for placed in self.placed() {
            let (log, index) = (&placed.log, placed.directory);
            let due = log.is_retention_due(now_ms) && self.directories[index].is_online();
            if !due || self.is_being_cleaned(log.topic_partition()) {
                continue;
            }
            let removed = log.apply_retention(now_ms, log.high_watermark());
            self.fail_on_disk_error(index, removed.map(drop));
        }
    }

    /// Writes the checkpoints that are due and have changed.
    fn write_checkpoints(&self, turns: &[Turn], high_watermarks: bool) {
        let mut moved: Vec<Vec<Arc<Log>>> = vec![Vec::new(); self.directories.len()];
        if high_watermarks {
            for log in self.agenda.take_watermarks() {
                if let Some(index) = self.directory_index_of(&log) {
                    moved[index].push(log);
                }
            }
        }
        for (index, (turn, moved)) in turns.iter().zip(moved).enumerate() {
            let directory = &self.directories[index];
            if !directory.is_online() {
                continue;
            }
            let mut result = Ok(());
            if turn.cleaned || directory.has_departures(Checkpoint::Cleaned) {
                result = self.checkpoint_cleaned(index);
                if result.is_err() {
                    directory.recall_departures(Checkpoint::Cleaned);
                }
            }
            if turn.points && result.is_ok() {
                result = self.note_recovery_points(index);
            }
            if high_watermarks && result.is_ok() {
                result = self.note_high_watermarks(index, &moved);
            }
            if result.is_err() {
                moved.iter().for_each(|log| log.duty().note_watermark());
            }
            self.fail_on_disk_error(index, result);
        }
    }

    /// Writes the recovery points and starts that have changed.
    fn note_recovery_points(&self, index: usize) -> Result<(), LogError> {
        let directory = &self.directories[index];
        if directory.has_departures(Checkpoint::Points) {
            return self.checkpoint_recovery_points(index);
        }
        let unnoted = directory.take_unnoted();
        let here: Vec<&Arc<Log>> = unnoted
            .values()
            .filter(|log| self.directory_index_of(log) == Some(index))
            .collect();
        let points = here.iter().map(|log| recovery_point_of(log)).collect();
        let starts = here.iter().map(|log| log_start_of(log)).collect();
        let written = directory.amend_recovery_points(&*self.env.fs, points, starts);
        if written.is_err() {
            here.iter().for_each(|log| directory.note_points_of(log));
        }
        written
    }

    /// Notes on disk what a truncation took back of a log's recovery point; to be called after it,
    /// before anything is appended. A crash would leave a point above what was written since, and
    /// recovery would not look at what is missing there. The log goes offline if it cannot be noted.
    pub fn note_truncation(&self, log: &Arc<Log>) {
        let Some(index) = self.directory_index_of(log) else {
            return;
        };
        self.directories[index].note_points_of(log);
        if self.note_recovery_points(index).is_err() {
            // The next round takes the directory out of service, and tells so.
            log.set_offline();
        }
    }

    /// Writes the high watermarks of these logs, as far as they are not what is written.
    fn note_high_watermarks(&self, index: usize, moved: &[Arc<Log>]) -> Result<(), LogError> {
        let directory = &self.directories[index];
        if directory.has_departures(Checkpoint::HighWatermarks) {
            return self.checkpoint_high_watermarks(index);
        }
        let changes = moved.iter().map(|log| high_watermark_of(log)).collect();
        directory.amend_high_watermarks(&*self.env.fs, changes)
    }

    /// Closes all logs in order and marks their directories as cleanly shut down, with the epoch
    /// this broker is registered with (-1 if none). The manager is of no use afterwards.
    ///
    /// # Errors
    /// The first failure; its directory is recovered at the next start, the others are clean.
    pub fn shutdown(&self, broker_epoch: i64) -> Result<(), ManagerError> {
        for directory in &self.directories {
            directory.flusher().stop();
        }
        let mut first_error = None;
        let mut clean: Vec<bool> = self.directories.iter().map(|d| d.is_online()).collect();
        for (index, clean) in clean.iter_mut().enumerate() {
            if let Err(error) = self.sync_new_dirs(index) {
                *clean = false;
                first_error.get_or_insert(error);
            }
        }
        let mut manifests = vec![Manifest::new(); self.directories.len()];
        for (index, closed) in self.close_logs() {
            match closed {
                Ok((name, known)) => {
                    manifests[index].insert(name, known);
                }
                Err(error) => {
                    clean[index] = false;
                    first_error.get_or_insert(error);
                }
            }
        }
        for (index, directory) in self.directories.iter().enumerate() {
            if !directory.is_online() {
                directory.unlock();
                continue;
            }
            let result = self
                .checkpoint_recovery_points(index)
                .and_then(|()| self.checkpoint_high_watermarks(index))
                .and_then(|()| self.checkpoint_cleaned(index))
                .and_then(|()| {
                    if clean[index] {
                        clean_shutdown::write(&*self.env.fs, directory.path(), broker_epoch)
                    } else {
                        Ok(())
                    }
                });
            match result {
                // Without it the next start takes longer, and that is all.
                Ok(()) if clean[index] => {
                    let _ = manifest::write(&*self.env.fs, directory.path(), &manifests[index]);
                }
                Ok(()) => {}
                Err(error) => {
                    first_error.get_or_insert(error);
                }
            }
            directory.unlock();
        }
        first_error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Closes all logs, several at a time, since each waits for the disk. Returns for each, with its
    /// directory, what is to be known of it at the next start, or the failure.
    fn close_logs(&self) -> Vec<(usize, Closed)> {
        let mut placed = self.placed();
        placed.retain(|placed| self.directories[placed.directory].is_online());
        let next = AtomicUsize::new(0);
        let closed = Mutex::new(Vec::new());
        let close = || {
            while let Some(placed) = placed.get(next.fetch_add(1, Ordering::Relaxed)) {
                let told = match placed.log.close() {
                    Ok(()) => known_of(&placed.log).map(Ok),
                    Err(LogError::Closed { .. }) => None,
                    Err(error) => Some(Err(error)),
                };
                if let Some(told) = told {
                    lock(&closed).push((placed.directory, told));
                }
            }
        };
        let threads = self.config.sync_threads.min(placed.len());
        if threads <= 1 {
            close();
        } else {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(close);
                }
            });
        }
        closed.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one piece of the background work on this thread: for a manager without threads of its
    /// own for that. Returns whether there was any.
    pub fn run_sync(&self) -> bool {
        let mut flushers = self.directories.iter().map(Directory::flusher);
        flushers.any(Flusher::run_one)
    }

    /// Makes the names of the logs that were created in a directory durable, all at once.
    fn sync_new_dirs(&self, index: usize) -> Result<(), LogError> {
        let directory = &self.directories[index];
        let mut new = self.placed();
        new.retain(|placed| placed.directory == index && placed.log.is_new_dir());
        if new.is_empty() || !directory.is_online() {
            return Ok(());
        }
        let path = directory.path();
        self.env.fs.sync_dir(path).at("sync", path)?;
        for placed in new {
            placed.log.set_dir_durable();
        }
        Ok(())
    }

    /// Writes recovery points and start offsets of all logs of a directory, if they changed.
    pub(super) fn checkpoint_recovery_points(&self, index: usize) -> Result<(), LogError> {
        let directory = &self.directories[index];
        directory.forget_departures(Checkpoint::Points);
        let unnoted = directory.take_unnoted();
        let here = self.placed_in(index);
        let points = here.iter().map(|placed| recovery_point_of(&placed.log));
        let starts = here.iter().map(|placed| log_start_of(&placed.log));
        let written =
            directory.write_recovery_points(&*self.env.fs, present(points), present(starts));
        if written.is_err() {
            directory.recall_departures(Checkpoint::Points);
            unnoted
                .values()
                .for_each(|log| directory.note_points_of(log));
        }
        written
    }

    /// Writes the high watermarks of all logs of a directory, if they changed.
    pub(super) fn checkpoint_high_watermarks(&self, index: usize) -> Result<(), LogError> {
        let directory = &self.directories[index];
        directory.forget_departures(Checkpoint::HighWatermarks);
        let here = self.placed_in(index);
        let high_watermarks = here.iter().map(|placed| high_watermark_of(&placed.log));
        let written = directory.write_high_watermarks(&*self.env.fs, present(high_watermarks));
        if written.is_err() {
            directory.recall_departures(Checkpoint::HighWatermarks);
        }
        written
    }

    /// The logs in a directory, those that move there included.
    pub(super) fn placed_in(&self, index: usize) -> Vec<Placed> {
        let mut placed = self.placed();
        placed.retain(|placed| placed.directory == index);
        placed
    }

    pub(super) fn placed(&self) -> Vec<Placed> {
        let mut all = Vec::new();
        for logs in [&self.logs, &self.futures] {
            let logs = logs.read().unwrap_or_else(PoisonError::into_inner);
            all.extend(logs.values().cloned());
        }
        all
    }

    pub(super) fn fail_on_disk_error(&self, index: usize, result: Result<(), LogError>) {
        match result {
            // Deleted in between.
            Ok(()) | Err(LogError::Closed { .. }) => {}
            // One file's content is not the disk's failure: the others go on.
            Err(error) if error.is_storage_failure() && !error.is_damage() => {
                self.fail_directory(index);
            }
            Err(_) => {}
        }
    }
}

/// The entry of the manifest for a log that was just closed.
fn known_of(log: &Log) -> Option<(String, KnownLog)> {
    let name = log.dir().file_name()?.to_str()?.to_owned();
    // What could not be looked at is looked at by the next start.
    let known = log.known().ok().flatten()?;
    Some((name, known))
}

fn recovery_point_of(log: &Log) -> Change {
    (
        log.topic_partition().clone(),
        Some(log.recovery_checkpoint()),
    )
}

fn log_start_of(log: &Log) -> Change {
    let start = log.log_start_offset();
    // Otherwise the segments tell, if all of them are here.
    let first = log.segment_base_offsets().first().copied();
    let above = first.is_some_and(|first| start > first) || log.is_tiered();
    (log.topic_partition().clone(), above.then_some(start))
}

fn high_watermark_of(log: &Log) -> Change {
    (log.topic_partition().clone(), Some(log.high_watermark()))
}

fn present(entries: impl Iterator<Item = Change>) -> PartitionOffsets {
    entries
        .filter_map(|(partition, offset)| Some((partition, offset?)))
        .collect()
}

#[cfg(test)]
mod tests;
