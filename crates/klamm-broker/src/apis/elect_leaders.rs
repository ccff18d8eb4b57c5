//! ElectLeaders: decided by the controller.

use std::sync::Arc;

use klamm_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for ElectLeadersRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> ElectLeadersResponse {
        broker
            .controller
            .elect_leaders(self)
            .await
            .unwrap_or_else(|refused| ElectLeadersResponse {
                error_code: refused.code.into(),
                ..ElectLeadersResponse::default()
            })
    }
}
