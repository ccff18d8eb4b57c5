//! A group as a record, and as the answers that show it.

use bytes::Bytes;
use klamm_protocol::ByteStr;
use klamm_protocol::group_records::GroupMetadataValue;
use klamm_protocol::group_records::group_metadata_value::MemberMetadata;
use klamm_protocol::messages::describe_groups_response::DescribedGroup;
use klamm_protocol::messages::list_groups_response::ListedGroup;

use super::group::ClassicGroup;
use super::member::{Member, MemberProtocol};
use super::state::ClassicState;

impl ClassicGroup {
    /// The group that a record describes: stable if it has members, else empty.
    pub fn from_record(id: ByteStr, value: &GroupMetadataValue) -> Self {
        let mut group = ClassicGroup::new(id, -1);
        group.state_timestamp_ms =
            (value.current_state_timestamp != -1).then_some(value.current_state_timestamp);
        group.generation = value.generation;
        group.protocol_type =
            (!value.protocol_type.is_empty()).then(|| value.protocol_type.detached());
        group.protocol_name = value.protocol.as_ref().map(ByteStr::detached);
        for member in &value.members {
            group.add(member_from_record(member, value), None);
        }
        if !group.members.is_empty() {
            group.state = ClassicState::Stable;
        }
        // Adding the members made one of them lead; the record says which one really does.
        if let Some(leader) = &value.leader
            && group.members.contains_key(&**leader)
        {
            group.leader = Some(leader.detached());
        }
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    /// The record value of the group's present generation. `assignment` gives what each member
    /// gets.
    pub(super) fn to_record(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupMetadataValue {
        let subscription = |member: &Member| {
            self.protocol_name
                .as_ref()
                .and_then(|name| member.metadata(name))
                .cloned()
                .unwrap_or_default()
        };
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_timestamp_ms.unwrap_or(-1),
            members: self
                .members
                .values()
                .map(|member| MemberMetadata {
                    member_id: member.id.clone(),
                    group_instance_id: member.instance_id.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    rebalance_timeout: member.rebalance_timeout_ms,
                    session_timeout: member.session_timeout_ms,
                    subscription: subscription(member),
                    assignment: assignment(member),
                    ..MemberMetadata::default()
                })
                .collect(),
            ..GroupMetadataValue::default()
        }
    }

    /// The record value that makes a group known before it has a generation.
    pub(in crate::group) fn to_empty_record(&self) -> GroupMetadataValue {
        GroupMetadataValue {
            protocol: None,
            leader: None,
            current_state_timestamp: self.state_timestamp_ms.unwrap_or(-1),
            ..GroupMetadataValue::default()
        }
    }

    /// The entry of DescribeGroups.
    pub fn describe(&self) -> DescribedGroup {
        let protocol = match self.state {
            ClassicState::Stable => self.protocol_name.clone(),
            _ => None,
        };
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: self.state.name().into(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: self
                .members
                .values()
                .map(|member| member.describe(protocol.as_deref()))
                .collect(),
            protocol_data: protocol.unwrap_or_default(),
            ..DescribedGroup::default()
        }
    }

    /// The entry of ListGroups.
    pub fn listed(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            group_state: self.state.name().into(),
            group_type: "classic".into(),
            ..ListedGroup::default()
        }
    }
}

fn member_from_record(member: &MemberMetadata, value: &GroupMetadataValue) -> Member {
    let rebalance_timeout_ms = match member.rebalance_timeout {
        -1 => member.session_timeout,
        timeout_ms => timeout_ms,
    };
    Member {
        id: member.member_id.detached(),
        instance_id: member.group_instance_id.as_ref().map(ByteStr::detached),
        client_id: member.client_id.detached(),
        client_host: member.client_host.detached(),
        rebalance_timeout_ms,
        session_timeout_ms: member.session_timeout,
        protocols: vec![MemberProtocol {
            name: value
                .protocol
                .as_ref()
                .map(ByteStr::detached)
                .unwrap_or_default(),
            metadata: Bytes::copy_from_slice(&member.subscription),
        }],
        assignment: Bytes::copy_from_slice(&member.assignment),
        awaiting_join: None,
        awaiting_sync: None,
        is_new: false,
    }
}
