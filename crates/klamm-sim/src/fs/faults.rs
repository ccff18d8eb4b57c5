//! Which calls go wrong, and how.

use std::io;

use crate::{SimRng, Trace};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// How often calls go wrong, in cases per million.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Reads that fail with EIO.
    pub read_errors: u32,
    /// Writes and truncations that fail with EIO. A write may have left a part of itself behind.
    pub write_errors: u32,
    /// Syncs of files and directories that fail with EIO.
    pub sync_errors: u32,
    /// Calls on names that fail with EIO and change nothing: opening, creating, listing, asking
    /// for sizes, renaming, linking, removing.
    pub name_errors: u32,
    /// Reads that give fewer bytes than they could.
    pub short_reads: u32,
    /// Writes that take fewer bytes than given.
    pub short_writes: u32,
    /// Writes, creations, renames and syncs that fail with ENOSPC though there was room before: a
    /// quota, a reserve, another process.
    pub space_errors: u32,
    /// Bytes that all files together may have; writes beyond fail with ENOSPC.
    pub space_bytes: Option<u64>,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// The device failed.
    Io,
    /// The file system is full. Calls that need no room are spared.
    NoSpace,
}

/// What a program may ask of a file system, as far as it can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
    SetLen,
    Sync,
    /// A call on names that needs no room: opening what exists, listing, removing.
    Name,
    /// One that does: creating, renaming, linking.
    NewName,
}

/// Decides over each call.
#[derive(Debug)]
pub(super) struct Gremlin {
    pub(super) faults: Faults,
    /// Calls so far.
    pub(super) calls: u64,
    /// The call that fails, whatever the odds.
    fail_at: Option<(u64, Errno)>,
    rng: SimRng,
    trace: Trace,
}

impl Gremlin {
    pub(super) fn new(rng: SimRng, trace: Trace) -> Gremlin {
        Gremlin {
            faults: Faults::default(),
            calls: 0,
            fail_at: None,
            rng,
            trace,
        }
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.fail_at = None;
    }

    pub(super) fn fail_after(&mut self, calls: u64, errno: Errno) {
        self.fail_at = Some((self.calls + calls, errno));
    }

    /// Before each call: whether it fails.
    pub(super) fn call(&mut self, call: Call) -> io::Result<()> {
        let number = self.calls;
        self.calls += 1;
        if let Some((at, errno)) = self.fail_at
            && number >= at
            && (errno == Errno::Io || call.needs_room())
        {
            self.fail_at = None;
            return Err(self.error(errno, call));
        }
        let faults = self.faults;
        if call.needs_room() && self.rng.chance(faults.space_errors) {
            return Err(self.error(Errno::NoSpace, call));
        }
        let errors = match call {
            Call::Read => faults.read_errors,
            Call::Write | Call::SetLen => faults.write_errors,
            Call::Sync => faults.sync_errors,
            Call::Name | Call::NewName => faults.name_errors,
        };
        if self.rng.chance(errors) {
            return Err(self.error(Errno::Io, call));
        }
        Ok(())
    }

    fn error(&self, errno: Errno, call: Call) -> io::Error {
        self.trace
            .note(format_args!("{errno:?} in call {} ({call:?})", self.calls));
        io::Error::from_raw_os_error(match errno {
            Errno::Io => EIO,
            Errno::NoSpace => ENOSPC,
        })
    }

    /// How much of a read or write is done.
    pub(super) fn shorten(&self, call: Call, len: usize) -> usize {
        let short = match call {
            Call::Read => self.faults.short_reads,
            _ => self.faults.short_writes,
        };
        if len > 1 && self.rng.chance(short) {
            1 + self.rng.index(len - 1)
        } else {
            len
        }
    }
}

impl Call {
    /// Whether it can fail for want of room.
    fn needs_room(self) -> bool {
        matches!(self, Call::Write | Call::Sync | Call::NewName)
    }
}
