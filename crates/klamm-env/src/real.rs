//! The seams over the operating system. The only file of the workspace that may use `std::fs`.
#![expect(
    clippy::disallowed_methods,
    reason = "the real implementations stand here"
)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::{Clock, DirEntry, File, Fs, LockGuard, Metadata, OpenMode, Rng, Space};

/// The operating system's clocks.
#[derive(Debug)]
pub struct OsClock {
    started: Instant,
}

impl OsClock {
    /// A clock whose monotonic time starts now.
    pub fn new() -> Self {
        OsClock {
            started: Instant::now(),
        }
    }
}

impl Default for OsClock {
    fn default() -> Self {
        OsClock::new()
    }
}

impl Clock for OsClock {
    fn wall_ms(&self) -> i64 {
        millis_since_epoch(SystemTime::now())
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}

fn millis_since_epoch(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

/// The operating system's randomness (`getrandom`).
#[derive(Debug)]
pub struct OsRng;

impl Rng for OsRng {
    fn next_u64(&self) -> u64 {
        let mut bytes = [0_u8; 8];
        // SAFETY: the pointer and length describe `bytes`, which outlives the call.
        let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        // Requests of up to 256 bytes are neither interrupted nor cut short once the kernel's pool
        // is seeded (man 2 getrandom); a kernel without the call cannot run this program.
        assert_eq!(got, 8, "the operating system gives no randomness");
        u64::from_ne_bytes(bytes)
    }
}

/// Raises the number of files and sockets that this process may have open to the most that the
/// system lets it (`RLIMIT_NOFILE`, soft to hard). Returns what it is now; none if it is unlimited
/// or cannot be told.
pub fn raise_open_files_limit() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is a valid place for the answer and outlives the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return None;
    }
    let raised = libc::rlimit {
        rlim_cur: limit.rlim_max,
        rlim_max: limit.rlim_max,
    };
    if limit.rlim_cur < limit.rlim_max {
        // SAFETY: `raised` is a valid value and outlives the call.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) } == 0 {
            limit = raised;
        }
    }
    (limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// The operating system's file systems.
#[derive(Debug)]
pub struct OsFs;

impl Fs for OsFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::Write => options.write(true),
            OpenMode::Create => options.write(true).create(true).truncate(false),
            OpenMode::Truncate => options.write(true).create(true).truncate(true),
            OpenMode::CreateNew => options.write(true).create_new(true),
        };
        Ok(Arc::new(OsFile(options.open(path)?)))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry {
                    name,
                    is_dir: entry.file_type()?.is_dir(),
                });
            }
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let path = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        fs::File::open(path)?.sync_all()
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let metadata = fs::metadata(path)?;
        Ok(Metadata {
            len: metadata.len(),
            is_dir: metadata.is_dir(),
            modified_ms: millis_since_epoch(metadata.modified()?),
        })
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            usable_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        OsLock::take(path).map(|lock| Box::new(lock) as Box<dyn LockGuard>)
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }
}

/// The files that this process has locked, by device and inode.
static LOCKED: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

/// A POSIX record lock, which is what Java's `FileChannel.tryLock` takes: a Kafka and a Klamm
/// process exclude each other. Such a lock belongs to the process: the system would give it to the
/// process a second time, and take it away when *any* descriptor of the file is closed. So the
/// process knows what it has locked, and does not open that again.
#[derive(Debug)]
struct OsLock {
    /// Always there but while it is dropped.
    file: Option<fs::File>,
    id: (u64, u64),
}

impl OsLock {
    fn take(path: &Path) -> io::Result<OsLock> {
        let mut locked = LOCKED.lock().unwrap_or_else(PoisonError::into_inner);
        let id_of = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        match fs::metadata(path).map(id_of) {
            Ok(id) if locked.contains(&id) => return Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) => {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Err(error) => return Err(error.into()),
        }
        let id = id_of(file.metadata()?);
        locked.insert(id);
        Ok(OsLock {
            file: Some(file),
            id,
        })
    }
}

impl Drop for OsLock {
    fn drop(&mut self) {
        let mut locked = LOCKED.lock().unwrap_or_else(PoisonError::into_inner);
        // Closed first: closing it later would take the lock from whoever gets it next.
        drop(self.file.take());
        locked.remove(&self.id);
    }
}

impl LockGuard for OsLock {}

#[derive(Debug)]
struct OsFile(fs::File);

impl File for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        retry(|| self.0.read_at(buf, offset))
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        // One slice needs no vector; more than IOV_MAX slices go in rounds.
        match bufs {
            [one] => retry(|| self.0.write_at(one, offset)),
            _ => {
                let bufs = &bufs[..bufs.len().min(1024)];
                retry(|| Ok(rustix::io::pwritev(&self.0, bufs, offset)?))
            }
        }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn set_modified_ms(&self, modified_ms: i64) -> io::Result<()> {
        let distance = Duration::from_millis(modified_ms.unsigned_abs());
        let modified = if modified_ms < 0 {
            UNIX_EPOCH.checked_sub(distance)
        } else {
            UNIX_EPOCH.checked_add(distance)
        };
        self.0
            .set_modified(modified.ok_or(io::ErrorKind::InvalidInput)?)
    }

    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        start_writeback(&self.0, offset, len)
    }

    fn is_resident(&self, offset: u64, len: u64) -> io::Result<bool> {
        is_resident(&self.0, offset, len)
    }

    #[cfg(target_os = "linux")]
    fn read_resident_at(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        let len = buf.len() as u64;
        let mut bufs = [io::IoSliceMut::new(buf)];
        match preadv2(&self.0, &mut bufs, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) => Ok(Some(read)),
            Err(Errno::AGAIN) => Ok(None),
            // A file system without it, or a signal: ask first, then read.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INTR) => {
                if is_resident(&self.0, offset, len)? {
                    self.read_at(buf, offset).map(Some)
                } else {
                    Ok(None)
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// What Linux reads ahead at once, unless told otherwise (`read_ahead_kb`).
#[cfg(target_os = "linux")]
const READ_AHEAD_BYTES: usize = 128 * 1024;

#[cfg(target_os = "linux")]
fn start_writeback(file: &fs::File, offset: u64, len: u64) -> io::Result<()> {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // SAFETY: the call takes no pointers and the descriptor is open for the length of it.
    let result = unsafe {
        libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE)
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(not(target_os = "linux"))]
fn start_writeback(file: &fs::File, _offset: u64, _len: u64) -> io::Result<()> {
    let _ = file.as_raw_fd();
    Ok(())
}

/// Whether all pages are there, and have been read: those of a read-ahead that is still under way are
/// there from its beginning, and whoever touches one waits for the device.
#[cfg(target_os = "linux")]
fn is_resident(file: &fs::File, offset: u64, len: u64) -> io::Result<bool> {
    Ok(has_pages(file, offset, len) && is_filled(file, offset, len))
}

/// Tries a byte here and there without waiting. Read-ahead comes in pieces no smaller than
/// [`READ_AHEAD_BYTES`].
#[cfg(target_os = "linux")]
fn is_filled(file: &fs::File, offset: u64, len: u64) -> bool {
    use rustix::io::{Errno, ReadWriteFlags, preadv2};
    let Some(last) = len.checked_sub(1).map(|last| offset + last) else {
        return true;
    };
    let is_filled_at = |at: u64| {
        let mut byte = [0];
        let mut bufs = [io::IoSliceMut::new(&mut byte)];
        let read = preadv2(file, &mut bufs, at, ReadWriteFlags::NOWAIT);
        // Other errors are those of a file system that cannot tell, or show again when it is read.
        read != Err(Errno::AGAIN)
    };
    // In order and to the end: the system takes the next read for one that goes on from here.
    (offset..last).step_by(READ_AHEAD_BYTES).all(is_filled_at) && is_filled_at(last)
}

/// Asks `cachestat(2)` (Linux 6.5 and later); older kernels answer ENOSYS and count as having them.
#[cfg(target_os = "linux")]
fn has_pages(file: &fs::File, offset: u64, len: u64) -> bool {
    const SYS_CACHESTAT: libc::c_long = 451;
    const PAGE_BYTES: u64 = 4096;
    let range = [offset, len];
    // nr_cache, nr_dirty, nr_writeback, nr_evicted, nr_recently_evicted
    let mut stat = [0_u64; 5];
    // SAFETY: `range` and `stat` have the layout of struct cachestat_range and struct cachestat,
    // and both outlive the call.
    let result = unsafe {
        libc::syscall(
            SYS_CACHESTAT,
            file.as_raw_fd(),
            range.as_ptr(),
            stat.as_mut_ptr(),
            0,
        )
    };
    if result != 0 {
        return true;
    }
    let first = offset / PAGE_BYTES;
    let end = (offset + len).div_ceil(PAGE_BYTES);
    stat[0] >= end - first
}

#[cfg(not(target_os = "linux"))]
fn is_resident(_file: &fs::File, _offset: u64, _len: u64) -> io::Result<bool> {
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Env, FileExt, FsExt};

    #[test]
    fn files_keep_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let fs = Env::os().fs;
        let path = dir.path().join("a");
        let file = fs.open(&path, OpenMode::CreateNew).unwrap();
        file.write_all_vectored_at(&mut [IoSlice::new(b"hello "), IoSlice::new(b"world")], 0)
            .unwrap();
        file.start_writeback(0, 11).unwrap();
        file.sync_data().unwrap();
        assert_eq!(fs.read(&path).unwrap(), b"hello world");
        assert!(file.is_resident(0, 11).unwrap());
        assert!(file.is_resident(0, 0).unwrap() && file.is_resident(11, 0).unwrap());
        let mut resident = [0; 20];
        assert_eq!(file.read_resident_at(&mut resident, 6).unwrap(), Some(5));
        assert_eq!(&resident[..5], b"world");
        assert_eq!(
            fs.open(&path, OpenMode::CreateNew).unwrap_err().kind(),
            io::ErrorKind::AlreadyExists
        );
        fs.write_atomically(&path, b"new").unwrap();
        assert_eq!(fs.read(&path).unwrap(), b"new");
        assert_eq!(fs.read_dir(dir.path()).unwrap().len(), 1);
        assert!(fs.space(dir.path()).unwrap().total_bytes > 0);
    }

    #[test]
    fn read_exact_past_the_end_fails() {
        let dir = tempfile::tempdir().unwrap();
        let file = OsFs.open(&dir.path().join("a"), OpenMode::Create).unwrap();
        file.write_all_at(b"abc", 0).unwrap();
        assert_eq!(
            file.read_exact_at(&mut [0; 4], 0).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert_eq!(file.read_up_to_at(&mut [0; 4], 1).unwrap(), 2);
    }

    #[test]
    fn a_file_is_locked_once_also_within_a_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".lock");
        let refused = |path: &Path| OsFs.lock(path).unwrap_err().kind();
        let lock = OsFs.lock(&path).unwrap();
        assert_eq!(refused(&path), io::ErrorKind::WouldBlock);
        // By another name it is the same file.
        std::os::unix::fs::symlink(dir.path(), dir.path().join("beside")).unwrap();
        let beside = dir.path().join("beside/.lock");
        assert_eq!(refused(&beside), io::ErrorKind::WouldBlock);
        // Being refused must not have taken the lock away.
        assert!(is_locked_for_others(&path));
        let other = OsFs.lock(&dir.path().join("other")).unwrap();
        drop((lock, other));
        assert!(!is_locked_for_others(&path));
        let lock = OsFs.lock(&beside).unwrap();
        assert_eq!(refused(&path), io::ErrorKind::WouldBlock);
        drop(lock);
    }

    /// Whether the system lists a lock of this process on a file.
    fn is_locked_for_others(path: &Path) -> bool {
        let inode = fs::metadata(path).unwrap().ino();
        let process = std::process::id().to_string();
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        locks.lines().any(|line| {
            let mut words = line.split_whitespace();
            let ours = words.nth(4) == Some(&process);
            let file = words.next().and_then(|file| file.rsplit(':').next());
            ours && file == Some(&inode.to_string())
        })
    }
}
