use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use klamm_env::Clock;

/// A clock that moves only when the simulation moves it. Clones share the time.
#[derive(Clone, Debug)]
pub struct SimClock(Arc<Hands>);

#[derive(Debug)]
struct Hands {
    wall_ms: AtomicI64,
    monotonic_us: AtomicU64,
}

impl SimClock {
    /// A clock that shows `wall_ms` milliseconds since the epoch.
    pub fn new(wall_ms: i64) -> SimClock {
        SimClock(Arc::new(Hands {
            wall_ms: AtomicI64::new(wall_ms),
            monotonic_us: AtomicU64::new(0),
        }))
    }

    /// Lets time pass, to the microsecond; the wall clock follows in whole milliseconds.
    pub fn advance(&self, by: Duration) {
        let by = by.as_micros() as u64;
        let before = self.0.monotonic_us.fetch_add(by, Ordering::SeqCst);
        let ms = ((before + by) / 1000 - before / 1000) as i64;
        self.0.wall_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the wall clock alone, forward or back, as NTP or an operator does.
    pub fn set_wall_ms(&self, wall_ms: i64) {
        self.0.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn wall_ms(&self) -> i64 {
        self.0.wall_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.monotonic_us.load(Ordering::SeqCst))
    }
}

/// A machine's clock: its wall clock may be wrong.
#[derive(Clone, Debug)]
pub(crate) struct NodeClock {
    clock: SimClock,
    skew_ms: Arc<AtomicI64>,
}

impl NodeClock {
    pub(crate) fn new(clock: &SimClock) -> NodeClock {
        NodeClock {
            clock: clock.clone(),
            skew_ms: Arc::default(),
        }
    }

    /// Sets the wall clock off by so much.
    pub(crate) fn skew(&self, ms: i64) {
        self.skew_ms.store(ms, Ordering::SeqCst);
    }
}

impl Clock for NodeClock {
    fn wall_ms(&self) -> i64 {
        self.clock.wall_ms() + self.skew_ms.load(Ordering::SeqCst)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}
