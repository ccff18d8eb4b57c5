//! Heartbeat (key 12), versions 0-4.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::HeartbeatRequest;

use super::machine::Machine;
use super::state::ClassicState;

impl Machine<'_> {
    /// Handles a heartbeat. `RebalanceInProgress` renews the session too: it is how a member
    /// learns that it must rejoin, not a refusal.
    pub(in crate::group) fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
    ) -> Result<(), ErrorCode> {
        self.group
            .validate_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        match self.group.state {
            ClassicState::Empty => Err(ErrorCode::UnknownMemberId),
            ClassicState::PreparingRebalance => {
                self.renew_session(&request.member_id);
                Err(ErrorCode::RebalanceInProgress)
            }
            ClassicState::CompletingRebalance | ClassicState::Stable => {
                self.renew_session(&request.member_id);
                Ok(())
            }
        }
    }
}
