//! CreatePartitions: decided by the controller.

use std::sync::Arc;

use klamm_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use klamm_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for CreatePartitionsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> CreatePartitionsResponse {
        let refused = self.clone();
        match broker.controller.create_partitions(self).await {
            Ok(response) => response,
            Err(error) => CreatePartitionsResponse {
                results: refused
                    .topics
                    .iter()
                    .map(|asked| CreatePartitionsTopicResult {
                        name: asked.name.clone(),
                        error_code: error.code.into(),
                        error_message: error.wire_message(),
                        ..CreatePartitionsTopicResult::default()
                    })
                    .collect(),
                ..CreatePartitionsResponse::default()
            },
        }
    }
}
