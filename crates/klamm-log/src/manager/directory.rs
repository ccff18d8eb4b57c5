//! One log directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use klamm_env::{Env, Fs, FsExt, LockGuard, Space};
use klamm_records::{TopicPartition, Uuid};

use crate::checkpoints::{self, PartitionOffsets};
use crate::error::{IoContext, LogError};
use crate::flusher::Flusher;
use crate::log::{LOCK_FILE, Log};
use crate::manager::{LogManagerConfig, ManagerError, new_id};
use crate::meta_properties::MetaProperties;
use crate::storage::lock;

/// What is known of a log directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryInfo {
    /// Its id; zero if it could not be read.
    pub id: Uuid,
    /// Its path.
    pub path: PathBuf,
    /// Whether it is in use; false after its disk failed.
    pub online: bool,
    /// Whether new logs go elsewhere (`cordoned.log.dirs`).
    pub cordoned: bool,
    /// Size of its file system, if it is online and could be asked.
    pub space: Option<Space>,
}

#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    id: Uuid,
    online: AtomicBool,
    cordoned: AtomicBool,
    /// How many logs it holds, those that move here and those that are being created included.
    logs: AtomicUsize,
    /// Held for as long as the directory is in use.
    guard: Mutex<Option<Box<dyn LockGuard>>>,
    /// What the checkpoint files hold, so that unchanged ones are not written again.
    written: Mutex<Written>,
    /// Logs whose recovery point or start may differ from what is written.
    unnoted: Mutex<BTreeMap<TopicPartition, Arc<Log>>>,
    /// Logs came whose names may not be durable.
    arrivals: AtomicBool,
    /// The checkpoints that may name logs which are not here any more: bits of [`Checkpoint`].
    departures: AtomicU8,
    flusher: Flusher,
}

/// The checkpoints that the manager keeps, by what they are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Checkpoint {
    /// Recovery points and starts.
    Points = 1,
    HighWatermarks = 2,
    Cleaned = 4,
}

/// An entry of a checkpoint that may have changed; none if there is to be none.
pub(super) type Change = (TopicPartition, Option<i64>);

/// Contents of the checkpoints that the manager keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) recovery_points: PartitionOffsets,
    pub(super) log_starts: PartitionOffsets,
    pub(super) high_watermarks: PartitionOffsets,
    pub(super) cleaned: PartitionOffsets,
}

impl Directory {
    /// Creates and locks a directory and makes sure that it is ours.
    pub(super) fn open(
        path: &Path,
        config: &LogManagerConfig,
        env: &Env,
    ) -> Result<Directory, ManagerError> {
        let fs = &*env.fs;
        create_durably(fs, path)?;
        let lock_path = path.join(LOCK_FILE);
        let guard = match fs.lock(&lock_path) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(ManagerError::Locked { dir: path.into() });
            }
            result => result.at("lock", &lock_path)?,
        };
        let id = identify(path, config, env)?;
        Ok(Directory {
            path: path.into(),
            id,
            online: AtomicBool::new(true),
            cordoned: AtomicBool::new(false),
            logs: AtomicUsize::new(0),
            guard: Mutex::new(Some(guard)),
            written: Mutex::new(Written::default()),
            unnoted: Mutex::default(),
            arrivals: AtomicBool::new(true),
            departures: AtomicU8::new(u8::MAX),
            flusher: Flusher::new(config.sync_threads),
        })
    }

    /// A directory that failed before it could be identified.
    pub(super) fn failed(path: &Path) -> Directory {
        Directory {
            path: path.into(),
            id: Uuid::ZERO,
            online: AtomicBool::new(false),
            cordoned: AtomicBool::new(false),
            logs: AtomicUsize::new(0),
            guard: Mutex::new(None),
            written: Mutex::new(Written::default()),
            unnoted: Mutex::default(),
            arrivals: AtomicBool::new(false),
            departures: AtomicU8::new(0),
            flusher: Flusher::new(0),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn id(&self) -> Uuid {
        self.id
    }

    pub(super) fn is_online(&self) -> bool {
        self.online.load(Ordering::SeqCst)
    }

    pub(super) fn set_offline(&self) {
        self.online.store(false, Ordering::SeqCst);
    }

    pub(super) fn is_cordoned(&self) -> bool {
        self.cordoned.load(Ordering::SeqCst)
    }

    /// Sets whether new logs go elsewhere. Returns whether that is news.
    pub(super) fn set_cordoned(&self, cordoned: bool) -> bool {
        self.cordoned.swap(cordoned, Ordering::SeqCst) != cordoned
    }

    pub(super) fn log_count(&self) -> usize {
        self.logs.load(Ordering::SeqCst)
    }

    pub(super) fn count_log(&self, difference: isize) {
        self.logs
            .fetch_add(difference.cast_unsigned(), Ordering::SeqCst);
    }

    /// Notes that a log came, which can be found by now.
    pub(super) fn note_arrival(&self) {
        self.arrivals.store(true, Ordering::SeqCst);
    }

    /// Whether logs came since this was last asked.
    pub(super) fn take_arrivals(&self) -> bool {
        self.arrivals.swap(false, Ordering::SeqCst)
    }

    /// Notes that a log is not here any more.
    pub(super) fn note_departure(&self) {
        self.departures.store(u8::MAX, Ordering::SeqCst);
    }

    /// Whether a checkpoint may name logs that are not here.
    pub(super) fn has_departures(&self, of: Checkpoint) -> bool {
        self.departures.load(Ordering::SeqCst) & of as u8 != 0
    }

    /// To be called before a checkpoint is made of all logs that are here.
    pub(super) fn forget_departures(&self, of: Checkpoint) {
        self.departures.fetch_and(!(of as u8), Ordering::SeqCst);
    }

    /// To be called if that failed.
    pub(super) fn recall_departures(&self, of: Checkpoint) {
        self.departures.fetch_or(of as u8, Ordering::SeqCst);
    }

    /// Notes that the recovery point or the start of a log may have changed.
    pub(super) fn note_points_of(&self, log: &Arc<Log>) {
        let partition = log.topic_partition().clone();
        lock(&self.unnoted).insert(partition, Arc::clone(log));
    }

    /// The logs that were noted since this was last asked.
    pub(super) fn take_unnoted(&self) -> BTreeMap<TopicPartition, Arc<Log>> {
        std::mem::take(&mut lock(&self.unnoted))
    }

    /// What makes the logs in here durable in the background.
    pub(super) fn flusher(&self) -> &Flusher {
        &self.flusher
    }

    pub(super) fn unlock(&self) {
        *lock(&self.guard) = None;
    }

    pub(super) fn info(&self, fs: &dyn Fs) -> DirectoryInfo {
        DirectoryInfo {
            id: self.id,
            path: self.path.clone(),
            online: self.is_online(),
            cordoned: self.is_cordoned(),
            space: self
                .is_online()
                .then(|| fs.space(&self.path).ok())
                .flatten(),
        }
    }

    /// Reads the checkpoints. One that is damaged counts as empty: recovery then looks at more.
    pub(super) fn read_checkpoints(&self, fs: &dyn Fs) -> Result<Written, LogError> {
        let read = |name| match checkpoints::read_offsets(fs, &self.path.join(name)) {
            Err(LogError::MalformedFile { .. }) => Ok(PartitionOffsets::new()),
            result => result,
        };
        let found = Written {
            recovery_points: read(checkpoints::RECOVERY_POINT)?,
            log_starts: read(checkpoints::LOG_START)?,
            high_watermarks: read(checkpoints::HIGH_WATERMARK)?,
            cleaned: read(checkpoints::CLEANER)?,
        };
        lock(&self.written).clone_from(&found);
        Ok(found)
    }

    pub(super) fn write_recovery_points(
        &self,
        fs: &dyn Fs,
        recovery_points: PartitionOffsets,
        log_starts: PartitionOffsets,
    ) -> Result<(), LogError> {
        let mut written = lock(&self.written);
        self.write(
            fs,
            checkpoints::RECOVERY_POINT,
            recovery_points,
            &mut written.recovery_points,
        )?;
        self.write(
            fs,
            checkpoints::LOG_START,
            log_starts,
            &mut written.log_starts,
        )
    }

    pub(super) fn write_high_watermarks(
        &self,
        fs: &dyn Fs,
        high_watermarks: PartitionOffsets,
    ) -> Result<(), LogError> {
        let mut written = lock(&self.written);
        self.write(
            fs,
            checkpoints::HIGH_WATERMARK,
            high_watermarks,
            &mut written.high_watermarks,
        )
    }

    pub(super) fn write_cleaned(
        &self,
        fs: &dyn Fs,
        cleaned: PartitionOffsets,
    ) -> Result<(), LogError> {
        let mut written = lock(&self.written);
        self.write(fs, checkpoints::CLEANER, cleaned, &mut written.cleaned)
    }

    /// As [`write_recovery_points`](Self::write_recovery_points), where only these entries may have
    /// changed.
    pub(super) fn amend_recovery_points(
        &self,
        fs: &dyn Fs,
        recovery_points: Vec<Change>,
        log_starts: Vec<Change>,
    ) -> Result<(), LogError> {
        let mut written = lock(&self.written);
        let Written {
            recovery_points: points,
            log_starts: starts,
            ..
        } = &mut *written;
        self.amend(fs, checkpoints::RECOVERY_POINT, recovery_points, points)?;
        self.amend(fs, checkpoints::LOG_START, log_starts, starts)
    }

    /// As [`write_high_watermarks`](Self::write_high_watermarks), where only these entries may have
    /// changed.
    pub(super) fn amend_high_watermarks(
        &self,
        fs: &dyn Fs,
        changes: Vec<Change>,
    ) -> Result<(), LogError> {
        let written = &mut lock(&self.written).high_watermarks;
        self.amend(fs, checkpoints::HIGH_WATERMARK, changes, written)
    }

    fn amend(
        &self,
        fs: &dyn Fs,
        name: &str,
        mut changes: Vec<Change>,
        written: &mut PartitionOffsets,
    ) -> Result<(), LogError> {
        changes.retain(|(partition, offset)| written.get(partition).copied() != *offset);
        if changes.is_empty() {
            return Ok(());
        }
        let mut offsets = written.clone();
        for (partition, offset) in changes {
            match offset {
                Some(offset) => offsets.insert(partition, offset),
                None => offsets.remove(&partition),
            };
        }
        self.write(fs, name, offsets, written)
    }

    /// Removes a partition from the checkpoints.
    pub(super) fn forget(&self, fs: &dyn Fs, partition: &TopicPartition) -> Result<(), LogError> {
        let mut written = lock(&self.written);
        let named = [
            &written.recovery_points,
            &written.log_starts,
            &written.high_watermarks,
            &written.cleaned,
        ];
        if !named.iter().any(|offsets| offsets.contains_key(partition)) {
            return Ok(());
        }
        let mut without = written.clone();
        without.recovery_points.remove(partition);
        without.log_starts.remove(partition);
        without.high_watermarks.remove(partition);
        without.cleaned.remove(partition);
        self.write(
            fs,
            checkpoints::CLEANER,
            without.cleaned,
            &mut written.cleaned,
        )?;
        self.write(
            fs,
            checkpoints::RECOVERY_POINT,
            without.recovery_points,
            &mut written.recovery_points,
        )?;
        self.write(
            fs,
            checkpoints::LOG_START,
            without.log_starts,
            &mut written.log_starts,
        )?;
        self.write(
            fs,
            checkpoints::HIGH_WATERMARK,
            without.high_watermarks,
            &mut written.high_watermarks,
        )
    }

    fn write(
        &self,
        fs: &dyn Fs,
        name: &str,
        offsets: PartitionOffsets,
        written: &mut PartitionOffsets,
    ) -> Result<(), LogError> {
        if *written != offsets {
            checkpoints::write_offsets(fs, &self.path.join(name), &offsets)?;
            *written = offsets;
        }
        Ok(())
    }
}

/// Compares `meta.properties` with the configuration, or writes it. Returns the directory's id.
fn identify(path: &Path, config: &LogManagerConfig, env: &Env) -> Result<Uuid, ManagerError> {
    let fs = &*env.fs;
    let found = MetaProperties::read(fs, path)?;
    let mut properties = found.clone().unwrap_or_default();
    match &properties.cluster_id {
        Some(found) if *found != config.cluster_id => {
            return Err(ManagerError::ClusterIdMismatch {
                dir: path.into(),
                expected: config.cluster_id.clone(),
                found: found.clone(),
            });
        }
        _ => properties.cluster_id = Some(config.cluster_id.clone()),
    }
    match properties.node_id {
        Some(found) if found != config.node_id => {
            return Err(ManagerError::NodeIdMismatch {
                dir: path.into(),
                expected: config.node_id,
                found,
            });
        }
        _ => properties.node_id = Some(config.node_id),
    }
    let id = *properties.directory_id.get_or_insert_with(|| new_id(env));
    if found.as_ref() != Some(&properties) {
        properties.write(fs, path)?;
    }
    Ok(id)
}

/// Creates a directory and its parents, with names that survive a crash.
fn create_durably(fs: &dyn Fs, path: &Path) -> Result<(), LogError> {
    let mut missing = 0;
    for ancestor in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        if fs.exists(ancestor).at("inspect", ancestor)? {
            break;
        }
        missing += 1;
    }
    fs.create_dir_all(path).at("create", path)?;
    if missing > 0 {
        let full = fs.canonicalize(path).at("resolve", path)?;
        for parent in full.ancestors().skip(1).take(missing) {
            fs.sync_dir(parent).at("sync", parent)?;
        }
    }
    Ok(())
}
