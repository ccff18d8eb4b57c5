//! What all transitions of a classic group need.

use std::collections::BTreeMap;

use bytes::Bytes;
use klamm_env::Rng;
use klamm_protocol::messages::{JoinGroupResponse, SyncGroupResponse};
use klamm_protocol::{ByteStr, ErrorCode};

use super::group::{ClassicGroup, JoinTimer};
use super::member::{Member, MemberProtocol};
use crate::group::GroupCoordinatorConfig;
use crate::group::record::GroupRecord;
use crate::group::shard::{GroupEffects, GroupResponse, GroupTimer};
use crate::metrics::GroupMetrics;
use crate::runtime::{Now, ReplyToken, Timers};

/// The timers of a classic group, beside its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClassicTimer {
    /// The session of a member or pending member.
    Heartbeat(ByteStr),
    /// The join phase.
    Join,
    /// The sync phase.
    Sync,
}

/// What waits for a record of a classic group to be committed.
#[derive(Debug)]
pub enum ClassicCompletion {
    /// The leader's assignment for a generation.
    Assignment {
        /// The generation it is for.
        generation: i32,
        /// What each member gets.
        assignment: BTreeMap<ByteStr, Bytes>,
    },
    /// A static member came back under a new id while the group was stable.
    StaticMember(Box<StaticReplacement>),
    /// The group became empty.
    Emptied,
}

/// A static member's change of id, and what to restore if it does not hold.
#[derive(Debug)]
pub struct StaticReplacement {
    pub(super) instance_id: ByteStr,
    pub(super) old_id: ByteStr,
    pub(super) new_id: ByteStr,
    pub(super) old_protocols: Vec<MemberProtocol>,
    pub(super) old_rebalance_timeout_ms: i32,
    pub(super) old_session_timeout_ms: i32,
    pub(super) leader_before: Option<ByteStr>,
    pub(super) api_version: i16,
    pub(super) token: ReplyToken,
}

/// A group together with what its transitions need.
pub(in crate::group) struct Machine<'a> {
    pub group: &'a mut ClassicGroup,
    pub timers: &'a mut Timers<GroupTimer>,
    pub config: &'a GroupCoordinatorConfig,
    pub rng: &'a dyn Rng,
    pub metrics: &'a GroupMetrics,
    pub now: Now,
    pub out: &'a mut GroupEffects,
}

impl Machine<'_> {
    pub(super) fn schedule(&mut self, timer: ClassicTimer, delay_ms: i32) {
        let key = GroupTimer::Classic(self.group.id.clone(), timer);
        self.timers
            .schedule(key, self.now.after_ms(i64::from(delay_ms)));
    }

    pub(super) fn cancel(&mut self, timer: ClassicTimer) {
        self.timers
            .cancel(GroupTimer::Classic(self.group.id.clone(), timer));
    }

    pub(super) fn schedule_join(&mut self, timer: JoinTimer, delay_ms: i32) {
        self.group.join_timer = Some(timer);
        self.schedule(ClassicTimer::Join, delay_ms);
    }

    pub(super) fn cancel_join(&mut self) {
        self.group.join_timer = None;
        self.cancel(ClassicTimer::Join);
    }

    /// Starts a member's session anew.
    pub(in crate::group) fn renew_session(&mut self, member_id: &str) {
        if let Some(member) = self.group.member(member_id) {
            let (id, timeout_ms) = (member.id.clone(), member.session_timeout_ms);
            self.schedule(ClassicTimer::Heartbeat(id), timeout_ms);
        }
    }

    /// Removes a member or pending member together with its session.
    pub(super) fn remove(&mut self, member_id: &ByteStr) -> Option<Member> {
        self.cancel(ClassicTimer::Heartbeat(member_id.clone()));
        self.group.remove(member_id)
    }

    /// Cancels every timer of the group, which is about to go.
    pub(in crate::group) fn cancel_all(&mut self) {
        self.cancel_join();
        self.cancel(ClassicTimer::Sync);
        let ids: Vec<ByteStr> = self
            .group
            .members()
            .map(|member| member.id.clone())
            .chain(self.group.pending_members().cloned())
            .collect();
        for id in ids {
            self.cancel(ClassicTimer::Heartbeat(id));
        }
    }

    pub(super) fn reply_join(&mut self, token: ReplyToken, response: JoinGroupResponse) {
        self.out
            .reply(token, GroupResponse::JoinGroup(Box::new(response)));
    }

    pub(super) fn refuse_join(&mut self, token: ReplyToken, member_id: &str, error: ErrorCode) {
        self.reply_join(token, join_error(member_id, error));
    }

    pub(super) fn reply_sync(&mut self, token: ReplyToken, response: SyncGroupResponse) {
        self.out
            .reply(token, GroupResponse::SyncGroup(Box::new(response)));
    }

    pub(super) fn refuse_sync(&mut self, token: ReplyToken, error: ErrorCode) {
        self.reply_sync(
            token,
            SyncGroupResponse {
                error_code: error.into(),
                ..SyncGroupResponse::default()
            },
        );
    }

    /// Answers every request that is parked in the group, because the group goes away.
    pub(in crate::group) fn refuse_all(&mut self, error: ErrorCode) {
        let ids: Vec<ByteStr> = self
            .group
            .members()
            .map(|member| member.id.clone())
            .collect();
        for id in ids {
            if let Some(token) = self.group.take_join(&id) {
                self.refuse_join(token, &id, error);
            }
            let sync = self
                .group
                .member_mut(&id)
                .and_then(|m| m.awaiting_sync.take());
            if let Some(token) = sync {
                self.refuse_sync(token, error);
            }
        }
    }

    /// Writes the group with the members' present assignments. The state is changed already.
    pub(super) fn write_group(&mut self, completion: ClassicCompletion) {
        let value = self.group.to_record(|member| member.assignment.clone());
        self.write(value, completion);
    }

    pub(super) fn write(
        &mut self,
        value: klamm_protocol::group_records::GroupMetadataValue,
        completion: ClassicCompletion,
    ) {
        self.out.records.push(GroupRecord::GroupMetadata {
            group_id: self.group.id.clone(),
            value: Some(value),
        });
        self.out.replay = false;
        self.out.completion = Some(crate::group::shard::GroupCompletion::Classic(
            self.group.id.clone(),
            completion,
        ));
    }
}

/// A JoinGroup answer that refuses.
pub(in crate::group) fn join_error(member_id: &str, error: ErrorCode) -> JoinGroupResponse {
    JoinGroupResponse {
        member_id: member_id.into(),
        error_code: error.into(),
        // Versions before 7 have no null here; an error carries no protocol.
        protocol_name: None,
        ..JoinGroupResponse::default()
    }
}
