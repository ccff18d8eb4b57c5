//! The seams between Klamm and the machine it runs on.
//!
//! Everything below the drivers takes time, randomness and storage through the traits of this
//! crate, so that the same code runs on a real host (feature `real`) and in the simulator, where
//! a crash drops writes that were never synced and a seed decides every choice.
//!
//! - [`Clock`]: wall-clock and monotonic time.
//! - [`Rng`]: random bits.
//! - [`Fs`] and [`File`]: synchronous, positional file access. Never called from code that must
//!   not block: a page-cache append is the only file operation that runs on a network thread.
//! - [`Env`]: the three together, cheap to clone and hand down.
//! - [`host`]: who runs tasks, where that is not the asynchronous runtime.
//!
//! Dispatch is dynamic on purpose: a virtual call costs about a nanosecond and each of these
//! calls stands for a system call of a thousand, while type parameters would reach every type
//! that touches a file.

#![cfg_attr(feature = "real", doc = include_str!("../README.md"))]

mod clock;
mod fs;
pub mod host;
#[cfg(feature = "real")]
mod real;
mod rng;

use std::sync::Arc;

pub use clock::{Clock, ManualClock};
pub use fs::{DirEntry, File, FileExt, Fs, FsExt, LockGuard, Metadata, OpenMode, Space};
#[cfg(feature = "real")]
pub use real::{OsClock, OsFs, OsRng, raise_open_files_limit};
pub use rng::{Rng, SplitMix64};

/// A clock, a source of randomness and a file system, handed down together.
#[derive(Clone, Debug)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub rng: Arc<dyn Rng>,
    /// Storage.
    pub fs: Arc<dyn Fs>,
}

#[cfg(feature = "real")]
impl Env {
    /// The operating system's clock, randomness and file system.
    pub fn os() -> Self {
        Env {
            clock: Arc::new(OsClock::new()),
            rng: Arc::new(OsRng),
            fs: Arc::new(OsFs),
        }
    }
}
