//! What StreamsGroupDescribe (key 89) and ListGroups show.

use klamm_protocol::group_records::streams_group_topology_value::{
    Subtopology as StoredPart, TopicInfo as StoredTopic,
};
use klamm_protocol::messages::list_groups_response::ListedGroup;
use klamm_protocol::messages::streams_group_describe_response::{
    Assignment, DescribedGroup, Endpoint, KeyValue, Member, Subtopology, TaskIds, TopicInfo,
    Topology as DescribedTopology,
};
use klamm_protocol::{ByteStr, ErrorCode};

use super::STREAMS;
use super::configured::{ConfiguredSubtopology, InternalTopic};
use super::group::StreamsGroup;
use super::member::StreamsMember;
use super::tasks::{TaskSet, Tasks, without_epochs};
use super::topology::Topology;
use crate::group::java;
use crate::group::shard::{Group, GroupShard};

impl GroupShard {
    /// Descriptions in the order of the names.
    pub(in crate::group) fn describe_streams_groups(
        &self,
        group_ids: &[ByteStr],
    ) -> Vec<DescribedGroup> {
        let described = group_ids.iter().map(|group_id| {
            let failed = |error: ErrorCode, message: Option<ByteStr>| DescribedGroup {
                group_id: group_id.clone(),
                error_code: error.into(),
                error_message: message,
                ..DescribedGroup::default()
            };
            match self.groups.get(group_id) {
                // Only a log that Kafka did not write has a group without a topology.
                Some(Group::Streams(group)) => group
                    .describe()
                    .unwrap_or_else(|| failed(ErrorCode::UnknownServerError, None)),
                Some(_) => {
                    let message = format!("Group {group_id} is not a streams group.");
                    failed(ErrorCode::GroupIdNotFound, Some(message.into()))
                }
                None => {
                    let message = format!("Group {group_id} not found.");
                    failed(ErrorCode::GroupIdNotFound, Some(message.into()))
                }
            }
        });
        described.collect()
    }
}

impl StreamsGroup {
    fn describe(&self) -> Option<DescribedGroup> {
        let members = self.members().map(|member| {
            let target = self.targets.get(&member.id);
            describe_member(member, target.map(|target| &**target))
        });
        Some(DescribedGroup {
            group_id: self.id.clone(),
            group_state: self.state().name().into(),
            group_epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            topology: Some(self.describe_topology()?),
            members: members.collect(),
            ..DescribedGroup::default()
        })
    }

    /// The topology with partition counts as configured if it is ready, else as it was brought.
    fn describe_topology(&self) -> Option<DescribedTopology> {
        let topology = self.topology.as_ref()?;
        let configured = self.configured().filter(|c| c.is_ready());
        let parts = match configured.and_then(|configured| configured.subtopologies.as_ref()) {
            Some(parts) => {
                let parts = parts.iter().map(|(id, part)| configured_part(id, part));
                parts.collect()
            }
            None => stored_parts(topology),
        };
        Some(DescribedTopology {
            epoch: topology.epoch,
            subtopologies: Some(parts),
            ..DescribedTopology::default()
        })
    }

    /// The entry of ListGroups.
    pub(in crate::group) fn listed(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.clone(),
            protocol_type: STREAMS.into(),
            group_state: self.state().name().into(),
            group_type: STREAMS.into(),
            ..ListedGroup::default()
        }
    }
}

fn configured_part(id: &ByteStr, part: &ConfiguredSubtopology) -> Subtopology {
    let topics = |topics: &std::collections::BTreeMap<ByteStr, InternalTopic>| {
        let topics = topics.iter().map(|(name, topic)| {
            let configs: Vec<_> = topic.configs.iter().collect();
            let configs = java::hash_map_order(configs, java::HASH_MAP_CAPACITY, |(key, _)| {
                java::string_hash(key)
            });
            TopicInfo {
                name: name.clone(),
                partitions: topic.partition_count,
                replication_factor: topic.replication_factor,
                topic_configs: configs.into_iter().map(|(k, v)| pair(k, v)).collect(),
                ..TopicInfo::default()
            }
        });
        topics.collect()
    };
    Subtopology {
        subtopology_id: id.clone(),
        source_topics: part.source_topics.iter().cloned().collect(),
        repartition_sink_topics: part.repartition_sink_topics.iter().cloned().collect(),
        state_changelog_topics: topics(&part.state_changelog_topics),
        repartition_source_topics: topics(&part.repartition_source_topics),
        ..Subtopology::default()
    }
}

fn stored_parts(topology: &Topology) -> Vec<Subtopology> {
    let sorted = |names: &[ByteStr]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    let topics = |topics: &[StoredTopic]| {
        let topics = topics.iter().map(|topic| {
            let configs = topic.topic_configs.iter();
            TopicInfo {
                name: topic.name.clone(),
                partitions: topic.partitions,
                replication_factor: topic.replication_factor,
                topic_configs: configs.map(|c| pair(&c.key, &c.value)).collect(),
                ..TopicInfo::default()
            }
        });
        let mut topics: Vec<TopicInfo> = topics.collect();
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        topics
    };
    let part = |(id, part): (&ByteStr, &StoredPart)| Subtopology {
        subtopology_id: id.clone(),
        source_topics: sorted(&part.source_topics),
        repartition_sink_topics: sorted(&part.repartition_sink_topics),
        state_changelog_topics: topics(&part.state_changelog_topics),
        repartition_source_topics: topics(&part.repartition_source_topics),
        ..Subtopology::default()
    };
    topology.subtopologies.iter().map(part).collect()
}

fn pair(key: &ByteStr, value: &ByteStr) -> KeyValue {
    KeyValue {
        key: key.clone(),
        value: value.clone(),
        ..KeyValue::default()
    }
}

fn describe_member(member: &StreamsMember, target: Option<&TaskSet>) -> Member {
    let endpoint = member.user_endpoint.as_ref().map(|(host, port)| Endpoint {
        host: host.clone(),
        port: *port,
        ..Endpoint::default()
    });
    let tags = member.client_tags.iter();
    let assigned = &member.assigned;
    Member {
        member_id: member.id.clone(),
        member_epoch: member.epoch,
        instance_id: member.instance_id.clone(),
        rack_id: member.rack_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        topology_epoch: member.topology_epoch,
        process_id: member.process_id.clone(),
        user_endpoint: endpoint,
        client_tags: tags.map(|(key, value)| pair(key, value)).collect(),
        assignment: Assignment {
            active_tasks: task_ids(&without_epochs(&assigned.active)),
            standby_tasks: task_ids(&assigned.standby),
            warmup_tasks: task_ids(&assigned.warmup),
            ..Assignment::default()
        },
        target_assignment: target.map_or_else(Assignment::default, |target| Assignment {
            active_tasks: task_ids(&target.active),
            standby_tasks: task_ids(&target.standby),
            warmup_tasks: task_ids(&target.warmup),
            ..Assignment::default()
        }),
        ..Member::default()
    }
}

fn task_ids(tasks: &Tasks) -> Vec<TaskIds> {
    let ids = tasks.iter().map(|(subtopology, tasks)| TaskIds {
        subtopology_id: subtopology.clone(),
        partitions: tasks.iter().copied().collect(),
        ..TaskIds::default()
    });
    ids.collect()
}
