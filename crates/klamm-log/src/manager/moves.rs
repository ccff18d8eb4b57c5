//! Logs that move from one directory to another: their copies there, called future logs.
//!
//! ```text
//! create_future -> Log::copy_from, again and again -> replace_with_future
//! ```
//!
//! A copy lies in `topic-N.<id>-future` and is found again at the next start.

use std::sync::{Arc, PoisonError};

use klamm_records::{TopicPartition, Uuid};

use crate::config::LogConfig;
use crate::error::LogError;
use crate::log::{Log, MoveError, MoveSide};
use crate::manager::{LogManager, Logs, ManagerError, Placed};
use crate::names;
use crate::storage::lock;

impl LogManager {
    /// Replicas that are moving to another directory of this broker, as they are there.
    pub fn future_logs(&self) -> Vec<Arc<Log>> {
        let logs = self.futures.read().unwrap_or_else(PoisonError::into_inner);
        logs.values().map(|placed| placed.log.clone()).collect()
    }

    /// The copy of a log that is moving.
    pub fn future(&self, partition: &TopicPartition) -> Option<Arc<Log>> {
        Some(self.placed_of(&self.futures, partition)?.log)
    }

    /// The directory that a log is moving to.
    pub fn future_directory_of(&self, partition: &TopicPartition) -> Option<Uuid> {
        let placed = self.placed_of(&self.futures, partition)?;
        Some(self.directories[placed.directory].id())
    }

    fn placed_of(&self, logs: &Logs, partition: &TopicPartition) -> Option<Placed> {
        let logs = logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.get(partition).cloned()
    }

    /// The empty copy of a log in another directory, which its move begins with; the copy that is
    /// there already if it is in that directory.
    ///
    /// # Errors
    /// [`ManagerError::NoSuchLog`], [`ManagerError::NoSuchDirectory`], [`ManagerError::NotMovable`]
    /// if the log is in that directory or moves to a third one, or the disk's.
    pub fn create_future(
        &self,
        partition: &TopicPartition,
        config: LogConfig,
        directory: Uuid,
    ) -> Result<Arc<Log>, ManagerError> {
        let _alone = lock(&self.placing);
        let index = self
            .index_of(directory)
            .ok_or(ManagerError::NoSuchDirectory(directory))?;
        let current = self
            .placed_of(&self.logs, partition)
            .ok_or_else(|| ManagerError::NoSuchLog(partition.clone()))?;
        match self.placed_of(&self.futures, partition) {
            Some(future) if future.directory == index => return Ok(future.log),
            Some(_) => return Err(ManagerError::NotMovable(partition.clone())),
            None if current.directory == index => {
                return Err(ManagerError::NotMovable(partition.clone()));
            }
            None => {}
        }
        let name = names::future_dir_name(partition, self.unique());
        let topic_id = current.log.topic_id();
        let target = &self.directories[index];
        let log = self.open_new(target, &name, partition, topic_id, config)?;
        log.expect_gaps_of(&current.log);
        let placed = Placed {
            log: log.clone(),
            directory: index,
        };
        target.count_log(1);
        let mut futures = self.futures.write().unwrap_or_else(PoisonError::into_inner);
        futures.insert(partition.clone(), placed);
        drop(futures);
        target.note_arrival();
        self.agenda.add(&log);
        current.log.set_moving(true);
        Ok(log)
    }

    /// Ends the move of a log and deletes its copy. Returns whether there was one.
    ///
    /// # Errors
    /// The disk's.
    pub fn delete_future(&self, partition: &TopicPartition) -> Result<bool, ManagerError> {
        let _alone = lock(&self.placing);
        let discarded = self.discard(self.take(&self.futures, partition), partition);
        self.set_settled(partition);
        Ok(discarded?)
    }

    /// Notes that a log does not move any more.
    pub(super) fn set_settled(&self, partition: &TopicPartition) {
        if let Some(log) = self.get(partition) {
            log.set_moving(false);
        }
    }

    /// Puts the copy of a log in its place, if it holds the same; the log goes on with the copy's
    /// files, and those it had are removed after `file_delete_delay_ms`. Returns whether that was
    /// done.
    ///
    /// # Errors
    /// [`ManagerError::NoSuchLog`] or the disks'; the log is where it was then.
    pub fn replace_with_future(&self, partition: &TopicPartition) -> Result<bool, ManagerError> {
        let _alone = lock(&self.placing);
        let missing = || ManagerError::NoSuchLog(partition.clone());
        let current = self.placed_of(&self.logs, partition).ok_or_else(missing)?;
        let future = self
            .placed_of(&self.futures, partition)
            .ok_or_else(missing)?;
        future.log.expect_gaps_of(&current.log);
        // The marks must be where the log is looked for after a crash.
        for result in [
            self.checkpoint_recovery_points(future.directory),
            self.checkpoint_high_watermarks(future.directory),
            self.checkpoint_cleaned(future.directory),
        ] {
            self.noting_failure(
                &current,
                &future,
                result.map_err(|error| MoveError {
                    side: MoveSide::Target,
                    error,
                }),
            )?;
        }
        let doomed = names::delete_dir_name(partition, self.unique());
        let replaced = future.log.take_place_of(&current.log, &doomed);
        if !self.noting_failure(&current, &future, replaced)? {
            return Ok(false);
        }
        self.take(&self.futures, partition);
        self.directories[current.directory].count_log(-1);
        self.directories[current.directory].note_departure();
        self.directories[future.directory].count_log(1);
        let placed = Placed {
            directory: future.directory,
            ..current
        };
        self.directories[future.directory]
            .flusher()
            .attach(&placed.log);
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        logs.insert(partition.clone(), placed.clone());
        drop(logs);
        self.directories[future.directory].note_arrival();
        placed.log.duty().note_use();
        placed.log.duty().note_watermark();
        self.set_settled(partition);
        future.log.abandon();
        self.remove_later(&future.log);
        Ok(true)
    }

    /// Takes the directory offline whose disk failed in a move.
    fn noting_failure<T>(
        &self,
        current: &Placed,
        future: &Placed,
        result: Result<T, MoveError>,
    ) -> Result<T, ManagerError> {
        if let Err(failed) = &result {
            let placed = match failed.side {
                MoveSide::Source => current,
                MoveSide::Target => future,
            };
            if failed.error.is_disk_failure() || placed.log.is_offline() {
                self.fail_directory_held(placed.directory);
            }
        }
        Ok(result?)
    }

    /// Makes the copy of a log that is not there any more the log itself. For a move which a crash
    /// interrupted between its two renames, or whose source was lost after the cluster was told
    /// that the log is in the other directory. None if there is a log, or no copy.
    ///
    /// # Errors
    /// The disk's.
    pub fn promote_future(
        &self,
        partition: &TopicPartition,
    ) -> Result<Option<Arc<Log>>, ManagerError> {
        let _alone = lock(&self.placing);
        let _nobody_creates = lock(&self.creating);
        if self.get(partition).is_some() {
            return Ok(None);
        }
        let Some(placed) = self.take(&self.futures, partition) else {
            return Ok(None);
        };
        let renamed: Result<(), LogError> = placed.log.rename_dir(&partition.to_string());
        if let Err(error) = renamed {
            self.fail_directory_held(placed.directory);
            return Err(error.into());
        }
        self.directories[placed.directory].count_log(1);
        let log = placed.log.clone();
        let directory = &self.directories[placed.directory];
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        logs.insert(partition.clone(), placed);
        drop(logs);
        directory.note_arrival();
        // A round in between did not find it.
        log.duty().note_use();
        log.duty().note_watermark();
        Ok(Some(log))
    }
}

#[cfg(test)]
mod tests;
