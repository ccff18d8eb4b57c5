use std::collections::BTreeMap;
use std::time::Duration;

/// Elements with a deadline each. Deadlines are times of a monotonic clock.
#[derive(Debug)]
pub struct DeadlineQueue<T> {
    waiting: BTreeMap<DeadlineKey, T>,
    next: u64,
}

/// Names an element of a [`DeadlineQueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeadlineKey {
    deadline: Duration,
    id: u64,
}

impl<T> Default for DeadlineQueue<T> {
    fn default() -> Self {
        DeadlineQueue {
            waiting: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<T> DeadlineQueue<T> {
    /// Adds an element. The second value tells whether its deadline is now the first of all, so
    /// that a sleeper must wake earlier than it planned.
    pub fn insert(&mut self, deadline: Duration, element: T) -> (DeadlineKey, bool) {
        let key = DeadlineKey {
            deadline,
            id: self.next,
        };
        self.next += 1;
        let is_first = self.next_deadline().is_none_or(|first| deadline < first);
        self.waiting.insert(key, element);
        (key, is_first)
    }

    /// Removes an element before its time.
    pub fn remove(&mut self, key: DeadlineKey) -> Option<T> {
        self.waiting.remove(&key)
    }

    /// Removes and returns the next element whose deadline is at or before `now`.
    pub fn pop_due(&mut self, now: Duration) -> Option<T> {
        let first = self.waiting.first_entry()?;
        (first.key().deadline <= now).then(|| first.remove())
    }

    /// The earliest deadline.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.waiting.first_key_value().map(|(key, _)| key.deadline)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_elements_come_out_in_order() {
        let ms = Duration::from_millis;
        let mut queue = DeadlineQueue::default();
        let (_, first) = queue.insert(ms(20), 'b');
        assert!(first);
        let (c, first) = queue.insert(ms(30), 'c');
        assert!(!first);
        assert!(queue.insert(ms(10), 'a').1);
        assert!(!queue.insert(ms(20), 'd').1);
        assert_eq!(queue.next_deadline(), Some(ms(10)));
        assert_eq!(queue.pop_due(ms(9)), None);
        assert_eq!(queue.pop_due(ms(20)), Some('a'));
        assert_eq!(queue.pop_due(ms(20)), Some('b'));
        assert_eq!(queue.pop_due(ms(20)), Some('d'));
        assert_eq!(queue.pop_due(ms(20)), None);
        assert_eq!(queue.remove(c), Some('c'));
        assert_eq!(queue.remove(c), None);
        assert!(queue.is_empty() && queue.next_deadline().is_none());
    }
}
