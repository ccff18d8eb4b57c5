//! Where a log's files are. A log that moves to another log directory changes its place while it
//! is open, which is why it does not simply hold its directory.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use klamm_env::Fs;

use crate::error::LogError;
use crate::names::FileKind;
use crate::storage::LogDir;

/// The directory that a log is in now. Segments, snapshots and the like hold the directory that
/// they were made in, so that what reads a segment goes on reading its files after a move.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) fs: Arc<dyn Fs>,
    current: RwLock<Arc<LogDir>>,
}

impl Place {
    pub(super) fn new(dir: Arc<LogDir>) -> Place {
        Place {
            fs: dir.fs.clone(),
            current: RwLock::new(dir),
        }
    }

    /// The directory of now.
    pub(super) fn get(&self) -> Arc<LogDir> {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Puts another directory in place; returns the former.
    pub(super) fn replace(&self, dir: Arc<LogDir>) -> Arc<LogDir> {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *current, dir)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.get().path()
    }

    pub(super) fn set_path(&self, path: &Path) {
        self.get().set_path(path);
    }

    pub(super) fn file(&self, offset: i64, kind: FileKind) -> PathBuf {
        self.get().file(offset, kind)
    }

    pub(super) fn file_with(&self, offset: i64, kind: FileKind, suffix: &str) -> PathBuf {
        self.get().file_with(offset, kind, suffix)
    }

    pub(super) fn remove_if_exists(&self, path: &Path) -> Result<(), LogError> {
        self.get().remove_if_exists(path)
    }

    pub(super) fn is_new(&self) -> bool {
        self.get().is_new()
    }

    pub(super) fn set_new(&self, new: bool) {
        self.get().set_new(new);
    }

    pub(super) fn has_new_names(&self) -> bool {
        self.get().has_new_names()
    }

    pub(super) fn sync(&self) -> Result<(), LogError> {
        self.get().sync()
    }
}
