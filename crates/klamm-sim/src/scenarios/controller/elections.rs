//! **Elections are clean.** A new leader comes from those known to hold all committed records: the
//! ISR, the ELR, or the last of them that was known; unless an unclean election was asked for,
//! or is allowed in the topic.
//!
//! Source: KIP-966. Known false positives: none; a leader's word that a replica is in sync counts.

use klamm_metadata::MetadataImage;

use super::super::Violation;

/// Checks the property for what changed between two images. `vouched` are replicas that a leader
/// has just found to be in sync; `unclean` are topics in which anybody may lead.
pub fn check(
    old: &MetadataImage,
    new: &MetadataImage,
    vouched: &[i32],
    unclean: &dyn Fn(&str) -> bool,
) -> Result<(), Violation> {
    for topic in new.topics().iter() {
        let Some(before) = old.topic_by_id(topic.id()) else {
            continue;
        };
        for (index, partition) in topic.partitions() {
            let Some(before) = before.partition(index) else {
                continue;
            };
            let leader = partition.leader;
            let known = [&before.isr, &before.elr, &before.last_known_elr];
            let safe = known.iter().any(|ids| ids.contains(&leader)) || vouched.contains(&leader);
            if leader >= 0 && leader != before.leader && !safe && !unclean(topic.name()) {
                return Err(Violation::new(
                    "elections",
                    format!("{}-{index}: {leader} leads after {before:?}", topic.name()),
                ));
            }
        }
    }
    Ok(())
}
