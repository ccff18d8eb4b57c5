//! Bringing a directory into the state of an open log: segments, their recovery, producers.

use std::sync::Arc;

use crate::epoch_cache::EpochCache;
use crate::error::{BatchFault, IoContext, LogError};
use crate::log::KnownLog;
use crate::log::open::{Damage, LogOpen, RecoveryReport, Truncation};
use crate::log::tidy::{Found, tidy};
use crate::names::{FileKind, SWAP_SUFFIX};
use crate::producer_state::{ProducerStates, marker};
use crate::segment::{RecoveryState, Segment, SegmentRecovery, scan};
use crate::storage::LogDir;

/// Brings a directory into the state of an open log.
pub(super) struct Loader<'a> {
    open: &'a LogOpen,
    dir: Arc<LogDir>,
    pub(super) segments: Vec<Arc<Segment>>,
    pub(super) producers: ProducerStates,
    pub(super) epochs: EpochCache,
    pub(super) report: RecoveryReport,
    found: Found,
    /// The offset after the last batch.
    end: i64,
    /// The last segment ends in damage that is to stay, or in a gap, so that nothing may follow it
    /// there.
    open_ended: bool,
}

impl<'a> Loader<'a> {
    /// A log as its files tell.
    pub(super) fn load(open: &'a LogOpen, dir: Arc<LogDir>) -> Result<Self, LogError> {
        loop {
            let mut loader = Loader::new(open, dir.clone())?;
            match loader.load_files() {
                Err(LogError::Corrupt {
                    offset: base_offset,
                    reason: BatchFault::Unindexable(_),
                    ..
                }) => loader.split(base_offset)?,
                loaded => return loaded.map(|()| loader),
            }
        }
    }

    /// Writes what a segment is to become beside it, for the next look at the directory to put it in
    /// place. Indexes are made then.
    fn split(&mut self, base_offset: i64) -> Result<(), LogError> {
        let path = self.dir.file(base_offset, FileKind::Log);
        let size = self.dir.fs.metadata(&path).at("inspect", &path)?.len;
        let (config, env) = (&self.open.config, &self.open.env);
        let segment = Segment::unloaded(&self.dir, base_offset, size, false, config, env);
        let beside = self.dir.for_cleaned();
        let parts = segment.split(&beside, config, env)?.unwrap_or_default();
        segment.release();
        for part in &parts {
            part.release();
            for kind in [FileKind::Index, FileKind::TimeIndex, FileKind::TxnIndex] {
                beside.remove_if_exists(&beside.file(part.base_offset, kind))?;
            }
        }
        self.dir.sync()?;
        // From the end on, each durable before the next: a start takes those for finished that lie
        // below the first which is not.
        for part in parts.iter().rev() {
            let from = beside.file(part.base_offset, FileKind::Log);
            let to = self
                .dir
                .file_with(part.base_offset, FileKind::Log, SWAP_SUFFIX);
            self.dir.fs.rename(&from, &to).at("rename", &from)?;
            self.dir.sync()?;
        }
        Ok(())
    }

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
            open_ended: false,
        })
    }

    /// A log that is as an orderly shutdown left it. None if that is not to be relied on.
    pub(super) fn resume(
        open: &'a LogOpen,
        dir: Arc<LogDir>,
        known: &KnownLog,
    ) -> Result<Option<Self>, LogError> {
        let noted = (open.recovery_point, open.log_start_offset);
        if noted.0 != known.end || noted.1 > known.end || !known.is_of(&*dir.fs, &open.dir) {
            return Ok(None);
        }
        let segments: Vec<Arc<Segment>> = known
            .segments
            .iter()
            .map(|known| Segment::known(&dir, known, &open.config, &open.env))
            .map(Arc::new)
            .collect();
        for segment in &segments {
            if !segment.has_sound_txn_index()? {
                return Ok(None);
            }
        }
        let snapshots = known.snapshots.iter().copied().collect();
        let expiration_ms = open.config.producer_id_expiration_ms;
        Ok(Some(Loader {
            epochs: EpochCache::known(dir.fs.clone(), &open.dir, &known.epochs),
            producers: ProducerStates::new(dir.clone(), snapshots, expiration_ms),
            open,
            dir,
            segments,
            report: RecoveryReport::default(),
            found: Found::default(),
            end: known.end,
            open_ended: false,
        }))
    }

    fn load_files(&mut self) -> Result<(), LogError> {
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

    /// Brings the producers to the end of the log; `known` is what is known of the log, if it is
    /// as it was left.
    pub(super) fn load_producers(
        &mut self,
        known: Option<&KnownLog>,
        (start, end): (i64, i64),
        now_ms: i64,
    ) -> Result<(), LogError> {
        let bases: Vec<i64> = self.segments.iter().map(|s| s.base_offset).collect();
        self.producers.remove_stray_snapshots(&bases)?;
        let noted = known.and_then(|known| known.producers.as_deref());
        if let Some(noted) = noted
            && self.producers.resume(noted, (start, end), now_ms)?
        {
            return Ok(());
        }
        rebuild_producers(
            &mut self.producers,
            &self.segments,
            start,
            end,
            now_ms,
            self.open.clean,
        )
    }

    /// Reads the end of the log off the last segment. If its index is damaged in spite of a clean
    /// shutdown the segment is recovered; the indexes of others are looked at when they are used.
    fn find_end(&mut self) -> Result<(), LogError> {
        let Some(last) = self.segments.pop() else {
            self.end = self.open.log_start_offset;
            return Ok(());
        };
        let clean = self.open.clean;
        let noted = self.open.recovery_point;
        if clean && last.size() == 0 && noted <= last.base_offset && !self.open_ended {
            self.end = last.base_offset;
            self.segments.push(last);
            return Ok(());
        }
        // Of a clean shutdown all is on disk, and the recovery point is the end.
        let synced_to = if clean && noted == 0 { i64::MAX } else { noted };
        let read = match last.read_next_offset() {
            Err(LogError::MalformedFile { .. } | LogError::Corrupt { .. }) => None,
            // Only a damaged offset of the last batch says so.
            Ok(end) if clean && noted > last.base_offset && end != noted => None,
            result => Some(result?),
        };
        self.end = match read {
            Some(end) if !self.open_ended => end,
            _ => {
                let found = self.recover(&last, synced_to)?;
                self.open_ended = found.open_ended;
                found.next_offset
            }
        };
        if self.open_ended {
            // The offsets of what is damaged are not given to other records.
            self.end = self.end.max(self.least_end());
        } else if self.open.config.compact && self.end < noted {
            // A truncation that was cut off before it began a new segment behind the gap.
            self.end = self.least_end();
            self.open_ended = true;
            last.sync()?;
        }
        // It may not be used for long, and there may be thousands, not all of which could stay open
        // without a sync for each of them.
        if clean && !last.has_changed() {
            last.release();
        } else {
            last.release_batches();
        }
        self.segments.push(last);
        Ok(())
    }

    /// The least end of a log whose last batches are damaged. After a crash the recovery point may
    /// have been noted below the end of what was synced, within its last batch.
    fn least_end(&self) -> i64 {
        self.open.recovery_point + i64::from(!self.open.clean)
    }

    /// The last segment, made if there is none, and the end of the log.
    pub(super) fn active(&mut self) -> Result<(Arc<Segment>, i64), LogError> {
        if let Some(last) = self.segments.last() {
            if !self.open_ended {
                return Ok((last.clone(), self.end));
            }
            if last.base_offset == self.end {
                // No offset tells the two segments apart, so there is nothing to keep.
                let last = last.clone();
                self.segments.pop();
                self.remove(&last)?;
            }
        }
        let segment = Arc::new(Segment::create(
            &self.dir,
            self.end,
            &self.open.config,
            &self.open.env,
        )?);
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
            let below = self.open.clean || !self.is_unflushed(base_offset);
            if below && !(indexed && segment.has_sound_txn_index()?) {
                let last = self.found.logs.last() == Some(&base_offset);
                let open_ended = self.recover(&segment, i64::MAX)?.open_ended;
                self.open_ended = open_ended && last;
                // It lies below the recovery point: no flush will look at it.
                segment.sync()?;
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
        let mut behind = Vec::new();
        let synced_to = self.open.recovery_point;
        for segment in unflushed {
            // A crash can take the end of a segment, or all of it, and leave the next. Compaction
            // leaves gaps, too; there a gap proves nothing.
            let gap = end.is_some_and(|end| end != segment.base_offset);
            damaged |= gap && !self.open.config.compact;
            if damaged {
                behind.push(segment);
                continue;
            }
            let found = self.recover(&segment, synced_to)?;
            damaged = found.truncated_bytes > 0;
            self.open_ended = found.open_ended;
            end = (!found.open_ended).then_some(found.next_offset);
            self.segments.push(segment);
        }
        // What lies behind damage cannot follow what lies before it. From the end on, each durable
        // before the next: whoever is interrupted here must not find a gap.
        for segment in behind.iter().rev() {
            self.remove(segment)?;
            if let Some(truncation) = &mut self.report.truncation {
                truncation.segments_removed += 1;
            }
        }
        Ok(())
    }

    /// Verifies a segment and builds its indexes. What lay below `synced_to` had been on disk.
    fn recover(
        &mut self,
        segment: &Arc<Segment>,
        synced_to: i64,
    ) -> Result<SegmentRecovery, LogError> {
        rebuild_producers(
            &mut self.producers,
            &self.segments,
            self.open.log_start_offset,
            segment.base_offset,
            self.open.env.clock.wall_ms(),
            false,
        )?;
        let state = RecoveryState {
            producers: &mut self.producers,
            epochs: &mut self.epochs,
            gaps: self.open.config.compact,
        };
        let result = segment.recover(state, synced_to)?;
        self.producers.take_snapshot()?;
        self.report.recovered_segments += 1;
        self.report.recovered_bytes += result.valid_bytes;
        let next_base = self.found.logs.range(segment.base_offset + 1..).next();
        let known_end = next_base.map_or(self.least_end(), |&next| next);
        let path = segment.path();
        self.report.damage.retain(|damage| damage.file != path);
        for damage in &result.damage {
            let open_ended = damage.next_offset == i64::MAX;
            let next_offset = if open_ended {
                known_end.max(damage.first_offset)
            } else {
                damage.next_offset
            };
            self.report.damage.push(Damage {
                next_offset,
                ..damage.clone()
            });
        }
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
        Ok(result)
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
    // Also if no producer is known: one may have been forgotten for its silence whose transaction is
    // open again at `end`. (Kafka's log does not look then, and serves it as committed.)
    producers.truncate_and_reload(start, end, now_ms)?;
    if end > producers.map_end() {
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
    producers.take_snapshot()?;
    Ok(())
}

/// Takes over the batches of a segment in `from..end`.
pub(super) fn replay(
    producers: &mut ProducerStates,
    segment: &Segment,
    from: i64,
    end: i64,
) -> Result<(), LogError> {
    // Of what is damaged nobody can tell whose it was.
    let first = match segment.translate(from) {
        Err(LogError::Corrupt { position, .. }) => Some(position),
        found => found?.map(|span| span.position),
    };
    let Some(first) = first else {
        return Ok(());
    };
    let mut scan = segment.scan(first, segment.size(), scan::WHOLE)?;
    while let Some(span) = scan.next_sound()? {
        if span.meta.base_offset >= end {
            break;
        }
        let control = span.meta.is_control();
        let marker = control
            .then(|| marker::read(scan.bytes_of(&span)))
            .flatten();
        producers.replay(&span.meta, marker);
    }
    Ok(())
}
