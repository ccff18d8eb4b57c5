use std::sync::Arc;

use klamm_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::{Shared, Topics};

impl Api for OffsetFetchRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> OffsetFetchResponse {
        broker
            .groups
            .offset_fetch(&context.group(), self, &Topics(broker.image()))
            .await
    }
}
