//! The index of aborted transactions (`.txnindex`): 34 bytes an entry, in the order of their
//! markers. The file exists once there is an entry.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use klamm_env::{FileExt, FsExt, OpenMode};

use crate::batch::{i16_at, i64_at};
use crate::error::{FileProblem, IoContext, LogError};
use crate::names::FileKind;
use crate::storage::LogDir;

const ENTRY_LEN: usize = 34;
const VERSION: i16 = 0;

/// A transaction that was aborted: its records are to be skipped by `read_committed` consumers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTxn {
    /// The producer.
    pub producer_id: i64,
    /// Offset of the transaction's first batch.
    pub first_offset: i64,
    /// Offset of its marker.
    pub last_offset: i64,
    /// The last stable offset right after the marker was written: transactions that end later
    /// begin there or after. Kafka's followers may write one beyond the marker's end, behind which
    /// that does not hold.
    pub last_stable_offset: i64,
}

impl AbortedTxn {
    fn encode(&self) -> [u8; ENTRY_LEN] {
        let mut bytes = [0; ENTRY_LEN];
        bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
        let fields = [
            self.producer_id,
            self.first_offset,
            self.last_offset,
            self.last_stable_offset,
        ];
        for (chunk, field) in bytes[2..].chunks_exact_mut(8).zip(fields) {
            chunk.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<AbortedTxn, FileProblem> {
        match i16_at(bytes, 0) {
            VERSION => Ok(AbortedTxn {
                producer_id: i64_at(bytes, 2),
                first_offset: i64_at(bytes, 10),
                last_offset: i64_at(bytes, 18),
                last_stable_offset: i64_at(bytes, 26),
            }),
            other => Err(FileProblem::Version(i64::from(other))),
        }
    }
}

impl AbortedTxn {
    /// Whether a transaction can be this, whose marker lies at `after` or behind. The file has no
    /// checksum, and an entry that is wrong would pass aborted records off as committed.
    fn is_possible(&self, after: i64) -> bool {
        self.producer_id >= 0
            && (0..=self.last_offset).contains(&self.first_offset)
            && self.last_offset >= after
            && self.last_stable_offset >= 0
    }
}

/// The entries of an index of the segment that begins at `base_offset`. A torn last entry counts as
/// absent.
pub(crate) fn parse(bytes: &[u8], base_offset: i64) -> Result<Vec<AbortedTxn>, FileProblem> {
    let mut after = base_offset;
    let entries = bytes.chunks_exact(ENTRY_LEN).zip(1..);
    let entry = |(bytes, line)| {
        let txn = AbortedTxn::decode(bytes)?;
        if !txn.is_possible(after) {
            return Err(FileProblem::Line(line));
        }
        after = txn.last_offset + 1;
        Ok(txn)
    };
    entries.map(entry).collect()
}

/// The index of one segment. Entries are written at once and read when asked for.
#[derive(Debug)]
pub(crate) struct TxnIndex {
    dir: Arc<LogDir>,
    base_offset: i64,
    exists: bool,
    /// Another index has the file's name now.
    retired: bool,
}

impl TxnIndex {
    pub(crate) fn new(dir: Arc<LogDir>, base_offset: i64, exists: bool) -> TxnIndex {
        TxnIndex {
            dir,
            base_offset,
            exists,
            retired: false,
        }
    }

    /// Whether there is a file.
    pub(crate) fn exists(&self) -> bool {
        self.exists
    }

    /// Makes sure that there is a file, be it empty.
    pub(crate) fn create(&mut self) -> Result<(), LogError> {
        if !self.exists {
            self.dir.create_file(&self.path())?;
            self.exists = true;
        }
        Ok(())
    }

    /// Keeps the file from being read again: its name is about to be another's.
    pub(crate) fn retire(&mut self) {
        self.retired = true;
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.file(self.base_offset, FileKind::TxnIndex)
    }

    pub(crate) fn append(&mut self, txn: &AbortedTxn) -> Result<(), LogError> {
        let path = self.path();
        let file = self
            .dir
            .fs
            .open(&path, OpenMode::Create)
            .at("open", &path)?;
        let len = file.len().at("inspect", &path)?;
        // A torn entry of a failed write is overwritten.
        let end = len / ENTRY_LEN as u64 * ENTRY_LEN as u64;
        file.write_all_at(&txn.encode(), end).at("write", &path)?;
        if !self.exists {
            self.exists = true;
            self.dir.note_new_file();
        }
        Ok(())
    }

    /// All entries. A torn last entry counts as absent.
    pub(crate) fn entries(&self) -> Result<Vec<AbortedTxn>, LogError> {
        if !self.exists {
            return Ok(Vec::new());
        }
        let path = self.path();
        if self.retired {
            return Err(io::Error::from(io::ErrorKind::NotFound)).at("open", &path);
        }
        let bytes = match self.dir.fs.read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.at("read", &path)?,
        };
        parse(&bytes, self.base_offset).map_err(|problem| LogError::MalformedFile {
            file: path,
            problem,
        })
    }

    /// Adds the transactions that reach into `from..to` to `found`. Returns whether the search is
    /// complete, so that later segments need not be asked.
    pub(crate) fn collect(
        &self,
        from: i64,
        to: i64,
        found: &mut Vec<AbortedTxn>,
    ) -> Result<bool, LogError> {
        for txn in self.entries()? {
            if txn.last_offset >= from && txn.first_offset < to {
                found.push(txn);
            }
            if txn.last_stable_offset.min(txn.last_offset + 1) >= to {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Removes transactions whose marker is at or above `offset`.
    pub(crate) fn truncate_to_offset(&mut self, offset: i64) -> Result<(), LogError> {
        let entries = self.entries()?;
        let kept = entries.partition_point(|txn| txn.last_offset < offset);
        if kept < entries.len() {
            self.set_len(kept)?;
        }
        Ok(())
    }

    /// Removes all entries.
    pub(crate) fn reset(&mut self) -> Result<(), LogError> {
        if self.exists {
            self.set_len(0)?;
        }
        Ok(())
    }

    fn set_len(&self, entries: usize) -> Result<(), LogError> {
        let path = self.path();
        let file = self.dir.fs.open(&path, OpenMode::Write).at("open", &path)?;
        file.set_len((entries * ENTRY_LEN) as u64)
            .at("truncate", &path)
    }

    /// The file, if there is one.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        self.exists.then(|| self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::TestDir;

    fn txn(producer_id: i64, first: i64, last: i64, stable: i64) -> AbortedTxn {
        AbortedTxn {
            producer_id,
            first_offset: first,
            last_offset: last,
            last_stable_offset: stable,
        }
    }

    #[test]
    fn has_no_file_without_entries() {
        let dir = TestDir::new();
        let mut index = TxnIndex::new(dir.log_dir(), 0, false);
        assert!(index.entries().unwrap().is_empty());
        index.reset().unwrap();
        assert_eq!(index.file(), None);
        assert!(!dir.env.fs.exists(&index.path()).unwrap());
    }

    #[test]
    fn collects_what_reaches_into_a_range() {
        let dir = TestDir::new();
        let mut index = TxnIndex::new(dir.log_dir(), 0, false);
        let txns = [
            txn(0, 0, 10, 2),
            txn(1, 5, 15, 16),
            txn(2, 18, 35, 25),
            txn(3, 32, 50, 40),
        ];
        for entry in &txns {
            index.append(entry).unwrap();
        }
        let index = TxnIndex::new(dir.log_dir(), 0, true);
        assert_eq!(index.entries().unwrap(), txns);
        let collect = |from, to| {
            let mut found = Vec::new();
            let complete = index.collect(from, to, &mut found).unwrap();
            (
                found.iter().map(|t| t.producer_id).collect::<Vec<_>>(),
                complete,
            )
        };
        assert_eq!(collect(0, 100), (vec![0, 1, 2, 3], false));
        assert_eq!(collect(0, 32), (vec![0, 1, 2], true));
        assert_eq!(collect(11, 19), (vec![1, 2], true));
        assert_eq!(collect(51, 60), (vec![], false));
    }

    #[test]
    fn what_kafkas_followers_write_is_read_and_nothing_is_missed() {
        let dir = TestDir::new();
        let mut index = TxnIndex::new(dir.log_dir(), 0, false);
        // The same producer's next transaction and another one's came with the marker at 10.
        let txns = [txn(0, 0, 10, 20), txn(0, 11, 30, 20)];
        for entry in &txns {
            index.append(entry).unwrap();
        }
        let mut found = Vec::new();
        index.collect(5, 15, &mut found).unwrap();
        assert_eq!(found, txns);
    }

    #[test]
    fn truncates_by_marker() {
        let dir = TestDir::new();
        let mut index = TxnIndex::new(dir.log_dir(), 0, false);
        for entry in [txn(0, 0, 10, 2), txn(1, 5, 15, 16)] {
            index.append(&entry).unwrap();
        }
        index.truncate_to_offset(16).unwrap();
        assert_eq!(index.entries().unwrap().len(), 2);
        index.truncate_to_offset(15).unwrap();
        assert_eq!(index.entries().unwrap().len(), 1);
        index.reset().unwrap();
        assert!(index.entries().unwrap().is_empty());
    }

    #[test]
    fn a_torn_entry_is_overwritten() {
        let dir = TestDir::new();
        let mut index = TxnIndex::new(dir.log_dir(), 0, false);
        index.append(&txn(0, 0, 10, 2)).unwrap();
        index.append(&txn(1, 5, 15, 16)).unwrap();
        dir.truncate(&index.path(), 40);
        assert_eq!(index.entries().unwrap().len(), 1);
        index.append(&txn(2, 18, 35, 25)).unwrap();
        let entries = index.entries().unwrap();
        assert_eq!(entries[1].producer_id, 2);
    }
}
