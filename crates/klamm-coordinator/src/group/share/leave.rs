//! Members that go: by their own word, or because their time is up.

use klamm_protocol::ByteStr;
use klamm_protocol::messages::share_group_heartbeat_request::ShareGroupHeartbeatRequest;
use klamm_protocol::messages::share_group_heartbeat_response::ShareGroupHeartbeatResponse;

use super::group::ShareGroup;
use super::record::RecordsOf;
use crate::group::consumer::Refusal;
use crate::group::record::GroupRecord;
use crate::group::shard::{Group, GroupCompletion, GroupEffects, GroupShard, GroupTimer};
use crate::runtime::{Now, WriteOutcome};

/// How soon after a removal that the log did not take the next is tried.
const RETRY_MS: i64 = 500;

impl GroupShard {
    /// A share group by its name.
    pub fn share_group(&self, group_id: &str) -> Option<&ShareGroup> {
        match self.groups.get(group_id) {
            Some(Group::Share(group)) => Some(group),
            _ => None,
        }
    }

    pub(super) fn share_leave(
        &mut self,
        request: &ShareGroupHeartbeatRequest,
        out: &mut GroupEffects,
    ) -> Result<ShareGroupHeartbeatResponse, Refusal> {
        let Some(group) = self.share_group(&request.group_id) else {
            return Err(self.no_share_group(&request.group_id));
        };
        let member_id = group.known_member(&request.member_id)?.id.clone();
        let group_id = group.id.clone();
        self.fence_share_member(&group_id, &member_id, out);
        Ok(ShareGroupHeartbeatResponse {
            member_id: Some(member_id),
            member_epoch: request.member_epoch,
            ..ShareGroupHeartbeatResponse::default()
        })
    }

    /// Removes a member. Those that stay get its partitions with the next target.
    fn fence_share_member(
        &mut self,
        group_id: &ByteStr,
        member_id: &ByteStr,
        out: &mut GroupEffects,
    ) {
        let Some(Group::Share(group)) = self.groups.get(group_id) else {
            return;
        };
        let topics = self.cluster.topics();
        let subscribed = group.subscribed(None, Some(member_id));
        let hash = self.topic_hashes.group_hash(subscribed.iter(), &*topics);
        let record = RecordsOf(group_id);
        out.records.push(record.set_current(member_id, None));
        out.records.push(record.set_target(member_id, None));
        out.records.push(record.set_member(member_id, None));
        out.records
            .push(record.epoch(group.epoch.wrapping_add(1), hash));
        let session = GroupTimer::ShareSession(group_id.clone(), member_id.clone());
        self.timers.cancel(session);
        out.completion = Some(GroupCompletion::ShareFenced(
            group_id.clone(),
            member_id.clone(),
        ));
    }

    /// A member did not heartbeat in time.
    pub(in crate::group) fn share_session_over(
        &mut self,
        group_id: &ByteStr,
        member_id: &ByteStr,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let is_member = self
            .share_group(group_id)
            .is_some_and(|group| group.member(member_id).is_some());
        if is_member {
            self.metrics.members_expired.increment();
            tracing::info!(group = %group_id, member = %member_id, "a share member is fenced");
            self.fence_share_member(group_id, member_id, &mut out);
        }
        out
    }

    /// The fate of a removal is known.
    pub(in crate::group) fn share_fence_written(
        &mut self,
        group_id: ByteStr,
        member_id: ByteStr,
        outcome: WriteOutcome,
        now: Now,
    ) {
        if matches!(outcome, WriteOutcome::Failed(_)) {
            let session = GroupTimer::ShareSession(group_id, member_id);
            self.timers.schedule(session, now.after_ms(RETRY_MS));
        }
    }

    /// The log was read to its end: sessions start now.
    pub(in crate::group) fn share_loaded(&mut self, group_id: &ByteStr, now: Now) {
        let Some(Group::Share(group)) = self.groups.get(group_id) else {
            return;
        };
        let timeout_ms = self.cluster.share_settings(group_id).session_timeout_ms;
        for member_id in group.members().map(|member| &member.id) {
            let session = GroupTimer::ShareSession(group_id.clone(), member_id.clone());
            self.timers
                .schedule(session, now.after_ms(i64::from(timeout_ms)));
        }
    }
}

/// The records that delete the group and all that belongs to it.
pub(in crate::group) fn share_tombstones(group: &ShareGroup) -> Vec<GroupRecord> {
    let record = RecordsOf(group.id());
    let ids = || group.members().map(|member| &member.id);
    let mut records = Vec::new();
    records.extend(ids().map(|id| record.set_current(id, None)));
    records.extend(ids().map(|id| record.set_target(id, None)));
    records.push(record.assignment_tombstone());
    records.extend(ids().map(|id| record.set_member(id, None)));
    records.push(record.states(None));
    records.push(record.group(None));
    records
}
