//! **Acknowledged records stay.** Whoever leads in the controller's epoch holds every record that
//! a producer was told is safe (`acks=all`), at its offset; and every record that a consumer read.
//! But for what retention took, which is for [`retention`](super::retention) to judge, and, in logs
//! that are compacted, records of which there is a newer one with the same key.
//!
//! Source: KIP-58, KIP-101, KIP-279, KIP-497, KIP-966. Known false positives: none as long as no more
//! machines lose power at once than the plan allows ([`super::nemesis`]).

use super::super::Violation;
use super::history::{History, Value};
use super::view::Replica;
use klamm_records::TopicPartition;

/// Checks the property for a leader.
pub fn check(
    history: &History,
    partition: &TopicPartition,
    leader: &Replica,
) -> Result<(), Violation> {
    let promises = [
        (&history.acknowledged, "was acknowledged"),
        (&history.read, "was read"),
    ];
    for (records, promise) in promises {
        for (&offset, kept) in records.get(partition).into_iter().flatten() {
            if offset < leader.start {
                continue;
            }
            let held = leader.entry(offset).map(|entry| entry.value);
            let superseded = held.is_none() && leader.supersedes(kept.key, offset);
            if held != Some(kept.value) && !superseded {
                return Err(Violation::new(
                    "acknowledged",
                    lost(partition, leader, offset, kept.value, held, promise),
                ));
            }
        }
    }
    Ok(())
}

fn lost(
    partition: &TopicPartition,
    leader: &Replica,
    offset: i64,
    value: Value,
    held: Option<Value>,
    promise: &str,
) -> String {
    format!(
        "{} leads {partition} in {:?} and holds {held:?} at {offset}, where {value:?} {promise}",
        leader.broker, leader.leads_in
    )
}
