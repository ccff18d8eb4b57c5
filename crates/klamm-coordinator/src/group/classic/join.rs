//! JoinGroup (key 11), versions 0-9.

use klamm_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use klamm_protocol::{ByteStr, ErrorCode};

use super::machine::{ClassicCompletion, ClassicTimer, Machine, StaticReplacement};
use super::member::{Member, MemberProtocol};
use super::state::ClassicState;
use crate::group::{RequestContext, java};
use crate::runtime::ReplyToken;

/// The version from which a dynamic member must come back with the id it is given.
const KNOWN_MEMBER_ID_FROM: i16 = 4;
/// The version from which a leader can be told to leave the assignment as it is.
const SKIP_ASSIGNMENT_FROM: i16 = 9;

impl Machine<'_> {
    /// Handles a JoinGroup; the group exists, just made if the member has no id.
    pub(in crate::group) fn join(
        &mut self,
        context: &RequestContext,
        request: &JoinGroupRequest,
        token: ReplyToken,
    ) {
        if !self.has_room_for(&request.member_id) {
            let id = request.member_id.clone();
            if let Some(member) = self.remove(&id) {
                self.abandon(&member, ErrorCode::GroupMaxSizeReached);
            }
            self.refuse_join(token, "", ErrorCode::GroupMaxSizeReached);
        } else if !self
            .group
            .supports(&request.protocol_type, &request.protocols)
        {
            self.refuse_join(
                token,
                &request.member_id,
                ErrorCode::InconsistentGroupProtocol,
            );
        } else if request.member_id.is_empty() {
            self.join_new(context, request, token);
        } else {
            self.join_known(context, request, token);
        }
    }

    /// Whether the group takes one more. While members rejoin, those who wait already count:
    /// if the limit was lowered, the last to rejoin are the ones to go.
    fn has_room_for(&self, member_id: &str) -> bool {
        let member = self.group.member(member_id);
        match self.group.state {
            ClassicState::Empty => true,
            ClassicState::PreparingRebalance => {
                member.is_some_and(Member::is_awaiting_join)
                    || self.group.join_waiters() < self.config.max_size
            }
            ClassicState::CompletingRebalance | ClassicState::Stable => {
                member.is_some() || self.group.member_count() < self.config.max_size
            }
        }
    }

    fn join_new(
        &mut self,
        context: &RequestContext,
        request: &JoinGroupRequest,
        token: ReplyToken,
    ) {
        let prefix = match &request.group_instance_id {
            Some(instance_id) => instance_id,
            None => &context.client_id,
        };
        let uuid = java::random_uuid_text(self.rng.next_16_bytes());
        let member_id = ByteStr::from(format!("{prefix}-{uuid}"));
        if let Some(instance_id) = &request.group_instance_id {
            match self.group.static_member_id(instance_id).cloned() {
                Some(old_id) => self.replace_static(context, request, old_id, member_id, token),
                None => self.add_member(context, request, member_id, token),
            }
        } else if context.api_version >= KNOWN_MEMBER_ID_FROM {
            self.group.add_pending(member_id.clone());
            self.schedule(
                ClassicTimer::Heartbeat(member_id.clone()),
                request.session_timeout_ms,
            );
            self.refuse_join(token, &member_id, ErrorCode::MemberIdRequired);
        } else {
            self.add_member(context, request, member_id, token);
        }
    }

    fn join_known(
        &mut self,
        context: &RequestContext,
        request: &JoinGroupRequest,
        token: ReplyToken,
    ) {
        let member_id = &request.member_id;
        if self.group.is_pending(member_id) {
            if request.group_instance_id.is_some() {
                // Ids of static members are never pending: the client mixes two identities.
                self.refuse_join(token, "", ErrorCode::UnknownServerError);
            } else {
                self.add_member(context, request, member_id.detached(), token);
            }
            return;
        }
        let instance_id = request.group_instance_id.as_ref();
        if let Err(error) = self.group.validate_member(member_id, instance_id) {
            self.refuse_join(token, member_id, error);
            return;
        }
        let changed = self
            .group
            .member(member_id)
            .is_some_and(|member| !member.matches(&request.protocols));
        match self.group.state {
            ClassicState::PreparingRebalance => self.rejoin(request, token),
            // The answer was lost: repeat it.
            ClassicState::CompletingRebalance if !changed => {
                let response = self.generation_for(member_id);
                self.reply_join(token, response);
            }
            ClassicState::CompletingRebalance => self.rejoin(request, token),
            // A leader rejoins when something else than the members changed, say the topics.
            ClassicState::Stable if changed || self.group.is_leader(member_id) => {
                self.rejoin(request, token);
            }
            ClassicState::Stable => {
                let response = self.generation_for(member_id);
                self.reply_join(token, response);
            }
            // Cannot be: an empty group has no members.
            ClassicState::Empty => {
                self.refuse_join(token, member_id, ErrorCode::UnknownMemberId);
            }
        }
    }

    /// The present generation as `member_id` sees it; only the leader gets the members.
    pub(super) fn generation_for(&self, member_id: &str) -> JoinGroupResponse {
        let members = if self.group.is_leader(member_id) {
            self.group.member_list()
        } else {
            Vec::new()
        };
        JoinGroupResponse {
            generation_id: self.group.generation,
            protocol_type: self.group.protocol_type.clone(),
            protocol_name: self.group.protocol_name.clone(),
            leader: self.group.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.into(),
            members,
            ..JoinGroupResponse::default()
        }
    }

    fn rejoin(&mut self, request: &JoinGroupRequest, token: ReplyToken) {
        self.update_member(&request.member_id, request, token);
        self.rebalance_or_complete();
    }

    fn update_member(&mut self, member_id: &str, request: &JoinGroupRequest, token: ReplyToken) {
        let replaced = self.group.update_member(
            member_id,
            MemberProtocol::list(&request.protocols),
            request.rebalance_timeout_ms,
            request.session_timeout_ms,
            Some(token),
        );
        // The member asked twice and waits on the second request. Kafka leaves the first one
        // without an answer; here it gets one, for a connection answers in order.
        if let Some(superseded) = replaced {
            self.refuse_join(superseded, member_id, ErrorCode::RebalanceInProgress);
        }
    }

    fn add_member(
        &mut self,
        context: &RequestContext,
        request: &JoinGroupRequest,
        member_id: ByteStr,
        token: ReplyToken,
    ) {
        if self.group.member_count() == 0 {
            self.group.protocol_type = Some(request.protocol_type.detached());
        }
        if self.group.state == ClassicState::PreparingRebalance
            && self.group.previous_state == Some(ClassicState::Empty)
        {
            self.group.new_member_added = true;
        }
        let member = Member {
            id: member_id.clone(),
            instance_id: request.group_instance_id.as_ref().map(ByteStr::detached),
            client_id: context.client_id.detached(),
            client_host: context.client_host.detached(),
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: MemberProtocol::list(&request.protocols),
            assignment: bytes::Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: true,
        };
        self.group.add(member, Some(token));
        // A new member cannot send heartbeats while its request is parked, and a client that
        // gave up and joined again would stay as a ghost: give each a limited time.
        let timeout_ms = self.config.new_member_join_timeout_ms;
        self.schedule(ClassicTimer::Heartbeat(member_id), timeout_ms);
        self.rebalance_or_complete();
    }

    /// A static member came back without its id, most likely after a restart: it takes the place
    /// of its former self under a new id. A stable group goes on undisturbed if the vote stands.
    fn replace_static(
        &mut self,
        context: &RequestContext,
        request: &JoinGroupRequest,
        old_id: ByteStr,
        new_id: ByteStr,
        token: ReplyToken,
    ) {
        let Some(instance_id) = request.group_instance_id.as_ref().map(ByteStr::detached) else {
            return;
        };
        let leader_before = self.group.leader.clone();
        let (join, sync) = self
            .group
            .rename_static(&instance_id, &old_id, new_id.clone());
        if let Some(fenced) = join {
            self.refuse_join(fenced, &old_id, ErrorCode::FencedInstanceId);
        }
        if let Some(fenced) = sync {
            self.refuse_sync(fenced, ErrorCode::FencedInstanceId);
        }
        self.cancel(ClassicTimer::Heartbeat(old_id.clone()));
        self.renew_session(&new_id);
        let Some(former) = self.group.member(&new_id) else {
            return;
        };
        let replacement = StaticReplacement {
            instance_id,
            old_id,
            new_id: new_id.clone(),
            old_protocols: former.protocols.clone(),
            old_rebalance_timeout_ms: former.rebalance_timeout_ms,
            old_session_timeout_ms: former.session_timeout_ms,
            leader_before,
            api_version: context.api_version,
            token,
        };
        self.update_member(&new_id, request, token);
        match self.group.state {
            ClassicState::Stable if self.group.select_protocol() == self.group.protocol_name => {
                self.write_group(ClassicCompletion::StaticMember(Box::new(replacement)));
            }
            ClassicState::Stable => self.rebalance_or_complete(),
            // The leader may have been told the old id already, and would assign to nobody.
            ClassicState::CompletingRebalance => self.prepare_rebalance(),
            ClassicState::PreparingRebalance | ClassicState::Empty => self.maybe_complete_join(),
        }
    }

    /// The new id of a static member is committed. If a rebalance began meanwhile, its end answers
    /// the member.
    pub(super) fn static_member_replaced(&mut self, replacement: &StaticReplacement) {
        if self.group.state != ClassicState::Stable {
            return;
        }
        let new_id = &replacement.new_id;
        let is_leader = self.group.is_leader(new_id);
        let mut response = self.generation_for(new_id);
        if replacement.api_version >= SKIP_ASSIGNMENT_FROM {
            response.skip_assignment = is_leader;
        } else {
            // Older leaders know no way to skip: naming the old leader makes it a follower.
            response.members = Vec::new();
            response.leader = replacement.leader_before.clone().unwrap_or_default();
        }
        if let Some(token) = self.group.take_join(new_id) {
            self.reply_join(token, response);
        }
    }

    /// The new id of a static member is not in the log: the old one stands.
    pub(super) fn static_member_not_replaced(
        &mut self,
        replacement: StaticReplacement,
        error: ErrorCode,
    ) {
        let response = JoinGroupResponse {
            member_id: ByteStr::default(),
            members: Vec::new(),
            leader: replacement.leader_before.clone().unwrap_or_default(),
            error_code: error.into(),
            ..self.generation_for("")
        };
        self.reply_join(replacement.token, response);
        if self.group.static_member_id(&replacement.instance_id) != Some(&replacement.new_id) {
            return;
        }
        let new_id = &replacement.new_id;
        self.group.update_member(
            new_id,
            replacement.old_protocols,
            replacement.old_rebalance_timeout_ms,
            replacement.old_session_timeout_ms,
            None,
        );
        self.cancel(ClassicTimer::Heartbeat(new_id.clone()));
        self.group
            .rename_static(&replacement.instance_id, new_id, replacement.old_id.clone());
        self.renew_session(&replacement.old_id);
    }
}
