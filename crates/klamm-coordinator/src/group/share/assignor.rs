//! The assignor `simple`: every partition goes to as few members as leaves nobody without work, each
//! member gets about as many as any other, and who has a partition keeps it where that allows.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ByteStr;
use klamm_records::Uuid;

use crate::group::consumer::Partitions;

/// A partition: topic and number.
type Partition = (Uuid, i32);

/// A member as the assignor sees it.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    pub(super) id: ByteStr,
    /// The topics it subscribes to, as far as they exist.
    pub(super) topics: BTreeSet<Uuid>,
    /// What the last target gave it.
    pub(super) assigned: Partitions,
}

/// Shares out `assignable`, the partitions of all topics that somebody subscribes to. Everybody is
/// in the result.
pub(super) fn assign(readers: &[Reader], assignable: &Partitions) -> BTreeMap<ByteStr, Partitions> {
    let mut shares: BTreeMap<ByteStr, Partitions> = readers
        .iter()
        .map(|reader| (reader.id.clone(), Partitions::new()))
        .collect();
    let alike = readers.windows(2).all(|pair| match pair {
        [one, other] => one.topics == other.topics,
        _ => true,
    });
    if alike {
        let all: Vec<&Reader> = readers.iter().collect();
        let targets = assignable
            .iter()
            .filter(|(topic, _)| readers.iter().any(|reader| reader.topics.contains(*topic)))
            .flat_map(|(topic, partitions)| partitions.iter().map(|p| (*topic, *p)));
        share_out(&all, &targets.collect(), &mut shares);
        return shares;
    }
    for (topic, partitions) in assignable {
        let subscribed: Vec<&Reader> = readers
            .iter()
            .filter(|reader| reader.topics.contains(topic))
            .collect();
        let targets = partitions.iter().map(|p| (*topic, *p)).collect();
        share_out(&subscribed, &targets, &mut shares);
    }
    shares
}

/// Shares partitions out among readers that subscribe to all of them.
fn share_out(
    readers: &[&Reader],
    targets: &BTreeSet<Partition>,
    shares: &mut BTreeMap<ByteStr, Partitions>,
) {
    if readers.is_empty() || targets.is_empty() {
        return;
    }
    // How many readers each partition gets.
    let sharing = readers.len().div_ceil(targets.len());
    let total = sharing * targets.len();
    let wanted = |at: usize| {
        let until = |at: usize| (total * at).div_ceil(readers.len());
        until(at + 1) - until(at)
    };
    let mut by_partition: BTreeMap<Partition, BTreeSet<usize>> = targets
        .iter()
        .map(|partition| (*partition, BTreeSet::new()))
        .collect();
    let mut counts = vec![0; readers.len()];
    for (at, reader) in readers.iter().enumerate() {
        let held = reader
            .assigned
            .iter()
            .flat_map(|(topic, partitions)| partitions.iter().map(|p| (*topic, *p)));
        for partition in held {
            if counts[at] == wanted(at) {
                break;
            }
            if let Some(holders) = by_partition.get_mut(&partition)
                && holders.len() < sharing
            {
                holders.insert(at);
                counts[at] += 1;
            }
        }
    }
    fill(&mut by_partition, &mut counts, sharing, wanted);
    for ((topic, partition), holders) in by_partition {
        for at in holders {
            let share = shares.entry(readers[at].id.clone()).or_default();
            share.entry(topic).or_default().insert(partition);
        }
    }
}

/// Gives what is left to those who lack something, in turn.
fn fill(
    by_partition: &mut BTreeMap<Partition, BTreeSet<usize>>,
    counts: &mut [usize],
    sharing: usize,
    wanted: impl Fn(usize) -> usize,
) {
    let readers = counts.len();
    let mut next = 0;
    for holders in by_partition.values_mut() {
        let mut passed = 0;
        // Nobody who lacks something may be able to take it: that is tolerated, as in Kafka.
        while holders.len() < sharing && passed < readers {
            let at = next % readers;
            next += 1;
            if counts[at] < wanted(at) && holders.insert(at) {
                counts[at] += 1;
                passed = 0;
            } else {
                passed += 1;
            }
        }
    }
}
