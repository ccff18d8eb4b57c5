//! The directory of one log.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use klamm_env::{File, Fs, OpenMode};

use crate::error::{IoContext, LogError};
use crate::files::OpenFiles;
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
    /// Bounds what is open in here together with others.
    pub(crate) files: OpenFiles,
    path: RwLock<PathBuf>,
    /// What follows the names of segments' files, such as `.cleaned`.
    suffix: &'static str,
    /// How many files were created, and how many of them when names were last made durable.
    files_created: AtomicU64,
    files_synced: AtomicU64,
    /// The directory was created, and its own name may not be durable.
    new_dir: AtomicBool,
    /// A file could not be made durable before it was closed.
    pub(crate) failed: Arc<AtomicBool>,
}

impl LogDir {
    pub(crate) fn new(fs: Arc<dyn Fs>, path: PathBuf, files: OpenFiles) -> Arc<LogDir> {
        LogDir::with_suffix(fs, path, files, "")
    }

    /// The same directory, for segments whose files are not in use under their own names.
    pub(crate) fn for_cleaned(&self) -> Arc<LogDir> {
        let files = self.files.clone();
        LogDir::with_suffix(self.fs.clone(), self.path(), files, CLEANED_SUFFIX)
    }

    fn with_suffix(
        fs: Arc<dyn Fs>,
        path: PathBuf,
        files: OpenFiles,
        suffix: &'static str,
    ) -> Arc<LogDir> {
        Arc::new(LogDir {
            fs,
            files,
            path: RwLock::new(path),
            suffix,
            files_created: AtomicU64::new(0),
            files_synced: AtomicU64::new(0),
            new_dir: AtomicBool::new(false),
            failed: Arc::default(),
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
        let open = |mode| self.files.with_room(|| self.fs.open(path, mode));
        let created = match open(OpenMode::CreateNew) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                (open(OpenMode::Truncate).at("create", path)?, true)
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
