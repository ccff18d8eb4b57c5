use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use klamm_env::{Fs, FsExt};

use super::JournalError;
use crate::error::IoContext;
use crate::storage::lock;

/// The directories of this program's journals. The lock file keeps other processes out, but its
/// lock is one of POSIX, which belongs to the process and lets it in twice.
static OPEN: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

/// A directory that nobody else in this program may open until this is dropped.
#[derive(Debug)]
pub(super) struct OpenOnce {
    dir: PathBuf,
}

impl OpenOnce {
    pub(super) fn claim(fs: &dyn Fs, dir: &Path) -> Result<OpenOnce, JournalError> {
        if !fs.exists(dir).at("inspect", dir)? {
            fs.create_dir_all(dir).at("create", dir)?;
            if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                fs.sync_dir(parent).at("sync", parent)?;
            }
        }
        let dir = fs.canonicalize(dir).at("inspect", dir)?;
        if lock(&OPEN).insert(dir.clone()) {
            Ok(OpenOnce { dir })
        } else {
            Err(JournalError::InUse { dir })
        }
    }
}

impl Drop for OpenOnce {
    fn drop(&mut self) {
        lock(&OPEN).remove(&self.dir);
    }
}
