use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Where time comes from.
pub trait Clock: Debug + Send + Sync {
    /// Milliseconds since the Unix epoch. May jump in either direction, as wall clocks do; record
    /// timestamps and retention use it.
    fn wall_ms(&self) -> i64;

    /// Time since some fixed moment in the past; never goes back. Timeouts and deadlines use it.
    fn monotonic(&self) -> Duration;
}

/// A clock that stands still until it is told to move. For tests and simulation.
#[derive(Debug, Default)]
pub struct ManualClock {
    wall_ms: AtomicI64,
    elapsed_ms: AtomicI64,
}

impl ManualClock {
    /// A clock whose wall time starts at `wall_ms`.
    pub fn new(wall_ms: i64) -> Self {
        ManualClock {
            wall_ms: AtomicI64::new(wall_ms),
            elapsed_ms: AtomicI64::new(0),
        }
    }

    /// Moves wall and monotonic time forward by `ms` milliseconds.
    pub fn advance_ms(&self, ms: u32) {
        self.wall_ms.fetch_add(i64::from(ms), Ordering::SeqCst);
        self.elapsed_ms.fetch_add(i64::from(ms), Ordering::SeqCst);
    }

    /// Sets wall time alone, as an operator or NTP would; monotonic time is unaffected.
    pub fn set_wall_ms(&self, ms: i64) {
        self.wall_ms.store(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.elapsed_ms.load(Ordering::SeqCst).unsigned_abs())
    }
}
