//! A bound on the files that logs keep open.
//!
//! A [`LazyFile`] is opened when it is used and opened again after it was closed. [`OpenFiles`]
//! closes those that were not used for longest when there are too many (a clock: one more round for
//! what was used since the last).
//!
//! # What is closed
//! - Never a file that somebody else holds: reads and writes under way keep theirs.
//! - A file with unsynced changes only after a sync. The kernel writes its pages at some time
//!   whether it is open or not, but it tells of a failure only to those who have the file open;
//!   a sync by a descriptor that was opened later could succeed although data is lost. If that
//!   sync fails, every later use of the file fails, so that its log goes offline as after any
//!   failed sync.
//!
//! The bound is soft in one respect: if all files are in use, one more is opened all the same.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};

use klamm_env::{File, OpenMode};

use crate::error::{IoContext, LogError};
use crate::storage::{LogDir, lock};

/// How many files are looked at for one that can be closed without a sync.
const CLEAN_CANDIDATES: usize = 32;

/// The errors of `open` for want of descriptors: in the process and in the system.
const NO_DESCRIPTORS: [i32; 2] = [24, 23];

/// Bounds the number of files that the logs which share it keep open. Clones share it.
#[derive(Clone, Debug)]
pub struct OpenFiles(Arc<Pool>);

#[derive(Debug)]
struct Pool {
    max: usize,
    open: AtomicUsize,
    /// A sync before closing a file has failed.
    failed: AtomicBool,
    /// The open files, in the order in which they are looked at; with some that are closed by now.
    ring: Mutex<VecDeque<Weak<Cell>>>,
}

impl Default for OpenFiles {
    fn default() -> Self {
        OpenFiles::unbounded()
    }
}

impl OpenFiles {
    /// At most `max` open files, but at least one.
    pub fn new(max: usize) -> Self {
        OpenFiles(Arc::new(Pool {
            max: max.max(1),
            open: AtomicUsize::new(0),
            failed: AtomicBool::new(false),
            ring: Mutex::default(),
        }))
    }

    /// As many as there are descriptors for.
    pub fn unbounded() -> Self {
        OpenFiles::new(usize::MAX)
    }

    /// How many files may be open.
    pub fn max(&self) -> usize {
        self.0.max
    }

    /// How many files are open now.
    pub fn count(&self) -> usize {
        self.0.open.load(Ordering::SeqCst)
    }

    /// Closes files until a quarter of the bound is free, those with unsynced changes after a sync.
    /// Called now and then where blocking does no harm, so that those who open files seldom have
    /// to wait for a sync.
    pub(crate) fn make_headroom(&self) {
        let target = self.0.max - self.0.max / 4;
        while self.count() > target && self.close_one(self.count()) {}
    }

    /// Whether a sync before closing a file has failed since this was last asked: the log that it
    /// belongs to is offline.
    pub(crate) fn take_failed(&self) -> bool {
        self.0.failed.swap(false, Ordering::SeqCst)
    }

    /// Tries again, after closing a file, what failed for want of descriptors.
    pub(crate) fn with_room<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        loop {
            match open() {
                Err(error) if is_for_want_of_descriptors(&error) && self.close_one(usize::MAX) => {}
                opened => return opened,
            }
        }
    }

    /// Takes note of a file that was opened, and closes others if there are too many.
    fn admit(&self, cell: &Arc<Cell>, queue: bool) {
        if queue {
            let mut ring = lock(&self.0.ring);
            ring.push_back(Arc::downgrade(cell));
            if ring.len() > 2 * self.count() + 64 {
                ring.retain(|cell| cell.upgrade().is_some_and(|cell| cell.is_still_queued()));
            }
        }
        while self.count() > self.0.max && self.close_one(CLEAN_CANDIDATES) {}
    }

    /// Closes a file that is not in use: one without unsynced changes, if there is one among the
    /// first `candidates` that are not in use. Returns false if none can be closed.
    fn close_one(&self, candidates: usize) -> bool {
        let mut unsynced = None;
        let mut seen = 0;
        // Twice round: the first may find that all were used.
        let mut left = 2 * lock(&self.0.ring).len();
        while left > 0 && (seen < candidates || unsynced.is_none()) {
            left -= 1;
            let Some(cell) = lock(&self.0.ring).pop_front() else {
                break;
            };
            let Some(cell) = cell.upgrade() else {
                continue;
            };
            match cell.look() {
                Look::Closed => continue,
                // Dropped, and so closed, when no lock is held.
                Look::Close(_opened) => return true,
                Look::Unsynced => {
                    seen += 1;
                    if unsynced.is_none() {
                        unsynced = Some(cell.clone());
                    }
                }
                Look::InUse => {}
            }
            lock(&self.0.ring).push_back(Arc::downgrade(&cell));
        }
        unsynced.is_some_and(|cell| cell.sync_and_close())
    }
}

/// A file that counts as open for as long as this is there.
#[derive(Debug)]
struct Opened {
    file: Arc<dyn File>,
    files: OpenFiles,
    /// Set if a sync fails that nobody waits for.
    dir_failed: Arc<AtomicBool>,
}

impl Opened {
    fn new(file: Arc<dyn File>, dir: &LogDir) -> Opened {
        dir.files.0.open.fetch_add(1, Ordering::SeqCst);
        Opened {
            file,
            files: dir.files.clone(),
            dir_failed: dir.failed.clone(),
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.files.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A file that is opened when it is used. Takes next to no memory until then.
#[derive(Debug, Default)]
pub(crate) struct LazyFile(OnceLock<Arc<Cell>>);

#[derive(Debug, Default)]
struct Cell {
    slot: Mutex<Slot>,
    /// How often the file was changed, and how often when it was last made durable.
    changes: AtomicU64,
    synced: AtomicU64,
    /// A sync failed before the file was closed: what it holds is not known.
    failure: OnceLock<Failure>,
}

#[derive(Debug, Default)]
struct Slot {
    opened: Option<Opened>,
    used: bool,
    /// Whether the ring has it.
    queued: bool,
    /// Another file has the name now, so this one is not opened again.
    retired: bool,
}

#[derive(Clone, Copy, Debug)]
enum Failure {
    Os(i32),
    Kind(io::ErrorKind),
}

impl Failure {
    fn of(error: &io::Error) -> Failure {
        error
            .raw_os_error()
            .map_or(Failure::Kind(error.kind()), Failure::Os)
    }

    fn error(self) -> io::Error {
        match self {
            Failure::Os(number) => io::Error::from_raw_os_error(number),
            Failure::Kind(kind) => kind.into(),
        }
    }
}

/// What the clock finds.
enum Look {
    /// It is closed, and out of the ring.
    Closed,
    /// It was closed and is out of the ring.
    Close(Opened),
    /// It could be closed after a sync.
    Unsynced,
    /// It was used since the last look, or is being used.
    InUse,
}

impl LazyFile {
    /// A file that is open already. `changed` tells whether that changed what it holds.
    pub(crate) fn opened(dir: &LogDir, file: Arc<dyn File>, changed: bool) -> LazyFile {
        let cell = Arc::new(Cell {
            slot: Mutex::new(Slot {
                opened: Some(Opened::new(file, dir)),
                used: true,
                queued: true,
                ..Slot::default()
            }),
            changes: AtomicU64::new(changed.into()),
            synced: AtomicU64::new(0),
            failure: OnceLock::new(),
        });
        dir.files.admit(&cell, true);
        LazyFile(OnceLock::from(cell))
    }

    fn cell(&self) -> &Arc<Cell> {
        self.0.get_or_init(Arc::default)
    }

    /// The file, opened for reading and writing. It stays open while it is held.
    pub(crate) fn get(
        &self,
        dir: &LogDir,
        path: impl FnOnce() -> PathBuf,
    ) -> Result<Arc<dyn File>, LogError> {
        let cell = self.cell();
        let mut slot = lock(&cell.slot);
        slot.used = true;
        if let Some(failure) = cell.failure.get() {
            return Err(failure.error()).at("sync", &path());
        }
        if let Some(opened) = &slot.opened {
            return Ok(opened.file.clone());
        }
        let path = path();
        if slot.retired {
            return Err(io::Error::from(io::ErrorKind::NotFound)).at("open", &path);
        }
        let open = || dir.fs.open(&path, OpenMode::Write);
        let file = dir.files.with_room(open).at("open", &path)?;
        slot.opened = Some(Opened::new(file.clone(), dir));
        let queue = !std::mem::replace(&mut slot.queued, true);
        drop(slot);
        dir.files.admit(cell, queue);
        Ok(file)
    }

    /// Notes that the file was changed. To be called after the change, while the file is held.
    pub(crate) fn note_change(&self) {
        self.cell().changes.fetch_add(1, Ordering::SeqCst);
    }

    /// What [`note_synced`](Self::note_synced) is to be given after a sync that begins now.
    pub(crate) fn changes(&self) -> u64 {
        self.0
            .get()
            .map_or(0, |cell| cell.changes.load(Ordering::SeqCst))
    }

    /// Notes that a sync succeeded which began when there were so many changes.
    pub(crate) fn note_synced(&self, changes: u64) {
        if let Some(cell) = self.0.get() {
            cell.synced.fetch_max(changes, Ordering::SeqCst);
        }
    }

    /// Whether the file was changed since it was last made durable.
    pub(crate) fn has_changed(&self) -> bool {
        self.0.get().is_some_and(|cell| cell.has_changed())
    }

    /// Closes the file if it was not used since the last call and has no unsynced changes. Returns
    /// whether a later call may find more to do, without a change or a use in between.
    pub(crate) fn release_if_idle(&self) -> bool {
        let Some(cell) = self.0.get() else {
            return false;
        };
        let mut slot = lock(&cell.slot);
        let used = std::mem::take(&mut slot.used);
        let Some(opened) = slot.opened.as_ref().filter(|_| !cell.has_changed()) else {
            return false;
        };
        if used || Arc::strong_count(&opened.file) > 1 {
            return true;
        }
        let closed = slot.opened.take();
        drop(slot);
        drop(closed);
        false
    }

    /// Keeps the file from being opened again: its name is about to be another's. Whoever has it
    /// open goes on reading it.
    pub(crate) fn retire(&self) {
        lock(&self.cell().slot).retired = true;
    }

    /// Closes the file, whatever it holds.
    pub(crate) fn release(&self) {
        if let Some(cell) = self.0.get() {
            let closed = lock(&cell.slot).opened.take();
            drop(closed);
        }
    }
}

impl Cell {
    fn has_changed(&self) -> bool {
        self.changes.load(Ordering::SeqCst) != self.synced.load(Ordering::SeqCst)
    }

    /// The slot, unless somebody is at it.
    fn try_lock(&self) -> Option<MutexGuard<'_, Slot>> {
        match self.slot.try_lock() {
            Ok(slot) => Some(slot),
            Err(TryLockError::Poisoned(poisoned)) => Some(PoisonError::into_inner(poisoned)),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether the ring is to keep it.
    fn is_still_queued(&self) -> bool {
        let Some(mut slot) = self.try_lock() else {
            return true;
        };
        slot.queued = slot.opened.is_some();
        slot.queued
    }

    /// What can be done about the file. Waits for nobody.
    fn look(&self) -> Look {
        let Some(mut slot) = self.try_lock() else {
            return Look::InUse;
        };
        let used = std::mem::take(&mut slot.used);
        match &slot.opened {
            None => {
                slot.queued = false;
                Look::Closed
            }
            Some(opened) if used || Arc::strong_count(&opened.file) > 1 => Look::InUse,
            Some(_) if self.has_changed() => Look::Unsynced,
            Some(_) => {
                slot.queued = false;
                slot.opened.take().map_or(Look::Closed, Look::Close)
            }
        }
    }

    /// Makes the file durable and closes it, unless it is used again meanwhile. Returns whether
    /// there is one open file less.
    fn sync_and_close(&self) -> bool {
        // Others may wait for this thread with their slots locked, so it waits for none.
        let found = self.try_lock().and_then(|slot| {
            let opened = slot.opened.as_ref()?;
            Some((
                opened.file.clone(),
                opened.dir_failed.clone(),
                opened.files.clone(),
            ))
        });
        let Some((file, dir_failed, files)) = found else {
            return false;
        };
        let changes = self.changes.load(Ordering::SeqCst);
        let result = file.sync_all();
        drop(file);
        match &result {
            Ok(()) => {
                self.synced.fetch_max(changes, Ordering::SeqCst);
            }
            Err(error) => {
                // The first failure is the one to tell of.
                let _ = self.failure.set(Failure::of(error));
                dir_failed.store(true, Ordering::SeqCst);
                files.0.failed.store(true, Ordering::SeqCst);
            }
        }
        let Some(mut slot) = self.try_lock() else {
            return false;
        };
        let in_use = |opened: &Opened| Arc::strong_count(&opened.file) > 1;
        let again = self.has_changed() || slot.opened.as_ref().is_some_and(in_use);
        if again && result.is_ok() {
            return false;
        }
        let closed = slot.opened.take();
        drop(slot);
        closed.is_some()
    }
}

fn is_for_want_of_descriptors(error: &io::Error) -> bool {
    error
        .raw_os_error()
        .is_some_and(|number| NO_DESCRIPTORS.contains(&number))
}

#[cfg(test)]
mod tests;
