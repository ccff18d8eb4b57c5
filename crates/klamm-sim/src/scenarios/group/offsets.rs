//! **Offsets stay.** A committed offset that was acknowledged is what a fetch gives, or a later
//! one whose fate its sender does not know; also after the coordinator moved.
//!
//! Source: the log of `__consumer_offsets`. Known false positives: none while nothing expires.

use std::collections::BTreeMap;

use super::super::Violation;

/// The commits of a run; each offset is larger than all before it.
#[derive(Clone, Debug, Default)]
pub struct Commits {
    acknowledged: BTreeMap<u8, i64>,
    sent: BTreeMap<u8, Vec<i64>>,
}

impl Commits {
    pub(super) fn sent(&mut self, partition: u8, offset: i64) {
        self.sent.entry(partition).or_default().push(offset);
    }

    pub(super) fn acknowledged(&mut self, partition: u8, offset: i64) {
        let newest = self.acknowledged.entry(partition).or_insert(offset);
        *newest = (*newest).max(offset);
    }

    /// Checks the property for what a fetch gave; -1 for none.
    pub fn check(&self, partition: u8, fetched: i64) -> Result<(), Violation> {
        let acknowledged = self.acknowledged.get(&partition).copied().unwrap_or(-1);
        let sent = self.sent.get(&partition);
        let known = fetched == -1 || sent.is_some_and(|sent| sent.contains(&fetched));
        if !known || fetched < acknowledged {
            return Err(Violation::new(
                "offsets",
                format!(
                    "{fetched} is fetched of partition {partition}, {acknowledged} was acknowledged"
                ),
            ));
        }
        Ok(())
    }
}
