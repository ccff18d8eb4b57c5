//! InitProducerId: an id and epoch for idempotent and transactional producers.

use std::sync::Arc;

use klamm_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::producer_ids::IdSource;
use crate::shared::Shared;

impl Api for InitProducerIdRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> InitProducerIdResponse {
        let ids = IdSource(broker.clone());
        let version = context.api_version;
        broker
            .transactions
            .init_producer_id(self, version, &ids)
            .await
    }
}
