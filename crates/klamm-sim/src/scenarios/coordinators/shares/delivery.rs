//! **Done once, and by somebody.** A record that was accepted or rejected, and whose leader has
//! said so, is not handed out again; what counts as done was accepted or rejected by a member.
//!
//! Source: KIP-932. Checked at the leaders, at the moment at which they hand out. Known and
//! allowed: a leader that was deposed and does not know hands out what it remembers, as in Kafka;
//! what its members say of it is refused. Records are never given up for being handed out too
//! often here.

use std::collections::{BTreeMap, BTreeSet};

use klamm_coordinator::share_partition::{AcknowledgeType, Acknowledgement, AcquiredRange};

use super::super::super::Violation;
use super::Live;

/// What became of records.
#[derive(Debug, Default)]
pub(in super::super) struct History {
    pub(super) live: BTreeMap<usize, Live>,
    next: usize,
    /// A member asked for it.
    asked: BTreeMap<i32, BTreeSet<i64>>,
    /// It was told that it is so.
    done: BTreeMap<i32, BTreeSet<i64>>,
    /// How far it was checked that nothing is missing.
    checked: BTreeMap<i32, i64>,
}

fn ends(acknowledgement: &Acknowledgement) -> bool {
    let [only] = acknowledgement.types[..] else {
        return false;
    };
    matches!(only, AcknowledgeType::Accept | AcknowledgeType::Reject)
}

impl History {
    pub(super) fn came(&mut self, live: Live) -> usize {
        self.next += 1;
        self.live.insert(self.next, live);
        self.next
    }

    /// A member is about to say so.
    pub(super) fn asked(&mut self, partition: i32, acknowledgements: &[Acknowledgement]) {
        let asked = self.asked.entry(partition).or_default();
        for one in acknowledgements.iter().filter(|one| ends(one)) {
            asked.extend(one.first_offset..=one.last_offset);
        }
    }

    /// The leader says that it is so.
    pub(super) fn done(&mut self, partition: i32, acknowledgements: &[Acknowledgement]) {
        let done = self.done.entry(partition).or_default();
        for one in acknowledgements.iter().filter(|one| ends(one)) {
            done.extend(one.first_offset..=one.last_offset);
        }
    }

    /// Records are handed out.
    pub(super) fn delivered(
        &self,
        partition: i32,
        acquired: &[AcquiredRange],
    ) -> Result<(), Violation> {
        let Some(done) = self.done.get(&partition) else {
            return Ok(());
        };
        for range in acquired {
            if let Some(again) = done.range(range.first_offset..=range.last_offset).next() {
                let detail = format!("{again} of {partition} is handed out, and was done");
                return Err(Violation::new("delivery", detail));
            }
        }
        Ok(())
    }

    /// Everything below `start` counts as done.
    pub(super) fn skipped(&mut self, partition: i32, start: i64) -> Result<(), Violation> {
        let asked = self.asked.entry(partition).or_default();
        let checked = self.checked.entry(partition).or_default();
        if let Some(lost) = (*checked..start).find(|offset| !asked.contains(offset)) {
            let detail = format!("{lost} of {partition} counts as done, which nobody said");
            return Err(Violation::new("delivery", detail));
        }
        *checked = (*checked).max(start);
        Ok(())
    }
}
