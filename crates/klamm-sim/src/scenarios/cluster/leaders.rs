//! **One leader an epoch.** In a leader epoch of a partition one broker appends, and no other.
//!
//! Source: KIP-101; all comparing of logs by epochs rests on it. Known false positives: none.

use std::collections::BTreeMap;

use klamm_records::TopicPartition;

use super::super::Violation;

/// Checks the property for an append.
pub fn appended(
    leaders: &mut BTreeMap<(TopicPartition, i32), i32>,
    partition: &TopicPartition,
    epoch: Option<i32>,
    broker: i32,
) -> Result<(), Violation> {
    let Some(epoch) = epoch else {
        let detail = format!("{broker} appended to {partition} and does not lead");
        return Err(Violation::new("leaders", detail));
    };
    let known = *leaders.entry((partition.clone(), epoch)).or_insert(broker);
    if known == broker {
        return Ok(());
    }
    let detail = format!("{known} and {broker} both append to {partition} in epoch {epoch}");
    Err(Violation::new("leaders", detail))
}
