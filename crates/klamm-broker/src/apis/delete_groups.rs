use std::sync::Arc;

use klamm_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for DeleteGroupsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> DeleteGroupsResponse {
        broker.groups.delete_groups(self).await
    }
}
