//! One member of a share group, as its records tell of it.

use std::collections::BTreeSet;

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::share_group_current_member_assignment_value::TopicPartitions;
use klamm_protocol::group_records::{
    ShareGroupCurrentMemberAssignmentValue as CurrentValue, ShareGroupMemberMetadataValue,
};

use crate::group::consumer::Partitions;

/// A member of a share group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShareMember {
    /// Its id, which it made itself.
    pub id: ByteStr,
    /// Where it is.
    pub rack_id: Option<ByteStr>,
    /// What its client calls itself.
    pub client_id: ByteStr,
    /// Address of its client.
    pub client_host: ByteStr,
    /// What it subscribes to.
    pub subscribed_topic_names: BTreeSet<ByteStr>,
    /// The group epoch it has reached.
    pub epoch: i32,
    /// The one before.
    pub previous_epoch: i32,
    /// What it reads.
    pub assigned: Partitions,
}

impl ShareMember {
    /// A member that has said nothing yet.
    pub fn new(id: ByteStr) -> Self {
        ShareMember {
            id,
            ..ShareMember::default()
        }
    }

    pub(super) fn metadata_value(&self) -> ShareGroupMemberMetadataValue {
        ShareGroupMemberMetadataValue {
            rack_id: self.rack_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            subscribed_topic_names: self.subscribed_topic_names.iter().cloned().collect(),
            ..ShareGroupMemberMetadataValue::default()
        }
    }

    pub(super) fn with_metadata(&self, value: &ShareGroupMemberMetadataValue) -> Self {
        let names = value.subscribed_topic_names.iter();
        ShareMember {
            rack_id: value.rack_id.as_ref().map(ByteStr::detached),
            client_id: value.client_id.detached(),
            client_host: value.client_host.detached(),
            subscribed_topic_names: names.map(ByteStr::detached).collect(),
            ..self.clone()
        }
    }

    pub(super) fn assignment_value(&self) -> CurrentValue {
        let assigned = self
            .assigned
            .iter()
            .map(|(topic_id, partitions)| TopicPartitions {
                topic_id: *topic_id,
                partitions: partitions.iter().copied().collect(),
                ..TopicPartitions::default()
            });
        CurrentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            assigned_partitions: assigned.collect(),
            ..CurrentValue::default()
        }
    }

    pub(super) fn with_assignment(&self, value: Option<&CurrentValue>) -> Self {
        let assigned = value
            .into_iter()
            .flat_map(|value| &value.assigned_partitions);
        ShareMember {
            epoch: value.map_or(super::heartbeat::LEAVE_EPOCH, |value| value.member_epoch),
            previous_epoch: value.map_or(super::heartbeat::LEAVE_EPOCH, |value| {
                value.previous_member_epoch
            }),
            assigned: assigned
                .map(|topic| (topic.topic_id, topic.partitions.iter().copied().collect()))
                .collect(),
            ..self.clone()
        }
    }
}
