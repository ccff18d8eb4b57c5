use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use klamm_env::{Clock as _, DirEntry, Metadata, OpenMode, Rng as _};

use super::faults::{Call, Gremlin};
use super::tree::{DirNode, DirOp, FileNode, Inode, WriteOp, forget_unreachable, names};
use crate::trace::digest;
use crate::{SimClock, SimRng, Trace};

pub(super) const ROOT: u64 = 1;
const ENOSPC: i32 = 28;

/// The state behind [`SimFs`](super::SimFs).
#[derive(Debug)]
pub(super) struct Disk {
    pub(super) inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Changes of names that are not durable yet, in order.
    dir_ops: Vec<DirOp>,
    pub(super) locks: BTreeSet<u64>,
    /// Counts crashes; files opened before one are dead.
    pub(super) generation: u64,
    pub(super) gremlin: Gremlin,
    /// Calls that changed anything.
    pub(super) changes: u64,
    pub(super) power_off_at: Option<u64>,
    pub(super) off: bool,
    /// Whether a failed sync lost writes that reads still show.
    pub(super) lost_writes: bool,
    rng: SimRng,
    pub(super) clock: SimClock,
    trace: Trace,
}

fn power_is_off() -> io::Error {
    io::Error::other("the simulated machine is off")
}

impl Disk {
    pub(super) fn new(rng: SimRng, clock: SimClock, trace: Trace) -> Disk {
        Disk {
            inodes: BTreeMap::from([(ROOT, Inode::Dir(DirNode::default()))]),
            next_inode: ROOT + 1,
            dir_ops: Vec::new(),
            locks: BTreeSet::new(),
            generation: 0,
            gremlin: Gremlin::new(rng.fork("gremlin"), trace.clone()),
            changes: 0,
            power_off_at: None,
            off: false,
            lost_writes: false,
            rng,
            clock,
            trace,
        }
    }

    // ---- names ----

    fn dir(&self, inode: u64) -> io::Result<&DirNode> {
        match self.inodes.get(&inode) {
            Some(Inode::Dir(dir)) => Ok(dir),
            Some(Inode::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn lookup(&self, path: &Path) -> io::Result<u64> {
        let mut inode = ROOT;
        for name in names(path)? {
            inode = *self
                .dir(inode)?
                .current
                .get(&name)
                .ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(inode)
    }

    /// The directory that holds a path's last name, and that name.
    fn parent(&self, path: &Path) -> io::Result<(u64, String)> {
        let mut names = names(path)?;
        let name = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut inode = ROOT;
        for name in names {
            inode = *self
                .dir(inode)?
                .current
                .get(&name)
                .ok_or(io::ErrorKind::NotFound)?;
        }
        self.dir(inode)?;
        Ok((inode, name))
    }

    fn change_names(&mut self, op: DirOp) {
        let now_ms = self.clock.wall_ms();
        op.apply(|dir, edit| {
            if let Some(Inode::Dir(node)) = self.inodes.get_mut(&dir) {
                edit(&mut node.current);
                node.modified_ms = now_ms;
            }
        });
        self.dir_ops.push(op);
    }

    fn make_durable(inodes: &mut BTreeMap<u64, Inode>, op: &DirOp) {
        op.apply(|dir, edit| {
            if let Some(Inode::Dir(node)) = inodes.get_mut(&dir) {
                edit(&mut node.durable);
            }
        });
    }

    fn new_inode(&mut self, node: Inode) -> u64 {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, node);
        inode
    }

    // ---- what goes wrong ----

    fn check_power(&self) -> io::Result<()> {
        if self.off {
            Err(power_is_off())
        } else {
            Ok(())
        }
    }

    /// Before each call that changes anything.
    fn before_change(&mut self) -> io::Result<()> {
        self.check_power()?;
        if self.power_off_at == Some(self.changes) {
            self.off = true;
            self.trace.note("power off");
            return Err(power_is_off());
        }
        self.changes += 1;
        Ok(())
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let len = |node: &Inode| match node {
            Inode::File(file) => file.current.len() as u64,
            Inode::Dir(_) => 0,
        };
        self.inodes.values().map(len).sum()
    }

    // ---- calls on paths ----

    pub(super) fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<(u64, u64)> {
        self.check_power()?;
        let found = match self.lookup(path) {
            Ok(inode) => Some(inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let inode = match (found, mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (None, OpenMode::Read | OpenMode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (Some(inode), _) => {
                self.file(inode, self.generation)?;
                self.gremlin.call(Call::Name)?;
                if mode == OpenMode::Truncate {
                    self.set_len(inode, self.generation, 0)?;
                }
                inode
            }
            (None, _) => {
                let (dir, name) = self.parent(path)?;
                self.before_change()?;
                self.gremlin.call(Call::NewName)?;
                let inode = self.new_inode(Inode::File(FileNode::new(self.clock.wall_ms())));
                self.change_names(DirOp::Link { dir, name, inode });
                inode
            }
        };
        self.trace
            .note(format_args!("open {} {mode:?} = {inode}", path.display()));
        Ok((inode, self.generation))
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut inode = ROOT;
        for name in names(path)? {
            inode = match self.dir(inode)?.current.get(&name) {
                Some(&inode) => inode,
                None => {
                    self.before_change()?;
                    self.gremlin.call(Call::NewName)?;
                    let new = self.new_inode(Inode::Dir(DirNode::default()));
                    self.change_names(DirOp::Link {
                        dir: inode,
                        name,
                        inode: new,
                    });
                    new
                }
            };
        }
        self.dir(inode)?;
        self.check_power()?;
        self.trace.note(format_args!("mkdir {}", path.display()));
        Ok(())
    }

    pub(super) fn read_dir(&mut self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.check_power()?;
        self.gremlin.call(Call::Name)?;
        let dir = self.dir(self.lookup(path)?)?;
        let entry = |(name, inode): (&String, &u64)| DirEntry {
            name: name.clone(),
            is_dir: matches!(self.inodes.get(inode), Some(Inode::Dir(_))),
        };
        Ok(dir.current.iter().map(entry).collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.lookup(from)?;
        let (from_key, to_key) = (self.parent(from)?, self.parent(to)?);
        if let Ok(replaced) = self.lookup(to)
            && let Ok(dir) = self.dir(replaced)
            && !dir.current.is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.before_change()?;
        self.gremlin.call(Call::NewName)?;
        self.trace.note(format_args!(
            "rename {} to {}",
            from.display(),
            to.display()
        ));
        if from_key != to_key {
            self.change_names(DirOp::Rename {
                from: from_key,
                to: to_key,
                inode,
            });
        }
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.lookup(path)?;
        self.file(inode, self.generation)?;
        let (dir, name) = self.parent(path)?;
        self.before_change()?;
        self.gremlin.call(Call::Name)?;
        self.trace.note(format_args!("remove {}", path.display()));
        self.change_names(DirOp::Unlink { dir, name });
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let inode = self.lookup(path)?;
        for entry in self.read_dir(path)? {
            let below = path.join(&entry.name);
            if entry.is_dir {
                self.remove_dir_all(&below)?;
            } else {
                self.remove_file(&below)?;
            }
        }
        self.dir(inode)?;
        let (dir, name) = self.parent(path)?;
        self.before_change()?;
        self.gremlin.call(Call::Name)?;
        self.trace.note(format_args!("rmdir {}", path.display()));
        self.change_names(DirOp::Unlink { dir, name });
        Ok(())
    }

    pub(super) fn hard_link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.lookup(from)?;
        self.file(inode, self.generation)?;
        if self.lookup(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let (dir, name) = self.parent(to)?;
        self.before_change()?;
        self.gremlin.call(Call::NewName)?;
        self.trace
            .note(format_args!("link {} to {}", from.display(), to.display()));
        self.change_names(DirOp::Link { dir, name, inode });
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.lookup(path)?;
        self.dir(dir)?;
        self.before_change()?;
        self.gremlin.call(Call::Sync)?;
        self.trace.note(format_args!("sync {}/", path.display()));
        // What came before on the same name goes along, or it could come back later.
        let mut chosen = vec![false; self.dir_ops.len()];
        let mut keys = BTreeSet::new();
        for (index, op) in self.dir_ops.iter().enumerate().rev() {
            let op_keys = op.keys();
            if op.is_of(dir) || op_keys.iter().any(|key| keys.contains(key)) {
                chosen[index] = true;
                keys.extend(op_keys);
            }
        }
        drop(keys);
        let mut chosen = chosen.into_iter();
        let inodes = &mut self.inodes;
        if let Some(Inode::Dir(node)) = inodes.get_mut(&dir) {
            node.durable_modified_ms = node.modified_ms;
        }
        self.dir_ops.retain(|op| {
            let durable = chosen.next().unwrap_or(false);
            if durable {
                Disk::make_durable(inodes, op);
            }
            !durable
        });
        Ok(())
    }

    pub(super) fn metadata(&mut self, path: &Path) -> io::Result<Metadata> {
        self.check_power()?;
        let inode = self.lookup(path)?;
        self.gremlin.call(Call::Name)?;
        Ok(match self.inodes.get(&inode) {
            Some(Inode::File(file)) => Metadata {
                len: file.current.len() as u64,
                is_dir: false,
                modified_ms: file.modified_ms,
            },
            Some(Inode::Dir(dir)) => Metadata {
                len: 0,
                is_dir: true,
                modified_ms: dir.modified_ms,
            },
            None => return Err(io::ErrorKind::NotFound.into()),
        })
    }

    // ---- calls on open files ----

    pub(super) fn file(&mut self, inode: u64, generation: u64) -> io::Result<&mut FileNode> {
        self.check_power()?;
        if generation != self.generation {
            return Err(io::Error::other("the process that opened the file is gone"));
        }
        match self.inodes.get_mut(&inode) {
            Some(Inode::File(file)) => Ok(file),
            Some(Inode::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn len(&mut self, inode: u64, generation: u64) -> io::Result<u64> {
        self.gremlin.call(Call::Name)?;
        Ok(self.file(inode, generation)?.current.len() as u64)
    }

    pub(super) fn read_at(
        &mut self,
        inode: u64,
        generation: u64,
        buf: &mut [u8],
        offset: u64,
    ) -> io::Result<usize> {
        self.gremlin.call(Call::Read)?;
        let start = self
            .file(inode, generation)?
            .current
            .len()
            .min(offset as usize);
        let len = buf
            .len()
            .min(self.file(inode, generation)?.current.len() - start);
        let len = self.gremlin.shorten(Call::Read, len);
        let file = self.file(inode, generation)?;
        buf[..len].copy_from_slice(&file.current[start..start + len]);
        Ok(len)
    }

    pub(super) fn write_at(
        &mut self,
        inode: u64,
        generation: u64,
        mut data: Vec<u8>,
        offset: u64,
    ) -> io::Result<usize> {
        let file_len = self.file(inode, generation)?.current.len();
        self.before_change()?;
        let failed = self.gremlin.call(Call::Write);
        let offset = offset as usize;
        data.truncate(self.gremlin.shorten(Call::Write, data.len()));
        if let Some(space) = self.gremlin.faults.space_bytes {
            let free = space.saturating_sub(self.used_bytes()) as usize;
            let room = (file_len + free).saturating_sub(offset);
            if room == 0 && !data.is_empty() {
                self.trace.note("ENOSPC");
                return Err(io::Error::from_raw_os_error(ENOSPC));
            }
            data.truncate(room);
        }
        if failed.is_err() {
            // The pages before the one that failed may have been taken.
            data.truncate(self.rng.index(data.len() + 1));
        }
        let len = data.len();
        self.trace.note(format_args!(
            "write {inode} {offset}+{len} {:016x}",
            digest(&data)
        ));
        let now_ms = self.clock.wall_ms();
        self.file(inode, generation)?
            .change(WriteOp::Write { offset, data }, now_ms);
        failed.map(|()| len)
    }

    pub(super) fn set_len(&mut self, inode: u64, generation: u64, len: u64) -> io::Result<()> {
        self.file(inode, generation)?;
        self.before_change()?;
        self.gremlin.call(Call::SetLen)?;
        self.trace.note(format_args!("set_len {inode} {len}"));
        let now_ms = self.clock.wall_ms();
        let op = WriteOp::SetLen(usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?);
        self.file(inode, generation)?.change(op, now_ms);
        Ok(())
    }

    pub(super) fn sync(&mut self, inode: u64, generation: u64) -> io::Result<()> {
        self.file(inode, generation)?;
        self.before_change()?;
        if let Err(error) = self.gremlin.call(Call::Sync) {
            self.lost_writes |= self.file(inode, generation)?.sync_failed();
            return Err(error);
        }
        self.trace.note(format_args!("sync {inode}"));
        self.file(inode, generation)?.sync();
        Ok(())
    }

    // ---- the machine ----

    pub(super) fn kill(&mut self) {
        self.trace.note("kill");
        self.generation += 1;
        self.locks.clear();
        self.off = false;
        self.power_off_at = None;
    }

    pub(super) fn crash(&mut self) {
        self.kill();
        self.trace.note("crash");
        self.lost_writes = false;
        let dir_ops = std::mem::take(&mut self.dir_ops);
        // A journal keeps a prefix; without one any subset may be there.
        let journal = self.rng.one_in(3);
        let prefix = self.rng.index(dir_ops.len() + 1);
        for (index, op) in dir_ops.iter().enumerate() {
            let kept = if journal {
                index < prefix
            } else {
                self.rng.next_u64() & 1 == 0
            };
            if kept {
                Disk::make_durable(&mut self.inodes, op);
            }
        }
        for node in self.inodes.values_mut() {
            match node {
                Inode::File(file) => file.crash(&self.rng),
                Inode::Dir(dir) => {
                    dir.current.clone_from(&dir.durable);
                    dir.modified_ms = dir.durable_modified_ms;
                }
            }
        }
        forget_unreachable(&mut self.inodes, ROOT);
        self.trace.note(format_args!(
            "{} inodes, {} bytes are left",
            self.inodes.len(),
            self.used_bytes()
        ));
    }

    pub(super) fn rot(&mut self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let inode = self.lookup(path)?;
        self.trace
            .note(format_args!("rot {} at {offset}", path.display()));
        let generation = self.generation;
        self.file(inode, generation)?.rot(offset as usize, mask);
        Ok(())
    }
}
