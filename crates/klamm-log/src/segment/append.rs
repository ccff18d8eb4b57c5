use std::io::IoSlice;
use std::sync::atomic::Ordering;

use klamm_env::FileExt;

use crate::batch::{BatchMeta, NO_TIMESTAMP};
use crate::error::{IoContext, LogError};
use crate::index::offset::fits;
use crate::index::time::TimestampOffset;
use crate::segment::scan::HEADERS;
use crate::segment::{BatchSpan, RECENT_BATCHES, Segment, SegmentState};
use crate::storage::lock;

/// What decides whether an append goes to a new segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RollCheck {
    pub(crate) segment_bytes_max: u64,
    pub(crate) segment_ms: i64,
    pub(crate) append_bytes: u64,
    pub(crate) max_timestamp: i64,
    pub(crate) last_offset: i64,
    pub(crate) now_ms: i64,
}

/// The error of a write, and whether the file is as it was before.
#[derive(Debug)]
pub(crate) struct WriteFailure {
    pub(crate) error: LogError,
    pub(crate) undone: bool,
}

impl Segment {
    pub(crate) fn should_roll(&self, check: &RollCheck) -> Result<bool, LogError> {
        let size = self.size();
        if size + check.append_bytes > check.segment_bytes_max
            || !fits(self.base_offset, check.last_offset)
        {
            return Ok(true);
        }
        let mut state = lock(&self.state);
        if self.offsets_in(&mut state)?.is_full() || self.times_in(&mut state)?.is_full() {
            return Ok(true);
        }
        if size == 0 {
            return Ok(false);
        }
        // Age by record time; by the clock only where records have no timestamps.
        let first = self.first_timestamp_in(&mut state)?;
        let age_ms = if first >= 0 {
            check.max_timestamp.saturating_sub(first)
        } else {
            check.now_ms.saturating_sub(state.created_ms)
        };
        Ok(age_ms > check.segment_ms.saturating_sub(self.roll_jitter_ms))
    }

    /// Timestamp of the first batch, -1 if there is none.
    pub(super) fn first_timestamp_in(&self, state: &mut SegmentState) -> Result<i64, LogError> {
        if state.first_timestamp.is_none() {
            let first = self.scan(0, self.size(), HEADERS)?.next_readable()?;
            state.first_timestamp = first.map(|span| span.meta.max_timestamp);
        }
        Ok(state.first_timestamp.unwrap_or(NO_TIMESTAMP))
    }

    /// Writes batches at the end, with one system call, and notes them. `total` is the sum of the
    /// sizes in `metas` and of the lengths in `bytes`.
    pub(crate) fn append(
        &self,
        bytes: &mut [IoSlice<'_>],
        metas: &[BatchMeta],
        total: u64,
    ) -> Result<(), WriteFailure> {
        let position = self.size();
        let unwritten = |error| WriteFailure {
            error,
            undone: true,
        };
        let file = self.file().map_err(unwritten)?;
        // Loaded before the write: after it nothing may fail. Not held during the write, so that
        // readers of the same segment need not wait for it. The largest timestamp so far decides
        // what is added to the time index: one that is wrong would stay there for good.
        let mut state = lock(&self.state);
        if !state.max_is_certain {
            drop(state);
            self.checked_max_timestamp().map_err(unwritten)?;
            state = lock(&self.state);
        }
        self.offsets_in(&mut state).map_err(unwritten)?;
        self.max_timestamp_in(&mut state).map_err(unwritten)?;
        self.times_in(&mut state).map_err(unwritten)?;
        if let Some(first) = metas.first() {
            self.forget_entries_from(&mut state, first.base_offset)
                .map_err(unwritten)?;
        }
        drop(state);
        let written = file.write_all_vectored_at(bytes, position);
        self.note_change();
        if let Err(error) = written {
            // A torn batch would end recovery where acknowledged batches may follow it. The cut
            // must be durable: the next flush may find nothing to do in this file.
            let undone = file
                .set_len(position)
                .and_then(|()| file.sync_data())
                .is_ok();
            let error = Err(error).at("append to", &self.path());
            return error.map_err(|error| WriteFailure { error, undone });
        }
        let mut position = position;
        let mut state = lock(&self.state);
        for &meta in metas {
            self.note(&mut state, BatchSpan { position, meta });
            position += meta.size as u64;
        }
        self.size.fetch_add(total, Ordering::Release);
        Ok(())
    }

    /// Removes what the indexes say of offsets that are only now to be written: they were made anew
    /// while the base offset of the last batch, which no checksum covers, was damaged. They would
    /// keep out what is right.
    fn forget_entries_from(&self, state: &mut SegmentState, offset: i64) -> Result<(), LogError> {
        let offsets = self.offsets_in(state)?;
        if offsets.len() > 0 && offsets.last_offset() >= offset {
            offsets.truncate_to_offset(offset)?;
        }
        let times = self.times_in(state)?;
        if times.len() > 0 && times.last_entry().offset >= offset {
            times.truncate_to_offset(offset)?;
        }
        if let Some(max) = &mut state.max_timestamp
            && max.offset >= offset
            && offset > self.base_offset
        {
            // Of that batch, whose timestamp is covered.
            max.offset = offset - 1;
        }
        Ok(())
    }

    /// Notes a written batch in the indexes, by Kafka's rule: an entry if more than the interval
    /// was written since the last one, before this batch.
    fn note(&self, state: &mut SegmentState, span: BatchSpan) {
        let meta = span.meta;
        state.sealed = false;
        if span.position == 0 {
            state.first_timestamp = Some(meta.max_timestamp);
        }
        let newer = state
            .max_timestamp
            .is_none_or(|max| meta.max_timestamp > max.timestamp);
        if newer {
            state.max_timestamp = Some(TimestampOffset {
                timestamp: meta.max_timestamp,
                offset: meta.last_offset,
            });
        }
        if state.bytes_since_entry > self.index_interval_bytes {
            if let Some(index) = &mut state.offsets {
                index.append(meta.last_offset, span.position);
            }
            if let (Some(index), Some(max)) = (&mut state.times, state.max_timestamp) {
                index.maybe_append(max);
            }
            state.bytes_since_entry = 0;
        }
        state.bytes_since_entry += meta.size as u64;
        if state.recent.len() == RECENT_BATCHES {
            state.recent.pop_front();
        }
        state.recent.push_back(span);
        state.grew = true;
    }

    /// Finishes a segment that compaction wrote: makes it durable and as old as what it is made
    /// of, which retention goes by where records have no timestamps.
    pub(crate) fn finish_cleaned(&self, modified_ms: i64) -> Result<(), LogError> {
        self.seal()?;
        let file = self.file()?;
        file.set_modified_ms(modified_ms).at("date", &self.path())?;
        // It may be empty, and its length is to be right, too.
        file.sync_all().at("sync", &self.path())?;
        self.sync()
    }

    /// Removes the batch that holds `offset` and all after it. Returns how many bytes went.
    pub(crate) fn truncate_to(&self, offset: i64, now_ms: i64) -> Result<u64, LogError> {
        let from = match self.translate(offset) {
            Err(LogError::Corrupt { position, .. }) => Some(position),
            found => found?.map(|span| span.position),
        };
        self.checked_max_timestamp()?;
        let mut state = lock(&self.state);
        state.sealed = false;
        self.offsets_in(&mut state)?.truncate_to_offset(offset)?;
        self.times_in(&mut state)?.truncate_to_offset(offset)?;
        self.txn_index().truncate_to_offset(offset)?;
        let size = self.size();
        let Some(position) = from else {
            return Ok(0);
        };
        self.size.store(position, Ordering::Release);
        let file = self.file()?;
        file.set_len(position).at("truncate", &self.path())?;
        self.note_change();
        // What was cut off must not come back behind batches that are written in its place.
        file.sync_data().at("sync", &self.path())?;
        if position == 0 {
            state.created_ms = now_ms;
            state.first_timestamp = None;
        }
        state.bytes_since_entry = 0;
        state.recent.retain(|span| span.position < position);
        let max = self.largest_timestamp_by_scan(&mut state)?;
        state.max_timestamp = Some(max);
        // It may be of an entry that was never the last one before.
        state.max_is_certain = position == 0;
        Ok(size - position)
    }

    /// The largest timestamp, from the time index and the batches after its last entry.
    fn largest_timestamp_by_scan(
        &self,
        state: &mut SegmentState,
    ) -> Result<TimestampOffset, LogError> {
        let mut max = self.times_in(state)?.last_entry();
        let from = self.offsets_in(state)?.position_at_or_below(max.offset)?;
        let mut scan = self.scan(from, self.size(), HEADERS)?;
        while let Some(span) = scan.next_readable()? {
            if span.meta.max_timestamp > max.timestamp {
                max = TimestampOffset {
                    timestamp: span.meta.max_timestamp,
                    offset: span.meta.last_offset,
                };
            }
        }
        Ok(max)
    }
}
