use std::sync::Arc;

use klamm_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for JoinGroupRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> JoinGroupResponse {
        broker.groups.join_group(&context.group(), self).await
    }
}
