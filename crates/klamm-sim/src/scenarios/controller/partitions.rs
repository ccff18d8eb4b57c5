//! **Partitions are well formed.** Replicas are distinct and each has a directory; ISR and ELR are
//! made of replicas and have none in common; whoever leads is in sync and not fenced; a change is
//! seen in the partition epoch, a new leader in the leader epoch, and neither ever falls.
//!
//! Source: Kafka's `PartitionRegistration` and `ReplicationControlManager`. Known false positives:
//! none.

use std::collections::BTreeSet;

use klamm_metadata::{MetadataImage, PartitionImage};

use super::super::Violation;

/// Checks the property for what changed between two images.
pub fn check(old: &MetadataImage, new: &MetadataImage) -> Result<(), Violation> {
    for topic in new.topics().iter() {
        let before = old.topic_by_id(topic.id());
        for (index, partition) in topic.partitions() {
            let wrong = well_formed(new, partition).err().or_else(|| {
                before
                    .and_then(|before| before.partition(index))
                    .and_then(|before| follows(before, partition).err())
            });
            if let Some(wrong) = wrong {
                let name = topic.name();
                let detail = format!("{name}-{index}: {wrong}: {partition:?}");
                return Err(Violation::new("partitions", detail));
            }
        }
    }
    Ok(())
}

fn well_formed(image: &MetadataImage, partition: &PartitionImage) -> Result<(), &'static str> {
    let replicas: BTreeSet<i32> = partition.replicas.iter().copied().collect();
    let isr: BTreeSet<i32> = partition.isr.iter().copied().collect();
    let elr: BTreeSet<i32> = partition.elr.iter().copied().collect();
    if replicas.is_empty() || replicas.len() != partition.replicas.len() {
        return Err("replicas are not distinct");
    }
    if partition.directories.len() != replicas.len() {
        return Err("not every replica has a directory");
    }
    if isr.len() != partition.isr.len() || !isr.is_subset(&replicas) {
        return Err("the ISR is not made of replicas");
    }
    if !elr.is_subset(&replicas) || !elr.is_disjoint(&isr) {
        return Err("the ELR is not made of replicas outside of the ISR");
    }
    if isr.is_empty() && elr.is_empty() && partition.last_known_elr.is_empty() {
        return Err("nobody is known to hold the records");
    }
    let moving = partition
        .adding_replicas
        .iter()
        .chain(&partition.removing_replicas);
    if moving.into_iter().any(|id| !replicas.contains(id)) {
        return Err("a reassignment moves what is no replica");
    }
    if partition.leader >= 0 {
        if !isr.contains(&partition.leader) {
            return Err("the leader is not in sync");
        }
        if image
            .broker(partition.leader)
            .is_none_or(|broker| broker.fenced)
        {
            return Err("the leader is fenced");
        }
    }
    if isr.len() > 1
        && isr
            .iter()
            .any(|id| image.broker(*id).is_none_or(|broker| broker.fenced))
    {
        return Err("a fenced broker counts as in sync");
    }
    Ok(())
}

fn follows(old: &PartitionImage, new: &PartitionImage) -> Result<(), &'static str> {
    if old != new && new.partition_epoch <= old.partition_epoch {
        return Err("a change without a new partition epoch");
    }
    if new.leader_epoch < old.leader_epoch {
        return Err("the leader epoch fell");
    }
    if old.leader != new.leader && new.leader_epoch == old.leader_epoch {
        return Err("a new leader without a new epoch");
    }
    Ok(())
}
