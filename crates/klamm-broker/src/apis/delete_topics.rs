//! DeleteTopics: decided by the controller; answered once this broker has let go of the topics.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::ByteStr;
use klamm_protocol::messages::delete_topics_response::DeletableTopicResult;
use klamm_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use klamm_records::Uuid;

use crate::context::RequestContext;
use crate::controller::ControllerApi;

impl ControllerApi for DeleteTopicsRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<DeleteTopicsResponse, ApiError> {
        controller.delete_topics(self).await
    }

    fn timeout_ms(&self) -> Option<i32> {
        Some(self.timeout_ms)
    }

    fn refused(&self, error: &ApiError) -> DeleteTopicsResponse {
        let result = |name: Option<ByteStr>, topic_id| DeletableTopicResult {
            name,
            topic_id,
            error_code: error.code.into(),
            error_message: error.wire_message(),
            ..DeletableTopicResult::default()
        };
        let names = self.topic_names.iter();
        let by_name = names.map(|name| (Some(name.clone()), Uuid::ZERO));
        let states = self.topics.iter();
        let states = states.map(|topic| (topic.name.clone(), topic.topic_id));
        DeleteTopicsResponse {
            responses: by_name
                .chain(states)
                .map(|(name, id)| result(name, id))
                .collect(),
            ..DeleteTopicsResponse::default()
        }
    }
}
