//! The one timer of a replica manager: deadlines of all waiting requests.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;

use super::lock;
use super::wait::Sleeper;
use crate::waiters::{DeadlineKey, DeadlineQueue};

/// Deadlines are rounded up to this, so that requests that come close together are woken together
/// and a sleeping timer is seldom disturbed.
const TICK_MS: u64 = 2;

#[derive(Debug, Default)]
pub(crate) struct Timer {
    queue: Mutex<DeadlineQueue<Sleeper>>,
    earlier: Notify,
}

impl Timer {
    pub(crate) fn insert(&self, deadline: Duration, sleeper: Sleeper) -> DeadlineKey {
        let ticks = deadline
            .as_nanos()
            .div_ceil(u128::from(TICK_MS) * 1_000_000);
        let rounded =
            Duration::from_millis(u64::try_from(ticks).unwrap_or(u64::MAX / TICK_MS) * TICK_MS);
        let (key, is_first) = lock(&self.queue).insert(rounded, sleeper);
        if is_first {
            self.earlier.notify_one();
        }
        key
    }

    pub(crate) fn remove(&self, key: DeadlineKey) {
        lock(&self.queue).remove(key);
    }

    /// Wakes everyone whose deadline has come; returns the next one.
    pub(crate) fn expire(&self, now: Duration) -> Option<Duration> {
        let mut due = Vec::new();
        let next = {
            let mut queue = lock(&self.queue);
            while let Some(sleeper) = queue.pop_due(now) {
                due.push(sleeper);
            }
            queue.next_deadline()
        };
        for sleeper in due {
            sleeper.expire();
        }
        next
    }

    /// Returns when an earlier deadline than all others has come in.
    pub(crate) async fn disturbed(&self) {
        self.earlier.notified().await;
    }
}
