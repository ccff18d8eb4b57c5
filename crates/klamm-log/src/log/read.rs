use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use klamm_env::File;

use crate::error::LogError;
use crate::log::Log;
use crate::segment::{BatchSpan, Segment};
use crate::storage::lock;

/// A part of a file.
#[derive(Clone, Debug)]
pub struct LogSlice {
    /// The open file.
    pub file: Arc<dyn File>,
    /// Where the part begins.
    pub position: u64,
    /// Its length in bytes.
    pub len: usize,
}

/// What a read found: where the bytes lie, not the bytes.
#[derive(Clone, Debug)]
pub struct LogRead {
    /// Consecutive parts of segments. The first begins with the batch that holds the offset asked
    /// for; the last may end within a batch.
    pub parts: Vec<LogSlice>,
    /// Bytes in all parts.
    pub len: usize,
    /// First offset of the first batch; the offset asked for if nothing was found. At most the
    /// offset asked for, unless compaction left a gap there.
    pub first_offset: i64,
    /// First offset of the log at the time of the read.
    pub log_start_offset: i64,
    /// End of the log at the time of the read.
    pub log_end_offset: i64,
    /// Segment of the last part and where the part ends in it.
    end: Option<(Arc<Segment>, u64)>,
    /// What [`Log::truncations`] was at the time of the read.
    truncations: u64,
    /// What [`Log::layout`] was.
    layout: u64,
}

impl LogRead {
    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Log {
    /// Finds the batches from the one that holds `start_offset` on, up to `max_bytes` and below
    /// `max_offset` (the high watermark, the last stable offset, or `i64::MAX`). With `min_one`
    /// the first batch is returned whole even if it is larger than `max_bytes`.
    ///
    /// Nothing at or above `max_offset` is returned, and nothing at all if the offset lies
    /// between it and the end of the log.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] below the start or above the end of the log, or the disk's.
    pub fn read(
        &self,
        start_offset: i64,
        max_bytes: usize,
        max_offset: i64,
        min_one: bool,
    ) -> Result<LogRead, LogError> {
        self.check_status()?;
        loop {
            let truncations = self.truncations.load(Ordering::SeqCst);
            let result =
                self.with_segments(|| self.read_once(start_offset, max_bytes, max_offset, min_one));
            // Segments were cut short or exchanged while it read: what was found may not fit
            // together. That happens now and then, not all the time.
            if self.truncations.load(Ordering::SeqCst) != truncations {
                continue;
            }
            return match result {
                // The segment was removed while it was read.
                Err(_) if start_offset < self.log_start_offset() => {
                    Err(self.out_of_range(start_offset))
                }
                Err(error) => Err(self.note_failure(error)),
                read => read,
            };
        }
    }

    /// Whether a read from `offset` on begins in a closed segment: finding the place then takes
    /// pages of an index and of the log that need not be in memory.
    pub fn is_in_closed_segment(&self, offset: i64) -> bool {
        let segments = self.segments.read().unwrap_or_else(PoisonError::into_inner);
        segments
            .last_key_value()
            .is_some_and(|(&active, _)| offset < active)
    }

    fn read_once(
        &self,
        start_offset: i64,
        max_bytes: usize,
        max_offset: i64,
        min_one: bool,
    ) -> Result<LogRead, LogError> {
        let mut read = LogRead {
            parts: Vec::new(),
            len: 0,
            first_offset: start_offset,
            log_start_offset: self.log_start_offset(),
            log_end_offset: self.log_end_offset(),
            end: None,
            truncations: self.truncations.load(Ordering::SeqCst),
            layout: self.layout.load(Ordering::SeqCst),
        };
        if start_offset < read.log_start_offset || start_offset > read.log_end_offset {
            return Err(self.out_of_range(start_offset));
        }
        let upper = max_offset.min(read.log_end_offset);
        if start_offset >= upper {
            return Ok(read);
        }
        let mut next = self.segment_at(start_offset);
        if next.is_none() {
            self.refuse_tiered(start_offset)?;
            next = self.segment_after(start_offset);
        }
        while let Some(segment) = next {
            let following = self.segment_after(segment.base_offset);
            let bounded = following
                .as_ref()
                .is_none_or(|following| following.base_offset > upper);
            let (first, end) = if bounded {
                segment.locate(start_offset, upper)?
            } else {
                (segment.translate(start_offset)?, segment.size())
            };
            if let Some(first) = first.filter(|first| first.position < end) {
                self.check_place(&segment, &first)?;
                let mut room = max_bytes - read.len.min(max_bytes);
                if read.parts.is_empty() {
                    read.first_offset = first.meta.base_offset;
                    if min_one {
                        room = room.max(first.meta.size);
                    }
                }
                let len = room.min(usize::try_from(end - first.position).unwrap_or(usize::MAX));
                if len > 0 {
                    read.parts.push(LogSlice {
                        file: segment.file()?,
                        position: first.position,
                        len,
                    });
                    read.len += len;
                    read.end = Some((segment.clone(), first.position + len as u64));
                }
                if first.position + (len as u64) < end {
                    break;
                }
            }
            // Without room there is still one batch to be found, behind the gap that this segment may
            // end with.
            if read.len >= max_bytes && (!min_one || !read.parts.is_empty()) {
                break;
            }
            next = following.filter(|following| following.base_offset < upper);
        }
        Ok(read)
    }

    /// Refuses a batch with offsets of other segments, or beyond the end: its header is damaged.
    pub(super) fn check_place(&self, segment: &Segment, span: &BatchSpan) -> Result<(), LogError> {
        let limit = || {
            let following = self.segment_after(segment.base_offset);
            following.map_or(self.log_end_offset(), |following| following.base_offset)
        };
        if span.meta.last_offset < limit() {
            return Ok(());
        }
        // An append that is under way holds the lock.
        drop(lock(&self.state));
        if span.meta.last_offset < limit() {
            Ok(())
        } else {
            Err(segment.misplaced(span))
        }
    }

    /// Whether the segments are still those that were read: none were replaced by compaction, cut
    /// or moved. Otherwise what this log says about aborted transactions may not be about the
    /// records that were read.
    pub fn is_current(&self, read: &LogRead) -> bool {
        read.layout == self.layout.load(Ordering::SeqCst)
            && read.truncations == self.truncations.load(Ordering::SeqCst)
    }

    /// An offset behind all records of a read, for [`Log::aborted_transactions`]; not necessarily
    /// the first such.
    ///
    /// # Errors
    /// The disk's.
    pub fn upper_bound_offset(&self, read: &LogRead) -> Result<i64, LogError> {
        let Some((segment, position)) = &read.end else {
            return Ok(read.first_offset);
        };
        match segment.upper_bound_offset(*position) {
            Ok(Some(bound)) => return Ok(bound),
            // Its files may not be opened any more. The end is a bound, too.
            Err(_) if !self.is_current(read) => return Ok(read.log_end_offset),
            result => result?,
        };
        let next = self.segment_after(segment.base_offset);
        // After a truncation or a move the next segment is another one.
        let same = self.truncations.load(Ordering::SeqCst) == read.truncations;
        let next = next.filter(|_| same);
        Ok(next.map_or(read.log_end_offset, |segment| segment.base_offset))
    }
}
