//! AlterPartitionReassignments (KIP-455): decided by the controller.

use std::sync::Arc;

use klamm_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for AlterPartitionReassignmentsRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        _: RequestContext,
    ) -> AlterPartitionReassignmentsResponse {
        broker
            .controller
            .alter_partition_reassignments(self)
            .await
            .unwrap_or_else(|refused| AlterPartitionReassignmentsResponse {
                error_code: refused.code.into(),
                error_message: refused.wire_message(),
                ..AlterPartitionReassignmentsResponse::default()
            })
    }
}
