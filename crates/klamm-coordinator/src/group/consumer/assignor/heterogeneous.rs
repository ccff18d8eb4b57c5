//! Members subscribe to different topics: each keeps what it has, free partitions go to whoever
//! has least, and then partitions move from who has most to who has least, topic by topic.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ByteStr;
use klamm_records::Uuid;

use super::GroupSpec;
use super::balancer::Balancer;
use crate::group::consumer::member::Partitions;
use crate::group::java;

/// How often all topics are gone through at most.
const ROUNDS_MAX: usize = 16;

pub(super) fn assign(group: &GroupSpec) -> BTreeMap<ByteStr, Partitions> {
    let mut builder = Builder::new(group);
    if builder.owners.is_empty() {
        return BTreeMap::new();
    }
    builder.keep(group);
    builder.assign_free();
    builder.balance();
    builder.result(group)
}

struct Builder {
    /// The members that subscribe to each topic, by their places.
    subscribers: BTreeMap<Uuid, Vec<usize>>,
    /// How much each member has.
    sizes: Vec<usize>,
    /// Who has each partition of a topic.
    owners: BTreeMap<Uuid, Vec<Option<usize>>>,
    /// What members have beyond the topics above: nothing that they do not subscribe to stays.
    assignments: Vec<Partitions>,
}

impl Builder {
    fn new(group: &GroupSpec) -> Self {
        let mut subscribers: BTreeMap<Uuid, Vec<usize>> = BTreeMap::new();
        let mut owners = BTreeMap::new();
        for (index, member) in group.members().iter().enumerate() {
            for topic in &member.topics {
                subscribers.entry(*topic).or_default().push(index);
                let count = usize::try_from(group.partition_count(*topic)).unwrap_or(0);
                owners.entry(*topic).or_insert_with(|| vec![None; count]);
            }
        }
        let member_count = group.members().len();
        Builder {
            subscribers,
            sizes: vec![0; member_count],
            owners,
            assignments: vec![Partitions::new(); member_count],
        }
    }

    fn keep(&mut self, group: &GroupSpec) {
        for (index, member) in group.members().iter().enumerate() {
            let subscribed: BTreeSet<Uuid> = member.topics.iter().copied().collect();
            for (topic, partitions) in member.assignment.iter() {
                if !subscribed.contains(topic) {
                    continue;
                }
                self.sizes[index] += partitions.len();
                for partition in partitions {
                    let place = self.owners.get_mut(topic).and_then(|owners| {
                        usize::try_from(*partition)
                            .ok()
                            .and_then(|at| owners.get_mut(at))
                    });
                    if let Some(owner) = place {
                        *owner = Some(index);
                    }
                }
                self.assignments[index].insert(*topic, partitions.clone());
            }
        }
    }

    /// Topics with most partitions a subscriber first.
    fn in_order(&self, topics: impl Iterator<Item = Uuid>) -> Vec<Uuid> {
        let mut topics: Vec<Uuid> = topics.collect();
        topics.sort_by(|one, other| self.compare(*one, *other));
        topics
    }

    fn compare(&self, one: Uuid, other: Uuid) -> Ordering {
        let counts = |topic: Uuid| {
            let partitions = self.owners.get(&topic).map_or(0, Vec::len);
            let subscribers = self.subscribers.get(&topic).map_or(0, Vec::len);
            (partitions as f64 / subscribers as f64, subscribers)
        };
        let ((one_load, one_subscribers), (other_load, other_subscribers)) =
            (counts(one), counts(other));
        other_load
            .total_cmp(&one_load)
            .then(one_subscribers.cmp(&other_subscribers))
            .then(java::uuid_halves(one).cmp(&java::uuid_halves(other)))
    }

    fn assign_free(&mut self) {
        let free: BTreeMap<Uuid, Vec<usize>> = self
            .owners
            .iter()
            .map(|(topic, owners)| {
                let free = owners.iter().enumerate().filter(|(_, o)| o.is_none());
                (*topic, free.map(|(partition, _)| partition).collect())
            })
            .filter(|(_, free): &(Uuid, Vec<usize>)| !free.is_empty())
            .collect();
        for topic in self.in_order(free.keys().copied()) {
            let mut balancer = Balancer::new(&self.subscribers[&topic], &self.sizes);
            for partition in &free[&topic] {
                let member = balancer.next_least_loaded(&self.sizes);
                self.assign(topic, *partition, member);
            }
        }
    }

    fn balance(&mut self) {
        let shared = self.subscribers.iter().filter(|(_, s)| s.len() >= 2);
        let topics = self.in_order(shared.map(|(topic, _)| *topic));
        let mut last_changed = None;
        for _ in 0..ROUNDS_MAX {
            for (place, topic) in topics.iter().enumerate() {
                if last_changed == Some(place) {
                    return;
                }
                if self.balance_topic(*topic) > 0 || last_changed.is_none() {
                    last_changed = Some(place);
                }
            }
        }
    }

    /// Moves partitions of one topic from who has most to who has least; returns how many.
    fn balance_topic(&mut self, topic: Uuid) -> usize {
        let mut balancer = Balancer::new(&self.subscribers[&topic], &self.sizes);
        if balancer.imbalance(&self.sizes) <= 1 {
            return 0;
        }
        let mut of_member: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (partition, owner) in self.owners[&topic].iter().enumerate() {
            if let Some(owner) = owner {
                of_member.entry(*owner).or_default().push(partition);
            }
        }
        let mut moved = 0;
        while !balancer.is_balanced() {
            let Some(most_loaded) = balancer.next_most_loaded(&self.sizes) else {
                break;
            };
            let Some(partition) = of_member.get_mut(&most_loaded).and_then(Vec::pop) else {
                balancer.exclude_most_loaded();
                continue;
            };
            let least_loaded = balancer.next_least_loaded(&self.sizes);
            if balancer.is_balanced() {
                break;
            }
            self.assign(topic, partition, least_loaded);
            moved += 1;
        }
        moved
    }

    fn assign(&mut self, topic: Uuid, partition: usize, member: usize) {
        let Some(owner) = self
            .owners
            .get_mut(&topic)
            .and_then(|o| o.get_mut(partition))
        else {
            return;
        };
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        if let Some(previous) = owner.replace(member) {
            let assignment = &mut self.assignments[previous];
            if let Some(partitions) = assignment.get_mut(&topic) {
                partitions.remove(&number);
                if partitions.is_empty() {
                    assignment.remove(&topic);
                }
            }
            self.sizes[previous] -= 1;
        }
        let assignment = &mut self.assignments[member];
        assignment.entry(topic).or_default().insert(number);
        self.sizes[member] += 1;
    }

    fn result(self, group: &GroupSpec) -> BTreeMap<ByteStr, Partitions> {
        let ids = group.members().iter().map(|member| member.id.clone());
        ids.zip(self.assignments).collect()
    }
}
