use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::consumer_group_describe_response::DescribedGroup;
use klamm_protocol::messages::{ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};

use super::consumer_groups_are_on;
use crate::authorized;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for ConsumerGroupDescribeRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        _context: RequestContext,
    ) -> ConsumerGroupDescribeResponse {
        if !consumer_groups_are_on(&broker) {
            let refused = self.group_ids.into_iter().map(|group_id| DescribedGroup {
                group_id,
                error_code: ErrorCode::UnsupportedVersion.into(),
                ..DescribedGroup::default()
            });
            return ConsumerGroupDescribeResponse {
                groups: refused.collect(),
                ..ConsumerGroupDescribeResponse::default()
            };
        }
        let requested = self.include_authorized_operations;
        let mut response = broker.groups.consumer_group_describe(self).await;
        let described = response.groups.iter_mut();
        for group in described.filter(|group| group.error_code == 0) {
            group.authorized_operations = authorized::if_requested(requested, authorized::GROUP);
        }
        response
    }
}
