use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

use klamm_env::{Env, FsExt, LockGuard};
use klamm_records::{TopicPartition, Uuid};

use crate::agenda::Duty;
use crate::checkpoints;
use crate::config::LogConfig;
use crate::error::{BatchFault, IoContext, LogError};
use crate::files::OpenFiles;
use crate::log::KnownLog;
use crate::log::identity::Identity;
use crate::log::loader::Loader;
use crate::log::place::Place;
use crate::log::{Log, State, Status};
use crate::partition_metadata::Found;
use crate::storage::LogDir;
use crate::watch::Watch;
use crate::{clean_shutdown, partition_metadata};

/// Name of the lock file of a log that stands alone, and of a log directory.
pub(crate) const LOCK_FILE: &str = ".lock";

/// How to open a log.
#[derive(Clone, Debug)]
pub struct LogOpen {
    /// The directory of the log's files; created if missing.
    pub dir: PathBuf,
    /// The partition, for errors and checkpoints.
    pub topic_partition: TopicPartition,
    /// Id of the topic: compared with `partition.metadata`, or written there.
    pub topic_id: Option<Uuid>,
    /// How the log behaves.
    pub config: LogConfig,
    /// The outside world.
    pub env: Env,
    /// Offset below which all is known to be on disk.
    pub recovery_point: i64,
    /// Offset below which records were deleted.
    pub log_start_offset: i64,
    /// High watermark to begin with.
    pub high_watermark: i64,
    /// Whether the log was closed in order, so that nothing needs verifying.
    pub clean: bool,
    /// Whether the log stands alone, outside of a
    /// [`LogManager`](crate::LogManager): it then keeps lock, recovery point, start offset and
    /// clean-shutdown marker in its own directory, and the four fields above do not count.
    pub standalone: bool,
}

impl LogOpen {
    /// A log that stands alone in a directory of any name.
    pub fn standalone(dir: impl Into<PathBuf>, config: LogConfig, env: Env) -> LogOpen {
        let dir = dir.into();
        let name = dir
            .file_name()
            .map_or("log".into(), |name| name.to_string_lossy());
        LogOpen {
            topic_partition: TopicPartition::new(&*name, 0),
            dir,
            topic_id: None,
            config,
            env,
            recovery_point: 0,
            log_start_offset: 0,
            high_watermark: 0,
            clean: false,
            standalone: true,
        }
    }
}

/// What opening a log found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Segments that were verified batch by batch.
    pub recovered_segments: usize,
    /// Bytes that were verified and kept.
    pub recovered_bytes: u64,
    /// What a crash left at the end of the log. What lay behind it is gone.
    pub truncation: Option<Truncation>,
    /// Damage in what had been on disk, in order. It is left as it is, and so is what lies behind
    /// it; reads of it end in [`LogError::Corrupt`]. Only what opening had to look at is in here:
    /// after a clean shutdown that is next to nothing.
    pub damage: Vec<Damage>,
}

/// Damage in what had been on disk: bit rot, or someone else's write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file of batches.
    pub file: PathBuf,
    /// Where the first damaged batch begins.
    pub position: u64,
    /// Bytes from there to the next good batch, or to the end of the file.
    pub bytes: u64,
    /// The first offset that cannot be read.
    pub first_offset: i64,
    /// The first offset behind it that can be.
    pub next_offset: i64,
    /// What is wrong at the position.
    pub fault: BatchFault,
}

/// Damage that recovery found in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncation {
    /// The file.
    pub file: PathBuf,
    /// Where the first damaged batch began; the file ends there now.
    pub position: u64,
    /// Offset at which the log ends now.
    pub offset: i64,
    /// Bytes cut off this file.
    pub bytes: u64,
    /// What is wrong there; [`BatchFault::Truncated`] is what a crash within an append leaves.
    pub fault: BatchFault,
    /// Later segments, which were removed.
    pub segments_removed: usize,
}

impl Log {
    /// Opens a log, or creates it. After a clean shutdown that takes a few system calls; else the
    /// segments from the recovery point on are verified, and indexes and producer state made anew.
    /// At or above the recovery point the first damaged batch and all after it are cut off: a crash
    /// leaves that. Below it nothing is: see [`RecoveryReport::damage`].
    ///
    /// # Errors
    /// [`LogError::InconsistentTopicId`], [`LogError::MalformedFile`], or the disk's.
    pub fn open(open: LogOpen) -> Result<Log, LogError> {
        Log::open_among(open, &OpenFiles::unbounded())
    }

    /// As [`Log::open`], with a bound on the files that this log and others keep open.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_among(open: LogOpen, files: &OpenFiles) -> Result<Log, LogError> {
        Log::open_known(open, None, files)
    }

    /// As [`Log::open_among`], of a log of which something is known.
    pub(crate) fn open_known(
        mut open: LogOpen,
        known: Option<&KnownLog>,
        files: &OpenFiles,
    ) -> Result<Log, LogError> {
        let fs = open.env.fs.clone();
        let known = known.filter(|_| open.clean && !open.standalone);
        let new = known.is_none() && !fs.exists(&open.dir).at("inspect", &open.dir)?;
        if new {
            fs.create_dir_all(&open.dir).at("create", &open.dir)?;
            // Others keep files beside a log that stands alone, and rely on its directory. The
            // manager's are made durable by the first flush or the next tick: until then there is
            // nothing in them that a crash may not take.
            if open.standalone
                && let Some(parent) = open.dir.parent()
            {
                fs.sync_dir(parent).at("sync", parent)?;
            }
        }
        let guard = if open.standalone {
            Some(read_own_state(&mut open)?)
        } else {
            None
        };
        let (guard, cleaned_to) = guard.unzip();
        let dir = LogDir::new(fs.clone(), open.dir.clone(), files.clone());
        // A process that ended in disorder may not have made durable the names that it left.
        dir.set_new((new || !open.clean) && !open.standalone);
        if !open.clean {
            dir.note_new_file();
        }
        let resumed = match known {
            Some(known) => Loader::resume(&open, dir.clone(), known)?,
            None => None,
        };
        let known = known.filter(|_| resumed.is_some());
        let found_id = match known {
            Some(known) if known.has_batches() => Found::Sound(known.topic_id),
            _ => partition_metadata::read_after_crash(&*fs, &open.dir)?,
        };
        if let (Found::Sound(Some(found)), Some(expected)) = (found_id, open.topic_id)
            && found != expected
        {
            return Err(LogError::InconsistentTopicId {
                dir: open.dir,
                expected,
                found,
            });
        }
        let mut loader = match resumed {
            Some(loader) => loader,
            None => Loader::load(&open, dir.clone())?,
        };
        let now_ms = open.env.clock.wall_ms();
        let first = loader
            .segments
            .first()
            .map_or(0, |segment| segment.base_offset);
        let start = match open.config.remote_storage {
            true => open.log_start_offset,
            false => open.log_start_offset.max(first),
        };
        let (active, end) = loader.active()?;
        let identity = Identity::new(found_id, open.topic_id, &dir, &loader.segments)?;
        // What recovery added is written now, before a recovery point can move beyond it. Entries
        // that are to go can stay in the file until the next write: they are dropped here again.
        loader.epochs.write_if_dirty()?;
        loader.epochs.truncate_from_end(end);
        loader.epochs.truncate_from_start(open.log_start_offset);
        loader.load_producers(known, (start, end), now_ms)?;
        let snapshots_removed = loader.producers.take_removed();
        if !open.clean && open.recovery_point >= end && active.size() > 0 {
            // Once the segment is rolled, its indexes, which were just made, lie below the
            // recovery point that is on disk: nobody would look at them again.
            active.sync()?;
            dir.sync()?;
        } else if snapshots_removed {
            dir.sync()?;
        }
        let recovery_point = if open.clean {
            end
        } else {
            open.recovery_point.min(end)
        };
        let Loader {
            segments,
            producers,
            epochs,
            report,
            ..
        } = loader;
        let has_transactions = producers.has_transactions();
        let to_compact = open.config.compact.then_some(start);
        let cleaned_to = cleaned_to.flatten().or(to_compact).unwrap_or(-1);
        Ok(Log {
            topic_partition: open.topic_partition,
            dir: Place::new(dir),
            status: AtomicU8::new(Status::Open as u8),
            state: Mutex::new(State {
                config: Arc::new(open.config),
                identity,
                active,
                producers,
                epochs,
                last_flush_ms: now_ms,
                rest: (end, now_ms),
                removals: Vec::new(),
            }),
            segments: RwLock::new(
                segments
                    .into_iter()
                    .map(|segment| (segment.base_offset, segment))
                    .collect::<BTreeMap<_, _>>(),
            ),
            start: AtomicI64::new(start),
            end: AtomicI64::new(end),
            high_watermark: AtomicI64::new(open.high_watermark.min(end).max(start)),
            durable: AtomicI64::new(recovery_point),
            recovery_point: AtomicI64::new(recovery_point),
            flushing: Mutex::new(()),
            attachment: RwLock::new(None),
            checkpoint_due: AtomicBool::new(false),
            sync_requested: AtomicBool::new(false),
            has_transactions: AtomicBool::new(has_transactions),
            truncations: AtomicU64::new(0),
            layout: AtomicU64::new(0),
            highest_tiered: AtomicI64::new(-1),
            cleaned_to: AtomicI64::new(cleaned_to),
            cleaned_moved: AtomicBool::new(true),
            moving: AtomicBool::new(false),
            duty: Duty::default(),
            retention_due_ms: AtomicI64::new(i64::MIN),
            standalone: guard.map(|guard| Mutex::new(Some(guard))),
            watch: Watch::default(),
            durable_watch: Watch::default(),
            recovery: report,
            env: open.env,
        })
    }
}

/// Locks the directory of a log that stands alone and reads what it noted about itself. Returns
/// the lock and how far the log was compacted.
fn read_own_state(open: &mut LogOpen) -> Result<(Box<dyn LockGuard>, Option<i64>), LogError> {
    let fs = &*open.env.fs;
    let lock = open.dir.join(LOCK_FILE);
    let guard = fs.lock(&lock).at("lock", &lock)?;
    let noted = |name| {
        checkpoints::read_offsets(fs, &open.dir.join(name))
            .map(|offsets| offsets.get(&open.topic_partition).copied())
    };
    let recovery_point = noted(checkpoints::RECOVERY_POINT)?.unwrap_or(0);
    let log_start_offset = noted(checkpoints::LOG_START)?.unwrap_or(0);
    let cleaned_to = noted(checkpoints::CLEANER)?;
    let clean = clean_shutdown::take(fs, &open.dir)?.is_some();
    open.recovery_point = recovery_point;
    open.log_start_offset = log_start_offset;
    open.high_watermark = i64::MAX;
    open.clean = clean;
    // What was compacted has gaps, whatever the configuration says by now.
    open.config.compact |= cleaned_to.is_some();
    Ok((guard, cleaned_to))
}
