//! **Offsets stay.** What was committed and acknowledged is what is fetched, or something later
//! that its owner committed and knows no answer to.
//!
//! Source: the log of `__consumer_offsets`. Owners commit larger and larger offsets, one request
//! at a time, from where they found the partition. Known and allowed: an answer that reaches an
//! owner who has lost the partition says nothing of what the next owner finds. Fetches count if
//! the broker that answered did lead the partition: one that does not know that it was deposed
//! answers with what was, here as in Kafka.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::Violation;

/// The commits of a run.
#[derive(Debug, Default)]
pub(in super::super) struct Offsets {
    acknowledged: BTreeMap<i32, i64>,
    sent: BTreeMap<i32, BTreeSet<i64>>,
}

impl Offsets {
    pub(in super::super) fn sent(&mut self, partition: i32, offset: i64) {
        self.sent.entry(partition).or_default().insert(offset);
    }

    pub(in super::super) fn acknowledged(&mut self, partition: i32, offset: i64) {
        let newest = self.acknowledged.entry(partition).or_insert(offset);
        *newest = (*newest).max(offset);
    }

    /// What a fetch that begins now must give at least; -1 for anything.
    pub(in super::super) fn floor(&self, partition: i32) -> i64 {
        self.acknowledged.get(&partition).copied().unwrap_or(-1)
    }

    /// Checks what a fetch gave that began when the floor was `floor`.
    pub(in super::super) fn check(
        &self,
        partition: i32,
        floor: i64,
        fetched: i64,
    ) -> Result<(), Violation> {
        let sent = self.sent.get(&partition);
        let known = fetched == -1 || sent.is_some_and(|sent| sent.contains(&fetched));
        if known && fetched >= floor {
            return Ok(());
        }
        let detail = format!("{fetched} is fetched of {partition}, {floor} was acknowledged");
        Err(Violation::new("offsets", detail))
    }
}
