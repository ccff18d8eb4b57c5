//! AlterConfigs, the older form that replaces all of a resource's configs: decided by the controller.

use std::sync::Arc;

use klamm_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use klamm_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for AlterConfigsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> AlterConfigsResponse {
        let refused = self.clone();
        match broker.controller.alter_configs(self).await {
            Ok(response) => response,
            Err(error) => AlterConfigsResponse {
                responses: refused
                    .resources
                    .iter()
                    .map(|asked| AlterConfigsResourceResponse {
                        resource_type: asked.resource_type,
                        resource_name: asked.resource_name.clone(),
                        error_code: error.code.into(),
                        error_message: error.wire_message(),
                        ..AlterConfigsResourceResponse::default()
                    })
                    .collect(),
                ..AlterConfigsResponse::default()
            },
        }
    }
}
