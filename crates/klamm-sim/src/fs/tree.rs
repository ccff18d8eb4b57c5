//! Inodes, and the two views of each: what programs see and what is on the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use crate::SimRng;

/// Bytes that a disk writes at once; a write of more can be torn between two.
const SECTOR_LEN: usize = 512;

/// A file or directory.
#[derive(Debug)]
pub(super) enum Inode {
    File(FileNode),
    Dir(DirNode),
}

/// Names of all files below a directory that programs can see, each with its size.
pub(super) fn visible_files(inodes: &BTreeMap<u64, Inode>, root: u64) -> Vec<(&str, usize)> {
    let (mut files, mut dirs) = (Vec::new(), vec![root]);
    while let Some(Inode::Dir(dir)) = dirs.pop().and_then(|id| inodes.get(&id)) {
        for (name, inode) in &dir.current {
            match inodes.get(inode) {
                Some(Inode::File(file)) => files.push((&**name, file.current.len())),
                Some(Inode::Dir(_)) => dirs.push(*inode),
                None => {}
            }
        }
    }
    files
}

/// A file's content.
#[derive(Debug, Default)]
pub(super) struct FileNode {
    /// As programs see it.
    pub(super) current: Vec<u8>,
    /// As it is on the disk for certain.
    durable: Vec<u8>,
    /// What makes the one of the other, in order.
    pending: Vec<WriteOp>,
    pub(super) modified_ms: i64,
}

/// A directory's names.
#[derive(Debug, Default)]
pub(super) struct DirNode {
    pub(super) current: BTreeMap<String, u64>,
    pub(super) durable: BTreeMap<String, u64>,
    /// When a name was last changed, and what the disk says of that.
    pub(super) modified_ms: i64,
    pub(super) durable_modified_ms: i64,
}

#[derive(Debug)]
pub(super) enum WriteOp {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

impl WriteOp {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            WriteOp::Write { offset, data } => write(content, *offset, data),
            WriteOp::SetLen(len) => content.resize(*len, 0),
        }
    }

    /// Applies as much as made it to the disk.
    fn apply_torn(&self, content: &mut Vec<u8>, rng: &SimRng) {
        let WriteOp::Write { offset, data } = self else {
            if rng.one_in(2) {
                self.apply(content);
            }
            return;
        };
        let sectors = sectors(*offset, data.len());
        let kept_first = rng.index(sectors.len() + 1);
        match rng.index(5) {
            0 => {}
            4 => {
                // The length was noted and the content never written.
                let from = content.len().max(*offset);
                let end = offset + data.len();
                if content.len() < end {
                    content.resize(end, 0);
                    if rng.one_in(4) {
                        let garbage = rng.bytes(end - from);
                        write(content, from, &garbage);
                    }
                }
            }
            1 => self.apply(content),
            2 => {
                for (start, end) in &sectors[..kept_first] {
                    write(content, offset + start, &data[*start..*end]);
                }
            }
            _ => {
                for (start, end) in &sectors {
                    if rng.one_in(2) {
                        write(content, offset + start, &data[*start..*end]);
                    }
                }
            }
        }
    }
}

/// Cuts a write at the boundaries of sectors; ranges are relative to its start.
fn sectors(offset: usize, len: usize) -> Vec<(usize, usize)> {
    let mut all = Vec::new();
    let mut start = 0;
    while start < len {
        let end = (((offset + start) / SECTOR_LEN + 1) * SECTOR_LEN - offset).min(len);
        all.push((start, end));
        start = end;
    }
    all
}

fn write(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

impl FileNode {
    pub(super) fn new(modified_ms: i64) -> FileNode {
        FileNode {
            modified_ms,
            ..FileNode::default()
        }
    }

    pub(super) fn change(&mut self, op: WriteOp, now_ms: i64) {
        op.apply(&mut self.current);
        self.pending.push(op);
        self.modified_ms = now_ms;
    }

    pub(super) fn sync(&mut self) {
        for op in self.pending.drain(..) {
            op.apply(&mut self.durable);
        }
    }

    /// A sync that failed: the kernel counts the pages as clean, and the disk never saw them.
    /// Returns whether anything was lost.
    pub(super) fn sync_failed(&mut self) -> bool {
        let lost = !self.pending.is_empty();
        self.pending.clear();
        lost
    }

    pub(super) fn crash(&mut self, rng: &SimRng) {
        for op in std::mem::take(&mut self.pending) {
            op.apply_torn(&mut self.durable, rng);
        }
        self.current.clone_from(&self.durable);
    }

    pub(super) fn rot(&mut self, offset: usize, mask: u8) {
        for content in [&mut self.current, &mut self.durable] {
            if let Some(byte) = content.get_mut(offset) {
                *byte ^= mask;
            }
        }
    }
}

/// A change of names. Each is atomic: a rename is seen whole or not at all.
#[derive(Debug)]
pub(super) enum DirOp {
    Link {
        dir: u64,
        name: String,
        inode: u64,
    },
    Unlink {
        dir: u64,
        name: String,
    },
    Rename {
        from: (u64, String),
        to: (u64, String),
        inode: u64,
    },
}

impl DirOp {
    /// The names that it changes.
    pub(super) fn keys(&self) -> Vec<(u64, &str)> {
        match self {
            DirOp::Link { dir, name, .. } | DirOp::Unlink { dir, name } => vec![(*dir, name)],
            DirOp::Rename { from, to, .. } => vec![(from.0, &from.1), (to.0, &to.1)],
        }
    }

    /// Whether a sync of `dir` makes it durable. A rename into another directory is durable once
    /// the new one is synced.
    pub(super) fn is_of(&self, dir: u64) -> bool {
        match self {
            DirOp::Link { dir: of, .. } | DirOp::Unlink { dir: of, .. } => *of == dir,
            DirOp::Rename { to, .. } => to.0 == dir,
        }
    }

    /// Applies it to the names of directories, as seen or as durable.
    pub(super) fn apply(
        &self,
        mut names_of: impl FnMut(u64, &mut dyn FnMut(&mut BTreeMap<String, u64>)),
    ) {
        let mut set = |dir: u64, name: &str, inode: Option<u64>| {
            names_of(dir, &mut |names| {
                match inode {
                    Some(inode) => names.insert(name.to_owned(), inode),
                    None => names.remove(name),
                };
            });
        };
        match self {
            DirOp::Link { dir, name, inode } => set(*dir, name, Some(*inode)),
            DirOp::Unlink { dir, name } => set(*dir, name, None),
            DirOp::Rename { from, to, inode } => {
                set(from.0, &from.1, None);
                set(to.0, &to.1, Some(*inode));
            }
        }
    }
}

/// The names of a path from the root down; relative paths start at the root, too.
pub(super) fn names(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir => {
                names.pop();
            }
            Component::Normal(name) => {
                let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
                names.push(name.to_owned());
            }
            Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}

/// Drops inodes that no name leads to.
pub(super) fn forget_unreachable(inodes: &mut BTreeMap<u64, Inode>, root: u64) {
    let mut reachable = BTreeSet::from([root]);
    let mut queue = vec![root];
    while let Some(inode) = queue.pop() {
        if let Some(Inode::Dir(dir)) = inodes.get(&inode) {
            queue.extend(
                dir.current
                    .values()
                    .filter(|&&below| reachable.insert(below)),
            );
        }
    }
    inodes.retain(|inode, _| reachable.contains(inode));
}
