use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::streams_group_describe_response::DescribedGroup;
use klamm_protocol::messages::{StreamsGroupDescribeRequest, StreamsGroupDescribeResponse};

use super::streams_groups_are_on;
use crate::authorized;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for StreamsGroupDescribeRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> StreamsGroupDescribeResponse {
        if !streams_groups_are_on(&broker) {
            let refused = self.group_ids.into_iter().map(|group_id| DescribedGroup {
                group_id,
                error_code: ErrorCode::UnsupportedVersion.into(),
                ..DescribedGroup::default()
            });
            return StreamsGroupDescribeResponse {
                groups: refused.collect(),
                ..StreamsGroupDescribeResponse::default()
            };
        }
        let requested = self.include_authorized_operations;
        let mut response = broker.groups.streams_group_describe(self).await;
        let described = response.groups.iter_mut();
        for group in described.filter(|group| group.error_code == 0) {
            group.authorized_operations = authorized::if_requested(requested, authorized::GROUP);
        }
        response
    }
}
