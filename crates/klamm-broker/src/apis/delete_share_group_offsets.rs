use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{DeleteShareGroupOffsetsRequest, DeleteShareGroupOffsetsResponse};

use super::share_groups_are_on;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for DeleteShareGroupOffsetsRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        _: RequestContext,
    ) -> DeleteShareGroupOffsetsResponse {
        if !share_groups_are_on(&broker) {
            return DeleteShareGroupOffsetsResponse {
                error_code: ErrorCode::UnsupportedVersion.into(),
                ..DeleteShareGroupOffsetsResponse::default()
            };
        }
        broker.groups.delete_share_group_offsets(self).await
    }
}
