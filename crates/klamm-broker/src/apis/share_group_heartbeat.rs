use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse};

use super::share_groups_are_on;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for ShareGroupHeartbeatRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        context: RequestContext,
    ) -> ShareGroupHeartbeatResponse {
        if !share_groups_are_on(&broker) {
            return ShareGroupHeartbeatResponse {
                error_code: ErrorCode::UnsupportedVersion.into(),
                ..ShareGroupHeartbeatResponse::default()
            };
        }
        let context = context.group();
        broker.groups.share_group_heartbeat(&context, self).await
    }
}
