//! The offset index (`.index`): last offset of a batch, relative to the segment, and the batch's
//! position; 4 bytes each, big-endian.

use crate::batch::i32_at;
use crate::error::LogError;
use crate::index::SparseIndex;
use crate::index::sparse::IndexEntry;
use crate::names::FileKind;

/// One entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    relative_offset: i32,
    position: i32,
}

impl IndexEntry for OffsetEntry {
    const SIZE: usize = 8;
    const KIND: FileKind = FileKind::Index;

    fn encode(self, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.relative_offset.to_be_bytes());
        to.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        OffsetEntry {
            relative_offset: i32_at(bytes, 0),
            position: i32_at(bytes, 4),
        }
    }
}

pub(crate) type OffsetIndex = SparseIndex<OffsetEntry>;

/// Whether `offset` can be told relative to `base_offset` in an index.
pub(crate) fn fits(base_offset: i64, offset: i64) -> bool {
    (0..=i64::from(i32::MAX)).contains(&(offset - base_offset))
}

impl OffsetIndex {
    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.entries_max()
    }

    /// The last entry's offset, or the segment's if there is none.
    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset()
            + self
                .last()
                .map_or(0, |entry| i64::from(entry.relative_offset))
    }

    /// Offset and position of the last entry, or the segment's begin if there is none.
    pub(crate) fn last_entry(&self) -> (i64, u64) {
        let position = self.last().map_or(0, |entry| i64::from(entry.position));
        // A negative one is beyond the end of any segment.
        (self.last_offset(), position as u64)
    }

    /// Adds an entry, unless its offset is not above the last one's: recovery of a damaged
    /// segment stops there.
    pub(crate) fn append(&mut self, offset: i64, position: u64) -> bool {
        let ascends = self.len() == 0 || offset > self.last_offset();
        if !ascends || !fits(self.base_offset(), offset) || position > i32::MAX as u64 {
            return false;
        }
        self.push(OffsetEntry {
            relative_offset: (offset - self.base_offset()) as i32,
            position: position as i32,
        });
        true
    }

    /// Position of the last entry at or below `offset`; 0 if there is none.
    pub(crate) fn position_at_or_below(&mut self, offset: i64) -> Result<u64, LogError> {
        let base = self.base_offset();
        let after =
            self.partition_point(|entry| base + i64::from(entry.relative_offset) <= offset)?;
        match after.checked_sub(1) {
            Some(index) => Ok(self.get(index)?.position.max(0) as u64),
            None => Ok(0),
        }
    }

    /// Offset and position of the first entry whose position is at or after `position`.
    pub(crate) fn entry_from_position(
        &mut self,
        position: u64,
    ) -> Result<Option<(i64, u64)>, LogError> {
        let index = self.partition_point(|entry| (entry.position.max(0) as u64) < position)?;
        if index >= self.len() {
            return Ok(None);
        }
        let entry = self.get(index)?;
        let offset = self.base_offset() + i64::from(entry.relative_offset);
        Ok(Some((offset, entry.position.max(0) as u64)))
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

    fn index(dir: &TestDir, entries: i64) -> OffsetIndex {
        let mut index = OffsetIndex::create(dir.log_dir(), 100, 1 << 20).unwrap();
        for n in 1..=entries {
            assert!(index.append(100 + n * 10, n as u64 * 4096));
        }
        index
    }

    #[test]
    fn looks_up_in_memory_on_disk_and_across() {
        let dir = TestDir::new();
        // Two full pages go to disk, the rest stays in memory.
        let mut index = index(&dir, 1300);
        for n in 1..=1300_i64 {
            for offset in [100 + n * 10, 100 + n * 10 + 9] {
                assert_eq!(index.position_at_or_below(offset).unwrap(), n as u64 * 4096);
            }
            assert_eq!(
                index.entry_from_position(n as u64 * 4096 - 1).unwrap(),
                Some((100 + n * 10, n as u64 * 4096))
            );
        }
        assert_eq!(index.position_at_or_below(109).unwrap(), 0);
        assert_eq!(index.entry_from_position(1301 * 4096).unwrap(), None);
        assert_eq!(index.last_offset(), 13100);
    }

    #[test]
    fn is_the_same_after_a_reopen() {
        let dir = TestDir::new();
        let mut before = index(&dir, 700);
        before.write_tail().unwrap();
        let mut index = OffsetIndex::open(dir.log_dir(), 100, 1 << 20).unwrap();
        assert_eq!((index.len(), index.last_offset()), (700, 7100));
        assert_eq!(index.position_at_or_below(7099).unwrap(), 699 * 4096);
        assert_eq!(index.position_at_or_below(i64::MAX).unwrap(), 700 * 4096);
    }

    #[test]
    fn truncates_in_memory_and_on_disk() {
        let dir = TestDir::new();
        let mut index = index(&dir, 1300);
        index.truncate_to_offset(12_005).unwrap();
        assert_eq!((index.len(), index.last_offset()), (1190, 12_000));
        index.truncate_to_offset(5_000).unwrap();
        assert_eq!((index.len(), index.last_offset()), (489, 4_990));
        assert!(index.append(5_000, 1));
        index.write_tail().unwrap();
        let mut index = OffsetIndex::open(dir.log_dir(), 100, 1 << 20).unwrap();
        assert_eq!(index.position_at_or_below(5_000).unwrap(), 1);
        index.truncate_to_offset(0).unwrap();
        assert_eq!((index.len(), index.last_offset()), (0, 100));
    }

    #[test]
    fn rejects_entries_out_of_order_or_range() {
        let dir = TestDir::new();
        let mut index = index(&dir, 1);
        assert!(!index.append(110, 9999));
        assert!(!index.append(101 + i64::from(i32::MAX), 9999));
        assert!(!index.append(111, 1 << 31));
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn counts_as_full_by_its_size() {
        let dir = TestDir::new();
        let mut index = OffsetIndex::create(dir.log_dir(), 0, 20).unwrap();
        index.append(1, 0);
        assert!(!index.is_full());
        index.append(2, 0);
        assert!(index.is_full());
    }

    #[test]
    fn rejects_files_of_odd_size() {
        let dir = TestDir::new();
        let mut index = index(&dir, 3);
        index.write_tail().unwrap();
        dir.truncate(&index.path(), 23);
        let error = OffsetIndex::open(dir.log_dir(), 100, 1 << 20).unwrap_err();
        assert!(matches!(error, LogError::MalformedFile { .. }), "{error}");
    }
}
