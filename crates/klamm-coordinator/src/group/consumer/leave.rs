//! Members that go: by their own word, by an administrator's, or because their time is up.

use std::collections::BTreeSet;

use klamm_protocol::ByteStr;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use klamm_protocol::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::leave_group_response::MemberResponse;

use super::Refusal;
use super::checks::{check_instance, unknown_instance};
use super::group::ConsumerGroup;
use super::member::{ConsumerMember, MemberState, OwnedPartitions, STATIC_LEAVE_EPOCH};
use super::timers::ConsumerTimer;
use super::work::Work;
use crate::group::classic;
use crate::group::record::GroupRecord;
use crate::group::shard::{GroupCompletion, GroupEffects, GroupShard, GroupTimer};
use crate::runtime::{Now, WriteOutcome};

/// How soon after a removal that the log did not take the next is tried.
const RETRY_MS: i32 = 500;

impl GroupShard {
    pub(super) fn consumer_leave(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
        now: Now,
        out: &mut GroupEffects,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let group_id = &request.group_id;
        let Some(group) = self.consumer_group(group_id) else {
            return Err(self.no_consumer_group(group_id));
        };
        let member = match &request.instance_id {
            None => group.known_member(&request.member_id)?,
            Some(instance_id) => {
                let member = group.static_member(instance_id);
                let member = member.ok_or_else(|| unknown_instance(instance_id))?;
                check_instance(member, &request.member_id, instance_id)?;
                member
            }
        };
        let is_away = request.instance_id.is_some() && request.member_epoch == STATIC_LEAVE_EPOCH;
        let member_id = member.id.clone();
        if is_away {
            let away = away(member);
            let record = super::record::RecordsOf(group.id()).current(&away);
            out.records.push(record);
        } else {
            self.fence_on_request(&group_id.detached(), &[member_id.clone()].into(), now, out);
        }
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(member_id),
            member_epoch: request.member_epoch,
            ..ConsumerGroupHeartbeatResponse::default()
        })
    }

    /// LeaveGroup in a consumer group, by members of the classic protocol and administrators.
    pub(in crate::group) fn consumer_leave_classic(
        &mut self,
        group_id: &ByteStr,
        members: &[MemberIdentity],
        now: Now,
        out: &mut GroupEffects,
    ) -> Vec<MemberResponse> {
        let mut leaving = BTreeSet::new();
        let mut responses = Vec::with_capacity(members.len());
        if let Some(group) = self.consumer_group(group_id) {
            for identity in members {
                let found = leaving_member(group, identity);
                responses.push(classic::leave_response(identity, found.clone().err()));
                leaving.extend(found);
            }
        }
        self.fence_on_request(&group_id.detached(), &leaving, now, out);
        responses
    }

    /// Removes members that want to go. Should the log not take that, they stay until their
    /// sessions end.
    fn fence_on_request(
        &mut self,
        group_id: &ByteStr,
        leaving: &BTreeSet<ByteStr>,
        now: Now,
        out: &mut GroupEffects,
    ) {
        let session_timeout_ms = self.cluster.consumer_settings(group_id).session_timeout_ms;
        let sessions = leaving.iter().cloned().map(ConsumerTimer::Session);
        let timers = sessions.map(|timer| (timer, session_timeout_ms)).collect();
        self.fence_consumers(group_id, leaving, timers, now, out);
    }

    /// Removes members. Those that stay get the partitions with the next target; if they all speak
    /// the classic protocol, the group becomes a classic one.
    pub(super) fn fence_consumers(
        &mut self,
        group_id: &ByteStr,
        leaving: &BTreeSet<ByteStr>,
        timers: Vec<(ConsumerTimer, i32)>,
        now: Now,
        out: &mut GroupEffects,
    ) {
        if leaving.is_empty() {
            return;
        }
        if self.may_downgrade_without(group_id, leaving) {
            self.downgrade_without(group_id, leaving, timers, now, out);
            return;
        }
        let ((), records) =
            self.with_consumer_group(group_id, None, now, |work| work.remove_members(leaving));
        out.records.extend(records);
        out.completion = Some(GroupCompletion::Fenced(group_id.clone(), timers));
    }

    /// The fate of a removal is known.
    pub(in crate::group) fn fence_written(
        &mut self,
        group_id: &ByteStr,
        timers: Vec<(ConsumerTimer, i32)>,
        outcome: WriteOutcome,
        now: Now,
    ) {
        if matches!(outcome, WriteOutcome::Failed(_)) {
            for (timer, delay_ms) in timers {
                let timer = GroupTimer::Consumer(group_id.clone(), timer);
                self.timers
                    .schedule(timer, now.after_ms(i64::from(delay_ms)));
            }
        }
    }

    /// A timer of a consumer group fired.
    pub(in crate::group) fn consumer_timer_fired(
        &mut self,
        group_id: &ByteStr,
        timer: &ConsumerTimer,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let Some(group) = self.consumer_group(group_id) else {
            return out;
        };
        let member_id = match timer {
            ConsumerTimer::Regexes => {
                let ((), records) =
                    self.with_consumer_group(group_id, None, now, |work| work.resolve_regexes());
                out.records.extend(records);
                return out;
            }
            ConsumerTimer::Rebalance(member_id) => {
                // Whoever reached another epoch, or left for a while, has given all up.
                let still = group.member(member_id).is_some_and(|member| {
                    member.state == MemberState::UnrevokedPartitions && member.epoch > 0
                });
                if !still {
                    return out;
                }
                member_id
            }
            ConsumerTimer::Session(member_id)
            | ConsumerTimer::Join(member_id)
            | ConsumerTimer::Sync(member_id) => member_id,
        };
        if group.member(member_id).is_some() {
            self.metrics.members_expired.increment();
            tracing::info!(group = %group_id, member = %member_id, ?timer, "a member is fenced");
            let retry = vec![(timer.clone(), RETRY_MS)];
            self.fence_consumers(group_id, &[member_id.clone()].into(), retry, now, &mut out);
        }
        out
    }

    /// The log was read to its end: sessions start now.
    pub(in crate::group) fn consumer_loaded(&mut self, group_id: &ByteStr, now: Now) {
        let Some(group) = self.consumer_group(group_id) else {
            return;
        };
        let members: Vec<_> = group.members().cloned().collect();
        self.with_consumer_group(group_id, None, now, |work| {
            for member in members {
                let session = ConsumerTimer::Session(member.id.clone());
                work.schedule(session, work.settings.session_timeout_ms);
                if member.state == MemberState::UnrevokedPartitions {
                    let rebalance = ConsumerTimer::Rebalance(member.id.clone());
                    work.schedule(rebalance, member.rebalance_timeout_ms);
                }
            }
        });
    }
}

impl Work<'_> {
    fn remove_members(&mut self, leaving: &BTreeSet<ByteStr>) {
        let mut counts = self.group.subscriptions.clone();
        let mut regexes = BTreeSet::new();
        for member_id in leaving {
            self.records.extend(self.record().removal(member_id));
            if let Some(member) = self.group.member(member_id) {
                counts.remove_member(member);
                regexes.extend(member.regex().cloned());
            }
        }
        for regex in regexes {
            if counts.members_with(&regex) > 0 {
                continue;
            }
            self.records.push(self.record().regex_tombstone(&regex));
            if let Some(resolved) = self.group.resolved_regex(&regex) {
                counts.remove_resolved(resolved);
            }
        }
        let hash = self.hash_of(&counts);
        let epoch = self.group.epoch.wrapping_add(1);
        self.records.push(self.record().epoch(epoch, hash));
        self.metrics.consumer_rebalances.increment();
        for member_id in leaving {
            self.cancel_all_of(member_id);
        }
    }
}

fn leaving_member(group: &ConsumerGroup, identity: &MemberIdentity) -> Result<ByteStr, ErrorCode> {
    let member_id = &identity.member_id;
    let member = match &identity.group_instance_id {
        None => group.known_member(member_id),
        Some(instance_id) => match group.static_member(instance_id) {
            None => Err(unknown_instance(instance_id)),
            Some(member) if member_id.is_empty() => Ok(member),
            Some(member) => check_instance(member, member_id, instance_id).map(|()| member),
        },
    };
    let member = member.map_err(|refusal| refusal.error)?;
    Ok(member.id.clone())
}

/// A static member that left for a while: it keeps its place and its partitions, for whoever comes
/// back under its name, until its session ends.
fn away(member: &ConsumerMember) -> ConsumerMember {
    let mut away = member.clone();
    away.epoch = STATIC_LEAVE_EPOCH;
    away.pending_revocation = OwnedPartitions::new();
    for since in away.assigned.values_mut().flat_map(|p| p.values_mut()) {
        *since = 0;
    }
    away
}

/// The records that delete the group and all that belongs to it.
pub(in crate::group) fn tombstones(group: &ConsumerGroup) -> Vec<GroupRecord> {
    tombstones_renamed(group, None)
}

/// The same, after records that put the member of the second id in the place of the first.
pub(super) fn tombstones_renamed(
    group: &ConsumerGroup,
    renamed: Option<(&ByteStr, &ByteStr)>,
) -> Vec<GroupRecord> {
    let record = super::record::RecordsOf(group.id());
    let ids: Vec<&ByteStr> = group
        .members()
        .map(|member| match renamed {
            Some((from, to)) if member.id == *from => to,
            _ => &member.id,
        })
        .collect();
    let mut records = Vec::new();
    records.extend(ids.iter().map(|id| record.current_tombstone(id)));
    records.extend(ids.iter().map(|id| record.target_tombstone(id)));
    records.push(record.assignment_tombstone());
    records.extend(ids.iter().map(|id| record.member_tombstone(id)));
    let regexes = group.regexes.keys();
    records.extend(regexes.map(|regex| record.regex_tombstone(regex)));
    records.push(record.partition_metadata_tombstone());
    records.push(record.group(None));
    records
}
