//! InitProducerId: a producer id for idempotent producers, out of a block from the controller.

use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for InitProducerIdRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> InitProducerIdResponse {
        match init(&self, &broker).await {
            Ok(producer_id) => InitProducerIdResponse {
                producer_id,
                producer_epoch: 0,
                ..InitProducerIdResponse::default()
            },
            Err(error) => InitProducerIdResponse {
                error_code: error.into(),
                producer_id: -1,
                producer_epoch: -1,
                ..InitProducerIdResponse::default()
            },
        }
    }
}

async fn init(request: &InitProducerIdRequest, broker: &Shared) -> Result<i64, ErrorCode> {
    match request.transactional_id.as_deref() {
        // An idempotent producer that asks again, with its old id and epoch or without, is given a
        // new id: nothing is kept of it that could be continued.
        None => broker.producer_ids.next(broker).await,
        Some("") => Err(ErrorCode::InvalidRequest),
        // This broker coordinates no transactions yet, so it is nobody's coordinator.
        Some(_) => Err(ErrorCode::NotCoordinator),
    }
}
