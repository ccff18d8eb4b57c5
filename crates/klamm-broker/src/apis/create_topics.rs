//! CreateTopics: decided by the controller; answered once this broker serves the topics.

use klamm_controller::{ApiError, Controller, Describable};
use klamm_protocol::messages::create_topics_response::CreatableTopicResult;
use klamm_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};

use crate::context::RequestContext;
use crate::controller::ControllerApi;

impl ControllerApi for CreateTopicsRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<CreateTopicsResponse, ApiError> {
        controller.create_topics(self, Describable::All).await
    }

    fn timeout_ms(&self) -> Option<i32> {
        Some(self.timeout_ms)
    }

    fn refused(&self, error: &ApiError) -> CreateTopicsResponse {
        let refused = self.topics.iter().map(|asked| CreatableTopicResult {
            name: asked.name.clone(),
            error_code: error.code.into(),
            error_message: error.wire_message(),
            ..CreatableTopicResult::default()
        });
        CreateTopicsResponse {
            topics: refused.collect(),
            ..CreateTopicsResponse::default()
        }
    }
}
