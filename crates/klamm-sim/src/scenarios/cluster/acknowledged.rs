//! **Acknowledged records stay.** Whoever leads in the controller's epoch holds every record that
//! a producer was told is safe (`acks=all`), at its offset; and every record that a consumer read.
//!
//! Source: KIP-101, KIP-279, KIP-497, KIP-966. Known false positives: none as long as no more
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
        for (&offset, &value) in records.get(partition).into_iter().flatten() {
            let held = usize::try_from(offset)
                .ok()
                .and_then(|at| leader.entries.get(at))
                .map(|entry| entry.value);
            if held != Some(value) {
                return Err(Violation::new(
                    "acknowledged",
                    lost(partition, leader, offset, value, held, promise),
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
