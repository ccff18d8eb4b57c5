use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use klamm_records::Uuid;

use crate::checkpoints::PartitionOffsets;
use crate::clean_shutdown;
use crate::error::{IoContext, LogError};
use crate::flusher::Flusher;
use crate::manager::directory::Directory;
use crate::manager::{LogManager, ManagerError, Placed};
use crate::storage::lock;

impl LogManager {
    /// Work that is due now and then; call it about every second, on a thread that may block:
    /// flushes, retention, removal of deleted files, checkpoints, giving back idle descriptors.
    /// Returns the directories that went offline since the last call.
    pub fn tick(&self, now_ms: i64) -> Vec<Uuid> {
        let (retention, checkpoint, high_watermark, removals) = {
            let mut upkeep = lock(&self.upkeep);
            let due = |last: &mut i64, interval_ms| {
                let due = now_ms.saturating_sub(*last) >= interval_ms;
                if due {
                    *last = now_ms;
                }
                due
            };
            let retention = due(
                &mut upkeep.last_retention_ms,
                self.config.retention_interval_ms,
            );
            let checkpoint = due(
                &mut upkeep.last_checkpoint_ms,
                self.config.checkpoint_interval_ms,
            );
            let high_watermark = due(
                &mut upkeep.last_high_watermark_ms,
                self.config.high_watermark_interval_ms,
            );
            let (due, later) = std::mem::take(&mut upkeep.removals)
                .into_iter()
                .partition(|(due_ms, _)| *due_ms <= now_ms);
            upkeep.removals = later;
            let due: Vec<_> = due;
            (retention, checkpoint, high_watermark, due)
        };
        let online: Vec<bool> = self.directories.iter().map(|d| d.is_online()).collect();
        for index in 0..self.directories.len() {
            self.fail_on_disk_error(index, self.sync_new_dirs(index));
        }
        let mut noted = vec![!checkpoint; self.directories.len()];
        for placed in self.placed() {
            if placed.log.is_offline() {
                self.fail_directory(placed.directory);
                continue;
            }
            let mut result = placed.log.tick(now_ms);
            if placed.log.take_checkpoint_due() {
                noted[placed.directory] = false;
            }
            let cleaned = self.is_being_cleaned(placed.log.topic_partition());
            if retention && !cleaned && result.is_ok() {
                let high_watermark = placed.log.high_watermark();
                result = placed.log.apply_retention(now_ms, high_watermark).map(drop);
            }
            self.fail_on_disk_error(placed.directory, result);
        }
        for (_, path) in removals {
            // What cannot be removed now is found again at the next start.
            let _ = self.remove_dir(&path);
        }
        for (index, directory) in self.directories.iter().enumerate() {
            if !directory.is_online() {
                continue;
            }
            // Truncations take back what was compacted.
            let mut result = self.checkpoint_cleaned(index);
            if !noted[index] && result.is_ok() {
                result = self.checkpoint_recovery_points(index);
            }
            if high_watermark && result.is_ok() {
                result = self.checkpoint_high_watermarks(index);
            }
            self.fail_on_disk_error(index, result);
        }
        self.directories
            .iter()
            .zip(online)
            .filter(|(directory, was_online)| *was_online && !directory.is_online())
            .map(|(directory, _)| directory.id())
            .collect()
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
        for (directory, error) in self.close_logs() {
            clean[directory] = false;
            first_error.get_or_insert(error);
        }
        for (index, directory) in self.directories.iter().enumerate() {
            if !directory.is_online() {
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
            if let Err(error) = result {
                first_error.get_or_insert(error);
            }
            directory.unlock();
        }
        first_error.map_or(Ok(()), |error| Err(error.into()))
    }

    /// Closes all logs, several at a time, since each waits for the disk. Returns the failures with
    /// their directories.
    fn close_logs(&self) -> Vec<(usize, LogError)> {
        let mut placed = self.placed();
        placed.retain(|placed| self.directories[placed.directory].is_online());
        let next = AtomicUsize::new(0);
        let failures = Mutex::new(Vec::new());
        let close = || {
            while let Some(placed) = placed.get(next.fetch_add(1, Ordering::Relaxed)) {
                match placed.log.close() {
                    Ok(()) | Err(LogError::Closed { .. }) => {}
                    Err(error) => lock(&failures).push((placed.directory, error)),
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
        failures
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
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

    /// Writes recovery points and start offsets of a directory, as far as they changed.
    pub(super) fn checkpoint_recovery_points(&self, index: usize) -> Result<(), LogError> {
        let mut recovery_points = PartitionOffsets::new();
        let mut log_starts = PartitionOffsets::new();
        for placed in self.placed_in(index) {
            let partition = placed.log.topic_partition();
            recovery_points.insert(partition.clone(), placed.log.recovery_checkpoint());
            let start = placed.log.log_start_offset();
            // Otherwise the segments tell.
            if placed
                .log
                .segment_base_offsets()
                .first()
                .is_some_and(|&first| start > first)
            {
                log_starts.insert(partition.clone(), start);
            }
        }
        self.directories[index].write_recovery_points(&*self.env.fs, recovery_points, log_starts)
    }

    pub(super) fn checkpoint_high_watermarks(&self, index: usize) -> Result<(), LogError> {
        let high_watermarks = self
            .placed_in(index)
            .into_iter()
            .map(|placed| {
                let partition = placed.log.topic_partition().clone();
                (partition, placed.log.high_watermark())
            })
            .collect();
        self.directories[index].write_high_watermarks(&*self.env.fs, high_watermarks)
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
