use std::sync::Arc;

use klamm_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::{Shared, Topics};

impl Api for OffsetCommitRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> OffsetCommitResponse {
        broker
            .groups
            .offset_commit(&context.group(), self, &Topics(broker.image()))
            .await
    }
}
