//! All logs of a broker, over one or more log directories.
//!
//! - [`directory`]: one log directory: its lock, identity, marker and checkpoints.
//! - [`open`]: opening directories and the logs in them.
//! - [`upkeep`]: what is due now and then, and the shutdown.
//!
//! A directory whose disk fails goes offline with its logs; the others go on.

mod directory;
mod error;
mod open;
mod upkeep;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use klamm_env::Env;
use klamm_records::{TopicPartition, Uuid};

use crate::config::LogConfig;
use crate::error::{IoContext, LogError};
use crate::log::{Log, LogOpen};
use crate::names;
use crate::storage::lock;

use directory::Directory;
pub use directory::DirectoryInfo;
pub use error::ManagerError;

/// How to open the log directories of a broker.
#[derive(Clone, Debug)]
pub struct LogManagerConfig {
    /// The log directories (`log.dirs`); created if missing.
    pub dirs: Vec<PathBuf>,
    /// The cluster that directories must belong to; new ones are given to it.
    pub cluster_id: String,
    /// The node that directories must belong to; new ones are given to it.
    pub node_id: i32,
    /// Threads that open the logs of one directory. With one, the caller's does it.
    pub open_threads: usize,
    /// Time between rounds of retention (`log.retention.check.interval.ms`).
    pub retention_interval_ms: i64,
    /// Time between checkpoints of recovery points and start offsets
    /// (`log.flush.offset.checkpoint.interval.ms`).
    pub checkpoint_interval_ms: i64,
    /// Time between checkpoints of high watermarks
    /// (`replica.high.watermark.checkpoint.interval.ms`).
    pub high_watermark_interval_ms: i64,
}

impl LogManagerConfig {
    /// Directories of a node, with Kafka's default intervals.
    pub fn new(dirs: Vec<PathBuf>, cluster_id: impl Into<String>, node_id: i32) -> Self {
        LogManagerConfig {
            dirs,
            cluster_id: cluster_id.into(),
            node_id,
            open_threads: 2,
            retention_interval_ms: 300_000,
            checkpoint_interval_ms: 60_000,
            high_watermark_interval_ms: 5_000,
        }
    }
}

/// All logs of a broker. See the module's description.
#[derive(Debug)]
pub struct LogManager {
    config: LogManagerConfig,
    env: Env,
    directories: Vec<Directory>,
    logs: RwLock<BTreeMap<TopicPartition, Placed>>,
    /// Logs that are being created, with the index of their directory.
    creating: Mutex<BTreeMap<TopicPartition, usize>>,
    created: Condvar,
    /// Replicas that are moving here from another directory.
    futures: RwLock<BTreeMap<TopicPartition, Placed>>,
    upkeep: Mutex<Upkeep>,
    previous_broker_epoch: Option<i64>,
    ignored: Vec<PathBuf>,
}

/// A log and the index of its directory.
#[derive(Clone, Debug)]
struct Placed {
    log: Arc<Log>,
    directory: usize,
}

#[derive(Debug, Default)]
struct Upkeep {
    last_retention_ms: i64,
    last_checkpoint_ms: i64,
    last_high_watermark_ms: i64,
    /// Directories of deleted partitions, with the time at which their removal is due.
    removals: Vec<(i64, PathBuf)>,
}

impl LogManager {
    /// The log of a partition.
    pub fn get(&self, partition: &TopicPartition) -> Option<Arc<Log>> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.get(partition).map(|placed| placed.log.clone())
    }

    /// All logs, by partition.
    pub fn logs(&self) -> Vec<Arc<Log>> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        logs.values().map(|placed| placed.log.clone()).collect()
    }

    /// Replicas that are moving to another directory of this broker, as they are there.
    pub fn future_logs(&self) -> Vec<Arc<Log>> {
        let logs = self.futures.read().unwrap_or_else(PoisonError::into_inner);
        logs.values().map(|placed| placed.log.clone()).collect()
    }

    /// The directory that a partition's log lies in.
    pub fn directory_of(&self, partition: &TopicPartition) -> Option<Uuid> {
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        let placed = logs.get(partition)?;
        Some(self.directories[placed.directory].id())
    }

    /// The log directories, in the order of the configuration, with those that are offline.
    pub fn directories(&self) -> Vec<DirectoryInfo> {
        self.directories
            .iter()
            .map(|directory| directory.info(&*self.env.fs))
            .collect()
    }

    /// The epoch this broker had when it was last shut down in order; none after an unclean
    /// shutdown of any directory.
    pub fn previous_broker_epoch(&self) -> Option<i64> {
        self.previous_broker_epoch
    }

    /// Directories below the log directories that are no partition's, and were left alone.
    pub fn ignored_dirs(&self) -> &[PathBuf] {
        &self.ignored
    }

    /// The log of a partition, created if there is none, in `directory` or else in the one with
    /// the fewest logs.
    ///
    /// # Errors
    /// [`ManagerError::NoSuchDirectory`], [`ManagerError::AllOffline`], or the log's, above all
    /// [`LogError::InconsistentTopicId`] if there is one of another topic of the same name.
    pub fn create(
        &self,
        partition: &TopicPartition,
        topic_id: Option<Uuid>,
        config: LogConfig,
        directory: Option<Uuid>,
    ) -> Result<Arc<Log>, ManagerError> {
        let mut creating = lock(&self.creating);
        while creating.contains_key(partition) {
            creating = self
                .created
                .wait(creating)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(log) = self.get(partition) {
            drop(creating);
            if let Some(id) = topic_id {
                log.assign_topic_id(id)?;
            }
            return Ok(log);
        }
        let index = match directory {
            Some(id) => self
                .directories
                .iter()
                .position(|directory| directory.id() == id && directory.is_online())
                .ok_or(ManagerError::NoSuchDirectory(id))?,
            None => self.emptiest(&creating).ok_or(ManagerError::AllOffline)?,
        };
        creating.insert(partition.clone(), index);
        drop(creating);
        // Others are created meanwhile: this waits for the disk.
        let log = self.create_in(partition, topic_id, config, index);
        lock(&self.creating).remove(partition);
        self.created.notify_all();
        log
    }

    fn create_in(
        &self,
        partition: &TopicPartition,
        topic_id: Option<Uuid>,
        config: LogConfig,
        index: usize,
    ) -> Result<Arc<Log>, ManagerError> {
        let directory = &self.directories[index];
        // A checkpoint may still speak of an earlier partition of this name.
        directory.forget(&*self.env.fs, partition)?;
        let log = Log::open(LogOpen {
            dir: directory.path().join(partition.to_string()),
            topic_partition: partition.clone(),
            topic_id,
            config,
            env: self.env.clone(),
            recovery_point: 0,
            log_start_offset: 0,
            high_watermark: 0,
            clean: false,
            standalone: false,
        })?;
        let log = Arc::new(log);
        let placed = Placed {
            log: log.clone(),
            directory: index,
        };
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        logs.insert(partition.clone(), placed);
        Ok(log)
    }

    fn emptiest(&self, creating: &BTreeMap<TopicPartition, usize>) -> Option<usize> {
        let mut counts = vec![0_usize; self.directories.len()];
        for &directory in creating.values() {
            counts[directory] += 1;
        }
        let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
        for placed in logs.values() {
            counts[placed.directory] += 1;
        }
        drop(logs);
        (0..counts.len())
            .filter(|&index| self.directories[index].is_online())
            .min_by_key(|&index| counts[index])
    }

    /// Deletes a partition's log: it is gone at once, its directory renamed, its files removed by
    /// a [`tick`](LogManager::tick) after `file_delete_delay_ms`. Returns whether there was one.
    ///
    /// # Errors
    /// The disk's.
    pub fn delete(&self, partition: &TopicPartition) -> Result<bool, ManagerError> {
        let Some(placed) = self.take(partition) else {
            return Ok(false);
        };
        let delay_ms = placed.log.config().file_delete_delay_ms;
        let name = names::delete_dir_name(partition, self.unique());
        placed.log.abandon();
        placed.log.rename_dir(&name)?;
        let due_ms = self.env.clock.wall_ms().saturating_add(delay_ms);
        lock(&self.upkeep).removals.push((due_ms, placed.log.dir()));
        Ok(true)
    }

    /// Takes a log that the cluster's metadata does not know out of service, and renames its
    /// directory so that nothing is lost. Returns whether there was one.
    ///
    /// # Errors
    /// The disk's.
    pub fn set_stray(&self, partition: &TopicPartition) -> Result<bool, ManagerError> {
        let Some(placed) = self.take(partition) else {
            return Ok(false);
        };
        let name = names::stray_dir_name(partition, self.unique());
        placed.log.close()?;
        placed.log.rename_dir(&name)?;
        Ok(true)
    }

    fn take(&self, partition: &TopicPartition) -> Option<Placed> {
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        logs.remove(partition)
    }

    fn unique(&self) -> Uuid {
        new_id(&self.env)
    }

    /// Takes a directory and its logs out of service, as when its disk fails.
    pub fn set_directory_offline(&self, id: Uuid) {
        for (index, directory) in self.directories.iter().enumerate() {
            if directory.id() == id {
                self.fail_directory(index);
            }
        }
    }

    fn fail_directory(&self, index: usize) {
        self.directories[index].set_offline();
        for logs in [&self.logs, &self.futures] {
            let logs = logs.read().unwrap_or_else(PoisonError::into_inner);
            for placed in logs.values().filter(|placed| placed.directory == index) {
                placed.log.set_offline();
            }
        }
    }

    fn remove_dir(&self, path: &std::path::Path) -> Result<(), LogError> {
        match self.env.fs.remove_dir_all(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.at("remove", path),
        }
    }
}

/// A fresh random id.
fn new_id(env: &Env) -> Uuid {
    loop {
        if let Some(id) = Uuid::from_random(env.rng.next_16_bytes()) {
            return id;
        }
    }
}

#[cfg(test)]
mod tests;
