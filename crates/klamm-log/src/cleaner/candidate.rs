//! Which part of a log can be compacted, and how much it needs to be.

use std::sync::Arc;

use crate::error::LogError;
use crate::log::{CleaningView, Log};
use crate::segment::Segment;

/// What a clean of a log would be, and what speaks for it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cleanable {
    /// First offset that was not compacted yet.
    pub first_dirty_offset: i64,
    /// Where the clean would end: the start of the first segment that is active, holds records
    /// that are not stable, or is younger than `min.compaction.lag.ms`.
    pub end_offset: i64,
    /// Bytes of segments below the dirty part.
    pub clean_bytes: u64,
    /// Bytes of segments that would be compacted for the first time.
    pub dirty_bytes: u64,
    /// By how much the oldest dirty record is older than `max.compaction.lag.ms`, in
    /// milliseconds; 0 if it is not.
    pub overdue_ms: i64,
}

impl Cleanable {
    /// The dirty share of the bytes; 0 if there are none.
    pub fn dirty_ratio(&self) -> f64 {
        match self.clean_bytes + self.dirty_bytes {
            0 => 0.0,
            all => self.dirty_bytes as f64 / all as f64,
        }
    }

    /// Whether the log should be compacted now, under this `min.cleanable.dirty.ratio`.
    pub fn is_due(&self, min_dirty_ratio: f64) -> bool {
        (self.overdue_ms > 0 && self.dirty_bytes > 0) || self.dirty_ratio() > min_dirty_ratio
    }
}

impl Log {
    /// What a clean would do at the time `now_ms`.
    ///
    /// # Errors
    /// The disk's, or [`LogError::Closed`].
    pub fn cleanable(&self, now_ms: i64) -> Result<Cleanable, LogError> {
        self.with_segments(|| {
            let view = self.cleaning_view()?;
            let first_dirty_offset = first_dirty_offset(self);
            let limit = uncleanable_from(&view, first_dirty_offset, now_ms)?;
            // Only whole segments are compacted.
            let end_offset = view
                .sealed_from(limit)
                .first()
                .map_or(view.active_base(), |segment| segment.base_offset);
            let dirty = view.range(first_dirty_offset.min(end_offset), end_offset);
            Ok(Cleanable {
                first_dirty_offset,
                end_offset,
                clean_bytes: size_of(view.below(first_dirty_offset)),
                dirty_bytes: size_of(dirty),
                overdue_ms: overdue_ms(&view, first_dirty_offset, now_ms)?,
            })
        })
    }
}

/// Where the dirty part begins: at the noted offset or, if that is not within the log any more,
/// at its start.
fn first_dirty_offset(log: &Log) -> i64 {
    let start = log.log_start_offset();
    log.cleaned_to()
        .filter(|noted| (start..=log.log_end_offset()).contains(noted))
        .unwrap_or(start)
}

/// The first offset that must not be compacted yet.
fn uncleanable_from(
    view: &CleaningView,
    first_dirty_offset: i64,
    now_ms: i64,
) -> Result<i64, LogError> {
    let mut limit = view.last_stable_offset.min(view.active_base());
    let lag_ms = view.config.min_compaction_lag_ms;
    if lag_ms > 0 {
        for segment in view.sealed_from(first_dirty_offset) {
            if segment.retention_timestamp()? > now_ms.saturating_sub(lag_ms) {
                limit = limit.min(segment.base_offset);
                break;
            }
        }
    }
    Ok(limit.max(first_dirty_offset))
}

/// By how much `max.compaction.lag.ms` is exceeded, by the first timestamps of dirty segments.
fn overdue_ms(view: &CleaningView, first_dirty_offset: i64, now_ms: i64) -> Result<i64, LogError> {
    let lag_ms = view.config.max_compaction_lag_ms.max(0);
    let due_from = now_ms.saturating_sub(lag_ms);
    if due_from <= 0 {
        // No lag that could be exceeded: spares a look into every segment.
        return Ok(0);
    }
    let mut oldest = i64::MAX;
    for segment in view.sealed_from(first_dirty_offset) {
        let first = segment.first_timestamp()?;
        if first > 0 {
            oldest = oldest.min(first);
        }
    }
    Ok(due_from.saturating_sub(oldest).max(0))
}

fn size_of(segments: &[Arc<Segment>]) -> u64 {
    segments.iter().map(|segment| segment.size()).sum()
}

/// Cuts segments into groups that become one each: as many in a row as do not exceed the size of
/// a segment or of its indexes, and whose offsets can be told relative to the first. `end` is the
/// offset after the last segment.
pub(super) fn group<'a>(
    segments: &'a [Arc<Segment>],
    view: &CleaningView,
    end: i64,
) -> Result<Vec<&'a [Arc<Segment>]>, LogError> {
    let bytes_max = u64::from(view.config.segment_bytes);
    let index_bytes_max = u64::from(view.config.segment_index_bytes);
    let mut groups = Vec::new();
    let mut from = 0;
    let mut room = Room::default();
    for (at, segment) in segments.iter().enumerate() {
        let next = Room {
            bytes: segment.size(),
            index_bytes: segment.index_bytes()?,
        };
        let last_offset = segments.get(at + 1).map_or(end, |next| next.base_offset) - 1;
        let fits = at > from && {
            let sum = room.plus(&next);
            let offsets_fit = segment.size() == 0
                || last_offset - segments[from].base_offset <= i64::from(i32::MAX);
            offsets_fit
                && sum.bytes <= bytes_max
                && sum
                    .index_bytes
                    .iter()
                    .all(|&bytes| bytes <= index_bytes_max)
        };
        if fits {
            room = room.plus(&next);
        } else {
            if at > from {
                groups.push(&segments[from..at]);
            }
            from = at;
            room = next;
        }
    }
    if from < segments.len() {
        groups.push(&segments[from..]);
    }
    Ok(groups)
}

/// What a group takes.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    bytes: u64,
    index_bytes: [u64; 2],
}

impl Room {
    fn plus(&self, other: &Room) -> Room {
        Room {
            bytes: self.bytes + other.bytes,
            index_bytes: [
                self.index_bytes[0] + other.index_bytes[0],
                self.index_bytes[1] + other.index_bytes[1],
            ],
        }
    }
}
