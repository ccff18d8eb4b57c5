//! AlterPartitionReassignments (KIP-455): decided by the controller.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
};

use crate::context::RequestContext;
use crate::controller::ControllerApi;

impl ControllerApi for AlterPartitionReassignmentsRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<AlterPartitionReassignmentsResponse, ApiError> {
        controller.alter_partition_reassignments(self).await
    }

    fn timeout_ms(&self) -> Option<i32> {
        Some(self.timeout_ms)
    }

    fn refused(&self, error: &ApiError) -> AlterPartitionReassignmentsResponse {
        AlterPartitionReassignmentsResponse {
            error_code: error.code.into(),
            error_message: error.wire_message(),
            ..AlterPartitionReassignmentsResponse::default()
        }
    }
}
