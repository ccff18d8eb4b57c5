//! Sorted entries of fixed size in a file, with the newest page in memory.

use std::path::PathBuf;
use std::sync::Arc;

use klamm_env::{File, FileExt, OpenMode};

use crate::error::{FileProblem, IoContext, LogError};
use crate::files::LazyFile;
use crate::names::FileKind;
use crate::storage::LogDir;

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
    /// Whether it was looked into since the last [`SparseIndex::release_if_idle`].
    used: bool,
}

impl<E: IndexEntry> SparseIndex<E> {
    /// An index without entries, whose file is created empty.
    pub(crate) fn create(
        dir: Arc<LogDir>,
        base_offset: i64,
        bytes_max: u32,
    ) -> Result<Self, LogError> {
        let path = dir.file(base_offset, E::KIND);
        let (_, emptied) = dir.create_file(&path)?;
        let index = Self::with_entries(dir, base_offset, bytes_max, 0, None);
        if emptied {
            // What it held must not come back, but nothing was written that a sync through another
            // descriptor could miss.
            index.file.note_change();
        }
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
            base_offset,
            bytes_max,
            stored,
            last,
        ))
    }

    /// The file is not kept open: the next time it is needed may be far away.
    fn with_entries(
        dir: Arc<LogDir>,
        base_offset: i64,
        bytes_max: u32,
        stored: usize,
        last: Option<E>,
    ) -> Self {
        SparseIndex {
            dir,
            file: LazyFile::default(),
            base_offset,
            stored,
            tail: Vec::new(),
            last,
            entries_max: bytes_max as usize / E::SIZE,
            page: None,
            used: true,
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
        let file = self.file()?;
        let written = file.write_all_at(&bytes, (self.stored * E::SIZE) as u64);
        self.file.note_change();
        written.at("write", &self.path())?;
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
        if !self.file.has_changed() {
            return Ok(None);
        }
        let file = self.file()?;
        // The caller holds the file until it is synced, or takes the log offline.
        self.file.note_synced(self.file.changes());
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
            let file = self.file()?;
            let cut = file.set_len((len * E::SIZE) as u64);
            self.file.note_change();
            cut.at("truncate", &self.path())?;
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
        self.used = true;
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

    /// Gives back the memory of a page and the descriptor, if they were not used since the last
    /// call. Returns whether a later call may find more to do, without a use in between.
    pub(crate) fn release_if_idle(&mut self) -> bool {
        let used = std::mem::take(&mut self.used);
        if !used {
            self.page = None;
        }
        self.file.release_if_idle() || used
    }

    /// Whether the file holds all entries, durably, so that this need not be kept in memory.
    pub(crate) fn is_settled(&self) -> bool {
        self.tail.is_empty() && !self.file.has_changed()
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
        self.file.get(&self.dir, || self.path())
    }
}
