use std::sync::Arc;

use klamm_protocol::messages::{ListGroupsRequest, ListGroupsResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for ListGroupsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> ListGroupsResponse {
        broker.groups.list_groups(self).await
    }
}
