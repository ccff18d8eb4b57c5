//! The forms that answers take in the versions of their requests.

use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::leave_group_response::MemberResponse;
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use klamm_protocol::messages::{
    JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, OffsetFetchRequest,
    OffsetFetchResponse,
};
use klamm_protocol::{ByteStr, ErrorCode};

/// From this version on, JoinGroup has no protocol name where there is none.
const JOIN_NULL_PROTOCOL_FROM: i16 = 7;
/// From this version on, LeaveGroup takes a list.
const LEAVE_BATCH_FROM: i16 = 3;
/// From this version on, OffsetFetch takes a list of groups.
const FETCH_GROUPS_FROM: i16 = 8;
/// From this version on, OffsetFetch has an error for the group beside those of partitions.
const FETCH_GROUP_ERROR_FROM: i16 = 2;

/// Gives a JoinGroup answer the form of its version.
pub(super) fn join_response(mut response: JoinGroupResponse, version: i16) -> JoinGroupResponse {
    if version < JOIN_NULL_PROTOCOL_FROM && response.protocol_name.is_none() {
        response.protocol_name = Some(ByteStr::default());
    }
    response
}

/// The members that a LeaveGroup of any version names.
pub(super) fn leaving_members(request: LeaveGroupRequest, version: i16) -> Vec<MemberIdentity> {
    if version >= LEAVE_BATCH_FROM {
        return request.members;
    }
    vec![MemberIdentity {
        member_id: request.member_id,
        ..MemberIdentity::default()
    }]
}

/// The answer to a LeaveGroup. Before there were lists, the member's error was the request's.
pub(super) fn leave_response(members: Vec<MemberResponse>, version: i16) -> LeaveGroupResponse {
    if version >= LEAVE_BATCH_FROM {
        return LeaveGroupResponse {
            members,
            ..LeaveGroupResponse::default()
        };
    }
    LeaveGroupResponse {
        error_code: members.first().map_or(0, |member| member.error_code),
        ..LeaveGroupResponse::default()
    }
}

/// The groups that an OffsetFetch of any version asks for.
pub(super) fn fetch_groups(
    request: OffsetFetchRequest,
    version: i16,
) -> Vec<OffsetFetchRequestGroup> {
    if version >= FETCH_GROUPS_FROM {
        return request.groups;
    }
    let topics = request.topics.map(|topics| {
        let topics = topics.into_iter().map(|topic| OffsetFetchRequestTopics {
            name: topic.name,
            partition_indexes: topic.partition_indexes,
            ..OffsetFetchRequestTopics::default()
        });
        topics.collect()
    });
    vec![OffsetFetchRequestGroup {
        group_id: request.group_id,
        topics,
        ..OffsetFetchRequestGroup::default()
    }]
}

/// The answer for a group that is refused as a whole.
pub(super) fn fetch_group_error(
    request: &OffsetFetchRequestGroup,
    error: ErrorCode,
    version: i16,
) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup {
        group_id: request.group_id.clone(),
        ..OffsetFetchResponseGroup::default()
    };
    if version >= FETCH_GROUP_ERROR_FROM {
        return OffsetFetchResponseGroup {
            error_code: error.into(),
            ..response
        };
    }
    let topics = request.topics.iter().flatten();
    OffsetFetchResponseGroup {
        topics: topics
            .map(|topic| fetch_topic_error(topic, error))
            .collect(),
        ..response
    }
}

/// The answer for a topic all of whose partitions are refused.
pub(super) fn fetch_topic_error(
    topic: &OffsetFetchRequestTopics,
    error: ErrorCode,
) -> OffsetFetchResponseTopics {
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic
            .partition_indexes
            .iter()
            .map(|partition| OffsetFetchResponsePartitions {
                partition_index: *partition,
                committed_offset: -1,
                committed_leader_epoch: -1,
                metadata: Some(ByteStr::default()),
                error_code: error.into(),
                ..OffsetFetchResponsePartitions::default()
            })
            .collect(),
        ..OffsetFetchResponseTopics::default()
    }
}

/// The answer to an OffsetFetch. Before version 8 it has one group, on the top level.
pub(super) fn fetch_response(
    mut groups: Vec<OffsetFetchResponseGroup>,
    version: i16,
) -> OffsetFetchResponse {
    if version >= FETCH_GROUPS_FROM {
        return OffsetFetchResponse {
            groups,
            ..OffsetFetchResponse::default()
        };
    }
    let Some(group) = groups.pop() else {
        return OffsetFetchResponse::default();
    };
    let partition = |partition: OffsetFetchResponsePartitions| OffsetFetchResponsePartition {
        partition_index: partition.partition_index,
        committed_offset: partition.committed_offset,
        committed_leader_epoch: partition.committed_leader_epoch,
        metadata: partition.metadata,
        error_code: partition.error_code,
        ..OffsetFetchResponsePartition::default()
    };
    let topics = group
        .topics
        .into_iter()
        .map(|topic| OffsetFetchResponseTopic {
            name: topic.name,
            partitions: topic.partitions.into_iter().map(partition).collect(),
            ..OffsetFetchResponseTopic::default()
        });
    OffsetFetchResponse {
        topics: topics.collect(),
        error_code: group.error_code,
        ..OffsetFetchResponse::default()
    }
}
