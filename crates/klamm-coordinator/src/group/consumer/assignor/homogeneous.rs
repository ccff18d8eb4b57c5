//! All members subscribe to the same topics: each keeps what it has up to its quota, and what is
//! left over fills those below theirs.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ByteStr;
use klamm_records::Uuid;

use super::{GroupSpec, MemberSpec, partition_order, topic_order};
use crate::group::consumer::member::Partitions;
use crate::group::java;

pub(super) fn assign(group: &GroupSpec) -> BTreeMap<ByteStr, Partitions> {
    let Some(first) = group.members().first() else {
        return BTreeMap::new();
    };
    if first.topics.is_empty() {
        return BTreeMap::new();
    }
    let capacity = java::hash_set_capacity(first.topics.len());
    let topics = java::hash_map_order(first.topics.clone(), capacity, |id| java::uuid_hash(*id));
    let mut total = 0_usize;
    let mut unassigned = Vec::new();
    for topic in &topics {
        let count = group.partition_count(*topic);
        let free = (0..count).filter(|p| !group.assigned.contains(&(*topic, *p)));
        unassigned.extend(free.map(|partition| (*topic, partition)));
        total += usize::try_from(count).unwrap_or(0);
    }
    let member_count = group.members().len();
    let mut shares = Shares {
        subscribed: topics.into_iter().collect(),
        quota: total / member_count,
        extras: total % member_count,
        unassigned,
        unfilled: Vec::new(),
        result: BTreeMap::new(),
    };
    for (index, member) in group.members().iter().enumerate() {
        shares.keep(member, member_count - index);
    }
    shares.fill();
    shares.result
}

struct Shares {
    subscribed: BTreeSet<Uuid>,
    /// What every member gets.
    quota: usize,
    /// How many members still get one more.
    extras: usize,
    unassigned: Vec<(Uuid, i32)>,
    /// Members below their quota, and how much they lack.
    unfilled: Vec<(ByteStr, usize)>,
    result: BTreeMap<ByteStr, Partitions>,
}

impl Shares {
    /// What the member keeps of the last target. `members_left` counts it and those after it.
    fn keep(&mut self, member: &MemberSpec, members_left: usize) {
        let mut has_extra = self.extras > 0;
        let mut room = self.quota + usize::from(has_extra);
        let mut kept = Partitions::new();
        for topic in topic_order(&member.assignment) {
            let Some(partitions) = member.assignment.get(&topic) else {
                continue;
            };
            if !self.subscribed.contains(&topic) {
                continue;
            }
            for partition in partition_order(partitions) {
                if room > 0 {
                    room -= 1;
                    kept.entry(topic).or_default().insert(partition);
                } else {
                    self.unassigned.push((topic, partition));
                }
            }
        }
        // Whoever is full may have the one more; who is not gives it up while others can take it.
        if room > 0 && has_extra && members_left > self.extras {
            room -= 1;
            has_extra = false;
        }
        if room > 0 {
            self.unfilled.push((member.id.clone(), room));
        }
        self.extras -= usize::from(has_extra);
        self.result.insert(member.id.clone(), kept);
    }

    fn fill(&mut self) {
        let mut unassigned = self.unassigned.drain(..);
        for (member_id, room) in self.unfilled.drain(..) {
            let assignment = self.result.entry(member_id).or_default();
            for (topic, partition) in unassigned.by_ref().take(room) {
                assignment.entry(topic).or_default().insert(partition);
            }
        }
    }
}
