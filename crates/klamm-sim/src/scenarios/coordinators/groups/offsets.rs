//! **Offsets stay.** What was committed and acknowledged is what is fetched, or something later
//! that its owner committed and knows no answer to.
//!
//! Source: the log of `__consumer_offsets`. Owners commit larger and larger offsets, one request
//! at a time, from where they found the partition. Known and allowed: an answer that reaches an
//! owner who has lost the partition says nothing of what the next owner finds. Fetches count if
//! the broker that answered did lead the partition: one that does not know that it was deposed
//! answers with what was, here as in Kafka. An offset may be gone when its time is up, or with the
//! group that was deleted; that of a topic that is made again begins anew.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::Violation;

/// An offset that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Acknowledged {
    offset: i64,
    /// When the commit was sent.
    sent_ms: i64,
}

/// The commits of a run.
#[derive(Debug, Default)]
pub(in super::super) struct Offsets {
    acknowledged: BTreeMap<i32, Acknowledged>,
    sent: BTreeMap<i32, BTreeSet<i64>>,
    /// How long offsets are kept, if there is an end to it.
    retention_ms: Option<i64>,
    /// Until when the group may have been deleted, and everything with it.
    wiped_ms: i64,
}

impl Offsets {
    pub(in super::super) fn keep_for(&mut self, retention_ms: Option<i64>) {
        self.retention_ms = retention_ms;
    }

    pub(in super::super) fn sent(&mut self, partition: i32, offset: i64) {
        self.sent.entry(partition).or_default().insert(offset);
    }

    pub(in super::super) fn acknowledged(&mut self, partition: i32, offset: i64, sent_ms: i64) {
        let new = Acknowledged { offset, sent_ms };
        let newest = self.acknowledged.entry(partition).or_insert(new);
        if newest.offset <= offset || newest.sent_ms <= self.wiped_ms {
            *newest = new;
        }
    }

    /// The group may be deleted from now on. Returns what is to be restored if it was not; none if
    /// somebody else is about to delete it.
    pub(in super::super) fn begin_wiping(&mut self) -> Option<i64> {
        (self.wiped_ms < i64::MAX).then(|| std::mem::replace(&mut self.wiped_ms, i64::MAX))
    }

    /// The group was not deleted after this time.
    pub(in super::super) fn wiped(&mut self, until_ms: i64) {
        self.wiped_ms = until_ms;
    }

    /// What a fetch that begins now must give at least.
    pub(in super::super) fn floor(&self, partition: i32) -> Option<Acknowledged> {
        self.acknowledged.get(&partition).copied()
    }

    /// Checks what a fetch gave that began with this floor and ends now.
    pub(in super::super) fn check(
        &mut self,
        partition: i32,
        floor: Option<Acknowledged>,
        fetched: i64,
        now_ms: i64,
    ) -> Result<(), Violation> {
        let sent = self.sent.get(&partition);
        let known = fetched == -1 || sent.is_some_and(|sent| sent.contains(&fetched));
        let Some(floor) = floor.filter(|floor| fetched < floor.offset || !known) else {
            return if known {
                Ok(())
            } else {
                let detail = format!("{fetched} is fetched of {partition}, which nobody committed");
                Err(Violation::new("offsets", detail))
            };
        };
        let expired = self
            .retention_ms
            .is_some_and(|kept| now_ms >= floor.sent_ms + kept);
        if known && (floor.sent_ms <= self.wiped_ms || (expired && fetched == -1)) {
            // Whoever fetched it begins anew.
            if self.acknowledged.get(&partition) == Some(&floor) {
                self.acknowledged.remove(&partition);
            }
            return Ok(());
        }
        let detail = format!("{fetched} is fetched of {partition}, {floor:?} was acknowledged");
        Err(Violation::new("offsets", detail))
    }
}
