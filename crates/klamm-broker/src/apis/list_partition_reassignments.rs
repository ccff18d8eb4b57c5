//! ListPartitionReassignments (KIP-455): read off the metadata.

use std::sync::Arc;

use klamm_protocol::messages::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for ListPartitionReassignmentsRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        _: RequestContext,
    ) -> ListPartitionReassignmentsResponse {
        broker.controller.list_partition_reassignments(&self)
    }
}
