//! CreateTopics: decided by the controller; answered once this broker serves the topics.

use std::sync::Arc;

use klamm_controller::Describable;
use klamm_protocol::messages::create_topics_response::CreatableTopicResult;
use klamm_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for CreateTopicsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> CreateTopicsResponse {
        let refused = self.clone();
        match broker
            .controller
            .create_topics(self, Describable::All)
            .await
        {
            Ok(response) => response,
            Err(error) => CreateTopicsResponse {
                topics: refused
                    .topics
                    .iter()
                    .map(|asked| CreatableTopicResult {
                        name: asked.name.clone(),
                        error_code: error.code.into(),
                        error_message: error.wire_message(),
                        ..CreatableTopicResult::default()
                    })
                    .collect(),
                ..CreateTopicsResponse::default()
            },
        }
    }
}
