//! The directory of one log, and files in it that are opened when needed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use klamm_env::{File, Fs, OpenMode};

use crate::error::{IoContext, LogError};
use crate::names::{CLEANED_SUFFIX, FileKind, file_name};

/// Locks a mutex; a panic of another thread while it held the lock does not spread, because every
/// change under our locks is complete before it can panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The directory of one log. Its path changes when the directory is renamed, for deletion or
/// after a move; open files are not affected by that.
#[derive(Debug)]
pub(crate) struct LogDir {
    pub(crate) fs: Arc<dyn Fs>,
    path: RwLock<PathBuf>,
    /// What follows the names of segments' files, such as `.cleaned`.
    suffix: &'static str,
    /// How many files were created, and how many of them when names were last made durable.
    files_created: AtomicU64,
    files_synced: AtomicU64,
    /// The directory was created, and its own name may not be durable.
    new_dir: AtomicBool,
}

impl LogDir {
    pub(crate) fn new(fs: Arc<dyn Fs>, path: PathBuf) -> Arc<LogDir> {
        LogDir::with_suffix(fs, path, "")
    }

    /// The same directory, for segments whose files are not in use under their own names.
    pub(crate) fn for_cleaned(&self) -> Arc<LogDir> {
        LogDir::with_suffix(self.fs.clone(), self.path(), CLEANED_SUFFIX)
    }

    fn with_suffix(fs: Arc<dyn Fs>, path: PathBuf, suffix: &'static str) -> Arc<LogDir> {
        Arc::new(LogDir {
            fs,
            path: RwLock::new(path),
            suffix,
            files_created: AtomicU64::new(0),
            files_synced: AtomicU64::new(0),
            new_dir: AtomicBool::new(false),
        })
    }

    /// Notes that a file has been created.
    pub(crate) fn note_new_file(&self) {
        self.files_created.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes that the names of all files were made durable, by another way than
    /// [`sync`](Self::sync).
    pub(crate) fn note_names_durable(&self) {
        let created = self.files_created.load(Ordering::SeqCst);
        self.files_synced.fetch_max(created, Ordering::SeqCst);
    }

    /// Notes whether the directory's own name may not be durable.
    pub(crate) fn set_new(&self, new: bool) {
        self.new_dir.store(new, Ordering::SeqCst);
    }

    /// Whether the directory's own name may not be durable.
    pub(crate) fn is_new(&self) -> bool {
        self.new_dir.load(Ordering::SeqCst)
    }

    /// Whether the names of files or of the directory itself may not be durable.
    pub(crate) fn has_new_names(&self) -> bool {
        let created = self.files_created.load(Ordering::SeqCst);
        created != self.files_synced.load(Ordering::SeqCst) || self.is_new()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.path
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    pub(crate) fn set_path(&self, path: &Path) {
        path.clone_into(
            &mut self
                .path
                .write()
                .unwrap_or_else(|poisoned| poisoned.into_inner()),
        );
    }

    pub(crate) fn file(&self, offset: i64, kind: FileKind) -> PathBuf {
        self.file_with(offset, kind, self.suffix)
    }

    /// A file of a segment under a name of its life beside the log.
    pub(crate) fn file_with(&self, offset: i64, kind: FileKind, suffix: &str) -> PathBuf {
        self.path().join(file_name(offset, kind) + suffix)
    }

    /// Opens an empty file. Returns whether there was one of that name, which was emptied.
    pub(crate) fn create_file(&self, path: &Path) -> Result<(Arc<dyn File>, bool), LogError> {
        let created = match self.fs.open(path, OpenMode::CreateNew) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                let file = self.fs.open(path, OpenMode::Truncate);
                (file.at("create", path)?, true)
            }
            created => (created.at("create", path)?, false),
        };
        self.note_new_file();
        Ok(created)
    }

    /// Removes a file if it is there.
    pub(crate) fn remove_if_exists(&self, path: &Path) -> Result<(), LogError> {
        match self.fs.remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).at("remove", path)
            }
            _ => Ok(()),
        }
    }

    /// Makes the names of all files durable, and the directory's own if it is new.
    pub(crate) fn sync(&self) -> Result<(), LogError> {
        let path = self.path();
        let created = self.files_created.load(Ordering::SeqCst);
        self.fs.sync_dir(&path).at("sync", &path)?;
        self.files_synced.fetch_max(created, Ordering::SeqCst);
        if self.is_new() {
            if let Some(parent) = path.parent() {
                self.fs.sync_dir(parent).at("sync", parent)?;
            }
            self.set_new(false);
        }
        Ok(())
    }
}

/// Makes a small file durable that was written by a descriptor which is closed by now.
pub(crate) fn sync_file(fs: &dyn Fs, path: &Path) -> Result<(), LogError> {
    let file = fs.open(path, OpenMode::Write).at("open", path)?;
    file.sync_all().at("sync", path)
}

/// A file that is opened when it is used and closed again when two rounds of
/// [`LazyFile::release_if_idle`] pass without a use, so that idle logs hold no descriptors.
#[derive(Debug, Default)]
pub(crate) struct LazyFile {
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    file: Option<Arc<dyn File>>,
    used: bool,
    /// Another file has the name now, so this one is not opened again.
    retired: bool,
}

impl LazyFile {
    pub(crate) fn opened(file: Arc<dyn File>) -> LazyFile {
        LazyFile {
            slot: Mutex::new(Slot {
                file: Some(file),
                used: true,
                retired: false,
            }),
        }
    }

    /// The file, opened for reading and writing.
    pub(crate) fn get(
        &self,
        fs: &dyn Fs,
        path: impl FnOnce() -> PathBuf,
    ) -> Result<Arc<dyn File>, LogError> {
        let mut slot = lock(&self.slot);
        slot.used = true;
        if let Some(file) = &slot.file {
            return Ok(file.clone());
        }
        let path = path();
        if slot.retired {
            return Err(std::io::Error::from(std::io::ErrorKind::NotFound)).at("open", &path);
        }
        let file = fs.open(&path, OpenMode::Write).at("open", &path)?;
        slot.file = Some(file.clone());
        Ok(file)
    }

    pub(crate) fn release_if_idle(&self) {
        let mut slot = lock(&self.slot);
        if !std::mem::take(&mut slot.used) {
            slot.file = None;
        }
    }

    /// Keeps the file from being opened again: its name is about to be another's. Whoever has it
    /// open goes on reading it.
    pub(crate) fn retire(&self) {
        lock(&self.slot).retired = true;
    }

    pub(crate) fn release(&self) {
        lock(&self.slot).file = None;
    }
}
