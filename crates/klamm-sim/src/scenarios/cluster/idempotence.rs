//! **Idempotence.** The records of an idempotent producer are in the log once each, in the order in
//! which they were sent.
//!
//! Source: KIP-98. Known false positives: none; producers here never give up a record.

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
        let next = next.entry(producer).or_insert(0);
        if entry.value.number != *next {
            let detail = format!(
                "{partition} at {}: producer {producer} has {} after {}",
                leader.broker,
                entry.value.number,
                *next - 1
            );
            return Err(Violation::new("idempotence", detail));
        }
        *next += 1;
    }
    Ok(())
}
