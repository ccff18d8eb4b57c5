//! One heartbeat of a member that joins or stays: from what it says to records and an answer.

use std::sync::Arc;

use klamm_protocol::group_records::StreamsGroupTopologyValue;
use klamm_protocol::messages::streams_group_heartbeat_response::Status;
use klamm_protocol::messages::{StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse};
use klamm_protocol::{ByteStr, ErrorCode};

use super::configured::{ConfiguredTopology, configure};
use super::endpoints;
use super::group::{AssignmentConfigs, StreamsGroup};
use super::heartbeat::{Answer, assignment_configs, check_tasks, task_ids, updated_member};
use super::member::{JOIN_EPOCH, StreamsMember};
use super::reconcile::Reconciliation;
use super::record::RecordsOf;
use super::target::Target;
use super::tasks::{self, TaskSet};
use super::topology::Topology;
use super::{MemberState, StreamsTimer, status};
use crate::group::RequestContext;
use crate::group::cluster::{StreamsGroupSettings, TopicsView};
use crate::group::consumer::{MetadataRefresh, Refusal, TopicHashes};
use crate::group::record::GroupRecord;
use crate::group::shard::GroupTimer;
use crate::metrics::GroupMetrics;
use crate::runtime::{Now, Timers};

/// How long the hash of a group's topics is good for, as long as nothing is known to have changed.
const REFRESH_MAX_MS: i64 = i32::MAX as i64;
/// The validated topology epoch of a group that cannot give tasks out.
const NOT_VALIDATED: i32 = -1;

/// What a group keeps in memory only.
pub(super) struct Kept {
    pub(super) configured: Option<Arc<ConfiguredTopology>>,
    pub(super) refresh: Option<MetadataRefresh>,
    pub(super) shutdown_requested_by: Option<ByteStr>,
    pub(super) endpoint_epoch: i32,
}

/// A group together with what a heartbeat needs. Nothing of the group is changed here: what is to
/// be changed goes into `records` and `kept`.
pub(super) struct Beat<'a> {
    pub(super) group: &'a StreamsGroup,
    pub(super) topics: &'a dyn TopicsView,
    pub(super) hashes: &'a mut TopicHashes,
    pub(super) timers: &'a mut Timers<GroupTimer>,
    pub(super) metrics: &'a GroupMetrics,
    pub(super) settings: StreamsGroupSettings,
    pub(super) now: Now,
    pub(super) records: Vec<GroupRecord>,
    pub(super) statuses: Vec<Status>,
    pub(super) kept: Kept,
}

impl<'a> Beat<'a> {
    fn record(&self) -> RecordsOf<'a> {
        RecordsOf(&self.group.id)
    }

    fn status(&mut self, code: i8, detail: impl Into<ByteStr>) {
        self.statuses.push(Status {
            status_code: code,
            status_detail: detail.into(),
            ..Status::default()
        });
    }

    fn timer(&self, timer: StreamsTimer) -> GroupTimer {
        GroupTimer::Streams(self.group.id.clone(), timer)
    }

    fn schedule(&mut self, timer: StreamsTimer, delay_ms: i32) {
        let timer = self.timer(timer);
        let deadline_ms = self.now.after_ms(i64::from(delay_ms));
        self.timers.schedule(timer, deadline_ms);
    }

    /// Handles the heartbeat of a member that joins or stays.
    pub(super) fn run(
        &mut self,
        context: &RequestContext,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Result<Answer, Refusal> {
        let member = self.member_for(request)?;
        let updated = updated_member(&member, context, request);
        let mut bump = updated != member;
        if bump {
            self.records.push(self.record().member(&updated));
        }
        let topology = self.topology_for(request)?;
        self.note_stale_topology(&updated);
        let (configured, hash) = self.configure(&topology, &mut bump)?;
        check_tasks(request, &configured)?;
        let configs = assignment_configs(self.settings);
        let validated = if configured.is_ready() {
            topology.epoch
        } else {
            NOT_VALIDATED
        };
        bump |= validated != self.group.validated_topology_epoch
            || configs != self.group.assignment_configs;
        let epoch = self.update_epoch(bump, hash, validated, &configs);
        self.begin_initial_delay();
        let (target_epoch, target) = self.update_target(epoch, &updated, &configured, &configs);
        let reconciled = self.reconcile(request, updated, target_epoch, &target)?;
        self.schedule(
            StreamsTimer::Session(reconciled.id.clone()),
            self.settings.session_timeout_ms,
        );
        if request.shutdown_application {
            let requested = &mut self.kept.shutdown_requested_by;
            requested.get_or_insert_with(|| request.member_id.detached());
        }
        let response = self.answer(request, &member, &reconciled, &configured);
        Ok((response, configured.missing.clone()))
    }

    /// The member that a heartbeat is of, as it is before; a new one if it joins.
    fn member_for(&self, request: &StreamsGroupHeartbeatRequest) -> Result<StreamsMember, Refusal> {
        let epoch = request.member_epoch;
        let member = match self.group.known_member(&request.member_id) {
            Ok(member) => (**member).clone(),
            Err(_) if epoch == JOIN_EPOCH => StreamsMember::new(request.member_id.detached()),
            Err(refusal) => return Err(refusal),
        };
        if epoch == JOIN_EPOCH || epoch == member.epoch {
            return Ok(member);
        }
        // An answer that was lost: it must not have taken more than it was given since.
        if epoch < member.epoch && epoch == member.previous_epoch {
            let assigned = &member.assigned;
            let fits = tasks::are_within(
                request.active_tasks.as_deref(),
                &assigned.active,
                |tasks, task| tasks.contains_key(&task),
            ) && tasks::are_within(
                request.standby_tasks.as_deref(),
                &assigned.standby,
                |tasks, task| tasks.contains(&task),
            ) && tasks::are_within(
                request.warmup_tasks.as_deref(),
                &assigned.warmup,
                |tasks, task| tasks.contains(&task),
            );
            if fits {
                return Ok(member);
            }
        }
        let than = if epoch > member.epoch {
            "greater"
        } else {
            "smaller"
        };
        Err(Refusal::new(
            ErrorCode::FencedMemberEpoch,
            format!(
                "The streams group member has a {than} member epoch ({epoch}) than the one known \
                 by the group coordinator ({}). The member must abandon all its partitions and \
                 rejoin.",
                member.epoch
            ),
        ))
    }

    /// The topology of the group, which the first member brings.
    fn topology_for(
        &mut self,
        request: &StreamsGroupHeartbeatRequest,
    ) -> Result<Arc<Topology>, Refusal> {
        let present = self.group.topology.clone();
        let brought: Option<(Topology, StreamsGroupTopologyValue)> = request
            .topology
            .as_ref()
            .map(Topology::from_request)
            .transpose()?;
        match (present, brought) {
            (Some(present), None) => Ok(present),
            (Some(present), Some((brought, _))) => {
                if present.epoch > brought.epoch || *present == brought {
                    return Ok(present);
                }
                Err(Refusal::new(
                    ErrorCode::InvalidRequest,
                    "Topology updates are not supported yet.",
                ))
            }
            (None, Some((brought, value))) => {
                self.records.push(self.record().topology(Some(value)));
                Ok(Arc::new(brought))
            }
            (None, None) => Err(Refusal::new(
                ErrorCode::UnknownServerError,
                "The topology is null and the group topology is also null.",
            )),
        }
    }

    fn note_stale_topology(&mut self, member: &StreamsMember) {
        let group = self.group.topology.as_ref().map(|topology| topology.epoch);
        if let Some(epoch) = group.filter(|epoch| member.topology_epoch < *epoch) {
            let detail = format!(
                "The member's topology epoch {} is behind the group's topology epoch {epoch}.",
                member.topology_epoch
            );
            self.status(status::STALE_TOPOLOGY, detail);
        }
    }

    /// The topology over the topics of now, and their hash. What was configured before stays as long
    /// as the topics do.
    fn configure(
        &mut self,
        topology: &Topology,
        bump: &mut bool,
    ) -> Result<(Arc<ConfiguredTopology>, i64), Refusal> {
        let group = self.group;
        let version = self.topics.version();
        let present = group.configured().filter(|_| group.topology.is_some());
        if let Some(present) = present
            && !group.needs_refresh(self.now.wall_ms, version)
        {
            return Ok((present.clone(), group.metadata_hash));
        }
        let required = topology.required_topics();
        let hash = self.hashes.group_hash(required.iter(), self.topics);
        self.kept.refresh = Some(MetadataRefresh {
            deadline_ms: self.now.wall_ms.saturating_add(REFRESH_MAX_MS),
            epoch: group.epoch,
            image_version: version,
        });
        if let Some(present) = present
            && hash == group.metadata_hash
        {
            return Ok((present.clone(), hash));
        }
        *bump |= hash != group.metadata_hash;
        let configured = Arc::new(configure(topology, self.topics, hash)?);
        if let Some((_, detail)) = &configured.problem {
            tracing::info!(group = %group.id, detail, "a topology is not ready");
        }
        self.kept.configured = Some(configured.clone());
        Ok((configured, hash))
    }

    fn update_epoch(
        &mut self,
        bump: bool,
        hash: i64,
        validated: i32,
        configs: &AssignmentConfigs,
    ) -> i32 {
        if !bump {
            return self.group.epoch;
        }
        let epoch = self.group.epoch.wrapping_add(1);
        let record = self.record().epoch(epoch, hash, validated, configs);
        self.records.push(record);
        self.metrics.streams_rebalances.increment();
        if let Some(refresh) = &mut self.kept.refresh {
            refresh.epoch = epoch;
        }
        epoch
    }

    /// A group waits for more members before its first assignment.
    fn begin_initial_delay(&mut self) {
        let delay_ms = self.settings.initial_rebalance_delay_ms;
        let timer = self.timer(StreamsTimer::InitialRebalance);
        if self.group.is_empty() && delay_ms > 0 && self.timers.deadline_ms(&timer).is_none() {
            self.schedule(StreamsTimer::InitialRebalance, delay_ms);
        }
    }

    /// Makes a target for `epoch` if there is none yet and it is time. Returns the epoch of the
    /// target and what it gives the member.
    fn update_target(
        &mut self,
        epoch: i32,
        updated: &StreamsMember,
        configured: &ConfiguredTopology,
        configs: &AssignmentConfigs,
    ) -> (i32, Arc<TaskSet>) {
        let group = self.group;
        let timer = self.timer(StreamsTimer::InitialRebalance);
        if self.timers.deadline_ms(&timer).is_some() {
            let detail = "Assignment delayed due to the configured initial rebalance delay.";
            self.status(status::ASSIGNMENT_DELAYED, detail);
            return (group.assignment_epoch, Arc::default());
        }
        let is_due = group.assignment_epoch < epoch;
        if is_due && group.may_assign(self.settings, self.now) {
            let target = Target::make(group, Some(updated), configured, configs);
            self.records.extend(target.records(group, epoch, self.now));
            return (epoch, Arc::new(target.of(&updated.id)));
        }
        if is_due {
            let detail = "Assignment delayed due to the configured assignment interval.";
            self.status(status::ASSIGNMENT_DELAYED, detail);
        }
        let target = group.targets.get(&updated.id).cloned();
        (group.assignment_epoch, target.unwrap_or_default())
    }

    /// Gives a member what the target says, as far as others gave it up.
    fn reconcile(
        &mut self,
        request: &StreamsGroupHeartbeatRequest,
        updated: StreamsMember,
        target_epoch: i32,
        target: &TaskSet,
    ) -> Result<StreamsMember, Refusal> {
        if updated.is_reconciled_to(target_epoch) {
            return Ok(updated);
        }
        let owned = owned(request);
        let reconciliation = Reconciliation {
            group: self.group,
            target_epoch,
            target,
            owned: owned.as_ref(),
        };
        let reconciled = reconciliation.run(&updated)?;
        if reconciled != updated {
            self.records.push(self.record().current(&reconciled));
            let timer = StreamsTimer::Rebalance(reconciled.id.clone());
            if reconciled.state == MemberState::UnrevokedTasks {
                self.schedule(timer, reconciled.rebalance_timeout_ms);
            } else {
                let timer = self.timer(timer);
                self.timers.cancel(timer);
            }
        }
        Ok(reconciled)
    }

    fn answer(
        &mut self,
        request: &StreamsGroupHeartbeatRequest,
        before: &StreamsMember,
        member: &StreamsMember,
        configured: &ConfiguredTopology,
    ) -> StreamsGroupHeartbeatResponse {
        let mut response = StreamsGroupHeartbeatResponse {
            member_id: member.id.clone(),
            member_epoch: member.epoch,
            heartbeat_interval_ms: self.settings.heartbeat_interval_ms,
            ..StreamsGroupHeartbeatResponse::default()
        };
        // A member that says what it has, which is not what it was given or what was taken from it,
        // has not seen the answer that told it. Kafka does not tell it again, and the tasks stay
        // undone, or the member is removed for not giving up what it knows nothing of.
        let lost = owned(request).is_some_and(|owned| {
            !owned.has_all(&member.assigned) || owned.shares_any(&member.pending_revocation)
        });
        if lost || request.member_epoch == JOIN_EPOCH || before.assigned != member.assigned {
            let active = tasks::without_epochs(&member.assigned.active);
            response.active_tasks = Some(task_ids(&active));
            response.standby_tasks = Some(task_ids(&member.assigned.standby));
            response.warmup_tasks = Some(task_ids(&member.assigned.warmup));
            if member.user_endpoint.is_some() {
                self.kept.endpoint_epoch = self.kept.endpoint_epoch.wrapping_add(1);
            }
        }
        if self.kept.endpoint_epoch != request.endpoint_information_epoch {
            let all = endpoints::of_group(self.group, member, configured, self.topics);
            response.partitions_by_user_endpoint = Some(all);
        }
        // A group that was not there before counts from 0 again once its records are replayed.
        if self.group.topology.is_some() {
            response.endpoint_information_epoch = self.kept.endpoint_epoch;
        }
        if let Some((code, detail)) = &configured.problem {
            self.status(*code, detail.as_str());
        }
        if let Some(requesting) = &self.kept.shutdown_requested_by {
            let detail = format!(
                "Streams group member {requesting} encountered a fatal error and requested a \
                 shutdown for the entire application."
            );
            self.status(status::SHUTDOWN_APPLICATION, detail);
        }
        response.status = Some(std::mem::take(&mut self.statuses));
        response
    }
}

/// What a client says it has; none if it does not say.
fn owned(request: &StreamsGroupHeartbeatRequest) -> Option<TaskSet> {
    TaskSet::from_request(
        request.active_tasks.as_deref(),
        request.standby_tasks.as_deref(),
        request.warmup_tasks.as_deref(),
    )
}
