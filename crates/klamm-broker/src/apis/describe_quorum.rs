//! DescribeQuorum (KIP-836): answered by the controller.

use std::sync::Arc;

use klamm_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use klamm_records::Uuid;

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

/// From here on the response tells where the voters are, and in which directory.
const NODES_VERSION: i16 = 2;

impl Api for DescribeQuorumRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> DescribeQuorumResponse {
        let mut response = broker.controller.describe_quorum(&self);
        if context.api_version < NODES_VERSION {
            response.nodes.clear();
            let partitions = response
                .topics
                .iter_mut()
                .flat_map(|topic| &mut topic.partitions);
            for partition in partitions {
                let replicas = partition
                    .current_voters
                    .iter_mut()
                    .chain(&mut partition.observers);
                replicas.for_each(|replica| replica.replica_directory_id = Uuid::ZERO);
            }
        }
        response
    }
}
