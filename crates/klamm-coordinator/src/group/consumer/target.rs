//! The target assignment of a group: its members as an assignor sees them, and what comes of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_protocol::ByteStr;

use super::assignor::{Assignor, GroupSpec, MemberSpec};
use super::group::ConsumerGroup;
use super::member::{ConsumerMember, Partitions};
use super::work::PartitionCounts;
use crate::group::cluster::TopicsView;
use crate::group::java;

/// Shares the partitions out among the members, `updated` put in or in the place of its former
/// self. Everybody is in the result, in the order in which Kafka writes the records.
pub(super) fn assign(
    group: &ConsumerGroup,
    topics: &dyn TopicsView,
    assignor: Assignor,
    updated: &ConsumerMember,
    is_homogeneous: bool,
) -> Vec<(ByteStr, Partitions)> {
    let former = updated
        .instance_id
        .as_ref()
        .and_then(|name| group.static_member(name))
        .filter(|former| former.id != updated.id);
    let mut counts = PartitionCounts::new();
    let mut members = Vec::with_capacity(group.member_count() + 1);
    for member in group.members() {
        let is_replaced = former.is_some_and(|former| former.id == member.id);
        if member.id != updated.id && !is_replaced {
            let target = group.target(&member.id).cloned().unwrap_or_default();
            members.push(spec(group, topics, member, target, &mut counts));
        }
    }
    let predecessor = former.map_or(&updated.id, |former| &former.id);
    let target = group.target(predecessor).cloned().unwrap_or_default();
    members.push(spec(group, topics, updated, target, &mut counts));
    members.sort_by(|one, other| one.id.cmp(&other.id));
    let assigned = group.targets.values().flat_map(|target| {
        target
            .iter()
            .flat_map(|(topic, partitions)| partitions.iter().map(|p| (*topic, *p)))
    });
    let assigned: BTreeSet<_> = assigned.collect();
    let spec = GroupSpec::new(members, is_homogeneous, counts, assigned);
    let mut shares = assignor.assign(&spec);
    let ids = spec.members().iter().map(|member| member.id.clone());
    ids.map(|id| {
        let share = shares.remove(&id).unwrap_or_default();
        (id, share)
    })
    .collect()
}

fn spec(
    group: &ConsumerGroup,
    topics: &dyn TopicsView,
    member: &ConsumerMember,
    assignment: Arc<Partitions>,
    counts: &mut PartitionCounts,
) -> MemberSpec {
    let mut names: Vec<&ByteStr> = member.subscribed_topic_names.iter().collect();
    if let Some(matched) = member.regex().and_then(|regex| group.resolved_regex(regex)) {
        let by_name = &member.subscribed_topic_names;
        names.extend(
            matched
                .topics
                .iter()
                .filter(|name| !by_name.contains(*name)),
        );
    }
    let capacity = java::hash_set_capacity(names.len());
    let names = java::hash_map_order(names, capacity, |name| java::string_hash(name));
    let mut ids = Vec::with_capacity(names.len());
    for name in names {
        if let (Some(id), Some(count)) = (topics.topic_id(name), topics.partition_count(name)) {
            counts.insert(id, count);
            ids.push(id);
        }
    }
    MemberSpec {
        id: member.id.clone(),
        instance_id: member.instance_id.clone(),
        topics: ids,
        assignment,
    }
}
