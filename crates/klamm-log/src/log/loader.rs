//! Bringing a directory into the state of an open log: segments, their recovery, producers.

use std::sync::Arc;

use crate::epoch_cache::EpochCache;
use crate::error::{IoContext, LogError};
use crate::log::open::{LogOpen, RecoveryReport, Truncation};
use crate::log::tidy::{Found, tidy};
use crate::names::FileKind;
use crate::producer_state::{ProducerStates, marker};
use crate::segment::{RecoveryState, Segment, scan};
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
}

impl<'a> Loader<'a> {
    pub(super) fn new(open: &'a LogOpen, dir: Arc<LogDir>) -> Result<Self, LogError> {
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

    pub(super) fn load(&mut self) -> Result<(), LogError> {
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
    pub(super) fn active(&mut self) -> Result<(Arc<Segment>, i64), LogError> {
        if let Some(last) = self.segments.last() {
            return Ok((last.clone(), self.end));
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
            if !indexed && (self.open.clean || !self.is_unflushed(base_offset)) {
                self.recover(&segment)?;
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
    producers.take_snapshot()?;
    Ok(())
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
    let mut scan = segment.scan(first.position, segment.size(), scan::WHOLE)?;
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
