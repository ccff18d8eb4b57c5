use std::sync::Arc;

use klamm_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};

use crate::authorized;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for DescribeGroupsRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> DescribeGroupsResponse {
        let requested = self.include_authorized_operations;
        let mut response = broker.groups.describe_groups(&context.group(), self).await;
        for group in response
            .groups
            .iter_mut()
            .filter(|group| group.error_code == 0)
        {
            group.authorized_operations = authorized::if_requested(requested, authorized::GROUP);
        }
        response
    }
}
