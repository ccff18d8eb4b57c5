//! IncrementalAlterConfigs (KIP-339): decided by the controller.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use klamm_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use crate::context::RequestContext;
use crate::controller::ControllerApi;

impl ControllerApi for IncrementalAlterConfigsRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<IncrementalAlterConfigsResponse, ApiError> {
        controller.incremental_alter_configs(self).await
    }

    fn refused(&self, error: &ApiError) -> IncrementalAlterConfigsResponse {
        let refused = self
            .resources
            .iter()
            .map(|asked| AlterConfigsResourceResponse {
                resource_type: asked.resource_type,
                resource_name: asked.resource_name.clone(),
                error_code: error.code.into(),
                error_message: error.wire_message(),
                ..AlterConfigsResourceResponse::default()
            });
        IncrementalAlterConfigsResponse {
            responses: refused.collect(),
            ..IncrementalAlterConfigsResponse::default()
        }
    }
}
