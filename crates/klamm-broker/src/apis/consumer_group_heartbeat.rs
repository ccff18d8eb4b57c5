use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};

use super::consumer_groups_are_on;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for ConsumerGroupHeartbeatRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        context: RequestContext,
    ) -> ConsumerGroupHeartbeatResponse {
        if !consumer_groups_are_on(&broker) {
            return ConsumerGroupHeartbeatResponse {
                error_code: ErrorCode::UnsupportedVersion.into(),
                ..ConsumerGroupHeartbeatResponse::default()
            };
        }
        let context = context.group();
        broker.groups.consumer_group_heartbeat(&context, self).await
    }
}
