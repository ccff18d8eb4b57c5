//! DescribeProducers (KIP-664): which producers a partition's leader knows.

use std::sync::Arc;

use klamm_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use klamm_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};
use klamm_protocol::{ErrorCode, topic_name};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for DescribeProducersRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> DescribeProducersResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partition_indexes.iter();
            TopicResponse {
                name: topic.name.clone(),
                partitions: partitions
                    .map(|index| match describe(&broker, &topic.name, *index) {
                        Ok(active_producers) => PartitionResponse {
                            partition_index: *index,
                            active_producers,
                            ..PartitionResponse::default()
                        },
                        Err(error) => PartitionResponse {
                            partition_index: *index,
                            error_code: error.into(),
                            ..PartitionResponse::default()
                        },
                    })
                    .collect(),
                ..TopicResponse::default()
            }
        });
        DescribeProducersResponse {
            topics: topics.collect(),
            ..DescribeProducersResponse::default()
        }
    }
}

fn describe(broker: &Shared, topic: &str, partition: i32) -> Result<Vec<ProducerState>, ErrorCode> {
    topic_name::validate(topic).map_err(|_| ErrorCode::InvalidTopicException)?;
    let producers = broker.replicas.active_producers(topic, partition)?;
    if broker.replicas.leader_epoch(topic, partition).is_none() {
        return Err(ErrorCode::NotLeaderOrFollower);
    }
    let states = producers.into_iter().map(|producer| ProducerState {
        producer_id: producer.producer_id,
        producer_epoch: producer.producer_epoch.into(),
        last_sequence: producer.last_sequence,
        last_timestamp: producer.last_timestamp,
        coordinator_epoch: producer.coordinator_epoch,
        current_txn_start_offset: producer.current_txn_start_offset,
        ..ProducerState::default()
    });
    Ok(states.collect())
}
