//! What ConsumerGroupDescribe (key 69), versions 0-1, and ListGroups show.

use std::collections::BTreeMap;

use klamm_protocol::messages::consumer_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions,
};
use klamm_protocol::messages::list_groups_response::ListedGroup;
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use super::PROTOCOL_TYPE;
use super::group::ConsumerGroup;
use super::member::ConsumerMember;
use crate::group::cluster::TopicsView;
use crate::group::shard::{Group, GroupShard};

/// What a member of the classic protocol is called in a description.
const CLASSIC_MEMBER: i8 = 0;
/// What a member of the consumer protocol is called in a description.
const CONSUMER_MEMBER: i8 = 1;

impl GroupShard {
    /// Descriptions in the order of the names.
    pub(in crate::group) fn describe_consumer_groups(
        &self,
        group_ids: &[ByteStr],
    ) -> Vec<DescribedGroup> {
        let topics = self.cluster.topics();
        let default_assignor = self.config.default_consumer_assignor().name();
        group_ids
            .iter()
            .map(|group_id| match self.groups.get(group_id) {
                Some(Group::Consumer(group)) => group.describe(default_assignor, &*topics),
                _ => {
                    let refusal = self.no_consumer_group(group_id);
                    DescribedGroup {
                        group_id: group_id.clone(),
                        error_code: ErrorCode::GroupIdNotFound.into(),
                        error_message: Some(refusal.message.into()),
                        ..DescribedGroup::default()
                    }
                }
            })
            .collect()
    }
}

impl ConsumerGroup {
    fn describe(&self, default_assignor: &str, topics: &dyn TopicsView) -> DescribedGroup {
        let assignor = self.preferred_assignor(None);
        DescribedGroup {
            group_id: self.id().clone(),
            group_state: self.state().name().into(),
            group_epoch: self.epoch(),
            assignment_epoch: self.assignment_epoch(),
            assignor_name: assignor.unwrap_or_else(|| default_assignor.into()),
            members: self
                .members()
                .map(|member| self.describe_member(member, topics))
                .collect(),
            ..DescribedGroup::default()
        }
    }

    fn describe_member(&self, member: &ConsumerMember, topics: &dyn TopicsView) -> Member {
        let mut held: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in member.held() {
            held.entry(topic).or_default().push(partition);
        }
        let target = self.target(&member.id);
        let target = target.into_iter().flat_map(|target| target.iter());
        let target = target.map(|(id, partitions)| (*id, partitions.iter().copied().collect()));
        Member {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            rack_id: member.rack_id.clone(),
            member_epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            subscribed_topic_names: member.subscribed_topic_names.iter().cloned().collect(),
            subscribed_topic_regex: member.subscribed_topic_regex.clone(),
            assignment: assignment(held.into_iter(), topics),
            target_assignment: assignment(target, topics),
            member_type: if member.uses_classic_protocol() {
                CLASSIC_MEMBER
            } else {
                CONSUMER_MEMBER
            },
            ..Member::default()
        }
    }

    /// The entry of ListGroups.
    pub(in crate::group) fn listed(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id().clone(),
            protocol_type: PROTOCOL_TYPE.into(),
            group_state: self.state().name().into(),
            group_type: PROTOCOL_TYPE.into(),
            ..ListedGroup::default()
        }
    }
}

/// Topics that are no more are left out.
fn assignment(
    partitions: impl Iterator<Item = (Uuid, Vec<i32>)>,
    topics: &dyn TopicsView,
) -> Assignment {
    let named = partitions.filter_map(|(topic_id, partitions)| {
        Some(TopicPartitions {
            topic_name: topics.topic_name(topic_id)?,
            topic_id,
            partitions,
            ..TopicPartitions::default()
        })
    });
    Assignment {
        topic_partitions: named.collect(),
        ..Assignment::default()
    }
}
