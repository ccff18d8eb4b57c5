//! Deadlines by name, as a value: nothing here sleeps.

use std::collections::{BTreeMap, BTreeSet};

/// A set of named deadlines. Scheduling a name again moves its deadline.
///
/// Deadlines are milliseconds of the monotonic clock. Two that fall on the same millisecond are
/// taken in the order of their names, so that a run can be repeated.
#[derive(Debug)]
pub struct Timers<K> {
    queue: BTreeSet<(u64, K)>,
    deadlines: BTreeMap<K, u64>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Timers {
            queue: BTreeSet::new(),
            deadlines: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets or moves the deadline of `key`.
    pub fn schedule(&mut self, key: K, deadline_ms: u64) {
        if let Some(previous) = self.deadlines.insert(key.clone(), deadline_ms) {
            if previous == deadline_ms {
                return;
            }
            let entry = (previous, key);
            self.queue.remove(&entry);
            self.queue.insert((deadline_ms, entry.1));
        } else {
            self.queue.insert((deadline_ms, key));
        }
    }

    /// Forgets `key`. Does nothing if it has no deadline.
    pub fn cancel(&mut self, key: K) {
        if let Some(deadline_ms) = self.deadlines.remove(&key) {
            self.queue.remove(&(deadline_ms, key));
        }
    }

    /// The deadline of `key`.
    pub fn deadline_ms(&self, key: &K) -> Option<u64> {
        self.deadlines.get(key).copied()
    }

    /// The earliest deadline.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.queue.first().map(|(deadline_ms, _)| *deadline_ms)
    }

    /// Takes the earliest name whose deadline is not after `now_ms`.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<K> {
        if self.next_deadline_ms()? > now_ms {
            return None;
        }
        let (_, key) = self.queue.pop_first()?;
        self.deadlines.remove(&key);
        Some(key)
    }

    /// How many deadlines there are.
    pub fn len(&self) -> usize {
        self.deadlines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.deadlines.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_earliest_first_and_moves_what_is_scheduled_again() {
        let mut timers = Timers::default();
        timers.schedule("b", 20);
        timers.schedule("a", 10);
        timers.schedule("a", 30);
        assert_eq!(timers.next_deadline_ms(), Some(20));
        assert_eq!(timers.pop_due(19), None);
        assert_eq!(timers.pop_due(30), Some("b"));
        assert_eq!(timers.pop_due(30), Some("a"));
        assert!(timers.is_empty());
    }

    #[test]
    fn forgets_what_is_cancelled() {
        let mut timers = Timers::default();
        timers.schedule("a", 10);
        timers.schedule("b", 10);
        timers.cancel("a");
        timers.cancel("a");
        assert_eq!(timers.len(), 1);
        assert_eq!(timers.deadline_ms(&"a"), None);
        assert_eq!(timers.pop_due(10), Some("b"));
        assert_eq!(timers.pop_due(u64::MAX), None);
    }
}
