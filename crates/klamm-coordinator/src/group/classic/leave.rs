//! LeaveGroup (key 13), versions 0-5.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::leave_group_response::MemberResponse;

use super::machine::Machine;
use super::member::Member;
use super::state::ClassicState;

impl Machine<'_> {
    /// Removes members, by id or (for an administrator, without an id) by static name. Each gets
    /// an answer of its own; the group rebalances once.
    pub(in crate::group) fn leave(&mut self, members: &[MemberIdentity]) -> Vec<MemberResponse> {
        let responses: Vec<MemberResponse> = members
            .iter()
            .map(|identity| {
                let error = self.leave_one(identity).err();
                leave_response(identity, error)
            })
            .collect();
        let none = i16::from(ErrorCode::None);
        if responses.iter().any(|response| response.error_code == none) {
            match self.group.state {
                ClassicState::Stable | ClassicState::CompletingRebalance => {
                    self.rebalance_or_complete();
                }
                ClassicState::PreparingRebalance => self.maybe_complete_join(),
                ClassicState::Empty => {}
            }
        }
        responses
    }

    fn leave_one(&mut self, identity: &MemberIdentity) -> Result<(), ErrorCode> {
        let instance_id = identity.group_instance_id.as_ref();
        let member_id = if identity.member_id.is_empty() {
            let by_name = instance_id.and_then(|name| self.group.static_member_id(name));
            by_name.cloned().ok_or(ErrorCode::UnknownMemberId)?
        } else if self.group.is_pending(&identity.member_id) {
            identity.member_id.clone()
        } else {
            self.group
                .validate_member(&identity.member_id, instance_id)?;
            identity.member_id.clone()
        };
        if let Some(member) = self.remove(&member_id) {
            self.abandon(&member, ErrorCode::UnknownMemberId);
        }
        Ok(())
    }

    /// Answers what a member that is no more has parked, so that it may come back.
    pub(super) fn abandon(&mut self, member: &Member, error: ErrorCode) {
        if let Some(token) = member.awaiting_join {
            self.refuse_join(token, "", error);
        }
        if let Some(token) = member.awaiting_sync {
            self.refuse_sync(token, error);
        }
    }
}

/// The answer to one member's leaving.
pub(in crate::group) fn leave_response(
    identity: &MemberIdentity,
    error: Option<ErrorCode>,
) -> MemberResponse {
    MemberResponse {
        member_id: identity.member_id.clone(),
        group_instance_id: identity.group_instance_id.clone(),
        error_code: error.unwrap_or(ErrorCode::None).into(),
        ..MemberResponse::default()
    }
}
