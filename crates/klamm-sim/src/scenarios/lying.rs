//! Disks that lie, for tests of the checks.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_env::{DirEntry, File, Fs, LockGuard, Metadata, OpenMode, Space};

use crate::SimFs;

/// Which promises a disk keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lies {
    /// Files are synced.
    pub(super) syncs: bool,
    /// Directories are synced.
    pub(super) syncs_dirs: bool,
    /// Files of batches are cut.
    pub(super) cuts: bool,
    /// The end of the names of files whose writes are dropped.
    pub(super) drops: Option<&'static str>,
    /// The end of the names of files that cannot be removed, though the disk says so.
    pub(super) keeps: Option<&'static str>,
}

impl Lies {
    /// An honest disk.
    pub(super) const NONE: Lies = Lies {
        syncs: true,
        syncs_dirs: true,
        cuts: true,
        drops: None,
        keeps: None,
    };
}

/// A disk that promises more than it holds.
#[derive(Debug)]
pub(super) struct LyingFs {
    pub(super) fs: SimFs,
    pub(super) lies: Lies,
}

#[derive(Debug)]
struct LyingFile {
    file: Arc<dyn File>,
    lies: Lies,
    drops: bool,
}

/// Whether a path ends like this.
fn ends(path: &Path, with: Option<&str>) -> bool {
    with.is_some_and(|with| path.to_string_lossy().ends_with(with))
}

impl Fs for LyingFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut lies = self.lies;
        lies.cuts |= path.extension().is_none_or(|kind| kind != "log");
        Ok(Arc::new(LyingFile {
            file: self.fs.open(path, mode)?,
            drops: ends(path, lies.drops),
            lies,
        }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.fs.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.fs.read_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if ends(path, self.lies.keeps) {
            return Ok(());
        }
        self.fs.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.fs.remove_dir_all(path)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.hard_link(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.lies.syncs_dirs {
            self.fs.sync_dir(path)
        } else {
            Ok(())
        }
    }
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.fs.metadata(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.fs.space(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.fs.lock(path)
    }
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.fs.canonicalize(path)
    }
}

impl File for LyingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        if self.drops {
            return Ok(bufs.iter().map(|buf| buf.len()).sum());
        }
        self.file.write_vectored_at(bufs, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        if self.lies.cuts {
            self.file.set_len(len)
        } else {
            Ok(())
        }
    }
    fn sync_data(&self) -> io::Result<()> {
        if self.lies.syncs {
            self.file.sync_data()
        } else {
            Ok(())
        }
    }
    fn sync_all(&self) -> io::Result<()> {
        if self.lies.syncs {
            self.file.sync_all()
        } else {
            Ok(())
        }
    }
    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.start_writeback(offset, len)
    }
    fn is_resident(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.file.is_resident(offset, len)
    }
}
