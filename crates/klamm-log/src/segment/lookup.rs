use klamm_env::FileExt;

use crate::batch::NO_TIMESTAMP;
use crate::error::{BatchFault, IoContext, LogError};
use crate::index::time::TimestampOffset;
use crate::segment::scan::{HEADERS, Verified};
use crate::segment::{BatchScan, BatchSpan, Segment, SegmentState};
use crate::storage::lock;

impl Segment {
    /// Whether the index of aborted transactions, if there is one, can be what was written.
    pub(crate) fn has_sound_txn_index(&self) -> Result<bool, LogError> {
        match self.txn_index().entries() {
            Err(LogError::MalformedFile { .. }) => Ok(false),
            result => result.map(|_| true),
        }
    }

    /// The batch that holds `offset`, or the first after it. None if all batches are below.
    pub(crate) fn translate(&self, offset: i64) -> Result<Option<BatchSpan>, LogError> {
        let mut state = lock(&self.state);
        if let Some(found) = recent_reaching(&state, offset) {
            return Ok(found);
        }
        let from = self.offsets_in(&mut state)?.position_at_or_below(offset)?;
        drop(state);
        self.scan_to(offset, from, self.size())
    }

    /// The batch that holds `offset` or the first after it, and the position before which all
    /// offsets are below `upper`. Both from the same moment, so that bytes which were written but
    /// not covered by `upper` when it was taken stay out.
    pub(crate) fn locate(
        &self,
        offset: i64,
        upper: i64,
    ) -> Result<(Option<BatchSpan>, u64), LogError> {
        let mut state = lock(&self.state);
        let size = self.size();
        let start = recent_reaching(&state, offset);
        let end =
            recent_reaching(&state, upper).map(|found| found.map_or(size, |span| span.position));
        if let (Some(start), Some(end)) = (start, end) {
            return Ok((start, end));
        }
        let index = self.offsets_in(&mut state)?;
        let start_from = index.position_at_or_below(offset)?;
        let end_from = index.position_at_or_below(upper)?;
        drop(state);
        let start = match start {
            Some(start) => start,
            None => self.scan_to(offset, start_from, size)?,
        };
        let end = match end {
            Some(end) => end,
            None => match self.scan_to(upper, end_from, size) {
                // What lies before the damage can be read.
                Err(LogError::Corrupt { position, .. }) => position,
                found => found?.map_or(size, |span| span.position),
            },
        };
        Ok((start, end))
    }

    /// Walks from a position that the index gave to the first batch that reaches `offset`. If the
    /// index turns out wrong, from the start: it must not make good batches unreadable.
    fn scan_to(&self, offset: i64, from: u64, size: u64) -> Result<Option<BatchSpan>, LogError> {
        if from > 0 {
            let mut scan = self.scan(from, size, HEADERS)?;
            match scan.next_header() {
                Ok(Some(first)) if first.meta.base_offset <= offset => {
                    if first.meta.last_offset >= offset {
                        return Ok(Some(first));
                    }
                    return first_reaching(offset, scan);
                }
                Ok(_) | Err(LogError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
            self.rebuild_indexes(&mut lock(&self.state))?;
        }
        first_reaching(offset, self.scan(0, size, HEADERS)?)
    }

    /// The error for a batch whose offsets are other segments'.
    pub(crate) fn misplaced(&self, span: &BatchSpan) -> LogError {
        LogError::Corrupt {
            file: self.path(),
            position: span.position,
            offset: span.meta.base_offset,
            reason: BatchFault::Offset(span.meta.last_offset),
        }
    }

    /// The bytes of a batch.
    pub(crate) fn read_batch(&self, span: &BatchSpan) -> Result<Vec<u8>, LogError> {
        let mut bytes = vec![0; span.meta.size];
        self.file()?
            .read_exact_at(&mut bytes, span.position)
            .at("read", &self.path())?;
        Ok(bytes)
    }

    /// Offset of an index entry at or behind a position: an upper bound for what a read up to
    /// there contains. None if there is none, or one that does not fit its batch.
    pub(crate) fn upper_bound_offset(&self, position: u64) -> Result<Option<i64>, LogError> {
        let mut state = lock(&self.state);
        let entry = self.offsets_in(&mut state)?.entry_from_position(position)?;
        drop(state);
        let Some((offset, position)) = entry else {
            return Ok(None);
        };
        // Aborted transactions above a bound that is too low would be taken for committed ones.
        let mut scan = self.scan(position, self.size(), HEADERS)?;
        match scan.next_header() {
            Ok(Some(span)) if span.meta.last_offset <= offset => Ok(Some(offset)),
            Ok(_) | Err(LogError::Corrupt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The offset after the segment's last batch.
    pub(crate) fn read_next_offset(&self) -> Result<i64, LogError> {
        let mut state = lock(&self.state);
        if let Some(last) = state.recent.back() {
            return Ok(last.meta.next_offset());
        }
        let index = self.offsets_in(&mut state)?;
        let last_indexed = index.last_offset();
        let from = index.position_at_or_below(last_indexed)?;
        drop(state);
        let mut next = self.base_offset;
        let size = self.size();
        let mut scan = self.scan(from, size, HEADERS)?;
        if from > 0 && from >= size {
            return Err(scan.corrupt(BatchFault::Truncated));
        }
        loop {
            match scan.next_header() {
                Ok(Some(span)) => next = span.meta.next_offset(),
                Ok(None) => return Ok(next),
                // Damage in the middle; the end is what is asked for.
                Err(error @ LogError::Corrupt { .. }) => match scan.resync()? {
                    Some(span) => next = span.meta.next_offset(),
                    None => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
    }

    /// The largest timestamp with the last offset of its batch; timestamp -1 if there is none.
    pub(crate) fn max_timestamp(&self) -> Result<TimestampOffset, LogError> {
        let mut state = lock(&self.state);
        self.max_timestamp_in(&mut state)
    }

    /// As [`max_timestamp`](Self::max_timestamp), held against the batch that it is said to be of:
    /// the index has no checksum, and who goes by a timestamp that is wrong passes over records or
    /// deletes them too early.
    pub(crate) fn checked_max_timestamp(&self) -> Result<TimestampOffset, LogError> {
        let mut state = lock(&self.state);
        let max = self.max_timestamp_in(&mut state)?;
        if state.max_is_certain {
            return Ok(max);
        }
        drop(state);
        let holds = match self.translate(max.offset) {
            Ok(Some(span)) => span.meta.max_timestamp == max.timestamp,
            Ok(None) => self.size() == 0 && max.timestamp == NO_TIMESTAMP,
            Err(LogError::Corrupt { .. }) => false,
            Err(error) => return Err(error),
        };
        let mut state = lock(&self.state);
        if !holds {
            self.rebuild_indexes(&mut state)?;
        }
        state.max_is_certain = true;
        self.max_timestamp_in(&mut state)
    }

    /// The timestamp that retention goes by: the largest of the records, or the file's.
    pub(crate) fn retention_timestamp(&self) -> Result<i64, LogError> {
        let max = self.max_timestamp()?.timestamp;
        if max >= 0 {
            return Ok(max);
        }
        self.modified_ms()
    }

    /// When the file of batches was last changed.
    pub(crate) fn modified_ms(&self) -> Result<i64, LogError> {
        let path = self.path();
        let metadata = self.dir.fs.metadata(&path).at("inspect", &path)?;
        Ok(metadata.modified_ms)
    }

    /// Timestamp of the first batch, -1 if there is none.
    pub(crate) fn first_timestamp(&self) -> Result<i64, LogError> {
        let mut state = lock(&self.state);
        self.first_timestamp_in(&mut state)
    }

    /// Bytes that the entries of the offset and the time index take.
    pub(crate) fn index_bytes(&self) -> Result<[u64; 2], LogError> {
        let mut state = lock(&self.state);
        let offsets = self.offsets_in(&mut state)?.bytes();
        let times = self.times_in(&mut state)?.bytes();
        Ok([offsets, times])
    }

    /// Shows `visit` the batches that reach both `timestamp` and `offset`, in order, until it
    /// returns a value.
    pub(crate) fn find_by_timestamp<T>(
        &self,
        timestamp: i64,
        offset: i64,
        mut visit: impl FnMut(BatchSpan) -> Result<Option<T>, LogError>,
    ) -> Result<Option<T>, LogError> {
        let mut state = lock(&self.state);
        let entry = self.times_in(&mut state)?.at_or_before(timestamp)?;
        drop(state);
        // The entry's batch was the first with its timestamp: those before it are older.
        let mut first = self.translate(entry.offset.max(offset))?;
        let is_entrys = |span: &BatchSpan| span.meta.max_timestamp == entry.timestamp;
        if entry.offset > offset && !first.as_ref().is_some_and(is_entrys) {
            // What the index says is not so.
            first = self.translate(self.base_offset.max(offset))?;
        }
        let Some(first) = first else {
            return Ok(None);
        };
        let mut scan = self.scan(first.position, self.size(), HEADERS)?;
        loop {
            // Verified: what is passed over by a damaged timestamp nobody else would miss.
            let span = match scan.next_verified()? {
                Verified::Batch(span, _) => span,
                Verified::Damaged(fault) => return Err(scan.corrupt(fault)),
                Verified::End => return Ok(None),
            };
            if span.meta.max_timestamp >= timestamp
                && span.meta.last_offset >= offset
                && let Some(found) = visit(span)?
            {
                return Ok(Some(found));
            }
        }
    }
}

/// The batch that reaches `offset` by the remembered ones; the inner none if the segment ends
/// below it. The outer none if the remembered ones do not reach back that far.
fn recent_reaching(state: &SegmentState, offset: i64) -> Option<Option<BatchSpan>> {
    let first = state.recent.front()?;
    if offset < first.meta.base_offset {
        return None;
    }
    let index = state
        .recent
        .partition_point(|span| span.meta.last_offset < offset);
    Some(state.recent.get(index).copied())
}

/// Walks to the first batch that reaches `offset`. Damage before it is passed over; damage that
/// the offset may lie in is an error.
fn first_reaching(offset: i64, mut scan: BatchScan) -> Result<Option<BatchSpan>, LogError> {
    loop {
        let span = match scan.next_header() {
            Err(error @ LogError::Corrupt { .. }) => match scan.resync()? {
                Some(span) if span.meta.base_offset <= offset => Some(span),
                _ => return Err(error),
            },
            found => found?,
        };
        if span.is_none_or(|span| span.meta.last_offset >= offset) {
            return Ok(span);
        }
    }
}
