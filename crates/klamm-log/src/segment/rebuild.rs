//! Making the offset and time index of a segment from its batches.

use crate::batch::NO_TIMESTAMP;
use crate::error::{IoContext, LogError};
use crate::index::offset::{OffsetIndex, fits};
use crate::index::time::{TimeIndex, TimestampOffset};
use crate::segment::scan::WHOLE;
use crate::segment::{BatchSpan, Segment, SegmentState};

/// Builds both indexes by the rule of appends: an entry if more than the interval lies between
/// the last one's batch and this.
pub(super) struct IndexBuilder {
    offsets: OffsetIndex,
    times: TimeIndex,
    max: TimestampOffset,
    last_entry_at: u64,
    interval_bytes: u64,
    first_timestamp: Option<i64>,
}

impl IndexBuilder {
    /// Empties the index files of a segment.
    pub(super) fn new(segment: &Segment) -> Result<IndexBuilder, LogError> {
        let (dir, base_offset) = (&segment.dir, segment.base_offset);
        Ok(IndexBuilder {
            offsets: OffsetIndex::create(dir.clone(), base_offset, segment.index_bytes_max)?,
            times: TimeIndex::create(dir.clone(), base_offset, segment.index_bytes_max)?,
            max: TimestampOffset {
                timestamp: NO_TIMESTAMP,
                offset: base_offset,
            },
            last_entry_at: 0,
            interval_bytes: segment.index_interval_bytes,
            first_timestamp: None,
        })
    }

    /// Notes the next batch.
    pub(super) fn note(&mut self, span: &BatchSpan) {
        let meta = &span.meta;
        if meta.max_timestamp > self.max.timestamp {
            self.max = TimestampOffset {
                timestamp: meta.max_timestamp,
                offset: meta.last_offset,
            };
        }
        self.first_timestamp.get_or_insert(meta.max_timestamp);
        if span.position - self.last_entry_at > self.interval_bytes {
            self.offsets.append(meta.last_offset, span.position);
            self.times.maybe_append(self.max);
            self.last_entry_at = span.position;
        }
    }

    /// Writes the files and hands the indexes to the segment.
    pub(super) fn finish(mut self, state: &mut SegmentState) -> Result<(), LogError> {
        self.times.maybe_append(self.max);
        self.offsets.write_tail()?;
        self.times.write_tail()?;
        state.bytes_since_entry = 0;
        state.max_timestamp = Some(self.max);
        state.max_is_certain = true;
        state.sealed = false;
        state.first_timestamp = self.first_timestamp;
        state.offsets = Some(self.offsets);
        state.times = Some(self.times);
        Ok(())
    }
}

impl Segment {
    /// Makes both indexes anew, from the batches that are not damaged: what to do about an index that is
    /// missing or damaged while the segment is in use.
    pub(super) fn rebuild_indexes(&self, state: &mut SegmentState) -> Result<(), LogError> {
        if self.is_retired() {
            return Err(self.not_loaded());
        }
        // First the batches: a segment that was removed meanwhile gets no new files.
        let mut scan = self.scan(0, self.size(), WHOLE)?;
        let mut builder = IndexBuilder::new(self)?;
        while let Some(span) = scan.next_sound()? {
            // A checksum does not cover a batch's offset. What the indexes said of one that cannot be
            // of this segment would keep out what is to be said of those behind it.
            if fits(self.base_offset, span.meta.last_offset) {
                builder.note(&span);
            }
        }
        builder.finish(state)?;
        // Durable at once: below the recovery point no flush will look at them, and half an index
        // looks like a whole one.
        for unsynced in [
            state.offsets.as_mut().map(|index| index.take_unsynced()),
            state.times.as_mut().map(|index| index.take_unsynced()),
        ] {
            if let Some((file, path)) = unsynced.transpose()?.flatten() {
                file.sync_all().at("sync", &path)?;
            }
        }
        Ok(())
    }
}
