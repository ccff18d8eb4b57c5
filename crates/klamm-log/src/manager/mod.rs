//! All logs of a broker, over one or more log directories.
//!
//! - [`directory`]: one log directory: its lock, identity, marker and checkpoints.
//! - [`open`]: opening directories and the logs in them; [`manifest`]: what spares most of it.
//! - [`cleaning`]: which log is compacted next, and what became of it.
//! - [`placement`]: which directory a new log goes to, and cordoned ones.
//! - [`moves`]: logs that move from one directory to another.
//! - [`upkeep`]: what is due now and then, and the shutdown.
//!
//! A directory whose disk fails goes offline with its logs; the others go on.

mod cleaning;
mod directory;
mod error;
mod manifest;
mod moves;
mod open;
mod placement;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use klamm_env::Env;
use klamm_records::{TopicPartition, Uuid};

use crate::agenda::Agenda;
use crate::config::LogConfig;
use crate::error::{IoContext, LogError};
use crate::files::OpenFiles;
use crate::flusher::SYNC_THREADS;
use crate::log::{Log, LogOpen};
use crate::names;
use crate::storage::lock;

use cleaning::Cleaning;
pub use cleaning::{CleanRound, CleaningStatus};
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
    /// Syncs of logs that may run at once in the background in one directory. With 0 there are no
    /// threads for that, and [`LogManager::run_sync`] does it.
    pub sync_threads: usize,
    /// Files that the logs keep open at the most (`klamm.log.open.files.max`).
    pub open_files_max: usize,
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
            sync_threads: SYNC_THREADS,
            open_files_max: usize::MAX,
        }
    }
}

/// All logs of a broker. See the module's description.
#[derive(Debug)]
pub struct LogManager {
    config: LogManagerConfig,
    env: Env,
    directories: Vec<Directory>,
    files: OpenFiles,
    agenda: Arc<Agenda>,
    logs: Logs,
    /// Logs that are being created.
    creating: Mutex<BTreeSet<TopicPartition>>,
    created: Condvar,
    /// Replicas that are moving here from another directory.
    futures: Logs,
    /// Directories that operators chose for logs which are not there yet.
    preferred: Mutex<BTreeMap<TopicPartition, usize>>,
    /// Held while a log changes its directory, or a directory goes offline.
    placing: Mutex<()>,
    upkeep: Mutex<Upkeep>,
    cleaning: Mutex<Cleaning>,
    previous_broker_epoch: Option<i64>,
    ignored: Vec<PathBuf>,
}

type Logs = RwLock<BTreeMap<TopicPartition, Placed>>;

/// A log and the index of its directory.
#[derive(Clone, Debug)]
struct Placed {
    log: Arc<Log>,
    directory: usize,
}

#[derive(Debug, Default)]
struct Upkeep {
    last_round_ms: i64,
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

    /// The logs in a directory, by partition; true with those that are still moving there.
    pub fn logs_in(&self, directory: Uuid) -> Vec<(Arc<Log>, bool)> {
        let mut found = Vec::new();
        for (logs, is_future) in [(&self.logs, false), (&self.futures, true)] {
            let logs = logs.read().unwrap_or_else(PoisonError::into_inner);
            let here = logs
                .values()
                .filter(|placed| self.directories[placed.directory].id() == directory);
            found.extend(here.map(|placed| (placed.log.clone(), is_future)));
        }
        found
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

    /// How many files the logs have open.
    pub fn open_files(&self) -> usize {
        self.files.count()
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

    /// The log of a partition, created if there is none: in the directory that operators chose
    /// for it, else in `directory`, else in the one with the fewest logs that is not cordoned.
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
        while creating.contains(partition) {
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
        let index = self.place(partition, directory)?;
        self.directories[index].count_log(1);
        creating.insert(partition.clone());
        drop(creating);
        // Others are created meanwhile: this waits for the disk.
        let log = self.create_in(partition, topic_id, config, index);
        if log.is_err() {
            self.directories[index].count_log(-1);
        }
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
        let name = partition.to_string();
        let log = self.open_new(directory, &name, partition, topic_id, config)?;
        let placed = Placed {
            log: log.clone(),
            directory: index,
        };
        let mut logs = self.logs.write().unwrap_or_else(PoisonError::into_inner);
        logs.insert(partition.clone(), placed);
        drop(logs);
        directory.note_arrival();
        self.agenda.add(&log);
        if log.config().compact {
            // What it copies from its leader has gaps, whether it compacts anything itself or not.
            log.expect_compaction();
        }
        lock(&self.preferred).remove(partition);
        Ok(log)
    }

    fn open_new(
        &self,
        directory: &Directory,
        name: &str,
        partition: &TopicPartition,
        topic_id: Option<Uuid>,
        config: LogConfig,
    ) -> Result<Arc<Log>, LogError> {
        // A checkpoint may still speak of an earlier partition of this name.
        directory.forget(&*self.env.fs, partition)?;
        let opening = LogOpen {
            dir: directory.path().join(name),
            topic_partition: partition.clone(),
            topic_id,
            config,
            env: self.env.clone(),
            recovery_point: 0,
            log_start_offset: 0,
            high_watermark: 0,
            clean: false,
            standalone: false,
        };
        let log = Arc::new(Log::open_among(opening, &self.files)?);
        directory.flusher().attach(&log);
        Ok(log)
    }

    /// Deletes a partition's log: it is gone at once, its directory renamed, its files removed by
    /// a [`tick`](LogManager::tick) after `file_delete_delay_ms`. Returns whether there was one.
    ///
    /// # Errors
    /// The disk's.
    pub fn delete(&self, partition: &TopicPartition) -> Result<bool, ManagerError> {
        let _alone = lock(&self.placing);
        lock(&self.preferred).remove(partition);
        let copy = self.discard(self.take(&self.futures, partition), partition);
        let deleted = self.discard(self.take(&self.logs, partition), partition)?;
        copy?;
        Ok(deleted)
    }

    /// Removes a log that was taken out of service. Returns whether there was one.
    fn discard(
        &self,
        placed: Option<Placed>,
        partition: &TopicPartition,
    ) -> Result<bool, LogError> {
        let Some(placed) = placed else {
            return Ok(false);
        };
        placed.log.abandon();
        let name = names::delete_dir_name(partition, self.unique());
        placed.log.rename_dir(&name)?;
        self.remove_later(&placed.log);
        Ok(true)
    }

    /// Has the directory of a log removed, which was renamed for that.
    fn remove_later(&self, log: &Log) {
        let delay_ms = log.config().file_delete_delay_ms;
        let due_ms = self.env.clock.wall_ms().saturating_add(delay_ms);
        lock(&self.upkeep).removals.push((due_ms, log.dir()));
    }

    /// Takes a log that the cluster's metadata does not know out of service, and renames its
    /// directory so that nothing is lost; a copy of it in another directory is deleted. Returns
    /// whether there was one.
    ///
    /// # Errors
    /// The disk's.
    pub fn set_stray(&self, partition: &TopicPartition) -> Result<bool, ManagerError> {
        let _alone = lock(&self.placing);
        let copy = self.discard(self.take(&self.futures, partition), partition);
        let Some(placed) = self.take(&self.logs, partition) else {
            return Ok(copy?);
        };
        let name = names::stray_dir_name(partition, self.unique());
        placed.log.close()?;
        placed.log.rename_dir(&name)?;
        copy?;
        Ok(true)
    }

    fn take(&self, from: &Logs, partition: &TopicPartition) -> Option<Placed> {
        let mut logs = from.write().unwrap_or_else(PoisonError::into_inner);
        let placed = logs.remove(partition)?;
        self.directories[placed.directory].count_log(-1);
        self.directories[placed.directory].note_departure();
        Some(placed)
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
        let _alone = lock(&self.placing);
        self.fail_directory_held(index);
    }

    fn fail_directory_held(&self, index: usize) {
        self.directories[index].set_offline();
        for logs in [&self.logs, &self.futures] {
            let logs = logs.read().unwrap_or_else(PoisonError::into_inner);
            for placed in logs.values().filter(|placed| placed.directory == index) {
                placed.log.set_offline();
            }
        }
        // The logs that were moving there stay where they are.
        let mut futures = self.futures.write().unwrap_or_else(PoisonError::into_inner);
        futures.retain(|partition, placed| {
            let moves_on = placed.directory != index;
            if !moves_on {
                self.set_settled(partition);
            }
            moves_on
        });
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
