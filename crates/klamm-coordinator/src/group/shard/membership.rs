//! Requests about members: the way into the classic protocol, and the making of groups.

use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::{HeartbeatRequest, JoinGroupRequest, SyncGroupRequest};
use klamm_protocol::{ByteStr, ErrorCode};

use super::messages::{Group, GroupCompletion, GroupCreation, GroupResponse};
use super::{GroupEffects, GroupShard};
use crate::group::classic::{self, ClassicGroup};
use crate::group::record::GroupRecord;
use crate::group::{RequestContext, errors};
use crate::runtime::{Now, ReplyToken, WriteOutcome};

impl GroupShard {
    pub(super) fn join_group(
        &mut self,
        context: &RequestContext,
        request: &JoinGroupRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let group_id = request.group_id.detached();
        if self.consumers_at_work(&group_id) {
            return self.consumer_join_classic(context, request, token, now);
        }
        let is_classic = self.classic_group(&group_id).is_some();
        if !is_classic {
            let present = self.groups.get(&group_id);
            let replaceable = present.is_none_or(Group::may_become_classic);
            let refusal = if !replaceable {
                Some(("", ErrorCode::InconsistentGroupProtocol))
            } else if !request.member_id.is_empty() {
                Some((&*request.member_id, ErrorCode::UnknownMemberId))
            } else {
                None
            };
            if let Some((member_id, error)) = refusal {
                let response = classic::join_error(member_id, error);
                out.reply(token, GroupResponse::JoinGroup(Box::new(response)));
                return out;
            }
        }
        let replaced = if is_classic {
            None
        } else {
            let group = ClassicGroup::new(group_id.clone(), now.wall_ms);
            let group = Group::Classic(Box::new(group));
            self.groups.insert(group_id.clone(), group)
        };
        if let Some(mut machine) = self.classic(&group_id, now, &mut out) {
            machine.join(context, request, token);
        }
        if !is_classic {
            self.write_creation(group_id, token, replaced, &mut out);
        }
        out
    }

    /// Whether the name is that of a consumer group with members.
    fn consumers_at_work(&self, group_id: &str) -> bool {
        self.consumer_group(group_id)
            .is_some_and(|group| !group.is_empty())
    }

    /// A new group is made known to the log at once, so that it is there after a restart even if
    /// its first rebalance never completes.
    pub(super) fn write_creation(
        &self,
        group_id: ByteStr,
        token: ReplyToken,
        replaced: Option<Group>,
        out: &mut GroupEffects,
    ) {
        if let Some(replaced) = &replaced {
            out.records.extend(replaced.tombstones(&group_id));
        }
        let Some(group) = self.classic_group(&group_id) else {
            return;
        };
        out.records.push(GroupRecord::GroupMetadata {
            group_id: group_id.clone(),
            value: Some(group.to_empty_record()),
        });
        out.replay = false;
        out.completion = Some(GroupCompletion::Created(Box::new(GroupCreation {
            group_id,
            token,
            replaced,
        })));
    }

    pub(super) fn creation_written(
        &mut self,
        creation: GroupCreation,
        outcome: WriteOutcome,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let Some(error) = outcome.error().map(errors::client_error) else {
            return out;
        };
        let response = classic::join_error("", error);
        out.reply(creation.token, GroupResponse::JoinGroup(Box::new(response)));
        if matches!(outcome, WriteOutcome::Failed(_)) {
            // The group never was. Whoever joined it meanwhile has to start over.
            if let Some(mut machine) = self.classic(&creation.group_id, now, &mut out) {
                machine.refuse_all(error);
                machine.cancel_all();
            }
            self.groups.remove(&creation.group_id);
            if let Some(replaced) = creation.replaced {
                self.groups.insert(creation.group_id, replaced);
            } else if self.offsets.group(&creation.group_id).is_some() {
                // A deletion just before it failed as well: the offsets are still there.
                self.ensure_group(&creation.group_id, now);
            }
        }
        out
    }

    pub(super) fn sync_group(
        &mut self,
        request: &SyncGroupRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        if self.consumers_at_work(&request.group_id) {
            return self.consumer_sync_classic(request, token, now);
        }
        let mut out = GroupEffects::default();
        match self.classic(&request.group_id, now, &mut out) {
            Some(mut machine) => machine.sync(request, token),
            None => out.reply(token, GroupResponse::Refused(ErrorCode::UnknownMemberId)),
        }
        out
    }

    pub(super) fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        if self.consumers_at_work(&request.group_id) {
            return self.consumer_heartbeat_classic(request, token, now);
        }
        let mut out = GroupEffects::default();
        let result = match self.classic(&request.group_id, now, &mut out) {
            Some(mut machine) => machine.heartbeat(request),
            None => Err(ErrorCode::UnknownMemberId),
        };
        match result {
            Ok(()) => out.deferred = Some((token, GroupResponse::Done)),
            Err(error) => out.reply(token, GroupResponse::Refused(error)),
        }
        out
    }

    pub(super) fn leave_group(
        &mut self,
        group_id: &ByteStr,
        members: &[MemberIdentity],
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        if self.consumer_group(group_id).is_some() {
            let responses = self.consumer_leave_classic(group_id, members, now, &mut out);
            out.deferred = Some((token, GroupResponse::LeaveGroup(responses)));
            return out;
        }
        match self.classic(group_id, now, &mut out) {
            Some(mut machine) => {
                let responses = machine.leave(members);
                out.deferred = Some((token, GroupResponse::LeaveGroup(responses)));
            }
            None => out.reply(token, GroupResponse::Refused(ErrorCode::UnknownMemberId)),
        }
        out
    }
}
