//! Runs of neighbouring partitions, members in the order of their names.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use klamm_protocol::ByteStr;
use klamm_records::Uuid;

use super::{GroupSpec, MemberSpec};
use crate::group::consumer::member::Partitions;

/// How a topic is cut up.
struct Cut {
    partition_count: i32,
    member_count: i32,
    next: i32,
    /// Members that still get one more than the others.
    extra: i32,
}

pub(super) fn assign(group: &GroupSpec) -> BTreeMap<ByteStr, Partitions> {
    let mut members: Vec<&MemberSpec> = group.members().iter().collect();
    members.sort_by(|one, other| by_name(one, other));
    let mut cuts: BTreeMap<Uuid, Cut> = BTreeMap::new();
    // Where all subscribe to the same, the first member's word is taken for it, as in Kafka.
    let topics_of = |member: &'_ MemberSpec| -> Vec<Uuid> {
        let source = if group.is_homogeneous {
            members[0]
        } else {
            member
        };
        source.topics.clone()
    };
    for member in &members {
        for topic in topics_of(member) {
            let cut = cuts.entry(topic).or_insert_with(|| Cut {
                partition_count: group.partition_count(topic),
                member_count: 0,
                next: 0,
                extra: 0,
            });
            cut.member_count += 1;
        }
    }
    for cut in cuts.values_mut() {
        cut.extra = cut.partition_count % cut.member_count;
    }
    let mut assignments = BTreeMap::new();
    for member in &members {
        let mut assignment = Partitions::new();
        for topic in topics_of(member) {
            let Some(cut) = cuts.get_mut(&topic) else {
                continue;
            };
            let mut quota = cut.partition_count / cut.member_count;
            if cut.extra > 0 {
                cut.extra -= 1;
                quota += 1;
            }
            let run = cut.next..(cut.next + quota).min(cut.partition_count);
            cut.next = run.end;
            if !run.is_empty() {
                assignment.insert(topic, run.collect());
            }
        }
        assignments.insert(member.id.clone(), assignment);
    }
    assignments
}

/// Static members first, by their instance ids, so that they keep their share under a new id.
fn by_name(one: &MemberSpec, other: &MemberSpec) -> Ordering {
    match (&one.instance_id, &other.instance_id) {
        (Some(one), Some(other)) => by_utf16(one, other),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => by_utf16(&one.id, &other.id),
    }
}

/// Java compares strings by their UTF-16 units.
fn by_utf16(one: &str, other: &str) -> Ordering {
    one.encode_utf16().cmp(other.encode_utf16())
}
