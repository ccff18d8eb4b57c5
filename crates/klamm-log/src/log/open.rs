use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64};
use std::sync::{Arc, Mutex, RwLock};

use klamm_env::{Env, FsExt, LockGuard};
use klamm_records::{TopicPartition, Uuid};

use crate::checkpoints;
use crate::config::LogConfig;
use crate::epoch_cache::EpochCache;
use crate::error::{BatchFault, IoContext, LogError};
use crate::log::{Log, State, Status};
use crate::names::{self, CLEANED_SUFFIX, DELETED_SUFFIX, FileKind, SWAP_SUFFIX};
use crate::producer_state::{ProducerStates, marker};
use crate::segment::{RecoveryState, Segment};
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
    /// Damage that was found. What lay behind it is gone.
    pub truncation: Option<Truncation>,
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

/// What lies in a log's directory.
#[derive(Default)]
struct Found {
    logs: BTreeSet<i64>,
    indexes: BTreeSet<(i64, FileKind)>,
    snapshots: BTreeSet<i64>,
}

impl Log {
    /// Opens a log, or creates it. After a clean shutdown that takes a few system calls; else the
    /// segments from the recovery point on are verified, the first damaged batch and all after it
    /// cut off, and indexes and producer state made anew.
    ///
    /// # Errors
    /// [`LogError::InconsistentTopicId`], [`LogError::MalformedFile`], or the disk's.
    pub fn open(mut open: LogOpen) -> Result<Log, LogError> {
        let fs = open.env.fs.clone();
        if !fs.exists(&open.dir).at("inspect", &open.dir)? {
            fs.create_dir_all(&open.dir).at("create", &open.dir)?;
            if let Some(parent) = open.dir.parent() {
                fs.sync_dir(parent).at("sync", parent)?;
            }
        }
        let guard = if open.standalone {
            Some(read_own_state(&mut open)?)
        } else {
            None
        };
        let dir = LogDir::new(fs.clone(), open.dir.clone());
        let topic_id = match (partition_metadata::read(&*fs, &open.dir)?, open.topic_id) {
            (Some(found), Some(expected)) if found != expected => {
                return Err(LogError::InconsistentTopicId {
                    dir: open.dir,
                    expected,
                    found,
                });
            }
            (found, expected) => found.or(expected).map(|id| (id, found.is_none())),
        };
        let mut loader = Loader::new(&open, dir.clone())?;
        loader.load()?;
        let now_ms = open.env.clock.wall_ms();
        let start = open.log_start_offset.max(
            loader
                .segments
                .first()
                .map_or(0, |segment| segment.base_offset),
        );
        let (active, end) = loader.active()?;
        if let Some((id, true)) = topic_id {
            partition_metadata::write(&*fs, &open.dir, id)?;
        }
        loader.epochs.truncate_from_end(end);
        loader.epochs.truncate_from_start(open.log_start_offset);
        loader.epochs.write_if_dirty()?;
        let bases: Vec<i64> = loader.segments.iter().map(|s| s.base_offset).collect();
        loader.producers.remove_stray_snapshots(&bases)?;
        rebuild_producers(
            &mut loader.producers,
            &loader.segments,
            start,
            end,
            now_ms,
            open.clean,
        )?;
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
        Ok(Log {
            topic_partition: open.topic_partition,
            dir,
            status: AtomicU8::new(Status::Open as u8),
            state: Mutex::new(State {
                config: Arc::new(open.config),
                topic_id: topic_id.map(|(id, _)| id),
                active,
                producers,
                epochs,
                last_flush_ms: now_ms,
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
            recovery_point: AtomicI64::new(recovery_point),
            has_transactions: AtomicBool::new(has_transactions),
            truncations: AtomicU64::new(0),
            standalone: guard,
            watch: Watch::default(),
            recovery: report,
            env: open.env,
        })
    }
}

/// Locks the directory of a log that stands alone and reads what it noted about itself.
fn read_own_state(open: &mut LogOpen) -> Result<Box<dyn LockGuard>, LogError> {
    let fs = &*open.env.fs;
    let lock = open.dir.join(LOCK_FILE);
    let guard = fs.lock(&lock).at("lock", &lock)?;
    let noted = |name| {
        checkpoints::read_offsets(fs, &open.dir.join(name))
            .map(|offsets| offsets.get(&open.topic_partition).copied().unwrap_or(0))
    };
    let recovery_point = noted(checkpoints::RECOVERY_POINT)?;
    let log_start_offset = noted(checkpoints::LOG_START)?;
    let clean = clean_shutdown::take(fs, &open.dir)?.is_some();
    open.recovery_point = recovery_point;
    open.log_start_offset = log_start_offset;
    open.high_watermark = i64::MAX;
    open.clean = clean;
    Ok(guard)
}

/// Brings a directory into the state of an open log.
struct Loader<'a> {
    open: &'a LogOpen,
    dir: Arc<LogDir>,
    segments: Vec<Arc<Segment>>,
    producers: ProducerStates,
    epochs: EpochCache,
    report: RecoveryReport,
    found: Found,
    /// The offset after the last batch.
    end: i64,
}

impl<'a> Loader<'a> {
    fn new(open: &'a LogOpen, dir: Arc<LogDir>) -> Result<Self, LogError> {
        let found = tidy(open, &dir)?;
        let producers = ProducerStates::new(
            dir.clone(),
            found.snapshots.clone(),
            open.config.producer_id_expiration_ms,
        );
        Ok(Loader {
            epochs: EpochCache::open(dir.fs.clone(), &open.dir)?,
            open,
            dir,
            segments: Vec::new(),
            producers,
            report: RecoveryReport::default(),
            found,
            end: 0,
        })
    }

    fn load(&mut self) -> Result<(), LogError> {
        self.load_segments()?;
        if !self.open.clean {
            self.recover_unflushed()?;
        }
        self.find_end()?;
        let start = self.open.log_start_offset;
        if self.end < start {
            // Segments were lost; what is left lies below what the log may serve.
            for segment in std::mem::take(&mut self.segments) {
                self.remove(&segment)?;
            }
            self.epochs.clear();
            self.producers.reset(start)?;
            self.end = start;
        }
        Ok(())
    }

    /// Reads the end of the log off the last segment. If its index is damaged in spite of a clean
    /// shutdown the segment is recovered; the indexes of others are looked at when they are used.
    fn find_end(&mut self) -> Result<(), LogError> {
        let Some(last) = self.segments.pop() else {
            self.end = self.open.log_start_offset;
            return Ok(());
        };
        self.end = match last.read_next_offset() {
            Err(LogError::MalformedFile { .. } | LogError::Corrupt { .. }) => {
                self.recover(&last)?;
                last.read_next_offset()?
            }
            result => result?,
        };
        self.segments.push(last);
        Ok(())
    }

    /// The last segment, made if there is none, and the end of the log.
    fn active(&mut self) -> Result<(Arc<Segment>, i64), LogError> {
        if let Some(last) = self.segments.last() {
            return Ok((last.clone(), self.end));
        }
        let segment = Arc::new(Segment::create(
            &self.dir,
            self.end,
            &self.open.config,
            &self.open.env,
        )?);
        self.dir.sync()?;
        self.segments.push(segment.clone());
        Ok((segment, self.end))
    }

    fn load_segments(&mut self) -> Result<(), LogError> {
        for base_offset in self.found.logs.clone() {
            let path = self.dir.file(base_offset, FileKind::Log);
            let size = self.dir.fs.metadata(&path).at("inspect", &path)?.len;
            let has = |kind| self.found.indexes.contains(&(base_offset, kind));
            let segment = Segment::unloaded(
                &self.dir,
                base_offset,
                size,
                has(FileKind::TxnIndex),
                &self.open.config,
                &self.open.env,
            );
            let indexed = has(FileKind::Index) && has(FileKind::TimeIndex);
            let segment = Arc::new(segment);
            // What is beyond the recovery point is recovered anyway.
            if !indexed && (self.open.clean || !self.is_unflushed(base_offset)) {
                self.recover(&segment)?;
            }
            self.segments.push(segment);
        }
        Ok(())
    }

    /// Whether a segment holds offsets at or above the recovery point. That is also the one in
    /// which the recovery point lies.
    fn is_unflushed(&self, base_offset: i64) -> bool {
        self.found
            .logs
            .range(base_offset + 1..)
            .next()
            .is_none_or(|&next| next > self.open.recovery_point)
    }

    fn recover_unflushed(&mut self) -> Result<(), LogError> {
        let first = self
            .segments
            .iter()
            .position(|segment| self.is_unflushed(segment.base_offset));
        let Some(first) = first else {
            return Ok(());
        };
        let unflushed = self.segments.split_off(first);
        let mut damaged = false;
        let mut end = None;
        for segment in unflushed {
            // A crash can take the end of a segment, or all of it, and leave the next. Compaction
            // leaves gaps, too; there a gap proves nothing.
            let gap = end.is_some_and(|end| end != segment.base_offset);
            damaged |= gap && !self.open.config.compact;
            if damaged {
                // What lies behind damage cannot follow what lies before it.
                self.remove(&segment)?;
                if let Some(truncation) = &mut self.report.truncation {
                    truncation.segments_removed += 1;
                }
            } else {
                let next_offset;
                (damaged, next_offset) = self.recover(&segment)?;
                end = Some(next_offset);
                self.segments.push(segment);
            }
        }
        Ok(())
    }

    /// Verifies a segment and builds its indexes. Returns whether something was cut off, and the
    /// offset after the last batch.
    fn recover(&mut self, segment: &Arc<Segment>) -> Result<(bool, i64), LogError> {
        rebuild_producers(
            &mut self.producers,
            &self.segments,
            self.open.log_start_offset,
            segment.base_offset,
            self.open.env.clock.wall_ms(),
            false,
        )?;
        let result = segment.recover(RecoveryState {
            producers: &mut self.producers,
            epochs: &mut self.epochs,
        })?;
        self.producers.take_snapshot()?;
        self.report.recovered_segments += 1;
        self.report.recovered_bytes += result.valid_bytes;
        if let Some(fault) = result.fault {
            self.report.truncation = Some(Truncation {
                file: segment.path(),
                position: result.valid_bytes,
                offset: result.next_offset,
                bytes: result.truncated_bytes,
                fault,
                segments_removed: 0,
            });
        }
        Ok((result.truncated_bytes > 0, result.next_offset))
    }

    fn remove(&mut self, segment: &Segment) -> Result<(), LogError> {
        let mut files = segment.mark_deleted()?;
        files.extend(self.producers.mark_snapshot_deleted(segment.base_offset));
        for file in files {
            self.dir.remove_if_exists(&file)?;
        }
        self.dir.sync()
    }
}

/// Lists a directory and finishes what a crash interrupted: removes files that wait for removal
/// or were half written, and completes the replacement of segments by compacted ones.
fn tidy(open: &LogOpen, dir: &Arc<LogDir>) -> Result<Found, LogError> {
    let names = list(dir)?;
    let cleaned_min = names
        .iter()
        .filter_map(|name| names::parse_file_name(name))
        .filter(|&(_, _, tail)| tail == CLEANED_SUFFIX)
        .map(|(offset, ..)| offset)
        .min();
    let mut swapped = Vec::new();
    for name in &names {
        let path = open.dir.join(name);
        match names::parse_file_name(name) {
            Some((_, _, DELETED_SUFFIX | CLEANED_SUFFIX)) => dir.remove_if_exists(&path)?,
            Some((offset, kind, SWAP_SUFFIX)) => {
                if cleaned_min.is_some_and(|min| offset >= min) {
                    // Part of a split that did not finish; the original is still there.
                    dir.remove_if_exists(&path)?;
                } else {
                    swapped.push((offset, kind));
                }
            }
            _ => {}
        }
    }
    if !swapped.is_empty() {
        finish_swap(open, dir, &swapped)?;
    }
    let mut found = Found::default();
    let changed = names
        .iter()
        .filter_map(|name| names::parse_file_name(name))
        .any(|(_, _, tail)| !tail.is_empty());
    let names = if changed { list(dir)? } else { names };
    for name in &names {
        match names::parse_file_name(name) {
            Some((offset, FileKind::Log, "")) => {
                found.logs.insert(offset);
            }
            Some((offset, FileKind::Snapshot, "")) => {
                found.snapshots.insert(offset);
            }
            Some((offset, kind, "")) => {
                found.indexes.insert((offset, kind));
            }
            _ => {}
        }
    }
    for &(offset, kind) in &found.indexes {
        if !found.logs.contains(&offset) {
            dir.remove_if_exists(&dir.file(offset, kind))?;
        }
    }
    Ok(found)
}

/// Removes the segments that compacted ones replace and gives these their names.
fn finish_swap(
    open: &LogOpen,
    dir: &Arc<LogDir>,
    swapped: &[(i64, FileKind)],
) -> Result<(), LogError> {
    let mut replaced: Option<(i64, i64)> = None;
    for &(offset, kind) in swapped {
        if kind != FileKind::Log {
            continue;
        }
        let mut path = dir.file(offset, kind).into_os_string();
        path.push(SWAP_SUFFIX);
        let path = PathBuf::from(path);
        let file = dir
            .fs
            .open(&path, klamm_env::OpenMode::Read)
            .at("open", &path)?;
        let len = file.len().at("inspect", &path)?;
        let mut next = offset;
        let mut scan =
            crate::segment::BatchScan::new(file, path, 0, len, crate::segment::scan::HEADERS);
        while let Some(span) = scan.next_header()? {
            next = span.meta.next_offset();
        }
        let (min, max) = replaced.unwrap_or((offset, next));
        replaced = Some((min.min(offset), max.max(next)));
    }
    if let Some((min, max)) = replaced {
        for name in list(dir)? {
            if let Some((offset, kind, "")) = names::parse_file_name(&name)
                && kind != FileKind::Snapshot
                && (min..max).contains(&offset)
            {
                dir.remove_if_exists(&dir.file(offset, kind))?;
            }
        }
    }
    for &(offset, kind) in swapped {
        let to = dir.file(offset, kind);
        let mut from = to.clone().into_os_string();
        from.push(SWAP_SUFFIX);
        let from = PathBuf::from(from);
        dir.fs.rename(&from, &to).at("rename", &from)?;
    }
    dir.fs.sync_dir(&open.dir).at("sync", &open.dir)
}

fn list(dir: &LogDir) -> Result<Vec<String>, LogError> {
    let path = dir.path();
    let entries = match dir.fs.read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        result => result.at("list", &path)?,
    };
    Ok(entries
        .into_iter()
        .filter(|entry| !entry.is_dir)
        .map(|entry| entry.name)
        .collect())
}

/// Brings the producer state to `end`: from the newest snapshot at or below it and the batches
/// after that. After a clean shutdown without any snapshot there are no producers, and nothing
/// is read.
pub(super) fn rebuild_producers(
    producers: &mut ProducerStates,
    segments: &[Arc<Segment>],
    start: i64,
    end: i64,
    now_ms: i64,
    clean: bool,
) -> Result<(), LogError> {
    let last_two = &segments[segments.len().saturating_sub(2)..];
    if clean && producers.latest_snapshot().is_none() {
        let bases = last_two.iter().map(|segment| segment.base_offset);
        for offset in bases.chain([end]) {
            producers.set_map_end(offset);
            producers.take_snapshot()?;
        }
        return Ok(());
    }
    let nothing_to_reload = producers.is_empty() && producers.map_end() >= end;
    producers.truncate_and_reload(start, end, now_ms)?;
    if end > producers.map_end() && !nothing_to_reload {
        for (index, segment) in segments.iter().enumerate() {
            let next_base = segments.get(index + 1).map_or(end, |next| next.base_offset);
            if next_base <= producers.map_end() || segment.base_offset >= end {
                continue;
            }
            let from = segment.base_offset.max(producers.map_end()).max(start);
            producers.set_map_end(from);
            if last_two
                .iter()
                .any(|s| s.base_offset == segment.base_offset)
            {
                producers.take_snapshot()?;
            }
            replay(producers, segment, from, end)?;
        }
    }
    producers.set_map_end(end);
    producers.take_snapshot()
}

fn replay(
    producers: &mut ProducerStates,
    segment: &Segment,
    from: i64,
    end: i64,
) -> Result<(), LogError> {
    let Some(first) = segment.translate(from)? else {
        return Ok(());
    };
    let mut scan = segment.scan(first.position, segment.size(), crate::segment::scan::WHOLE)?;
    while let Some(span) = scan.next_header()? {
        if span.meta.base_offset >= end {
            break;
        }
        let marker = if span.meta.is_control() {
            marker::read(&segment.read_batch(&span)?)
        } else {
            None
        };
        producers.replay(&span.meta, marker);
    }
    Ok(())
}
