//! DescribeQuorum (KIP-836): answered by the controller.

use std::sync::Arc;

use klamm_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for DescribeQuorumRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> DescribeQuorumResponse {
        broker.controller.describe_quorum(&self)
    }
}
