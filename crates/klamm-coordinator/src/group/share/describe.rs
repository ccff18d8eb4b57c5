//! What ShareGroupDescribe (key 77) and ListGroups show.

use klamm_protocol::messages::list_groups_response::ListedGroup;
use klamm_protocol::messages::share_group_describe_response::{
    Assignment, DescribedGroup, Member, TopicPartitions,
};
use klamm_protocol::{ByteStr, ErrorCode};

use super::group::ShareGroup;
use super::member::ShareMember;
use super::{ASSIGNOR, SHARE};
use crate::group::cluster::TopicsView;
use crate::group::shard::{Group, GroupShard};

impl GroupShard {
    /// Descriptions in the order of the names.
    pub(in crate::group) fn describe_share_groups(
        &self,
        group_ids: &[ByteStr],
    ) -> Vec<DescribedGroup> {
        let topics = self.cluster.topics();
        group_ids
            .iter()
            .map(|group_id| match self.groups.get(group_id) {
                Some(Group::Share(group)) => group.describe(&*topics),
                other => {
                    let message = if other.is_some() {
                        format!("Group {group_id} is not a share group.")
                    } else {
                        format!("Group {group_id} not found.")
                    };
                    DescribedGroup {
                        group_id: group_id.clone(),
                        error_code: ErrorCode::GroupIdNotFound.into(),
                        error_message: Some(message.into()),
                        ..DescribedGroup::default()
                    }
                }
            })
            .collect()
    }
}

impl ShareGroup {
    fn describe(&self, topics: &dyn TopicsView) -> DescribedGroup {
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: self.state_name().into(),
            group_epoch: self.epoch,
            assignment_epoch: self.assignment_epoch,
            assignor_name: ASSIGNOR.into(),
            members: self
                .members()
                .map(|member| describe_member(member, topics))
                .collect(),
            ..DescribedGroup::default()
        }
    }

    /// The entry of ListGroups.
    pub(in crate::group) fn listed(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.clone(),
            protocol_type: SHARE.into(),
            group_state: self.state_name().into(),
            group_type: SHARE.into(),
            ..ListedGroup::default()
        }
    }
}

/// Topics that are no more are left out.
fn describe_member(member: &ShareMember, topics: &dyn TopicsView) -> Member {
    let assigned = member.assigned.iter().filter_map(|(id, partitions)| {
        Some(TopicPartitions {
            topic_id: *id,
            topic_name: topics.topic_name(*id)?,
            partitions: partitions.iter().copied().collect(),
            ..TopicPartitions::default()
        })
    });
    Member {
        member_id: member.id.clone(),
        rack_id: member.rack_id.clone(),
        member_epoch: member.epoch,
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        subscribed_topic_names: member.subscribed_topic_names.iter().cloned().collect(),
        assignment: Assignment {
            topic_partitions: assigned.collect(),
            ..Assignment::default()
        },
        ..Member::default()
    }
}
