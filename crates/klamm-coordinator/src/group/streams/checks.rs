//! What can be said of a StreamsGroupHeartbeat without looking at the group.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::StreamsGroupHeartbeatRequest;
use klamm_protocol::messages::streams_group_heartbeat_request::Topology;

use super::member::{JOIN_EPOCH, STATIC_LEAVE_EPOCH};
use crate::group::consumer::Refusal;

fn invalid(message: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal::new(ErrorCode::InvalidRequest, message))
}

fn check(is_fine: bool, message: &str) -> Result<(), Refusal> {
    if is_fine { Ok(()) } else { invalid(message) }
}

/// Checks what a heartbeat says of itself. The order is Kafka's: what is not served comes first.
///
/// # Errors
/// `INVALID_REQUEST`, or `STREAMS_INVALID_TOPOLOGY` for a changelog topic with a partition count.
pub(in crate::group) fn check_streams_request(
    request: &StreamsGroupHeartbeatRequest,
) -> Result<(), Refusal> {
    check_served(request)?;
    let is_named = |text: &str| text.chars().any(|c| c > ' ');
    check(is_named(&request.member_id), "MemberId can't be empty.")?;
    check(is_named(&request.group_id), "GroupId can't be empty.")?;
    let rack = request.rack_id.as_deref();
    check(rack.is_none_or(is_named), "RackId can't be empty.")?;
    let roles = [
        (&request.active_tasks, "ActiveTasks"),
        (&request.standby_tasks, "StandbyTasks"),
        (&request.warmup_tasks, "WarmupTasks"),
    ];
    if request.member_epoch == JOIN_EPOCH {
        check(
            request.rebalance_timeout_ms != -1,
            "RebalanceTimeoutMs must be provided in first request.",
        )?;
        for (tasks, name) in roles {
            // Tasks that are not told of are refused as well: none must be said to be there.
            let is_empty = tasks.as_ref().is_some_and(Vec::is_empty);
            let message = format!("{name} must be empty when (re-)joining.");
            check(is_empty, &message)?;
        }
        let Some(topology) = &request.topology else {
            return invalid("Topology must be non-null when (re-)joining.");
        };
        check_changelogs(topology)?;
    } else if request.member_epoch == STATIC_LEAVE_EPOCH {
        // Static members are refused above.
        return invalid("InstanceId can't be null.");
    } else if request.member_epoch < STATIC_LEAVE_EPOCH {
        return invalid(format!(
            "MemberEpoch is {}, but must be greater than or equal to -2.",
            request.member_epoch
        ));
    }
    if roles.iter().any(|(tasks, _)| tasks.is_some()) {
        check(
            roles.iter().all(|(tasks, _)| tasks.is_some()),
            "If one task-type is non-null, all must be non-null.",
        )?;
    }
    check(
        request.member_epoch == JOIN_EPOCH || request.topology.is_none(),
        "Topology can only be provided when (re-)joining.",
    )
}

/// Refuses what the protocol has a place for and Kafka 4.3 does not serve.
fn check_served(request: &StreamsGroupHeartbeatRequest) -> Result<(), Refusal> {
    check(
        request.instance_id.is_none(),
        "Static membership is not yet supported.",
    )?;
    check(
        request.task_offsets.is_none(),
        "TaskOffsets are not supported yet.",
    )?;
    check(
        request.task_end_offsets.is_none(),
        "TaskEndOffsets are not supported yet.",
    )?;
    check(
        request.warmup_tasks.as_ref().is_none_or(Vec::is_empty),
        "WarmupTasks are not supported yet.",
    )?;
    let parts = request.topology.iter().flat_map(|t| &t.subtopologies);
    check(
        parts.into_iter().all(|p| p.source_topic_regex.is_empty()),
        "Regular expressions for source topics are not supported yet.",
    )
}

fn check_changelogs(topology: &Topology) -> Result<(), Refusal> {
    let changelogs = topology
        .subtopologies
        .iter()
        .flat_map(|part| &part.state_changelog_topics);
    match changelogs.into_iter().find(|topic| topic.partitions != 0) {
        None => Ok(()),
        Some(topic) => Err(Refusal::new(
            ErrorCode::StreamsInvalidTopology,
            format!(
                "Changelog topic {} must have an undefined partition count, but it is set to {}.",
                topic.name, topic.partitions
            ),
        )),
    }
}
