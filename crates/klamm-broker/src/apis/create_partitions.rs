//! CreatePartitions: decided by the controller.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use klamm_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use crate::context::RequestContext;
use crate::controller::ControllerApi;

impl ControllerApi for CreatePartitionsRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<CreatePartitionsResponse, ApiError> {
        controller.create_partitions(self).await
    }

    fn timeout_ms(&self) -> Option<i32> {
        Some(self.timeout_ms)
    }

    fn refused(&self, error: &ApiError) -> CreatePartitionsResponse {
        let refused = self.topics.iter().map(|asked| CreatePartitionsTopicResult {
            name: asked.name.clone(),
            error_code: error.code.into(),
            error_message: error.wire_message(),
            ..CreatePartitionsTopicResult::default()
        });
        CreatePartitionsResponse {
            results: refused.collect(),
            ..CreatePartitionsResponse::default()
        }
    }
}
