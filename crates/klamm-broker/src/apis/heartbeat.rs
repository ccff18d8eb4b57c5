use std::sync::Arc;

use klamm_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for HeartbeatRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> HeartbeatResponse {
        broker.groups.heartbeat(self).await
    }
}
