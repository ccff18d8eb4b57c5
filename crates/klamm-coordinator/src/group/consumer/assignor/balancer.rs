//! Hands out the members with least and with most, one after the other, while partitions move.
//!
//! Members are sorted once. Those with least form a range at the front that grows as its members
//! catch up with the next; those with most one at the back. Sizes are those of the caller, looked
//! at only where a range grows, which is before the members there have changed.

/// The subscribers of one topic, by how much they have.
pub(super) struct Balancer {
    sorted: Vec<usize>,
    least_end: usize,
    least_size: i64,
    next_least: usize,
    most_start: usize,
    most_end: usize,
    most_size: i64,
    next_most: i64,
}

impl Balancer {
    /// `members` is not empty.
    pub(super) fn new(members: &[usize], sizes: &[usize]) -> Self {
        let mut sorted = members.to_vec();
        sorted.sort_by_key(|member| (sizes[*member], *member));
        let size = |at: usize| sorted.get(at).map_or(0, |member| signed(sizes[*member]));
        let len = sorted.len();
        Balancer {
            least_end: 0,
            least_size: size(0) - 1,
            next_least: 0,
            most_start: len,
            most_end: len,
            most_size: size(len.saturating_sub(1)) + 1,
            next_most: signed(len) - 1,
            sorted,
        }
    }

    /// How much more the one with most has than the one with least.
    pub(super) fn imbalance(&self, sizes: &[usize]) -> usize {
        match (self.sorted.first(), self.sorted.last()) {
            (Some(least), Some(most)) => sizes[*most] - sizes[*least],
            _ => 0,
        }
    }

    pub(super) fn next_least_loaded(&mut self, sizes: &[usize]) -> usize {
        if self.next_least >= self.least_end {
            self.least_size += 1;
            while self.least_end < self.sorted.len()
                && signed(sizes[self.sorted[self.least_end]]) == self.least_size
            {
                self.least_end += 1;
            }
            self.next_least = 0;
        }
        let member = self.sorted[self.next_least];
        self.next_least += 1;
        member
    }

    /// None once every member was excluded.
    pub(super) fn next_most_loaded(&mut self, sizes: &[usize]) -> Option<usize> {
        if self.next_most < signed(self.most_start) {
            if self.most_end <= self.most_start && self.most_start > 0 {
                self.most_size = signed(sizes[self.sorted[self.most_start - 1]]);
            } else {
                self.most_size -= 1;
            }
            while self.most_start > 0
                && signed(sizes[self.sorted[self.most_start - 1]]) == self.most_size
            {
                self.most_start -= 1;
            }
            self.next_most = signed(self.most_end) - 1;
        }
        let at = usize::try_from(self.next_most).ok()?;
        self.next_most -= 1;
        self.sorted.get(at).copied()
    }

    /// Takes the member that was handed out last as the one with most out of that range, because
    /// it has nothing of the topic.
    pub(super) fn exclude_most_loaded(&mut self) {
        let (Ok(last), Some(end)) = (
            usize::try_from(self.next_most + 1),
            self.most_end.checked_sub(1),
        ) else {
            return;
        };
        self.sorted.swap(last, end);
        self.most_end = end;
    }

    pub(super) fn is_balanced(&self) -> bool {
        self.most_size - self.least_size <= 1
    }
}

fn signed(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
