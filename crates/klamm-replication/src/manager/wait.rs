//! How requests sleep: what is shared between a waiting request, the partitions that may wake it
//! and the timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::Notify;

/// A fetch that sleeps until its `min.bytes` are there.
#[derive(Debug)]
pub(crate) struct FetchWaiter {
    /// Bytes still missing; may go below zero.
    missing: AtomicI64,
    /// Something happened that needs a look whatever the bytes.
    disturbed: AtomicBool,
    expired: AtomicBool,
    notify: Notify,
}

impl FetchWaiter {
    pub(crate) fn new(missing: i64) -> Arc<Self> {
        Arc::new(FetchWaiter {
            missing: AtomicI64::new(missing),
            disturbed: AtomicBool::new(false),
            expired: AtomicBool::new(false),
            notify: Notify::new(),
        })
    }

    /// Counts `bytes` that became readable; true for the call that completes `min.bytes`.
    pub(crate) fn credit(&self, bytes: u64) -> bool {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX / 2);
        let before = self.missing.fetch_sub(bytes, Ordering::Relaxed);
        before > 0 && before <= bytes
    }

    /// Asks for a look at the partitions, whatever the bytes.
    pub(crate) fn disturb(&self) {
        self.disturbed.store(true, Ordering::Relaxed);
        self.notify.notify_one();
    }

    pub(crate) fn wake(&self) {
        self.notify.notify_one();
    }

    /// Sleeps until woken. Returns at once if that happened since the last call.
    pub(crate) async fn sleep(&self) {
        self.notify.notified().await;
    }

    pub(crate) fn is_disturbed(&self) -> bool {
        self.disturbed.load(Ordering::Relaxed)
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.expired.load(Ordering::Relaxed)
    }
}

/// How a wait for one partition ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Outcome {
    Waiting = 0,
    Done = 1,
    NotEnoughReplicas = 2,
    NotLeader = 3,
}

impl Outcome {
    fn of(value: u8) -> Outcome {
        match value {
            1 => Outcome::Done,
            2 => Outcome::NotEnoughReplicas,
            3 => Outcome::NotLeader,
            _ => Outcome::Waiting,
        }
    }
}

/// A request that sleeps until several partitions have reached an offset.
#[derive(Debug)]
pub(crate) struct OffsetWaiter {
    outcomes: SmallVec<[AtomicU8; 4]>,
    remaining: AtomicUsize,
    expired: AtomicBool,
    notify: Notify,
}

impl OffsetWaiter {
    /// A waiter with room for `slots` partitions, none of which it waits for yet.
    pub(crate) fn new(slots: usize) -> Arc<Self> {
        Arc::new(OffsetWaiter {
            outcomes: (0..slots).map(|_| AtomicU8::new(0)).collect(),
            remaining: AtomicUsize::new(0),
            expired: AtomicBool::new(false),
            notify: Notify::new(),
        })
    }

    pub(crate) fn outcome(&self, slot: usize) -> Outcome {
        let outcome = self.outcomes.get(slot);
        outcome.map_or(Outcome::Waiting, |outcome| {
            Outcome::of(outcome.load(Ordering::Acquire))
        })
    }

    pub(crate) fn is_over(&self) -> bool {
        self.remaining.load(Ordering::Acquire) == 0 || self.expired.load(Ordering::Acquire)
    }

    /// Sleeps until every partition has an outcome or time is up.
    pub(crate) async fn sleep(&self) {
        while !self.is_over() {
            self.notify.notified().await;
        }
    }
}

/// One partition's part in an [`OffsetWaiter`].
#[derive(Debug)]
pub(crate) struct Ticket {
    waiter: Arc<OffsetWaiter>,
    slot: usize,
}

impl Ticket {
    /// Makes `waiter` wait for one more partition.
    pub(crate) fn new(waiter: Arc<OffsetWaiter>, slot: usize) -> Self {
        waiter.remaining.fetch_add(1, Ordering::AcqRel);
        Ticket { waiter, slot }
    }

    pub(crate) fn belongs_to(&self, waiter: &Arc<OffsetWaiter>) -> bool {
        Arc::ptr_eq(&self.waiter, waiter)
    }

    /// Tells how the wait ended; returns the waiter if this was the last partition.
    pub(crate) fn settle(self, outcome: Outcome) -> Option<Arc<OffsetWaiter>> {
        if let Some(slot) = self.waiter.outcomes.get(self.slot) {
            slot.store(outcome as u8, Ordering::Release);
        }
        let was = self.waiter.remaining.fetch_sub(1, Ordering::AcqRel);
        (was == 1).then_some(self.waiter)
    }
}

/// Whoever has a deadline.
#[derive(Debug)]
pub(crate) enum Sleeper {
    Fetch(Arc<FetchWaiter>),
    Offsets(Arc<OffsetWaiter>),
}

impl Sleeper {
    /// Tells the sleeper that its time is up.
    pub(crate) fn expire(self) {
        match self {
            Sleeper::Fetch(waiter) => {
                waiter.expired.store(true, Ordering::Release);
                waiter.notify.notify_one();
            }
            Sleeper::Offsets(waiter) => {
                waiter.expired.store(true, Ordering::Release);
                waiter.notify.notify_one();
            }
        }
    }
}

/// Those to wake once a partition's lock is released.
#[derive(Debug, Default)]
#[must_use = "whoever is in here sleeps until it is woken"]
pub(crate) struct Wakes {
    pub(crate) fetches: SmallVec<[Arc<FetchWaiter>; 4]>,
    pub(crate) offsets: SmallVec<[Arc<OffsetWaiter>; 4]>,
}

impl Wakes {
    pub(crate) fn wake(self) {
        for waiter in self.offsets {
            waiter.notify.notify_one();
        }
        for waiter in self.fetches {
            waiter.wake();
        }
    }
}

/// A deadline `timeout_ms` from `now`; negative timeouts are over at once.
pub(crate) fn deadline(now: Duration, timeout_ms: i32) -> Duration {
    now + Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0))
}
