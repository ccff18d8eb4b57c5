//! DescribeProducers (KIP-664): which producers a partition's leader knows.

use std::sync::Arc;

use klamm_controller::managers::topics::invalid_name_message;
use klamm_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use klamm_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse};
use klamm_protocol::{ErrorCode, topic_name};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

/// The text beside the code where Kafka has one.
type Refusal = (ErrorCode, Option<String>);

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
                        Err((error, message)) => PartitionResponse {
                            partition_index: *index,
                            error_code: error.into(),
                            error_message: message.map(|text| text.as_str().into()),
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

fn describe(broker: &Shared, topic: &str, partition: i32) -> Result<Vec<ProducerState>, Refusal> {
    if let Err(error) = topic_name::validate(topic) {
        let message = invalid_name_message(topic, error);
        return Err((ErrorCode::InvalidTopicException, Some(message)));
    }
    if broker.image().topic(topic).is_none() {
        let message = "This server does not host this topic-partition.".to_owned();
        return Err((ErrorCode::UnknownTopicOrPartition, Some(message)));
    }
    let producers = broker.replicas.active_producers(topic, partition);
    let producers = producers.map_err(|error| (error, None))?;
    if broker.replicas.leader_epoch(topic, partition).is_none() {
        return Err((ErrorCode::NotLeaderOrFollower, None));
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
