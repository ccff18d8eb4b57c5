use std::io::{self, IoSlice};

use klamm_env::File;

use super::SimFs;

/// An open file of a [`SimFs`].
#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) fs: SimFs,
    pub(super) inode: u64,
    pub(super) generation: u64,
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.fs
            .disk()
            .read_at(self.inode, self.generation, buf, offset)
    }

    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let data = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
        self.fs
            .disk()
            .write_at(self.inode, self.generation, data, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.fs.disk().len(self.inode, self.generation)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fs.disk().set_len(self.inode, self.generation, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.disk().sync(self.inode, self.generation)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.fs.disk().sync(self.inode, self.generation)
    }

    fn start_writeback(&self, _offset: u64, _len: u64) -> io::Result<()> {
        // A hint that promises nothing: what is pending may survive a crash anyway.
        self.fs.disk().file(self.inode, self.generation).map(|_| ())
    }

    fn is_resident(&self, _offset: u64, _len: u64) -> io::Result<bool> {
        self.fs
            .disk()
            .file(self.inode, self.generation)
            .map(|_| true)
    }
}
