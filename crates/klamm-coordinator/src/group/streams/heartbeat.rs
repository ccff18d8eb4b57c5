//! StreamsGroupHeartbeat (key 88): the way in, and what a request says of its member.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::streams_group_heartbeat_response::TaskIds;
use klamm_protocol::messages::{StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse};

use super::beat::{Beat, Kept};
use super::configured::ConfiguredTopology;
use super::group::{AssignmentConfigs, StreamsGroup};
use super::member::{JOIN_EPOCH, LEAVE_EPOCH, STATIC_LEAVE_EPOCH, StreamsMember};
use super::tasks::Tasks;
use crate::group::RequestContext;
use crate::group::cluster::StreamsGroupSettings;
use crate::group::consumer::Refusal;
use crate::group::shard::{Group, GroupEffects, GroupResponse, GroupShard};
use crate::runtime::{Now, ReplyToken};

/// The configuration that assignments are made with.
const NUM_STANDBY_REPLICAS: &str = "num.standby.replicas";

/// A heartbeat's answer that refuses.
pub(in crate::group) fn streams_heartbeat_error(refusal: Refusal) -> StreamsGroupHeartbeatResponse {
    StreamsGroupHeartbeatResponse {
        error_code: refusal.error.into(),
        error_message: Some(refusal.message.into()),
        ..StreamsGroupHeartbeatResponse::default()
    }
}

/// The answer to a heartbeat, and internal topics that are to be made.
pub(super) type Answer = (StreamsGroupHeartbeatResponse, Vec<CreatableTopic>);

impl GroupShard {
    /// Handles a heartbeat whose form was checked.
    pub(in crate::group) fn streams_heartbeat(
        &mut self,
        context: &RequestContext,
        request: &StreamsGroupHeartbeatRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let handled = match request.member_epoch {
            LEAVE_EPOCH | STATIC_LEAVE_EPOCH => self.streams_leave(request, &mut out),
            _ => self.streams_beat(context, request, now, &mut out),
        };
        let (response, missing) = handled.unwrap_or_else(|refusal| {
            out.records.clear();
            out.completion = None;
            (streams_heartbeat_error(refusal), Vec::new())
        });
        let response = GroupResponse::StreamsHeartbeat(Box::new(response), missing);
        out.deferred = Some((token, response));
        out
    }

    fn streams_beat(
        &mut self,
        context: &RequestContext,
        request: &StreamsGroupHeartbeatRequest,
        now: Now,
        out: &mut GroupEffects,
    ) -> Result<Answer, Refusal> {
        let group_id = request.group_id.detached();
        let is_joining = request.member_epoch == JOIN_EPOCH;
        let settings = self.cluster.streams_settings(&group_id);
        let fresh;
        let group = match self.groups.get(&group_id) {
            Some(Group::Streams(group)) => &**group,
            Some(present @ Group::Classic(classic)) if is_joining && classic.is_empty() => {
                out.records.extend(present.tombstones(&group_id));
                fresh = StreamsGroup::new(group_id.clone());
                &fresh
            }
            None if is_joining => {
                fresh = StreamsGroup::new(group_id.clone());
                &fresh
            }
            None => {
                let message = format!("Streams group {group_id} not found.");
                return Err(Refusal::new(ErrorCode::GroupIdNotFound, message));
            }
            Some(_) => return Err(self.no_streams_group(&group_id)),
        };
        let max = self.config.streams_max_size;
        if is_joining && group.members.len() >= max {
            return Err(Refusal::new(
                ErrorCode::GroupMaxSizeReached,
                format!("The streams group has reached its maximum capacity of {max} members."),
            ));
        }
        let topics = self.cluster.topics();
        let mut beat = Beat {
            group,
            topics: &*topics,
            hashes: &mut self.topic_hashes,
            timers: &mut self.timers,
            metrics: &self.metrics,
            settings,
            now,
            records: Vec::new(),
            statuses: Vec::new(),
            kept: Kept {
                configured: group.configured.clone(),
                refresh: group.refresh,
                shutdown_requested_by: group.shutdown_requested_by.clone(),
                endpoint_epoch: group.endpoint_epoch,
            },
        };
        let answer = beat.run(context, request);
        let (records, kept) = (beat.records, beat.kept);
        // What is kept in memory is that of a group which is there already: one that is made now is
        // another one once its records are replayed, as in Kafka.
        if let Some(Group::Streams(group)) = self.groups.get_mut(&group_id) {
            group.configured = kept.configured;
            if answer.is_ok() {
                group.refresh = kept.refresh;
                group.shutdown_requested_by = kept.shutdown_requested_by;
                group.endpoint_epoch = kept.endpoint_epoch;
            }
        }
        out.records.extend(records);
        answer
    }

    pub(super) fn no_streams_group(&self, group_id: &str) -> Refusal {
        let message = if self.groups.contains_key(group_id) {
            format!("Group {group_id} is not a streams group.")
        } else {
            format!("Group {group_id} not found.")
        };
        Refusal::new(ErrorCode::GroupIdNotFound, message)
    }
}

/// The member with what a heartbeat says; what it does not say stays as it was.
pub(super) fn updated_member(
    member: &StreamsMember,
    context: &RequestContext,
    request: &StreamsGroupHeartbeatRequest,
) -> StreamsMember {
    let mut updated = member.clone();
    if let Some(rack_id) = &request.rack_id {
        updated.rack_id = Some(rack_id.detached());
    }
    if request.rebalance_timeout_ms != -1 {
        updated.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(topology) = &request.topology {
        updated.topology_epoch = topology.epoch;
    }
    if let Some(process_id) = &request.process_id {
        updated.process_id = process_id.detached();
    }
    if let Some(tags) = &request.client_tags {
        let tags = tags.iter();
        updated.client_tags = tags
            .map(|tag| (tag.key.detached(), tag.value.detached()))
            .collect();
    }
    if let Some(endpoint) = &request.user_endpoint {
        updated.user_endpoint = Some((endpoint.host.detached(), endpoint.port));
    }
    updated.client_id = context.client_id.detached();
    updated.client_host = context.client_host.detached();
    updated
}

/// Checks that a client does not say it has tasks that there are not.
pub(super) fn check_tasks(
    request: &StreamsGroupHeartbeatRequest,
    configured: &ConfiguredTopology,
) -> Result<(), Refusal> {
    let Some(parts) = configured
        .subtopologies
        .as_ref()
        .filter(|_| configured.is_ready())
    else {
        return Ok(());
    };
    let roles = [
        &request.active_tasks,
        &request.standby_tasks,
        &request.warmup_tasks,
    ];
    for ids in roles.into_iter().flatten().flatten() {
        let id = &ids.subtopology_id;
        let Some(part) = parts.get(id) else {
            let message = format!("Subtopology {id} does not exist in the topology.");
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        };
        let count = part.task_count;
        if let Some(task) = ids
            .partitions
            .iter()
            .find(|task| !(0..count).contains(*task))
        {
            let message = format!(
                "Task {task} for subtopology {id} is invalid. Number of tasks for this \
                 subtopology: {count}"
            );
            return Err(Refusal::new(ErrorCode::InvalidRequest, message));
        }
    }
    Ok(())
}

pub(super) fn assignment_configs(settings: StreamsGroupSettings) -> AssignmentConfigs {
    let standbys = settings.num_standby_replicas.to_string();
    [(NUM_STANDBY_REPLICAS.into(), standbys.into())].into()
}

pub(super) fn task_ids(tasks: &Tasks) -> Vec<TaskIds> {
    let ids = tasks.iter().map(|(subtopology, tasks)| TaskIds {
        subtopology_id: subtopology.clone(),
        partitions: tasks.iter().copied().collect(),
        ..TaskIds::default()
    });
    ids.collect()
}
