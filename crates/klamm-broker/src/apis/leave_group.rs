use std::sync::Arc;

use klamm_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for LeaveGroupRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> LeaveGroupResponse {
        broker.groups.leave_group(&context.group(), self).await
    }
}
