use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How [`Fs::open`] treats a file that exists or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; reads only.
    Read,
    /// Must exist; reads and writes.
    Write,
    /// Created if absent; reads and writes; content kept.
    Create,
    /// Created or emptied; reads and writes.
    Truncate,
    /// Must not exist; reads and writes.
    CreateNew,
}

/// What [`Fs::metadata`] tells of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Size in bytes.
    pub len: u64,
    /// Whether the path is a directory.
    pub is_dir: bool,
    /// Last modification, in milliseconds since the Unix epoch.
    pub modified_ms: i64,
}

/// One entry of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// File name without its directory. Names that are not UTF-8 are left out of listings.
    pub name: String,
    /// Whether the entry is a directory.
    pub is_dir: bool,
}

/// Size of the file system that holds a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub total_bytes: u64,
    /// Bytes this process may still use.
    pub usable_bytes: u64,
}

/// Held while a path is locked against other processes; dropping it unlocks.
pub trait LockGuard: Debug + Send + Sync {}

/// A file system.
///
/// # Durability contract
/// A write is durable after [`File::sync_data`] (content) or [`File::sync_all`] (content and
/// length); a created, renamed or removed name is durable after [`Fs::sync_dir`] of its
/// directory. The simulator drops any subset of what was not synced at a crash.
pub trait Fs: Debug + Send + Sync {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;
    /// Creates a directory and its parents; no error if it exists.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, sorted by name.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Renames a file or directory; replaces a file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all below it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Gives a file a second name.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Size and kind of a path.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;
    /// Size of the file system that holds `path`.
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Creates `path` if absent and locks it against other processes and against this one. Fails
    /// with [`io::ErrorKind::WouldBlock`] if somebody holds it, by whatever path.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>>;
    /// The path in absolute form, symbolic links resolved.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;
}

/// An open file, read and written at explicit positions.
pub trait File: Debug + Send + Sync {
    /// Reads at `offset` into `buf`; returns how many bytes were read, 0 at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of `bufs` at `offset`; returns how many bytes were written.
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Cuts or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes content durable, with as much of the metadata as reading it back needs.
    fn sync_data(&self) -> io::Result<()>;
    /// Makes content and all metadata durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Sets the time of the last change, in milliseconds since the epoch. A wish: a file system
    /// without such times ignores it.
    fn set_modified_ms(&self, modified_ms: i64) -> io::Result<()> {
        let _ = modified_ms;
        Ok(())
    }
    /// Starts writing dirty pages of a range to the device without waiting for them.
    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Whether the range is in memory and read, so that reading it won't wait for a device. A guess:
    /// `true` where the system cannot tell.
    fn is_resident(&self, offset: u64, len: u64) -> io::Result<bool>;
    /// As [`File::read_at`], but only as far as the range is in memory: `None` if already its
    /// first byte is not, so that the call never waits for a device.
    fn read_resident_at(&self, buf: &mut [u8], offset: u64) -> io::Result<Option<usize>> {
        if self.is_resident(offset, buf.len() as u64)? {
            self.read_at(buf, offset).map(Some)
        } else {
            Ok(None)
        }
    }
    /// The descriptor, where there is one, for `sendfile`.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Loops over [`File`]'s partial reads and writes.
pub trait FileExt: File {
    /// Fills `buf` from `offset` or fails with [`io::ErrorKind::UnexpectedEof`].
    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    buf = &mut buf[n..];
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }

    /// Reads at `offset` until `buf` is full or the file ends; returns how many bytes were read.
    fn read_up_to_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.read_at(&mut buf[filled..], offset + filled as u64)? {
                0 => break,
                n => filled += n,
            }
        }
        Ok(filled)
    }

    /// Writes all of `buf` at `offset`.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_vectored_at(&mut [IoSlice::new(buf)], offset)
    }

    /// Writes all of `bufs` at `offset`. The slices are consumed as they are written.
    fn write_all_vectored_at(
        &self,
        mut bufs: &mut [IoSlice<'_>],
        mut offset: u64,
    ) -> io::Result<()> {
        IoSlice::advance_slices(&mut bufs, 0);
        while !bufs.is_empty() {
            match self.write_vectored_at(bufs, offset)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                n => {
                    IoSlice::advance_slices(&mut bufs, n);
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }
}

impl<F: File + ?Sized> FileExt for F {}

/// What the calls of [`Fs`] add up to.
pub trait FsExt: Fs {
    /// Whether a path exists.
    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// A file's whole content.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.open(path, OpenMode::Read)?;
        let len = usize::try_from(file.len()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut content = vec![0; len];
        let read = file.read_up_to_at(&mut content, 0)?;
        content.truncate(read);
        Ok(content)
    }

    /// Replaces a file's content such that a crash leaves the old or the new one, never a mix:
    /// writes `path` + `.tmp`, syncs it, renames it and syncs the directory. This is what Kafka
    /// does for its checkpoint files.
    fn write_atomically(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = self.open(&temporary, OpenMode::Truncate)?;
        file.write_all_at(content, 0)?;
        file.sync_all()?;
        drop(file);
        self.rename(&temporary, path)?;
        match path.parent() {
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        }
    }
}

impl<F: Fs + ?Sized> FsExt for F {}
