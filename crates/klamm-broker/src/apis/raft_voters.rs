//! AddRaftVoter, RemoveRaftVoter and UpdateRaftVoter (KIP-853): decided by the controller that leads.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
    UpdateRaftVoterRequest, UpdateRaftVoterResponse,
};

use crate::context::RequestContext;
use crate::controller::{ControllerApi, code};

/// A controller that does not lead says so in the words of the quorum.
fn in_the_quorum(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::NotController => ErrorCode::NotLeaderOrFollower,
        other => other,
    }
}

impl ControllerApi for AddRaftVoterRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<AddRaftVoterResponse, ApiError> {
        controller.add_raft_voter(&self).await
    }

    fn refused(&self, error: &ApiError) -> AddRaftVoterResponse {
        AddRaftVoterResponse {
            error_code: in_the_quorum(error.code).into(),
            error_message: error.wire_message(),
            ..AddRaftVoterResponse::default()
        }
    }

    fn error_code(response: &AddRaftVoterResponse) -> ErrorCode {
        code(response.error_code)
    }
}

impl ControllerApi for RemoveRaftVoterRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<RemoveRaftVoterResponse, ApiError> {
        controller.remove_raft_voter(&self).await
    }

    fn refused(&self, error: &ApiError) -> RemoveRaftVoterResponse {
        RemoveRaftVoterResponse {
            error_code: in_the_quorum(error.code).into(),
            error_message: error.wire_message(),
            ..RemoveRaftVoterResponse::default()
        }
    }

    fn error_code(response: &RemoveRaftVoterResponse) -> ErrorCode {
        code(response.error_code)
    }
}

impl ControllerApi for UpdateRaftVoterRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<UpdateRaftVoterResponse, ApiError> {
        Ok(controller.update_raft_voter(&self).await)
    }

    fn refused(&self, error: &ApiError) -> UpdateRaftVoterResponse {
        UpdateRaftVoterResponse {
            error_code: in_the_quorum(error.code).into(),
            ..UpdateRaftVoterResponse::default()
        }
    }

    fn error_code(response: &UpdateRaftVoterResponse) -> ErrorCode {
        code(response.error_code)
    }
}
