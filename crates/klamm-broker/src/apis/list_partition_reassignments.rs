//! ListPartitionReassignments (KIP-455): answered by the controller.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use crate::context::RequestContext;
use crate::controller::ControllerApi;

impl ControllerApi for ListPartitionReassignmentsRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<ListPartitionReassignmentsResponse, ApiError> {
        if !controller.is_active() {
            return Err(ErrorCode::NotController.into());
        }
        Ok(controller.list_partition_reassignments(&self))
    }

    fn refused(&self, error: &ApiError) -> ListPartitionReassignmentsResponse {
        ListPartitionReassignmentsResponse {
            error_code: error.code.into(),
            error_message: error.wire_message(),
            ..ListPartitionReassignmentsResponse::default()
        }
    }
}
