//! Group commit and writeback: what makes the logs of a directory durable while others append.
//!
//! ```text
//! append ──request──▶ plan ──begin──▶ worker: fdatasync ──▶ durable offset moves, listeners hear
//!                      ▲                         │
//!                      └─ requests that came in the meantime: the next turn of the same log
//! ```
//!
//! - [`plan`]: which logs have work, which are being worked on. Pure.
//! - [`pool`]: the threads that do it, started when there is work for them.
//! - [`pace`]: whether the device keeps up with the appends. Pure.
//!
//! A sync covers everything appended before it began, so the slower the device, the more appends
//! share one sync; nothing is ever delayed to make a batch larger. Several logs are synced at once,
//! which lets the file system put them into one commit of its journal.
//!
//! Nothing happens after a sync has failed: the system may have dropped what it could not write
//! and report success the next time, so from then on no durable offset of the directory moves.

mod pace;
mod plan;
mod pool;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::log::{Attachment, Log};

pub(crate) use pace::Pace;
pub use plan::WorkPlan;
pub(crate) use pool::Pool;

/// Syncs that may run at once in a directory by default.
pub const SYNC_THREADS: usize = 8;

/// Makes the logs of one directory durable in the background. See the module's description.
///
/// A log that is [attached](Flusher::attach) and whose configuration has
/// [`group_sync`](crate::LogConfig::group_sync) is synced after each append, together with all
/// other appends that came meanwhile; [`Log::subscribe_durable`] and [`Log::wait_for_durable`]
/// tell when. All other attached logs have the writing of their pages to the device begun every
/// few megabytes, so that the system never has to hold up an append for it.
///
/// Dropping it ends the threads after the work at hand.
#[derive(Debug)]
pub struct Flusher {
    shared: Arc<FlusherShared>,
}

/// What logs hold of their flusher.
#[derive(Debug)]
pub(crate) struct FlusherShared {
    syncs: Arc<Pool>,
    writebacks: Arc<Pool>,
    pub(crate) pace: Pace,
    next_id: AtomicU64,
}

impl Flusher {
    /// A flusher with at most `sync_threads` syncs at once. With 0 it has no threads at all, and
    /// somebody calls [`run_one`](Flusher::run_one): what simulations do.
    pub fn new(sync_threads: usize) -> Self {
        Flusher {
            shared: Arc::new(FlusherShared {
                syncs: Pool::new("klamm-sync", sync_threads, Log::sync_job),
                // More than one would only compete for the same device.
                writebacks: Pool::new("klamm-writeback", sync_threads.min(1), Log::writeback_job),
                pace: Pace::default(),
                next_id: AtomicU64::new(0),
            }),
        }
    }

    /// Serves a log from now on, in the place of its former flusher if it had one.
    pub fn attach(&self, log: &Arc<Log>) {
        let id = self.shared.next_id.fetch_add(1, Ordering::Relaxed);
        log.set_attachment(Attachment {
            flusher: self.shared.clone(),
            id,
            log: Arc::downgrade(log),
            unwritten: AtomicU64::new(0),
            pending: AtomicU64::new(0),
        });
    }

    /// Does one piece of work on the calling thread; false if there is none.
    pub fn run_one(&self) -> bool {
        self.shared.syncs.run_one() || self.shared.writebacks.run_one()
    }

    /// Whether a sync has failed, so that nothing becomes durable any more.
    pub fn has_failed(&self) -> bool {
        self.shared.syncs.has_failed()
    }

    /// Ends the threads and waits for the work at hand. Requests after this are not served.
    pub fn stop(&self) {
        self.shared.syncs.stop();
        self.shared.writebacks.stop();
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.shared.syncs.end();
        self.shared.writebacks.end();
    }
}

impl FlusherShared {
    pub(crate) fn request_sync(&self, at: &Attachment) {
        self.syncs.request(at.id, &at.log);
    }

    pub(crate) fn request_writeback(&self, at: &Attachment) {
        self.writebacks.request(at.id, &at.log);
    }
}

#[cfg(test)]
mod tests;
