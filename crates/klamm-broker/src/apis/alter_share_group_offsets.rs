use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse};

use super::share_groups_are_on;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for AlterShareGroupOffsetsRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        _: RequestContext,
    ) -> AlterShareGroupOffsetsResponse {
        if !share_groups_are_on(&broker) {
            return AlterShareGroupOffsetsResponse {
                error_code: ErrorCode::UnsupportedVersion.into(),
                ..AlterShareGroupOffsetsResponse::default()
            };
        }
        broker.groups.alter_share_group_offsets(self).await
    }
}
