//! IncrementalAlterConfigs (KIP-339): decided by the controller.

use std::sync::Arc;

use klamm_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use klamm_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for IncrementalAlterConfigsRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        _: RequestContext,
    ) -> IncrementalAlterConfigsResponse {
        let refused = self.clone();
        match broker.controller.incremental_alter_configs(self).await {
            Ok(response) => response,
            Err(error) => IncrementalAlterConfigsResponse {
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
                ..IncrementalAlterConfigsResponse::default()
            },
        }
    }
}
