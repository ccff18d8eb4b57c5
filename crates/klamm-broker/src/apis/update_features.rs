//! UpdateFeatures (KIP-584): decided by the controller.

use std::sync::Arc;

use klamm_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for UpdateFeaturesRequest {
    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> UpdateFeaturesResponse {
        broker
            .controller
            .update_features(self, context.api_version)
            .await
            .unwrap_or_else(|refused| UpdateFeaturesResponse {
                error_code: refused.code.into(),
                error_message: refused.wire_message(),
                ..UpdateFeaturesResponse::default()
            })
    }
}
