//! UnregisterBroker: decided by the controller.

use std::sync::Arc;

use klamm_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for UnregisterBrokerRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> UnregisterBrokerResponse {
        broker
            .controller
            .unregister_broker(self)
            .await
            .unwrap_or_else(|refused| UnregisterBrokerResponse {
                error_code: refused.code.into(),
                error_message: refused.wire_message(),
                ..UnregisterBrokerResponse::default()
            })
    }
}
