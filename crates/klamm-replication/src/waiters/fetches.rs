use slab::Slab;

use super::Readable;

/// How far into a log a fetch may read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// To its end: followers, and tools that ask as a debugging replica.
    LogEnd,
    /// To the high watermark: consumers (`read_uncommitted`).
    HighWatermark,
    /// To the last stable offset: consumers (`read_committed`).
    LastStable,
}

/// Names a waiter of a [`FetchWaiters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaiterKey(usize);

/// The fetches that wait for bytes of one partition.
#[derive(Debug)]
pub struct FetchWaiters<T> {
    waiting: Slab<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    isolation: Isolation,
    fetch_offset: i64,
    /// Bytes for which it may still be credited: the fetch's limit for this partition less what
    /// was there when it began to wait.
    room: u64,
    /// The high watermark that a follower knows, if it says.
    known_high_watermark: Option<i64>,
    waiter: T,
}

impl<T> Default for FetchWaiters<T> {
    fn default() -> Self {
        FetchWaiters {
            waiting: Slab::new(),
        }
    }
}

impl<T> FetchWaiters<T> {
    /// Adds a fetch at `fetch_offset` that would return up to `room` more bytes of this partition.
    pub fn insert(
        &mut self,
        isolation: Isolation,
        fetch_offset: i64,
        room: u64,
        waiter: T,
    ) -> WaiterKey {
        self.insert_follower(isolation, fetch_offset, room, None, waiter)
    }

    /// As [`FetchWaiters::insert`] for a follower that says which high watermark it knows.
    pub fn insert_follower(
        &mut self,
        isolation: Isolation,
        fetch_offset: i64,
        room: u64,
        known_high_watermark: Option<i64>,
        waiter: T,
    ) -> WaiterKey {
        WaiterKey(self.waiting.insert(Entry {
            isolation,
            fetch_offset,
            room,
            known_high_watermark,
            waiter,
        }))
    }

    /// The followers' fetches to which `high_watermark` is news that they can take over.
    pub fn lacking(&self, high_watermark: i64) -> impl Iterator<Item = &T> {
        self.waiting
            .iter()
            .filter(move |(_, entry)| {
                let reachable = high_watermark.min(entry.fetch_offset);
                let known = entry.known_high_watermark;
                known.is_some_and(|known| known < reachable)
            })
            .map(|(_, entry)| &entry.waiter)
    }

    /// Removes a fetch that waits no longer.
    pub fn remove(&mut self, key: WaiterKey) -> Option<T> {
        self.waiting.try_remove(key.0).map(|entry| entry.waiter)
    }

    /// Credits every waiting fetch with the bytes it may read of `readable`: `credit` gets the
    /// fetch and its share, which is over 0.
    pub fn credit(&mut self, readable: Readable, mut credit: impl FnMut(&T, u64)) {
        if self.waiting.is_empty() || readable == Readable::default() {
            return;
        }
        for (_, entry) in &mut self.waiting {
            let bytes = match entry.isolation {
                Isolation::LogEnd => readable.appended,
                Isolation::HighWatermark => readable.committed,
                Isolation::LastStable => readable.stable,
            };
            let share = bytes.min(entry.room);
            if share > 0 {
                entry.room -= share;
                credit(&entry.waiter, share);
            }
        }
    }

    /// The fetches below `log_start_offset`, which has just moved: they are out of range now.
    pub fn below(&self, log_start_offset: i64) -> impl Iterator<Item = &T> {
        self.waiting
            .iter()
            .filter(move |(_, entry)| entry.fetch_offset < log_start_offset)
            .map(|(_, entry)| &entry.waiter)
    }

    /// All waiting fetches.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter().map(|(_, entry)| &entry.waiter)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credits(waiters: &mut FetchWaiters<char>, readable: Readable) -> Vec<(char, u64)> {
        let mut credits = Vec::new();
        waiters.credit(readable, |waiter, bytes| credits.push((*waiter, bytes)));
        credits
    }

    #[test]
    fn each_is_credited_with_what_it_may_see_up_to_its_limit() {
        let mut waiters = FetchWaiters::default();
        waiters.insert(Isolation::LogEnd, 0, 1_000, 'f');
        waiters.insert(Isolation::HighWatermark, 0, 25, 'c');
        let key = waiters.insert(Isolation::LastStable, 0, 1_000, 't');
        let readable = Readable {
            appended: 30,
            committed: 20,
            stable: 0,
        };
        assert_eq!(credits(&mut waiters, readable), [('f', 30), ('c', 20)]);
        assert_eq!(credits(&mut waiters, readable), [('f', 30), ('c', 5)]);
        assert_eq!(credits(&mut waiters, readable), [('f', 30)]);
        assert_eq!(waiters.remove(key), Some('t'));
        assert_eq!(waiters.remove(key), None);
        assert_eq!(waiters.len(), 2);
    }

    #[test]
    fn followers_that_lack_the_high_watermark_are_found() {
        let mut waiters = FetchWaiters::default();
        let end = Isolation::LogEnd;
        waiters.insert_follower(end, 10, 1, Some(4), 'a');
        waiters.insert_follower(end, 10, 1, Some(7), 'b');
        waiters.insert_follower(end, 4, 1, Some(4), 'c');
        waiters.insert(end, 10, 1, 'd');
        let lacking = |at| waiters.lacking(at).copied().collect::<String>();
        assert_eq!(lacking(4), "");
        assert_eq!(lacking(7), "a");
        assert_eq!(lacking(9), "ab");
    }

    #[test]
    fn those_below_the_log_start_are_found() {
        let mut waiters = FetchWaiters::default();
        waiters.insert(Isolation::HighWatermark, 10, 1, 'a');
        waiters.insert(Isolation::HighWatermark, 20, 1, 'b');
        assert_eq!(waiters.below(20).collect::<Vec<_>>(), [&'a']);
        assert_eq!(waiters.iter().count(), 2);
    }
}
