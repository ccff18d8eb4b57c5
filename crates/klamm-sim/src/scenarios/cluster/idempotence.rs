//! **Idempotence.** The records of an idempotent producer are in the log once each, in the order in
//! which they were sent; one after the other, from the first one that retention left, or with gaps
//! in logs that are compacted.
//!
//! Source: KIP-58, KIP-98. Known false positives: none; producers here never give up a record.

use std::collections::{BTreeMap, BTreeSet};

use klamm_records::TopicPartition;

use super::super::Violation;
use super::view::Replica;

/// Checks the property for a leader's log.
pub fn check(
    idempotent: &BTreeSet<i64>,
    partition: &TopicPartition,
    leader: &Replica,
) -> Result<(), Violation> {
    let mut next: BTreeMap<i64, i64> = BTreeMap::new();
    for entry in &leader.entries {
        let producer = entry.value.producer;
        if !idempotent.contains(&producer) {
            continue;
        }
        let number = entry.value.number;
        let due = next.insert(producer, number + 1);
        let first = if leader.start > 0 { number } else { 0 };
        let due = due.unwrap_or(first);
        if number < due || number > due && entry.key.is_none() {
            let detail = format!(
                "{partition} at {}: producer {producer} has {} after {}",
                leader.broker,
                number,
                due - 1
            );
            return Err(Violation::new("idempotence", detail));
        }
    }
    Ok(())
}
