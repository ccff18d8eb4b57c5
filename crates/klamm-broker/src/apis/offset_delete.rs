use std::sync::Arc;

use klamm_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::{Shared, Topics};

impl Api for OffsetDeleteRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> OffsetDeleteResponse {
        broker
            .groups
            .offset_delete(self, &Topics(broker.image()))
            .await
    }
}
