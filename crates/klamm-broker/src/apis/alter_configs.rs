//! AlterConfigs, the older form that replaces all of a resource's configs: decided by the controller.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use klamm_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use crate::context::RequestContext;
use crate::controller::ControllerApi;

impl ControllerApi for AlterConfigsRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<AlterConfigsResponse, ApiError> {
        controller.alter_configs(self).await
    }

    fn refused(&self, error: &ApiError) -> AlterConfigsResponse {
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
        AlterConfigsResponse {
            responses: refused.collect(),
            ..AlterConfigsResponse::default()
        }
    }
}
