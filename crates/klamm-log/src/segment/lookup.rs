use klamm_env::FileExt;

use crate::error::{BatchFault, IoContext, LogError};
use crate::index::time::TimestampOffset;
use crate::segment::scan::HEADERS;
use crate::segment::{BatchScan, BatchSpan, Segment, SegmentState};
use crate::storage::lock;

impl Segment {
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
            None => self
                .scan_to(upper, end_from, size)?
                .map_or(size, |span| span.position),
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
                    return first_reaching(offset, first, scan);
                }
                Ok(_) | Err(LogError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
            self.rebuild_indexes(&mut lock(&self.state))?;
        }
        let mut scan = self.scan(0, size, HEADERS)?;
        match scan.next_header()? {
            Some(first) => first_reaching(offset, first, scan),
            None => Ok(None),
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
    /// there contains.
    pub(crate) fn upper_bound_offset(&self, position: u64) -> Result<Option<i64>, LogError> {
        let mut state = lock(&self.state);
        self.offsets_in(&mut state)?.offset_from_position(position)
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
        while let Some(span) = scan.next_header()? {
            next = span.meta.next_offset();
        }
        Ok(next)
    }

    /// The largest timestamp with the last offset of its batch; timestamp -1 if there is none.
    pub(crate) fn max_timestamp(&self) -> Result<TimestampOffset, LogError> {
        let mut state = lock(&self.state);
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
        let Some(first) = self.translate(entry.offset.max(offset))? else {
            return Ok(None);
        };
        let mut scan = self.scan(first.position, self.size(), HEADERS)?;
        while let Some(span) = scan.next_header()? {
            if span.meta.max_timestamp >= timestamp
                && span.meta.last_offset >= offset
                && let Some(found) = visit(span)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
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

fn first_reaching(
    offset: i64,
    first: BatchSpan,
    mut rest: BatchScan,
) -> Result<Option<BatchSpan>, LogError> {
    let mut span = first;
    while span.meta.last_offset < offset {
        match rest.next_header()? {
            Some(next) => span = next,
            None => return Ok(None),
        }
    }
    Ok(Some(span))
}
