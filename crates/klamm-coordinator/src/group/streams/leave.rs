//! Members that go, by their own word or because their time is up; and the first assignment of a
//! group that waited for more members.

use klamm_protocol::ByteStr;
use klamm_protocol::messages::{StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse};

use super::group::StreamsGroup;
use super::heartbeat::Answer;
use super::record::RecordsOf;
use super::target::Target;
use super::{MemberState, StreamsTimer};
use crate::group::consumer::Refusal;
use crate::group::record::GroupRecord;
use crate::group::shard::{Group, GroupCompletion, GroupEffects, GroupShard, GroupTimer};
use crate::runtime::{Now, WriteOutcome};

/// How soon after a removal that the log did not take the next is tried.
const RETRY_MS: i64 = 500;

impl GroupShard {
    /// A streams group by its name.
    pub fn streams_group(&self, group_id: &str) -> Option<&StreamsGroup> {
        match self.groups.get(group_id) {
            Some(Group::Streams(group)) => Some(group),
            _ => None,
        }
    }

    pub(super) fn streams_leave(
        &mut self,
        request: &StreamsGroupHeartbeatRequest,
        out: &mut GroupEffects,
    ) -> Result<Answer, Refusal> {
        let refusal = self.no_streams_group(&request.group_id);
        let Some(Group::Streams(group)) = self.groups.get_mut(&request.group_id) else {
            return Err(refusal);
        };
        if request.shutdown_application && !group.is_empty() {
            let requested = &mut group.shutdown_requested_by;
            requested.get_or_insert_with(|| request.member_id.detached());
        }
        let member_id = group.known_member(&request.member_id)?.id.clone();
        let group_id = group.id.clone();
        self.fence_streams_member(&group_id, &member_id, out);
        let response = StreamsGroupHeartbeatResponse {
            member_id,
            member_epoch: request.member_epoch,
            status: Some(Vec::new()),
            ..StreamsGroupHeartbeatResponse::default()
        };
        Ok((response, Vec::new()))
    }

    /// Removes a member. Those that stay get its tasks with the next target.
    fn fence_streams_member(
        &mut self,
        group_id: &ByteStr,
        member_id: &ByteStr,
        out: &mut GroupEffects,
    ) {
        let Some(Group::Streams(group)) = self.groups.get(group_id) else {
            return;
        };
        let record = RecordsOf(group_id);
        out.records.push(record.set_current(member_id, None));
        out.records.push(record.set_target(member_id, None));
        out.records.push(record.set_member(member_id, None));
        out.records.push(record.epoch(
            group.epoch.wrapping_add(1),
            group.metadata_hash,
            group.validated_topology_epoch,
            &group.assignment_configs,
        ));
        for timer in [
            StreamsTimer::Session(member_id.clone()),
            StreamsTimer::Rebalance(member_id.clone()),
        ] {
            self.timers
                .cancel(GroupTimer::Streams(group_id.clone(), timer));
        }
        let completion = GroupCompletion::StreamsFenced(group_id.clone(), member_id.clone());
        out.completion = Some(completion);
    }

    /// A timer of a streams group fired.
    pub(in crate::group) fn streams_timer_fired(
        &mut self,
        group_id: &ByteStr,
        timer: &StreamsTimer,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let Some(group) = self.streams_group(group_id) else {
            return out;
        };
        let member_id = match timer {
            StreamsTimer::InitialRebalance => {
                out.records = first_target(group, now);
                return out;
            }
            StreamsTimer::Session(member_id) => group.member(member_id).map(|m| m.id.clone()),
            // Whoever reached another epoch has given all up, and the timer was set anew or ended.
            StreamsTimer::Rebalance(member_id) => group
                .member(member_id)
                .filter(|member| member.state == MemberState::UnrevokedTasks)
                .map(|member| member.id.clone()),
        };
        if let Some(member_id) = member_id {
            self.metrics.members_expired.increment();
            tracing::info!(group = %group_id, member = %member_id, ?timer, "a streams member is fenced");
            self.fence_streams_member(group_id, &member_id, &mut out);
        }
        out
    }

    /// The fate of a removal is known.
    pub(in crate::group) fn streams_fence_written(
        &mut self,
        group_id: ByteStr,
        member_id: ByteStr,
        outcome: WriteOutcome,
        now: Now,
    ) {
        if matches!(outcome, WriteOutcome::Failed(_)) {
            let session = GroupTimer::Streams(group_id, StreamsTimer::Session(member_id));
            self.timers.schedule(session, now.after_ms(RETRY_MS));
        }
    }

    /// The log was read to its end: sessions start now.
    pub(in crate::group) fn streams_loaded(&mut self, group_id: &ByteStr, now: Now) {
        let Some(Group::Streams(group)) = self.groups.get(group_id) else {
            return;
        };
        let session_ms = self.cluster.streams_settings(group_id).session_timeout_ms;
        for member in group.members.values() {
            let mut schedule = |timer, delay_ms: i32| {
                let timer = GroupTimer::Streams(group_id.clone(), timer);
                let deadline_ms = now.after_ms(i64::from(delay_ms));
                self.timers.schedule(timer, deadline_ms);
            };
            schedule(StreamsTimer::Session(member.id.clone()), session_ms);
            if member.state == MemberState::UnrevokedTasks {
                let rebalance = StreamsTimer::Rebalance(member.id.clone());
                schedule(rebalance, member.rebalance_timeout_ms);
            }
        }
    }
}

/// The first target of a group that waited for more members. Without a configured topology it is
/// left to the next heartbeat, as in Kafka.
fn first_target(group: &StreamsGroup, now: Now) -> Vec<GroupRecord> {
    let is_due = !group.is_empty() && group.assignment_epoch < group.epoch;
    match group.configured().filter(|_| is_due) {
        None => Vec::new(),
        Some(configured) => {
            let target = Target::make(group, None, configured, &group.assignment_configs);
            target.records(group, group.epoch, now)
        }
    }
}

/// The records that delete the group and all that belongs to it.
pub(in crate::group) fn streams_tombstones(group: &StreamsGroup) -> Vec<GroupRecord> {
    let record = RecordsOf(group.id());
    let ids = || group.members.keys();
    let mut records = Vec::new();
    records.extend(ids().map(|id| record.set_current(id, None)));
    records.extend(ids().map(|id| record.set_target(id, None)));
    records.push(record.assignment_tombstone());
    records.extend(ids().map(|id| record.set_member(id, None)));
    records.push(record.group(None));
    records.push(record.topology(None));
    records
}
