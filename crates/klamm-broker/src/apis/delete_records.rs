//! DeleteRecords: moves the start of logs.

use std::sync::Arc;

use klamm_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use klamm_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for DeleteRecordsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> DeleteRecordsResponse {
        let wishes: Vec<(&str, i32, i64)> = self
            .topics
            .iter()
            .flat_map(|topic| {
                let partitions = topic.partitions.iter();
                partitions.map(|asked| (&*topic.name, asked.partition_index, asked.offset))
            })
            .collect();
        let mut deleted = broker
            .replicas
            .delete_records(&wishes, self.timeout_ms)
            .await
            .into_iter();
        let topics = self.topics.iter().map(|topic| DeleteRecordsTopicResult {
            name: topic.name.clone(),
            partitions: topic
                .partitions
                .iter()
                .zip(&mut deleted)
                .map(|(asked, deleted)| DeleteRecordsPartitionResult {
                    partition_index: asked.partition_index,
                    low_watermark: deleted.low_watermark,
                    error_code: deleted.error.into(),
                    ..DeleteRecordsPartitionResult::default()
                })
                .collect(),
            ..DeleteRecordsTopicResult::default()
        });
        DeleteRecordsResponse {
            topics: topics.collect(),
            ..DeleteRecordsResponse::default()
        }
    }
}
