//! Who answers interactive queries for what: the partitions behind the tasks of each member that
//! told where its process listens.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ByteStr;
use klamm_protocol::messages::streams_group_heartbeat_response::{
    Endpoint, EndpointToPartitions, TopicPartition,
};

use super::configured::{ConfiguredSubtopology, ConfiguredTopology};
use super::group::StreamsGroup;
use super::member::StreamsMember;
use super::tasks::{Tasks, without_epochs};
use crate::group::cluster::TopicsView;

/// The endpoints of the group's members; `updated` in the place of its former self, last.
pub(super) fn of_group(
    group: &StreamsGroup,
    updated: &StreamsMember,
    configured: &ConfiguredTopology,
    topics: &dyn TopicsView,
) -> Vec<EndpointToPartitions> {
    let nothing = BTreeMap::new();
    let parts = configured.subtopologies.as_ref().unwrap_or(&nothing);
    let others = group.members().map(|member| &**member);
    let others = others.filter(|member| member.id != updated.id);
    let all = others.chain([updated]).filter_map(|member| {
        let (host, port) = member.user_endpoint.as_ref()?;
        let active = without_epochs(&member.assigned.active);
        Some(EndpointToPartitions {
            user_endpoint: Endpoint {
                host: host.clone(),
                port: *port,
                ..Endpoint::default()
            },
            active_partitions: partitions(&active, parts, topics),
            standby_partitions: partitions(&member.assigned.standby, parts, topics),
            ..EndpointToPartitions::default()
        })
    });
    all.collect()
}

fn partitions(
    tasks: &Tasks,
    parts: &BTreeMap<ByteStr, ConfiguredSubtopology>,
    topics: &dyn TopicsView,
) -> Vec<TopicPartition> {
    let mut found = Vec::new();
    for (id, tasks) in tasks {
        let Some(part) = parts.get(id) else {
            continue;
        };
        let internal = part.repartition_source_topics.keys();
        let names: BTreeSet<&ByteStr> = part.source_topics.iter().chain(internal).collect();
        for name in names {
            let Some(count) = topics.partition_count(name) else {
                continue;
            };
            // Where a topic has fewer partitions than there are tasks, Kafka takes as many from the
            // front.
            let most = usize::try_from(count).unwrap_or(0).min(tasks.len());
            found.push(TopicPartition {
                topic: name.clone(),
                partitions: tasks.iter().copied().take(most).collect(),
                ..TopicPartition::default()
            });
        }
    }
    found
}
