//! Who may speak for a member: epochs and instance ids.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::consumer_group_heartbeat_request::{
    ConsumerGroupHeartbeatRequest, TopicPartitions,
};

use super::Refusal;
use super::assignor::Assignor;
use super::group::has;
use super::member::{ConsumerMember, JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH};

/// From this version on, clients make the members' ids.
const CLIENT_MADE_IDS_FROM: i16 = 1;

/// Checks what a heartbeat says of itself.
pub(in crate::group) fn check_request(
    request: &ConsumerGroupHeartbeatRequest,
    api_version: i16,
    assignors: &[Assignor],
) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let is_blank = |text: &str| text.chars().all(|c| c <= ' ');
    let epoch = request.member_epoch;
    let needs_id =
        api_version >= CLIENT_MADE_IDS_FROM || epoch > JOIN_EPOCH || epoch == LEAVE_EPOCH;
    if needs_id && is_blank(&request.member_id) {
        return invalid("MemberId can't be empty.");
    }
    if is_blank(&request.group_id) {
        return invalid("GroupId can't be empty.");
    }
    if request.instance_id.as_ref().is_some_and(|id| is_blank(id)) {
        return invalid("InstanceId can't be empty.");
    }
    if request.rack_id.as_ref().is_some_and(|id| is_blank(id)) {
        return invalid("RackId can't be empty.");
    }
    if epoch == JOIN_EPOCH {
        if request.rebalance_timeout_ms == -1 {
            return invalid("RebalanceTimeoutMs must be provided in first request.");
        }
        if request
            .topic_partitions
            .as_ref()
            .is_none_or(|owned| !owned.is_empty())
        {
            return invalid("TopicPartitions must be empty when (re-)joining.");
        }
        if request.subscribed_topic_names.is_none() && request.subscribed_topic_regex.is_none() {
            return invalid(
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when \
                 (re-)joining.",
            );
        }
    } else if epoch == STATIC_LEAVE_EPOCH && request.instance_id.is_none() {
        return invalid("InstanceId can't be null.");
    } else if epoch < STATIC_LEAVE_EPOCH {
        return invalid("MemberEpoch is invalid.");
    }
    let Some(wanted) = &request.server_assignor else {
        return Ok(());
    };
    if assignors.iter().any(|assignor| *wanted == *assignor.name()) {
        return Ok(());
    }
    let names: Vec<&str> = assignors.iter().map(|assignor| assignor.name()).collect();
    Err(Refusal::new(
        ErrorCode::UnsupportedAssignor,
        format!(
            "ServerAssignor {wanted} is not supported. Supported assignors: {}.",
            names.join(", ")
        ),
    ))
}

/// Checks the epoch of a heartbeat. The one before the present is taken from a member that has
/// nothing but what it was given since: the answer that told it of the new epoch was lost.
pub(super) fn check_epoch(
    member: &ConsumerMember,
    epoch: i32,
    owned: Option<&[TopicPartitions]>,
) -> Result<(), Refusal> {
    let fenced = |than: &str| {
        let message = format!(
            "The consumer group member has a {than} member epoch ({epoch}) than the one known by \
             the group coordinator ({}). The member must abandon all its partitions and rejoin.",
            member.epoch
        );
        Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
    };
    if epoch == JOIN_EPOCH || epoch == member.epoch {
        return Ok(());
    }
    if epoch > member.epoch {
        return fenced("greater");
    }
    let is_known = |topic: &TopicPartitions| {
        let mut partitions = topic.partitions.iter();
        partitions.all(|partition| has(&member.assigned, topic.topic_id, *partition))
    };
    if epoch == member.previous_epoch && owned.is_some_and(|owned| owned.iter().all(is_known)) {
        return Ok(());
    }
    fenced("smaller")
}

/// Refuses who joins with an instance id that its present owner has not given up.
pub(super) fn check_released(
    owner: &ConsumerMember,
    member_id: &str,
    instance_id: &str,
) -> Result<(), Refusal> {
    if owner.epoch == STATIC_LEAVE_EPOCH {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::UnreleasedInstanceId,
        format!(
            "Static member {member_id} with instance id {instance_id} cannot join the group \
             because the instance id is owned by {} member.",
            owner.id
        ),
    ))
}

/// Refuses who is not the one that an instance id stands for.
pub(super) fn check_instance(
    owner: &ConsumerMember,
    member_id: &str,
    instance_id: &str,
) -> Result<(), Refusal> {
    if owner.id == *member_id {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::FencedInstanceId,
        format!(
            "Static member {member_id} with instance id {instance_id} was fenced by member {}.",
            owner.id
        ),
    ))
}

pub(super) fn unknown_instance(instance_id: &str) -> Refusal {
    let message = format!("Instance id {instance_id} is unknown.");
    Refusal::new(ErrorCode::UnknownMemberId, message)
}
