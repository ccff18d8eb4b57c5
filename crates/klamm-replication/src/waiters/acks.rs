use std::collections::VecDeque;

/// Appends of one partition that wait until all records below an offset are committed, in the
/// order of those offsets.
#[derive(Debug)]
pub struct AckQueue<T> {
    waiting: VecDeque<(i64, T)>,
}

impl<T> Default for AckQueue<T> {
    fn default() -> Self {
        AckQueue {
            waiting: VecDeque::new(),
        }
    }
}

impl<T> AckQueue<T> {
    /// Adds a waiter. Offsets mostly come in ascending order; two appends may be reported the
    /// other way around.
    pub fn push(&mut self, required_offset: i64, waiter: T) {
        let place = self
            .waiting
            .iter()
            .rposition(|(offset, _)| *offset <= required_offset)
            .map_or(0, |index| index + 1);
        self.waiting.insert(place, (required_offset, waiter));
    }

    /// Removes and returns the next waiter whose offset is at or below `high_watermark`.
    pub fn pop_reached(&mut self, high_watermark: i64) -> Option<T> {
        match self.waiting.front() {
            Some((offset, _)) if *offset <= high_watermark => {
                self.waiting.pop_front().map(|(_, waiter)| waiter)
            }
            _ => None,
        }
    }

    /// Removes and returns all waiters: the partition is no longer led here.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.waiting.drain(..).map(|(_, waiter)| waiter)
    }

    /// Removes the waiters at `required_offset` that `is_it` picks: they have given up.
    pub fn remove(&mut self, required_offset: i64, is_it: impl Fn(&T) -> bool) {
        let first = self
            .waiting
            .partition_point(|(offset, _)| *offset < required_offset);
        let mut index = first;
        while let Some((offset, waiter)) = self.waiting.get(index)
            && *offset == required_offset
        {
            if is_it(waiter) {
                self.waiting.remove(index);
            } else {
                index += 1;
            }
        }
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

    fn popped(queue: &mut AckQueue<char>, high_watermark: i64) -> Vec<char> {
        std::iter::from_fn(|| queue.pop_reached(high_watermark)).collect()
    }

    #[test]
    fn pops_in_order_of_offsets_and_then_of_arrival() {
        let mut queue = AckQueue::default();
        for (offset, waiter) in [(10, 'a'), (30, 'c'), (20, 'b'), (30, 'd'), (5, '0')] {
            queue.push(offset, waiter);
        }
        assert_eq!(popped(&mut queue, 4), []);
        assert_eq!(popped(&mut queue, 20), ['0', 'a', 'b']);
        assert_eq!(popped(&mut queue, 29), []);
        assert_eq!(popped(&mut queue, 30), ['c', 'd']);
        assert!(queue.is_empty());
    }

    #[test]
    fn those_who_gave_up_are_removed() {
        let mut queue = AckQueue::default();
        for (offset, waiter) in [(10, 'a'), (10, 'b'), (10, 'b'), (20, 'b')] {
            queue.push(offset, waiter);
        }
        queue.remove(10, |waiter| *waiter == 'b');
        queue.remove(15, |_| true);
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.drain().collect::<Vec<_>>(), ['a', 'b']);
    }
}
