//! A segment: one file of batches with its indexes. The last segment of a log is active and takes
//! appends; the others are sealed.
//!
//! - [`append`]: writing batches and noting them in the indexes.
//! - [`lookup`]: from offsets and timestamps to positions.
//! - [`recover`]: verifying the file.
//! - [`rebuild`]: making the indexes from the batches.
//! - [`scan`]: walking batches.
//! - [`split`]: cutting one whose offsets are too far apart.
//!
//! A segment may be read while it is appended to: `size` is published after the bytes are written,
//! and what lies below it does not change unless the log is truncated.

mod append;
mod lookup;
mod rebuild;
mod recover;
pub(crate) mod scan;
mod split;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use klamm_env::{Env, File};

use crate::config::LogConfig;
use crate::error::{IoContext, LogError};
use crate::files::LazyFile;
use crate::index::offset::{OffsetIndex, fits};
use crate::index::time::{TimeIndex, TimestampOffset};
use crate::index::txn::TxnIndex;
use crate::log::KnownSegment;
use crate::names::{DELETED_SUFFIX, FileKind};
use crate::storage::{LogDir, lock, sync_file};

pub(crate) use append::{RollCheck, WriteFailure};
pub(crate) use recover::{RecoveryState, SegmentRecovery};
pub(crate) use scan::{BatchScan, BatchSpan};

/// Batches of the active segment whose place is remembered, so that reads at the tail need no
/// index and no scan.
const RECENT_BATCHES: usize = 32;

/// Bytes at the end of a segment that writeback leaves alone.
const WRITEBACK_KEPT_BYTES: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) struct Segment {
    dir: Arc<LogDir>,
    pub(crate) base_offset: i64,
    size: AtomicU64,
    file: LazyFile,
    index_interval_bytes: u64,
    index_bytes_max: u32,
    roll_jitter_ms: i64,
    preallocate: bool,
    /// Compaction put another segment in the place of this one.
    retired: AtomicBool,
    /// Where the part begins whose writing to the device was not begun.
    unwritten_from: AtomicU64,
    state: Mutex<SegmentState>,
    txn: Mutex<TxnIndex>,
}

/// What changes with appends, under the segment's lock.
#[derive(Debug)]
struct SegmentState {
    offsets: Option<OffsetIndex>,
    times: Option<TimeIndex>,
    bytes_since_entry: u64,
    /// Largest timestamp so far; none until it is looked up in the time index.
    max_timestamp: Option<TimestampOffset>,
    /// Whether it was taken from batches, or held against them.
    max_is_certain: bool,
    /// Whether the time index has the largest timestamp, as after [`Segment::seal`].
    sealed: bool,
    /// Timestamp of the first batch, by which the segment ages.
    first_timestamp: Option<i64>,
    created_ms: i64,
    recent: VecDeque<BatchSpan>,
    /// Whether batches were noted since the last [`Segment::release_if_idle`].
    grew: bool,
}

impl Segment {
    /// Creates the files of an empty segment. Files of the same name, left by a truncation, are
    /// emptied.
    pub(crate) fn create(
        dir: &Arc<LogDir>,
        base_offset: i64,
        config: &LogConfig,
        env: &Env,
    ) -> Result<Segment, LogError> {
        let path = dir.file(base_offset, FileKind::Log);
        let (file, emptied) = dir.create_file(&path)?;
        if config.preallocate {
            file.set_len(config.segment_bytes_max())
                .at("allocate", &path)?;
        }
        dir.remove_if_exists(&dir.file(base_offset, FileKind::TxnIndex))?;
        let offsets = OffsetIndex::create(dir.clone(), base_offset, config.segment_index_bytes)?;
        let times = TimeIndex::create(dir.clone(), base_offset, config.segment_index_bytes)?;
        let mut segment = Self::unloaded(dir, base_offset, 0, false, config, env);
        segment.file = LazyFile::opened(dir, file, emptied || config.preallocate);
        segment.preallocate = config.preallocate;
        let state = segment
            .state
            .get_mut()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        state.offsets = Some(offsets);
        state.times = Some(times);
        state.max_is_certain = true;
        state.max_timestamp = Some(TimestampOffset {
            timestamp: crate::batch::NO_TIMESTAMP,
            offset: base_offset,
        });
        Ok(segment)
    }

    /// A segment whose files exist. Nothing is opened.
    pub(crate) fn unloaded(
        dir: &Arc<LogDir>,
        base_offset: i64,
        size: u64,
        has_txn_index: bool,
        config: &LogConfig,
        env: &Env,
    ) -> Segment {
        Segment {
            dir: dir.clone(),
            base_offset,
            size: AtomicU64::new(size),
            file: LazyFile::default(),
            index_interval_bytes: u64::from(config.index_interval_bytes),
            index_bytes_max: config.segment_index_bytes,
            roll_jitter_ms: config.roll_jitter_ms(&*env.rng),
            preallocate: false,
            retired: AtomicBool::new(false),
            unwritten_from: AtomicU64::new(size),
            state: Mutex::new(SegmentState {
                offsets: None,
                times: None,
                bytes_since_entry: 0,
                max_timestamp: None,
                max_is_certain: false,
                sealed: false,
                first_timestamp: None,
                created_ms: env.clock.wall_ms(),
                recent: VecDeque::new(),
                grew: false,
            }),
            txn: Mutex::new(TxnIndex::new(dir.clone(), base_offset, has_txn_index)),
        }
    }

    /// A segment that is as an orderly shutdown left it. Nothing is opened.
    pub(crate) fn known(
        dir: &Arc<LogDir>,
        known: &KnownSegment,
        config: &LogConfig,
        env: &Env,
    ) -> Segment {
        let (base_offset, size) = (known.base_offset, known.size);
        let mut segment = Self::unloaded(dir, base_offset, size, known.has_txn_index, config, env);
        let state = segment
            .state
            .get_mut()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        state.max_timestamp = known.max_timestamp;
        state.sealed = true;
        segment
    }

    /// The largest timestamp, if it is known without looking for it and in the time index.
    pub(crate) fn noted_max_timestamp(&self) -> Option<TimestampOffset> {
        let state = lock(&self.state);
        state.max_timestamp.filter(|_| state.sealed)
    }

    pub(crate) fn size(&self) -> u64 {
        self.size.load(Ordering::Acquire)
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.file(self.base_offset, FileKind::Log)
    }

    pub(crate) fn file(&self) -> Result<Arc<dyn File>, LogError> {
        self.file.get(&self.dir, || self.path())
    }

    pub(crate) fn txn_index(&self) -> std::sync::MutexGuard<'_, TxnIndex> {
        lock(&self.txn)
    }

    pub(crate) fn scan(
        &self,
        from: u64,
        end: u64,
        buffer_len: usize,
    ) -> Result<BatchScan, LogError> {
        Ok(BatchScan::new(
            self.file()?,
            self.path(),
            (from, end),
            self.base_offset,
            buffer_len,
        ))
    }

    /// Notes that the file of batches was changed.
    fn note_change(&self) {
        self.file.note_change();
    }

    /// Whether the file of batches was changed since it was last made durable.
    pub(crate) fn has_changed(&self) -> bool {
        self.file.has_changed()
    }

    /// Makes batches durable.
    pub(crate) fn sync_batches(&self) -> Result<(), LogError> {
        let changes = self.file.changes();
        let synced = self
            .file()
            .and_then(|file| file.sync_data().at("sync", &self.path()));
        self.unless_retired(synced)?;
        self.file.note_synced(changes);
        Ok(())
    }

    /// What took the place of a retired segment is durable, so that this one need not be.
    fn unless_retired(&self, result: Result<(), LogError>) -> Result<(), LogError> {
        if self.is_retired() { Ok(()) } else { result }
    }

    /// Begins writing to the device what was appended. Returns whether the segment was behind
    /// before this, so that the one before it may be too.
    pub(crate) fn start_writeback(&self) -> Result<bool, LogError> {
        let from = self.unwritten_from.load(Ordering::SeqCst);
        // The last pages are still written to, which would wait for a device that has them.
        let to = self.size().saturating_sub(WRITEBACK_KEPT_BYTES);
        if from >= to {
            // Too short to tell: the one before may have an end that was kept back.
            return Ok(from == 0);
        }
        self.unwritten_from.fetch_max(to, Ordering::SeqCst);
        let begun = self.file()?.start_writeback(from, to - from);
        begun.at("begin writing", &self.path())?;
        Ok(true)
    }

    /// Makes batches and indexes durable, as far as they changed since they last were. Nobody may
    /// append meanwhile, or what is appended may be left out.
    pub(crate) fn sync(&self) -> Result<(), LogError> {
        if self.has_changed() {
            self.sync_batches()?;
        }
        let synced = self.sync_indexes();
        self.unless_retired(synced)
    }

    fn sync_indexes(&self) -> Result<(), LogError> {
        // Readers need these locks, so nothing is synced under them.
        let mut state = lock(&self.state);
        let offsets = state.offsets.as_mut().map(|index| index.take_unsynced());
        let times = state.times.as_mut().map(|index| index.take_unsynced());
        drop(state);
        for unsynced in [offsets, times].into_iter().flatten() {
            if let Some((file, path)) = unsynced? {
                file.sync_all().at("sync", &path)?;
            }
        }
        let txn = self.txn_index().file();
        txn.map_or(Ok(()), |path| sync_file(&*self.dir.fs, &path))
    }

    /// Opens none of the files again: their names are about to be another segment's. Readers that
    /// have them open go on; others find that the log's segments have changed.
    pub(crate) fn retire(&self) {
        let state = lock(&self.state);
        self.retired.store(true, Ordering::SeqCst);
        self.file.retire();
        if let Some(index) = &state.offsets {
            index.retire();
        }
        if let Some(index) = &state.times {
            index.retire();
        }
        drop(state);
        self.txn_index().retire();
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::SeqCst)
    }

    /// Finishes a segment that takes no more appends, or whose log is closed: the last entry of
    /// its time index is written, and files get their exact size.
    pub(crate) fn seal(&self) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        let loaded = state.times.is_some();
        if !state.sealed && (loaded || state.max_timestamp.is_some()) {
            let max = self.max_timestamp_in(&mut state)?;
            let times = self.times_in(&mut state)?;
            times.maybe_append(max);
            times.write_tail()?;
            let noted = times.last_entry();
            // One that was damaged when it was read takes nothing below its last entry, and is sound
            // for whoever reads it later if the damage was not on the disk: without what is missing.
            if state.max_is_certain && noted.timestamp != max.timestamp {
                self.rebuild_indexes(&mut state)?;
            }
            if let Some(index) = &mut state.offsets {
                index.write_tail()?;
            }
            state.sealed = true;
        }
        drop(state);
        if self.preallocate {
            let cut = self.file()?.set_len(self.size());
            self.note_change();
            cut.at("truncate", &self.path())?;
        }
        Ok(())
    }

    /// Gives back memory and descriptors that were not used since the last call. Returns whether a
    /// later call may find more to do, without a use in between.
    pub(crate) fn release_if_idle(&self) -> bool {
        let mut more = self.file.release_if_idle();
        let mut state = lock(&self.state);
        if std::mem::take(&mut state.grew) {
            more = true;
        } else {
            state.recent = VecDeque::new();
        }
        if let Some(index) = &mut state.offsets {
            more |= index.release_if_idle();
        }
        if let Some(index) = &mut state.times {
            more |= index.release_if_idle();
        }
        let settled = state
            .offsets
            .as_ref()
            .is_some_and(|index| index.is_settled())
            && state.times.as_ref().is_some_and(|index| index.is_settled());
        if !more && settled && self.max_timestamp_in(&mut state).is_ok() {
            (state.offsets, state.times) = (None, None);
        }
        more
    }

    /// Gives back what a sealed segment does not need.
    pub(crate) fn forget_recent(&self) {
        lock(&self.state).recent = VecDeque::new();
    }

    /// Gives back the descriptor of the file of batches, into which nothing was written through it.
    pub(crate) fn release_batches(&self) {
        self.file.release();
    }

    /// Gives back all descriptors.
    pub(crate) fn release(&self) {
        self.file.release();
        let state = lock(&self.state);
        if let Some(index) = &state.offsets {
            index.release();
        }
        if let Some(index) = &state.times {
            index.release();
        }
    }

    /// Renames the files for removal and returns their new paths.
    pub(crate) fn mark_deleted(&self) -> Result<Vec<PathBuf>, LogError> {
        let mut renamed = self.mark_file_deleted(FileKind::Log)?;
        renamed.extend(self.mark_indexes_deleted()?);
        Ok(renamed)
    }

    /// As [`mark_deleted`](Self::mark_deleted), without the file of batches.
    pub(crate) fn mark_indexes_deleted(&self) -> Result<Vec<PathBuf>, LogError> {
        let mut renamed = Vec::new();
        for kind in [FileKind::Index, FileKind::TimeIndex, FileKind::TxnIndex] {
            renamed.extend(self.mark_file_deleted(kind)?);
        }
        Ok(renamed)
    }

    /// As [`mark_deleted`](Self::mark_deleted), of one of the files.
    pub(crate) fn mark_file_deleted(&self, kind: FileKind) -> Result<Vec<PathBuf>, LogError> {
        let from = self.dir.file(self.base_offset, kind);
        let to = self.dir.file_with(self.base_offset, kind, DELETED_SUFFIX);
        match self.dir.fs.rename(&from, &to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            result => result.at("rename", &from).map(|()| vec![to]),
        }
    }

    fn offsets_in<'a>(&self, state: &'a mut SegmentState) -> Result<&'a mut OffsetIndex, LogError> {
        self.load_indexes(state)?;
        // Loading leaves both present.
        state.offsets.as_mut().ok_or_else(|| self.not_loaded())
    }

    fn times_in<'a>(&self, state: &'a mut SegmentState) -> Result<&'a mut TimeIndex, LogError> {
        self.load_indexes(state)?;
        state.times.as_mut().ok_or_else(|| self.not_loaded())
    }

    /// Opens the indexes; makes them anew if they are missing or damaged.
    fn load_indexes(&self, state: &mut SegmentState) -> Result<(), LogError> {
        if state.offsets.is_some() && state.times.is_some() {
            return Ok(());
        }
        if self.is_retired() {
            return Err(self.not_loaded());
        }
        let (dir, base_offset) = (&self.dir, self.base_offset);
        let opened =
            OffsetIndex::open(dir.clone(), base_offset, self.index_bytes_max).and_then(|offsets| {
                let times = TimeIndex::open(dir.clone(), base_offset, self.index_bytes_max)?;
                Ok((offsets, times))
            });
        match opened {
            Ok((offsets, times)) if self.may_be_of(&offsets, &times) => {
                state.offsets = Some(offsets);
                state.times = Some(times);
                Ok(())
            }
            Ok(_) | Err(LogError::MalformedFile { .. }) => self.rebuild_indexes(state),
            Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                self.rebuild_indexes(state)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the last entries can be of this segment, as Kafka checks when it loads one.
    fn may_be_of(&self, offsets: &OffsetIndex, times: &TimeIndex) -> bool {
        let (offset, position) = offsets.last_entry();
        let fits = |offset| fits(self.base_offset, offset);
        fits(offset) && fits(times.last_entry().offset) && position < self.size().max(1)
    }

    fn not_loaded(&self) -> LogError {
        LogError::Closed {
            dir: self.dir.path(),
        }
    }

    fn max_timestamp_in(&self, state: &mut SegmentState) -> Result<TimestampOffset, LogError> {
        match state.max_timestamp {
            Some(max) => Ok(max),
            None => {
                let max = self.times_in(state)?.last_entry();
                state.max_timestamp = Some(max);
                Ok(max)
            }
        }
    }
}

#[cfg(test)]
mod tests;
