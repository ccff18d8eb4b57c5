//! The tier of a run: in memory, or in a directory of another disk, which loses power, too.

use std::path::Path;
use std::sync::Arc;

use klamm_env::{Fs, Rng as _};
use klamm_log::Log;
use klamm_log::tier::{DirectoryTier, MemoryTier, RemoteLog, RemoteMetadata};

use super::super::{Run, Violation};
use super::driver::failed;
use crate::{Errno, Faults, SimFs, SimRng};

const DIR: &str = "/share/t-0";

pub(super) enum Remote {
    Memory(Arc<MemoryTier>),
    Directory(SimFs),
}

impl Remote {
    pub(super) fn new(run: &Run) -> Result<Remote, Violation> {
        if run.rng.fork("tier's kind").one_in(2) {
            return Ok(Remote::Memory(Arc::default()));
        }
        Ok(Remote::Directory(run.disk("share", "/share")?))
    }

    fn directory(fs: &SimFs) -> Result<Arc<DirectoryTier>, Violation> {
        let tier = DirectoryTier::open(Arc::new(fs.clone()), DIR);
        tier.map(Arc::new)
            .map_err(|error| failed("open the share", &error))
    }

    /// A log with this tier. Power that is to go soon may go here.
    pub(super) fn open(&self, log: Arc<Log>) -> Result<RemoteLog, Violation> {
        let opened = self.try_open(log.clone());
        match self {
            Remote::Directory(fs) if fs.is_off() => {
                fs.crash();
                self.try_open(log)
            }
            _ => opened,
        }
    }

    fn try_open(&self, log: Arc<Log>) -> Result<RemoteLog, Violation> {
        let opened = match self {
            Remote::Memory(tier) => RemoteLog::open(log, tier.clone(), tier.clone()),
            Remote::Directory(fs) => {
                fs.set_faults(Faults::default());
                let tier = Remote::directory(fs)?;
                RemoteLog::open(log, tier.clone(), tier)
            }
        };
        opened.map_err(|error| failed("open the tier", &error))
    }

    /// Lets one of the next calls fail, or the share's power in the middle of them.
    pub(super) fn fail_soon(&self, rng: &SimRng) {
        match self {
            Remote::Memory(tier) => tier.fail_after(rng.below(4)),
            Remote::Directory(fs) => match rng.index(3) {
                0 => fs.fail_after(rng.below(40), Errno::Io),
                1 => fs.fail_after(rng.below(40), Errno::NoSpace),
                _ => fs.power_off_after(rng.below(20)),
            },
        }
    }

    /// Whether the share is without power.
    pub(super) fn is_off(&self) -> bool {
        match self {
            Remote::Memory(_) => false,
            Remote::Directory(fs) => fs.is_off(),
        }
    }

    /// Nothing fails any more.
    pub(super) fn heal(&self) {
        match self {
            Remote::Memory(tier) => tier.fail_after(u64::MAX),
            Remote::Directory(fs) => fs.set_faults(Faults::default()),
        }
    }

    /// What was not made durable is lost.
    pub(super) fn crash(&self) {
        if let Remote::Directory(fs) = self {
            fs.crash();
        }
    }

    /// How many segments are known, and of how many there is data.
    pub(super) fn content(&self) -> Result<(usize, usize), Violation> {
        match self {
            Remote::Memory(tier) => Ok((tier.list().map_or(0, |s| s.len()), tier.stored().len())),
            Remote::Directory(fs) => {
                let known = Remote::directory(fs)?.list();
                let known = known.map_err(|error| failed("list", &error))?;
                let names = fs.read_dir(Path::new(DIR)).unwrap_or_default();
                let logs = names.iter().filter(|entry| entry.name.ends_with(".log"));
                Ok((known.len(), logs.count()))
            }
        }
    }
}
