//! Sorted entries of fixed size in a file, with the newest page in memory.

use std::path::PathBuf;
use std::sync::Arc;

use klamm_env::{File, FileExt, OpenMode};

use crate::error::{FileProblem, IoContext, LogError};
use crate::names::FileKind;
use crate::storage::{LazyFile, LogDir};

/// Entries that are read, and at most kept unwritten, at a time: 4 KiB of an offset index.
const PAGE_ENTRIES: usize = 512;

/// An open file and its path, for errors.
type NamedFile = (Arc<dyn File>, PathBuf);

/// One entry of an index.
pub(crate) trait IndexEntry: Copy + std::fmt::Debug {
    const SIZE: usize;
    const KIND: FileKind;
    fn encode(self, to: &mut Vec<u8>);
    fn decode(bytes: &[u8]) -> Self;
}

/// An index file. Invariant: the file holds the first `stored` entries, `tail` those after.
#[derive(Debug)]
pub(crate) struct SparseIndex<E> {
    dir: Arc<LogDir>,
    file: LazyFile,
    base_offset: i64,
    stored: usize,
    tail: Vec<E>,
    last: Option<E>,
    entries_max: usize,
    /// The page that was read last, with the number of its first entry.
    page: Option<(usize, Vec<E>)>,
    /// Whether the file changed since it was last made durable.
    unsynced: bool,
}

impl<E: IndexEntry> SparseIndex<E> {
    /// An index without entries, whose file is created empty.
    pub(crate) fn create(
        dir: Arc<LogDir>,
        base_offset: i64,
        bytes_max: u32,
    ) -> Result<Self, LogError> {
        let path = dir.file(base_offset, E::KIND);
        let (file, emptied) = dir.create_file(&path)?;
        let mut index = Self::with_entries(dir, file, base_offset, bytes_max, 0, None);
        index.unsynced = emptied;
        Ok(index)
    }

    /// The index in an existing file.
    pub(crate) fn open(
        dir: Arc<LogDir>,
        base_offset: i64,
        bytes_max: u32,
    ) -> Result<Self, LogError> {
        let path = dir.file(base_offset, E::KIND);
        let file = dir.fs.open(&path, OpenMode::Write).at("open", &path)?;
        let len = file.len().at("inspect", &path)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if !len.is_multiple_of(E::SIZE) {
            return Err(LogError::MalformedFile {
                file: path,
                problem: FileProblem::Size(len),
            });
        }
        let stored = len / E::SIZE;
        let mut last = None;
        if stored > 0 {
            let mut bytes = vec![0; E::SIZE];
            file.read_exact_at(&mut bytes, (len - E::SIZE) as u64)
                .at("read", &path)?;
            last = Some(E::decode(&bytes));
        }
        Ok(Self::with_entries(
            dir,
            file,
            base_offset,
            bytes_max,
            stored,
            last,
        ))
    }

    fn with_entries(
        dir: Arc<LogDir>,
        file: Arc<dyn File>,
        base_offset: i64,
        bytes_max: u32,
        stored: usize,
        last: Option<E>,
    ) -> Self {
        SparseIndex {
            dir,
            file: LazyFile::opened(file),
            base_offset,
            stored,
            tail: Vec::new(),
            last,
            entries_max: bytes_max as usize / E::SIZE,
            page: None,
            unsynced: false,
        }
    }

    pub(crate) fn base_offset(&self) -> i64 {
        self.base_offset
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.file(self.base_offset, E::KIND)
    }

    pub(crate) fn len(&self) -> usize {
        self.stored + self.tail.len()
    }

    /// Bytes that the entries take.
    pub(crate) fn bytes(&self) -> u64 {
        (self.len() * E::SIZE) as u64
    }

    /// Entries for which there is room.
    pub(crate) fn entries_max(&self) -> usize {
        self.entries_max
    }

    pub(crate) fn last(&self) -> Option<E> {
        self.last
    }

    /// Adds an entry. The caller keeps the order.
    pub(crate) fn push(&mut self, entry: E) {
        self.tail.push(entry);
        self.last = Some(entry);
        if self.tail.len().is_multiple_of(PAGE_ENTRIES) {
            // If the disk is full the entries stay in memory; the next page or the end of the
            // segment tries again, and that attempt reports its failure.
            let _ = self.write_tail();
        }
    }

    /// Writes the entries that are only in memory.
    pub(crate) fn write_tail(&mut self) -> Result<(), LogError> {
        if self.tail.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(self.tail.len() * E::SIZE);
        for entry in &self.tail {
            entry.encode(&mut bytes);
        }
        self.unsynced = true;
        self.file()?
            .write_all_at(&bytes, (self.stored * E::SIZE) as u64)
            .at("write", &self.path())?;
        self.stored += self.tail.len();
        self.tail = Vec::new();
        // The page read last may have been the file's unfinished last one.
        self.page = None;
        Ok(())
    }

    /// Writes what is only in memory; returns the file if it is not durable, for the caller to
    /// make it so.
    pub(crate) fn take_unsynced(&mut self) -> Result<Option<NamedFile>, LogError> {
        self.write_tail()?;
        if !self.unsynced {
            return Ok(None);
        }
        let file = self.file()?;
        self.unsynced = false;
        Ok(Some((file, self.path())))
    }

    /// Keeps the first `len` entries.
    pub(crate) fn truncate(&mut self, len: usize) -> Result<(), LogError> {
        if len >= self.len() {
            return Ok(());
        }
        let last = match len {
            0 => None,
            _ => Some(self.get(len - 1)?),
        };
        if len < self.stored {
            self.unsynced = true;
            self.file()?
                .set_len((len * E::SIZE) as u64)
                .at("truncate", &self.path())?;
            self.stored = len;
        }
        self.tail.truncate(len - self.stored);
        self.last = last;
        self.page = None;
        Ok(())
    }

    /// How many entries from the first on satisfy `holds`, which must be true for a prefix.
    pub(crate) fn partition_point(
        &mut self,
        holds: impl Fn(&E) -> bool,
    ) -> Result<usize, LogError> {
        if self.tail.first().is_some_and(&holds) {
            return Ok(self.stored + self.tail.partition_point(&holds));
        }
        if self.stored == 0 {
            return Ok(0);
        }
        if let Some((first, entries)) = &self.page
            && entries.first().is_some_and(&holds)
            && (first + entries.len() == self.stored
                || entries.last().is_some_and(|last| !holds(last)))
        {
            return Ok(first + entries.partition_point(&holds));
        }
        self.load_page(&holds)?;
        Ok(self.page.as_ref().map_or(0, |(first, entries)| {
            first + entries.partition_point(&holds)
        }))
    }

    /// Entry number `index`.
    pub(crate) fn get(&mut self, index: usize) -> Result<E, LogError> {
        if let Some(entry) = index
            .checked_sub(self.stored)
            .and_then(|i| self.tail.get(i))
        {
            return Ok(*entry);
        }
        if let Some((first, entries)) = &self.page
            && let Some(entry) = index.checked_sub(*first).and_then(|i| entries.get(i))
        {
            return Ok(*entry);
        }
        let first = index / PAGE_ENTRIES * PAGE_ENTRIES;
        let entries = self.read_entries(first, PAGE_ENTRIES)?;
        let entry = entries.get(index - first).copied();
        self.page = Some((first, entries));
        entry.ok_or_else(|| LogError::MalformedFile {
            file: self.path(),
            problem: FileProblem::Size(index * E::SIZE),
        })
    }

    /// Reads the page that holds the last stored entry that satisfies `holds`, or the first page.
    fn load_page(&mut self, holds: &impl Fn(&E) -> bool) -> Result<(), LogError> {
        let mut low = 0;
        let mut high = self.stored.div_ceil(PAGE_ENTRIES);
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            let first = self.read_entries(middle * PAGE_ENTRIES, 1)?;
            if first.first().is_some_and(holds) {
                low = middle;
            } else {
                high = middle;
            }
        }
        let first = low * PAGE_ENTRIES;
        let entries = self.read_entries(first, PAGE_ENTRIES)?;
        self.page = Some((first, entries));
        Ok(())
    }

    fn read_entries(&self, first: usize, count: usize) -> Result<Vec<E>, LogError> {
        let count = count.min(self.stored.saturating_sub(first));
        let mut bytes = vec![0; count * E::SIZE];
        self.file()?
            .read_exact_at(&mut bytes, (first * E::SIZE) as u64)
            .at("read", &self.path())?;
        Ok(bytes.chunks_exact(E::SIZE).map(E::decode).collect())
    }

    /// Gives back the memory of a page that was read, and the descriptor if it was not used since
    /// the last call.
    pub(crate) fn release_if_idle(&mut self) {
        self.page = None;
        self.file.release_if_idle();
    }

    /// Keeps the file from being opened again: its name is about to be another's.
    pub(crate) fn retire(&self) {
        self.file.retire();
    }

    /// Gives back the descriptor.
    pub(crate) fn release(&self) {
        self.file.release();
    }

    fn file(&self) -> Result<Arc<dyn File>, LogError> {
        self.file.get(&*self.dir.fs, || self.path())
    }
}
