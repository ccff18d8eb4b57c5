//! Topics that are joined must have as many partitions as each other: topics of others as they are,
//! repartition topics made so.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::streams_group_topology_value::{
    CopartitionGroup, Subtopology, TopicInfo,
};

use super::configured::{Counts, Fault};
use super::topology::Topology;

/// Repartition topics: those whose partition count the application asks for, and the others.
struct Repartitioned {
    fixed: BTreeSet<ByteStr>,
    flexible: BTreeSet<ByteStr>,
}

/// Brings the decided counts in line with the copartition groups.
///
/// # Errors
/// A status if topics cannot be brought in line.
pub(super) fn enforce(topology: &Topology, counts: &mut Counts<'_>) -> Result<(), Fault> {
    let parts = topology.subtopologies.values();
    let (fixed, flexible): (Vec<_>, Vec<_>) = parts
        .flat_map(|part| &part.repartition_source_topics)
        .partition(|topic| topic.partitions != 0);
    let names = |topics: Vec<&TopicInfo>| -> BTreeSet<ByteStr> {
        topics.into_iter().map(|topic| topic.name.clone()).collect()
    };
    let repartitioned = Repartitioned {
        fixed: names(fixed),
        flexible: names(flexible),
    };
    for part in topology.subtopologies.values() {
        for group in &part.copartition_groups {
            let group = members(part, group)?;
            let enforced = repartitioned.enforce_one(&group, counts)?;
            counts.decided.extend(enforced);
        }
    }
    Ok(())
}

/// The topics that a group names by their places in the part's lists.
fn members(part: &Subtopology, group: &CopartitionGroup) -> Result<BTreeSet<ByteStr>, Fault> {
    let outside = || Fault::unexpected("A copartition group names a topic that is not there.");
    let mut topics = BTreeSet::new();
    for at in &group.source_topics {
        let at = usize::try_from(*at).ok();
        let name = at.and_then(|at| part.source_topics.get(at));
        topics.insert(name.ok_or_else(outside)?.clone());
    }
    for at in &group.repartition_source_topics {
        let at = usize::try_from(*at).ok();
        let topic = at.and_then(|at| part.repartition_source_topics.get(at));
        topics.insert(topic.ok_or_else(outside)?.name.clone());
    }
    Ok(topics)
}

impl Repartitioned {
    fn enforce_one(
        &self,
        group: &BTreeSet<ByteStr>,
        counts: &Counts<'_>,
    ) -> Result<BTreeMap<ByteStr, i32>, Fault> {
        let (mut internal, mut others) = (BTreeMap::new(), BTreeMap::new());
        for name in group {
            let count = counts.get(name).ok_or_else(|| {
                Fault::unexpected(format!("Number of partitions is not set for topic: {name}"))
            })?;
            if self.fixed.contains(name) || self.flexible.contains(name) {
                internal.insert(name, count);
            } else {
                others.insert(name, count);
            }
        }
        let wanted = if let Some(first) = others.values().next() {
            if others.values().any(|count| count != first) {
                return Err(unequal(&others));
            }
            *first
        } else if self.fixed.is_empty() {
            match internal.values().max() {
                Some(most) => *most,
                None => return Ok(BTreeMap::new()),
            }
        } else {
            self.count_of_fixed(&internal, counts)?
        };
        for (name, count) in &internal {
            if self.fixed.contains(*name) && *count != wanted {
                return Err(Fault::incorrectly_partitioned(format!(
                    "Number of partitions [{count}] of repartition topic [{name}] doesn't match \
                     number of partitions [{wanted}] of the source topic."
                )));
            }
        }
        let enforced = internal.into_keys().map(|name| (name.clone(), wanted));
        Ok(enforced.collect())
    }

    /// The count that all topics ask for that ask for any. Kafka looks at those of the whole
    /// topology, not of the group alone.
    fn count_of_fixed(
        &self,
        internal: &BTreeMap<&ByteStr, i32>,
        counts: &Counts<'_>,
    ) -> Result<i32, Fault> {
        let mut wanted = None;
        for name in &self.fixed {
            let count = counts.get(name);
            if wanted.is_some() && wanted != count {
                return Err(unequal(internal));
            }
            wanted = count;
        }
        wanted.ok_or_else(|| Fault::unexpected("Number of partitions is not set for a topic."))
    }
}

fn unequal(counts: &BTreeMap<&ByteStr, i32>) -> Fault {
    let counts = counts.iter().map(|(name, count)| format!("{name}={count}"));
    let counts: Vec<String> = counts.collect();
    Fault::incorrectly_partitioned(format!(
        "Following topics do not have the same number of partitions: [{{{}}}]",
        counts.join(", ")
    ))
}
