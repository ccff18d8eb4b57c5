//! The time index (`.timeindex`): the largest timestamp so far (8 bytes) and the last offset of
//! the batch that brought it, relative to the segment (4 bytes); big-endian.

use crate::batch::{NO_TIMESTAMP, i32_at, i64_at};
use crate::error::LogError;
use crate::index::SparseIndex;
use crate::index::offset::fits;
use crate::index::sparse::IndexEntry;
use crate::names::FileKind;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    timestamp: i64,
    relative_offset: i32,
}

impl IndexEntry for TimeEntry {
    const SIZE: usize = 12;
    const KIND: FileKind = FileKind::TimeIndex;

    fn encode(self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.timestamp.to_be_bytes());
        to.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        TimeEntry {
            timestamp: i64_at(bytes, 0),
            relative_offset: i32_at(bytes, 8),
        }
    }
}

/// A timestamp and an offset that go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimestampOffset {
    pub(crate) timestamp: i64,
    pub(crate) offset: i64,
}

pub(crate) type TimeIndex = SparseIndex<TimeEntry>;

impl TimeIndex {
    /// Full with one entry to spare: the segment adds its last when it is closed.
    pub(crate) fn is_full(&self) -> bool {
        self.len() + 1 >= self.entries_max()
    }

    fn absolute(&self, entry: TimeEntry) -> TimestampOffset {
        TimestampOffset {
            timestamp: entry.timestamp,
            offset: self.base_offset() + i64::from(entry.relative_offset),
        }
    }

    /// The last entry, or "no timestamp" at the segment's offset.
    pub(crate) fn last_entry(&self) -> TimestampOffset {
        match self.last() {
            Some(entry) => self.absolute(entry),
            None => TimestampOffset {
                timestamp: NO_TIMESTAMP,
                offset: self.base_offset(),
            },
        }
    }

    /// Adds an entry if its timestamp is above the last one's.
    pub(crate) fn maybe_append(&mut self, entry: TimestampOffset) {
        let last = self.last_entry();
        if entry.timestamp > last.timestamp
            && entry.offset >= last.offset
            && fits(self.base_offset(), entry.offset)
        {
            self.push(TimeEntry {
                timestamp: entry.timestamp,
                relative_offset: (entry.offset - self.base_offset()) as i32,
            });
        }
    }

    /// The last entry at or before `timestamp`, or "no timestamp" at the segment's offset.
    pub(crate) fn at_or_before(&mut self, timestamp: i64) -> Result<TimestampOffset, LogError> {
        let after = self.partition_point(|entry| entry.timestamp <= timestamp)?;
        match after.checked_sub(1) {
            Some(index) => {
                let entry = self.get(index)?;
                Ok(self.absolute(entry))
            }
            None => Ok(TimestampOffset {
                timestamp: NO_TIMESTAMP,
                offset: self.base_offset(),
            }),
        }
    }

    /// Removes entries at or above `offset`.
    pub(crate) fn truncate_to_offset(&mut self, offset: i64) -> Result<(), LogError> {
        let base = self.base_offset();
        let len = self.partition_point(|entry| base + i64::from(entry.relative_offset) < offset)?;
        self.truncate(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestDir;

    fn entry(timestamp: i64, offset: i64) -> TimestampOffset {
        TimestampOffset { timestamp, offset }
    }

    #[test]
    fn keeps_ascending_timestamps_only() {
        let dir = TestDir::new();
        let mut index = TimeIndex::create(dir.log_dir(), 50, 1 << 10).unwrap();
        index.maybe_append(entry(1000, 55));
        index.maybe_append(entry(1000, 60));
        index.maybe_append(entry(900, 65));
        index.maybe_append(entry(1001, 70));
        assert_eq!(index.len(), 2);
        assert_eq!(index.last_entry(), entry(1001, 70));
        assert_eq!(index.at_or_before(1000).unwrap(), entry(1000, 55));
        assert_eq!(index.at_or_before(5000).unwrap(), entry(1001, 70));
        assert_eq!(index.at_or_before(999).unwrap(), entry(NO_TIMESTAMP, 50));
        index.truncate_to_offset(70).unwrap();
        assert_eq!(index.last_entry(), entry(1000, 55));
        index.truncate_to_offset(55).unwrap();
        assert_eq!(index.last_entry(), entry(NO_TIMESTAMP, 50));
    }

    #[test]
    fn leaves_room_for_the_last_entry() {
        let dir = TestDir::new();
        let mut index = TimeIndex::create(dir.log_dir(), 0, 36).unwrap();
        index.maybe_append(entry(1, 1));
        assert!(!index.is_full());
        index.maybe_append(entry(2, 2));
        assert!(index.is_full());
    }

    #[test]
    fn is_the_same_after_a_reopen() {
        let dir = TestDir::new();
        let mut index = TimeIndex::create(dir.log_dir(), 0, 1 << 20).unwrap();
        for n in 1..=600 {
            index.maybe_append(entry(n * 2, n));
        }
        index.write_tail().unwrap();
        let mut index = TimeIndex::open(dir.log_dir(), 0, 1 << 20).unwrap();
        assert_eq!(index.len(), 600);
        assert_eq!(index.at_or_before(801).unwrap(), entry(800, 400));
    }
}
