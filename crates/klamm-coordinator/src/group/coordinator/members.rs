//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup, and ConsumerGroupHeartbeat.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, HeartbeatRequest,
    HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    SyncGroupRequest, SyncGroupResponse,
};

use super::{GroupCoordinator, mismatch};
use crate::group::shard::{GroupRequest, GroupResponse};
use crate::group::{RequestContext, classic, consumer, versions};

/// From this version on, SyncGroup must say for which protocol it is.
const SYNC_NAMES_PROTOCOL_FROM: i16 = 5;

impl GroupCoordinator {
    /// JoinGroup (key 11), versions 0-9. Answers when the generation is formed, or with
    /// `MEMBER_ID_REQUIRED` or a refusal at once.
    pub async fn join_group(
        &self,
        context: &RequestContext,
        mut request: JoinGroupRequest,
    ) -> JoinGroupResponse {
        let member_id = request.member_id.clone();
        let response = match self.check_join(&request) {
            Err(error) => Err(error),
            Ok(()) => {
                if context.api_version == 0 {
                    // Version 0 knows one timeout.
                    request.rebalance_timeout_ms = request.session_timeout_ms;
                }
                let group_id = request.group_id.clone();
                let request = GroupRequest::JoinGroup(context.clone(), Box::new(request));
                self.submit(&group_id, request).await
            }
        };
        let response = match response {
            Ok(GroupResponse::JoinGroup(response)) => *response,
            Ok(other) => classic::join_error(&member_id, mismatch(&other)),
            Err(error) => classic::join_error(&member_id, error),
        };
        versions::join_response(response, context.api_version)
    }

    fn check_join(&self, request: &JoinGroupRequest) -> Result<(), ErrorCode> {
        self.check_group(&request.group_id)?;
        let allowed = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        if !allowed.contains(&request.session_timeout_ms) {
            return Err(ErrorCode::InvalidSessionTimeout);
        }
        Ok(())
    }

    /// SyncGroup (key 14), versions 0-5. Answers when the leader's assignment is committed.
    pub async fn sync_group(
        &self,
        context: &RequestContext,
        request: SyncGroupRequest,
    ) -> SyncGroupResponse {
        let response = match self.check_sync(context, &request) {
            Err(error) => Err(error),
            Ok(()) => {
                let group_id = request.group_id.clone();
                let request = GroupRequest::SyncGroup(Box::new(request));
                self.submit(&group_id, request).await
            }
        };
        let refuse = |error: ErrorCode| SyncGroupResponse {
            error_code: error.into(),
            ..SyncGroupResponse::default()
        };
        match response {
            Ok(GroupResponse::SyncGroup(response)) => *response,
            Ok(other) => refuse(mismatch(&other)),
            Err(error) => refuse(error),
        }
    }

    fn check_sync(
        &self,
        context: &RequestContext,
        request: &SyncGroupRequest,
    ) -> Result<(), ErrorCode> {
        let names_protocol = request.protocol_type.is_some() && request.protocol_name.is_some();
        if context.api_version >= SYNC_NAMES_PROTOCOL_FROM && !names_protocol {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        self.check_group(&request.group_id)
    }

    /// Heartbeat (key 12), versions 0-4.
    pub async fn heartbeat(&self, request: HeartbeatRequest) -> HeartbeatResponse {
        let response = match self.check_group(&request.group_id) {
            Err(error) => Err(error),
            Ok(()) => {
                let group_id = request.group_id.clone();
                let request = GroupRequest::Heartbeat(Box::new(request));
                self.submit(&group_id, request).await
            }
        };
        let error = match response {
            // While the group loads nobody can tell: let the member believe in it.
            Ok(GroupResponse::Done) | Err(ErrorCode::CoordinatorLoadInProgress) => ErrorCode::None,
            Ok(other) => mismatch(&other),
            Err(error) => error,
        };
        HeartbeatResponse {
            error_code: error.into(),
            ..HeartbeatResponse::default()
        }
    }

    /// ConsumerGroupHeartbeat (key 68), versions 0-1. Answers when what it changed is committed.
    pub async fn consumer_group_heartbeat(
        &self,
        context: &RequestContext,
        request: ConsumerGroupHeartbeatRequest,
    ) -> ConsumerGroupHeartbeatResponse {
        let refuse = |error: ErrorCode| ConsumerGroupHeartbeatResponse {
            error_code: error.into(),
            ..ConsumerGroupHeartbeatResponse::default()
        };
        if let Err(error) = self.check_active() {
            return refuse(error);
        }
        let assignors = &self.config.consumer_assignors;
        if let Err(refusal) = consumer::check_request(&request, context.api_version, assignors) {
            return consumer::heartbeat_error(refusal);
        }
        let group_id = request.group_id.clone();
        let request = GroupRequest::ConsumerHeartbeat(context.clone(), Box::new(request));
        match self.submit(&group_id, request).await {
            Ok(GroupResponse::ConsumerHeartbeat(response)) => *response,
            Ok(other) => refuse(mismatch(&other)),
            Err(error) => refuse(error),
        }
    }

    /// LeaveGroup (key 13), versions 0-5.
    pub async fn leave_group(
        &self,
        context: &RequestContext,
        request: LeaveGroupRequest,
    ) -> LeaveGroupResponse {
        let group_id = request.group_id.clone();
        let members = versions::leaving_members(request, context.api_version);
        let response = match self.check_group(&group_id) {
            Err(error) => Err(error),
            Ok(()) => {
                let request = GroupRequest::LeaveGroup(group_id.clone(), members.clone());
                self.submit(&group_id, request).await
            }
        };
        let refuse = |error: ErrorCode| LeaveGroupResponse {
            error_code: error.into(),
            ..LeaveGroupResponse::default()
        };
        match response {
            Ok(GroupResponse::LeaveGroup(members)) => {
                versions::leave_response(members, context.api_version)
            }
            Ok(other) => refuse(mismatch(&other)),
            // There is no such group, so each of them is unknown to it.
            Err(ErrorCode::UnknownMemberId) => {
                let unknown = Some(ErrorCode::UnknownMemberId);
                let responses = members
                    .iter()
                    .map(|member| classic::leave_response(member, unknown));
                versions::leave_response(responses.collect(), context.api_version)
            }
            Err(error) => refuse(error),
        }
    }
}
