//! A file system in memory that behaves as badly as a real one may.
//!
//! Every write and every change of a name is first *pending*; a sync makes it durable.
//!
//! - [`SimFs::kill`] ends the process: the page cache stays, pending or not.
//! - [`SimFs::crash`] is a power cut. It keeps some of what is pending and forgets the rest: single
//!   sectors of a write; its length without its content, which is zeros then, or what lay on the
//!   disk before; truncations; names, independent of the files they name; in any order, or (as a
//!   journal would) up to some moment. A sync of a file says nothing of its name, one of a
//!   directory nothing of the content of its files.
//! - [`SimFs::power_off_after`] pulls the plug in the middle of whatever the program is doing.
//! - [`Faults`] make calls fail or fall short by chance, [`SimFs::fail_after`] one of them exactly:
//!   with EIO or ENOSPC.
//! - [`SimFs::rot`] flips bits of what lies there.
//!
//! A failed sync loses what it should have made durable, though reads go on showing it, as Linux
//! does; only a program that stops trusting the file is safe.

mod disk;
mod faults;
mod file;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use klamm_env::{DirEntry, File, Fs, LockGuard, Metadata, OpenMode, Space};

use crate::{SimClock, SimRng, Trace};
use disk::Disk;
pub use faults::{Errno, Faults};
use file::SimFile;

/// The file system. Clones share it.
#[derive(Clone, Debug)]
pub struct SimFs(Arc<Mutex<Disk>>);

impl SimFs {
    /// An empty file system with a root directory.
    pub fn new(rng: SimRng, clock: SimClock, trace: Trace) -> SimFs {
        SimFs(Arc::new(Mutex::new(Disk::new(rng, clock, trace))))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets calls go wrong from now on; takes back what [`SimFs::fail_after`] asked for.
    pub fn set_faults(&self, faults: Faults) {
        self.disk().gremlin.set_faults(faults);
    }

    /// Lets one call fail, whichever it is: the one after the next `calls`. With
    /// [`Errno::NoSpace`] the first after them that needs room.
    pub fn fail_after(&self, calls: u64, errno: Errno) {
        self.disk().gremlin.fail_after(calls, errno);
    }

    /// Calls so far that could have failed.
    pub fn calls(&self) -> u64 {
        self.disk().gremlin.calls
    }

    /// Pulls the plug before the `calls`-th call from now that changes anything: that call and
    /// all after it fail until [`SimFs::crash`].
    pub fn power_off_after(&self, calls: u64) {
        let mut disk = self.disk();
        disk.power_off_at = Some(disk.changes + calls);
    }

    /// Whether the plug was pulled.
    pub fn is_off(&self) -> bool {
        self.disk().off
    }

    /// Whether a failed sync lost writes that reads go on showing until the machine restarts. No
    /// program can tell, not even one that was restarted.
    pub fn has_lost_writes(&self) -> bool {
        self.disk().lost_writes
    }

    /// Calls so far that changed anything.
    pub fn changes(&self) -> u64 {
        self.disk().changes
    }

    /// How many files there are of each kind (by the ends of their names), and how many bytes in
    /// them.
    pub fn usage(&self) -> BTreeMap<String, (u64, u64)> {
        let mut kinds = BTreeMap::new();
        for (name, len) in tree::visible_files(&self.disk().inodes, disk::ROOT) {
            let kind = name.rsplit('.').next().unwrap_or(name).to_owned();
            let (files, bytes) = kinds.entry(kind).or_default();
            (*files, *bytes) = (*files + 1, *bytes + len as u64);
        }
        kinds
    }

    /// Crashes the machine and starts it again: a random part of what is pending is lost, open
    /// files and locks are gone.
    pub fn crash(&self) {
        self.disk().crash();
    }

    /// Ends the process and not the machine: nothing is lost but open files and locks.
    pub fn kill(&self) {
        self.disk().kill();
    }

    /// Flips bits of a byte of a file, on the disk and in memory.
    pub fn rot(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        self.disk().rot(path, offset, mask)
    }
}

impl Fs for SimFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let (inode, generation) = self.disk().open(path, mode)?;
        Ok(Arc::new(SimFile {
            fs: self.clone(),
            inode,
            generation,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk().create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk().read_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk().rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk().remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk().remove_dir_all(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk().hard_link(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk().sync_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.disk().metadata(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut disk = self.disk();
        disk.metadata(path)?;
        let total_bytes = disk.gremlin.faults.space_bytes.unwrap_or(1 << 40);
        Ok(Space {
            total_bytes,
            usable_bytes: total_bytes.saturating_sub(disk.used_bytes()),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        let mut disk = self.disk();
        let (inode, generation) = disk.open(path, OpenMode::Create)?;
        if !disk.locks.insert(inode) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock {
            fs: self.clone(),
            inode,
            generation,
        }))
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        let mut disk = self.disk();
        disk.metadata(path)?;
        let mut full = PathBuf::from("/");
        full.extend(tree::names(path)?);
        Ok(full)
    }
}

#[derive(Debug)]
struct SimLock {
    fs: SimFs,
    inode: u64,
    generation: u64,
}

impl LockGuard for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut disk = self.fs.disk();
        if disk.generation == self.generation {
            disk.locks.remove(&self.inode);
        }
    }
}
