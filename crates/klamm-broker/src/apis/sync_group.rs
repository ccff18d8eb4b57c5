use std::sync::Arc;

use klamm_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for SyncGroupRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> SyncGroupResponse {
        broker.groups.sync_group(&context.group(), self).await
    }
}
