//! One clean of one log.

use std::io::IoSlice;
use std::ops::ControlFlow;
use std::sync::Arc;

use klamm_records::legacy::Message;
use klamm_records::{BatchView, Scratch};

use crate::batch::BatchMeta;
use crate::cleaner::candidate::group;
use crate::cleaner::filter::{Buffers, Filter};
use crate::cleaner::offset_map::OffsetMap;
use crate::cleaner::transactions::Transactions;
use crate::cleaner::{CleanError, CleanReport, Cleanable, Cleaner, Pace};
use crate::error::{BatchFault, LogError};
use crate::index::offset::fits;
use crate::log::{CleaningView, Log};
use crate::segment::scan::Verified;
use crate::segment::{BatchSpan, Segment};

/// Least bytes that are read at a time.
const IO_BYTES_MIN: usize = 4 << 10;
/// Positions in a segment have 31 bits.
const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

impl Cleaner {
    /// Compacts a log, from its start to where `target` or the room for keys ends, and notes how
    /// far it got in the log. `now_ms` is the time by which tombstones are judged.
    ///
    /// # Errors
    /// [`CleanError`]. After a failed disk operation that leaves the files in an unknown state the
    /// log is offline; otherwise it is as it was, some groups of segments perhaps compacted.
    pub fn clean(
        &mut self,
        log: &Log,
        target: &Cleanable,
        now_ms: i64,
        pace: &dyn Pace,
    ) -> Result<CleanReport, CleanError> {
        let view = log.cleaning_view()?;
        let mut clean = Clean {
            log,
            view: &view,
            target,
            now_ms,
            pace,
            io_bytes: self.config.io_buffer_bytes.max(IO_BYTES_MIN),
            map: &mut self.map,
            buffers: &mut self.buffers,
            report: CleanReport {
                first_dirty_offset: target.first_dirty_offset,
                cleaned_to: target.first_dirty_offset,
                ..CleanReport::default()
            },
        };
        let result = clean.run();
        let report = clean.report;
        self.map.release();
        self.buffers = Buffers::default();
        match result {
            Ok(()) => Ok(report),
            // What was read may have been cut off or renamed while it was.
            Err(CleanError::Log(_)) if !log.is_undisturbed(&view) || log.has_lost_first(&view) => {
                Err(CleanError::Disturbed)
            }
            Err(error) => Err(error),
        }
    }
}

struct Clean<'a> {
    log: &'a Log,
    view: &'a CleaningView,
    target: &'a Cleanable,
    now_ms: i64,
    pace: &'a dyn Pace,
    io_bytes: usize,
    map: &'a mut OffsetMap,
    buffers: &'a mut Buffers,
    report: CleanReport,
}

impl Clean<'_> {
    fn run(&mut self) -> Result<(), CleanError> {
        // What is replaced must not be looked at by recovery as if its end could be missing.
        self.log.flush(self.target.end_offset)?;
        self.build_map()?;
        let end = self.map.latest_offset() + 1;
        let legacy_horizon_ms = match self.view.below(self.target.first_dirty_offset).last() {
            Some(segment) => segment
                .modified_ms()?
                .saturating_sub(self.view.config.delete_retention_ms),
            None => 0,
        };
        let mut transactions = Transactions::default();
        let segments = self.view.below(end);
        for group in group(segments, self.view, self.target.end_offset)? {
            self.clean_group(group, legacy_horizon_ms, &mut transactions)?;
        }
        self.report.map_utilization = self.map.utilization();
        self.report.cleaned_to = end;
        self.log.finish_clean(self.view, end)
    }

    /// Notes the last offset of each key from the first dirty offset on.
    fn build_map(&mut self) -> Result<(), CleanError> {
        let (start, end) = (self.target.first_dirty_offset, self.target.end_offset);
        let offsets = u64::try_from(end.saturating_sub(start)).unwrap_or(0);
        self.map.begin(offsets);
        let dirty = self.view.range(start, end);
        let mut transactions = Transactions::default();
        transactions.expect(self.log.aborted_transactions(start, end)?);
        for (index, segment) in dirty.iter().enumerate() {
            if !self.map_segment(segment, start, &mut transactions)? {
                break;
            }
            // Whatever the segment's last batch was.
            let next = dirty.get(index + 1).map_or(end, |next| next.base_offset);
            self.map.set_latest_offset(next - 1);
        }
        Ok(())
    }

    /// Returns false if the map was full before the segment was at its end.
    fn map_segment(
        &mut self,
        segment: &Segment,
        start: i64,
        transactions: &mut Transactions,
    ) -> Result<bool, CleanError> {
        let Some(first) = segment.translate(start)? else {
            return Ok(true);
        };
        let mut scan = segment.scan(first.position, segment.size(), self.io_bytes)?;
        loop {
            let (span, bytes) = match scan.next_verified()? {
                Verified::Batch(span, bytes) => (span, bytes),
                Verified::Damaged(fault) => return Err(scan.corrupt(fault).into()),
                Verified::End => return Ok(true),
            };
            let meta = span.meta;
            let faulty = |reason| fault_at(segment, &span, reason);
            let skip = transactions.may_discard(&meta, bytes).map_err(faulty)? || meta.is_control();
            let read = if skip {
                Some(0)
            } else {
                map_batch(self.map, &meta, bytes, start, &mut self.buffers.read).map_err(faulty)?
            };
            let Some(records) = read else {
                return Ok(false);
            };
            if meta.last_offset >= start {
                self.map.set_latest_offset(meta.last_offset);
            }
            self.report.map_records_read += records;
            self.report.map_bytes_read += meta.size as u64;
            self.pace(meta.size as u64)?;
        }
    }

    /// Makes one segment of several and puts it in their place.
    fn clean_group(
        &mut self,
        group: &[Arc<Segment>],
        legacy_horizon_ms: i64,
        transactions: &mut Transactions,
    ) -> Result<(), CleanError> {
        self.log.check_undisturbed(self.view)?;
        let cleaned = self.log.create_cleaned(self.view, group)?;
        let result = self
            .fill(&cleaned, group, legacy_horizon_ms, transactions)
            .and_then(|()| {
                let cleaned = std::slice::from_ref(&cleaned);
                self.log.replace_segments(self.view, group, cleaned)
            });
        if result.is_err() {
            self.log.discard_cleaned(&cleaned);
        }
        if let Err(CleanError::Log(LogError::Corrupt {
            reason: BatchFault::Unindexable(_),
            ..
        })) = &result
            && let [segment] = group
            && self.log.split_segment(self.view, segment)?
        {
            // The next clean finds the parts.
            return Err(CleanError::Disturbed);
        }
        result?;
        self.report.segments_read += group.len();
        self.report.segments_written += 1;
        self.report.bytes_written += cleaned.size();
        Ok(())
    }

    fn fill(
        &mut self,
        cleaned: &Segment,
        group: &[Arc<Segment>],
        legacy_horizon_ms: i64,
        transactions: &mut Transactions,
    ) -> Result<(), CleanError> {
        let producers = self.log.last_records_of_producers();
        let mut modified_ms = 0;
        for (index, segment) in group.iter().enumerate() {
            let end = match group.get(index + 1) {
                Some(next) => next.base_offset,
                None => segment.read_next_offset()?,
            };
            let aborted = self.log.aborted_transactions(segment.base_offset, end)?;
            transactions.expect(aborted);
            modified_ms = segment.modified_ms()?;
            let filter = Filter {
                map: self.map,
                producers: &producers,
                end: self.target.end_offset,
                keep_legacy_tombstones: modified_ms > legacy_horizon_ms,
                now_ms: self.now_ms,
                delete_retention_ms: self.view.config.delete_retention_ms,
            };
            let mut copy = Copy {
                from: segment,
                to: cleaned,
                pace: self.pace,
                io_bytes: self.io_bytes,
                out: Vec::new(),
            };
            copy.run(&filter, transactions, self.buffers, &mut self.report)?;
        }
        for txn in transactions.take_kept() {
            cleaned.txn_index().append(&txn)?;
        }
        cleaned.finish_cleaned(modified_ms)?;
        Ok(())
    }

    fn pace(&self, bytes: u64) -> Result<(), CleanError> {
        go_on(self.pace, bytes)
    }
}

/// The copying of one segment into the new one.
struct Copy<'a> {
    from: &'a Segment,
    to: &'a Segment,
    pace: &'a dyn Pace,
    io_bytes: usize,
    out: Vec<u8>,
}

impl Copy<'_> {
    fn run(
        &mut self,
        filter: &Filter<'_>,
        transactions: &mut Transactions,
        buffers: &mut Buffers,
        report: &mut CleanReport,
    ) -> Result<(), CleanError> {
        let mut scan = self.from.scan(0, self.from.size(), self.io_bytes)?;
        loop {
            let (span, bytes) = match scan.next_verified()? {
                Verified::Batch(span, bytes) => (span, bytes),
                Verified::Damaged(fault) => return Err(scan.corrupt(fault).into()),
                Verified::End => break,
            };
            let filtered = filter
                .apply(&span.meta, bytes, transactions, buffers, &mut self.out)
                .map_err(|reason| fault_at(self.from, &span, reason))?;
            report.bytes_read += span.meta.size as u64;
            report.records_read += filtered.records_read;
            report.records_written += filtered.records_kept;
            report.records_without_key += filtered.without_key;
            go_on(self.pace, span.meta.size as u64)?;
            if self.out.len() >= self.io_bytes {
                self.flush()?;
            }
        }
        self.flush()
    }

    /// Writes what was collected to the new segment.
    fn flush(&mut self) -> Result<(), CleanError> {
        let mut metas = Vec::new();
        let mut at = 0;
        while at < self.out.len() {
            let meta = BatchMeta::parse(&self.out[at..]).map_err(|fault| self.corrupt(fault))?;
            if !fits(self.to.base_offset, meta.last_offset) {
                return Err(self
                    .corrupt(BatchFault::Unindexable(meta.last_offset))
                    .into());
            }
            at += meta.size;
            metas.push(meta);
        }
        let total = self.out.len() as u64;
        if self.to.size() + total > SEGMENT_BYTES_MAX {
            // Old formats can grow.
            return Err(LogError::BatchTooLarge {
                size: self.out.len(),
                max: (SEGMENT_BYTES_MAX - self.to.size()) as usize,
            }
            .into());
        }
        if total > 0 {
            let mut slices = [IoSlice::new(&self.out)];
            self.to
                .append(&mut slices, &metas, total)
                .map_err(|failure| failure.error)?;
            self.out.clear();
            go_on(self.pace, total)?;
        }
        Ok(())
    }

    fn corrupt(&self, reason: BatchFault) -> LogError {
        LogError::Corrupt {
            file: self.from.path(),
            position: 0,
            offset: self.from.base_offset,
            reason,
        }
    }
}

fn go_on(pace: &dyn Pace, bytes: u64) -> Result<(), CleanError> {
    match pace.after_io(bytes) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(CleanError::Stopped),
    }
}

fn fault_at(segment: &Segment, span: &BatchSpan, reason: BatchFault) -> LogError {
    LogError::Corrupt {
        file: segment.path(),
        position: span.position,
        offset: span.meta.base_offset,
        reason,
    }
}

/// Notes the keys of a batch from `start` on. None if the map is full, else the number of records.
fn map_batch(
    map: &mut OffsetMap,
    meta: &BatchMeta,
    bytes: &[u8],
    start: i64,
    scratch: &mut Scratch,
) -> Result<Option<u64>, BatchFault> {
    let mut count = 0;
    let mut note = |key: Option<&[u8]>, offset: i64| {
        count += 1;
        match key {
            Some(key) if offset >= start => map.put(key, offset),
            _ => true,
        }
    };
    if meta.magic < 2 {
        let message = Message::parse(bytes).map_err(|_| BatchFault::Records)?;
        for record in message.records(scratch).map_err(|_| BatchFault::Records)? {
            if !note(record.key, record.offset) {
                return Ok(None);
            }
        }
        return Ok(Some(count));
    }
    let view = BatchView::parse(bytes).map_err(|_| BatchFault::Records)?;
    for record in view.records(scratch).map_err(|_| BatchFault::Records)? {
        let record = record.map_err(|_| BatchFault::Records)?;
        if !note(record.key, record.offset) {
            return Ok(None);
        }
    }
    Ok(Some(count))
}
