//! UpdateFeatures (KIP-584): decided by the controller.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::messages::{UpdateFeaturesRequest, UpdateFeaturesResponse};

use crate::context::RequestContext;
use crate::controller::ControllerApi;

impl ControllerApi for UpdateFeaturesRequest {
    async fn decide(
        self,
        controller: &Controller,
        context: &RequestContext,
    ) -> Result<UpdateFeaturesResponse, ApiError> {
        controller.update_features(self, context.api_version).await
    }

    fn timeout_ms(&self) -> Option<i32> {
        Some(self.timeout_ms)
    }

    fn refused(&self, error: &ApiError) -> UpdateFeaturesResponse {
        UpdateFeaturesResponse {
            error_code: error.code.into(),
            error_message: error.wire_message(),
            ..UpdateFeaturesResponse::default()
        }
    }
}
