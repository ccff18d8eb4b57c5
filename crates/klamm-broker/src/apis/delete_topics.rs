//! DeleteTopics: decided by the controller; answered once this broker has let go of the topics.

use std::sync::Arc;

use klamm_protocol::ByteStr;
use klamm_protocol::messages::delete_topics_response::DeletableTopicResult;
use klamm_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use klamm_records::Uuid;

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for DeleteTopicsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> DeleteTopicsResponse {
        let refused = self.clone();
        match broker.controller.delete_topics(self).await {
            Ok(response) => response,
            Err(error) => {
                let result = |name: Option<ByteStr>, topic_id| DeletableTopicResult {
                    name,
                    topic_id,
                    error_code: error.code.into(),
                    error_message: error.wire_message(),
                    ..DeletableTopicResult::default()
                };
                let by_name = refused
                    .topic_names
                    .into_iter()
                    .map(|name| (Some(name), Uuid::ZERO));
                let states = refused
                    .topics
                    .into_iter()
                    .map(|topic| (topic.name, topic.topic_id));
                DeleteTopicsResponse {
                    responses: by_name
                        .chain(states)
                        .map(|(name, id)| result(name, id))
                        .collect(),
                    ..DeleteTopicsResponse::default()
                }
            }
        }
    }
}
