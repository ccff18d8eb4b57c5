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
    state: Mutex<State>,
    earlier: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: DeadlineQueue<Sleeper>,
    /// When the timer's task looks next; `None` if it waits to be told. Not moved when the first
    /// deadline is removed: nearly every request is answered before its time, and the next one's
    /// deadline is later, so the task would be woken by each request only to go on waiting.
    next_look: Option<Duration>,
}

impl Timer {
    pub(crate) fn insert(&self, deadline: Duration, sleeper: Sleeper) -> DeadlineKey {
        let ticks = deadline
            .as_nanos()
            .div_ceil(u128::from(TICK_MS) * 1_000_000);
        let rounded =
            Duration::from_millis(u64::try_from(ticks).unwrap_or(u64::MAX / TICK_MS) * TICK_MS);
        let mut state = lock(&self.state);
        let (key, _) = state.queue.insert(rounded, sleeper);
        let too_late = state.next_look.is_none_or(|look| rounded < look);
        if too_late {
            state.next_look = Some(rounded);
            drop(state);
            self.earlier.notify_one();
        }
        key
    }

    pub(crate) fn remove(&self, key: DeadlineKey) {
        lock(&self.state).queue.remove(key);
    }

    /// Wakes everyone whose deadline has come; returns the next one.
    pub(crate) fn expire(&self, now: Duration) -> Option<Duration> {
        let mut due = Vec::new();
        let next = {
            let mut state = lock(&self.state);
            while let Some(sleeper) = state.queue.pop_due(now) {
                due.push(sleeper);
            }
            state.next_look = state.queue.next_deadline();
            state.next_look
        };
        for sleeper in due {
            sleeper.expire();
        }
        next
    }

    /// Returns when a deadline has come in before the time of the next look.
    pub(crate) async fn disturbed(&self) {
        self.earlier.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::manager::wait::FetchWaiter;

    fn insert(timer: &Timer, ms: u64) -> DeadlineKey {
        let sleeper = Sleeper::Fetch(FetchWaiter::new(1));
        timer.insert(Duration::from_millis(ms), sleeper)
    }

    fn is_disturbed(timer: &Timer) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        pin!(timer.disturbed()).poll(&mut cx) == Poll::Ready(())
    }

    #[test]
    fn requests_that_are_answered_in_time_do_not_wake_the_timer() {
        let timer = Timer::default();
        let first = insert(&timer, 500);
        assert!(is_disturbed(&timer));
        assert_eq!(
            timer.expire(Duration::ZERO),
            Some(Duration::from_millis(500))
        );
        timer.remove(first);
        for ms in [510, 520, 530] {
            let next = insert(&timer, ms);
            assert!(!is_disturbed(&timer));
            timer.remove(next);
        }
        insert(&timer, 400);
        assert!(is_disturbed(&timer));
        assert_eq!(timer.expire(Duration::from_millis(400)), None);
        insert(&timer, 900);
        assert!(is_disturbed(&timer));
    }
}
