//! DescribeTopicPartitions (KIP-966): topics page by page, with eligible leader replicas.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_metadata::{MetadataImage, PartitionImage, TopicImage};
use klamm_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use klamm_protocol::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use klamm_protocol::{ByteStr, ErrorCode, topic_name};

use crate::authorized;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for DescribeTopicPartitionsRequest {
    const MAY_BE_OVERTAKEN: bool = true;

    async fn handle(
        self,
        broker: Arc<Shared>,
        context: RequestContext,
    ) -> DescribeTopicPartitionsResponse {
        if !has_valid_cursor(&self) {
            return refused(&self);
        }
        let image = broker.image();
        let limit = self
            .response_partition_limit
            .min(broker.settings.describe_partitions_max);
        let from_topic = self.cursor.as_ref().map_or("", |cursor| &cursor.topic_name);
        let names: BTreeSet<&str> = if self.topics.is_empty() {
            image
                .topics()
                .iter_from(from_topic)
                .map(|topic| &**topic.name())
                .collect()
        } else {
            let asked = self.topics.iter().map(|topic| &*topic.name);
            asked.filter(|name| *name >= from_topic).collect()
        };
        let mut page = Page {
            broker: &broker,
            image: &image,
            listener: &context.connection.listener,
            left: usize::try_from(limit).unwrap_or(0).max(1),
            response: DescribeTopicPartitionsResponse::default(),
        };
        for name in names {
            let first = match &self.cursor {
                Some(cursor) if *cursor.topic_name == *name => cursor.partition_index,
                _ => 0,
            };
            if !page.add(name, first) {
                break;
            }
        }
        page.response
    }
}

/// Whether a cursor points into the topics that were asked for.
fn has_valid_cursor(request: &DescribeTopicPartitionsRequest) -> bool {
    request.cursor.as_ref().is_none_or(|cursor| {
        let asked = || {
            request
                .topics
                .iter()
                .any(|topic| topic.name == cursor.topic_name)
        };
        cursor.partition_index >= 0 && (request.topics.is_empty() || asked())
    })
}

fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let refused = request
        .topics
        .iter()
        .map(|topic| DescribeTopicPartitionsResponseTopic {
            error_code: ErrorCode::InvalidRequest.into(),
            name: Some(topic.name.clone()),
            topic_authorized_operations: authorized::NOT_REQUESTED,
            ..DescribeTopicPartitionsResponseTopic::default()
        });
    DescribeTopicPartitionsResponse {
        topics: refused.collect(),
        ..DescribeTopicPartitionsResponse::default()
    }
}

struct Page<'a> {
    broker: &'a Shared,
    image: &'a MetadataImage,
    listener: &'a str,
    /// Partitions that still fit.
    left: usize,
    response: DescribeTopicPartitionsResponse,
}

impl Page<'_> {
    /// Adds a topic from its partition `first` on; `false` when the page is full.
    fn add(&mut self, name: &str, first: i32) -> bool {
        let Some(topic) = self.image.topic(name) else {
            let error = match topic_name::validate(name) {
                Ok(()) => ErrorCode::UnknownTopicOrPartition,
                Err(_) => ErrorCode::InvalidTopicException,
            };
            self.response
                .topics
                .push(DescribeTopicPartitionsResponseTopic {
                    error_code: error.into(),
                    name: Some(name.into()),
                    is_internal: topic_name::is_internal(name),
                    topic_authorized_operations: authorized::NOT_REQUESTED,
                    ..DescribeTopicPartitionsResponseTopic::default()
                });
            return true;
        };
        if self.left == 0 {
            self.end_at(name, first);
            return false;
        }
        let mut rest = topic.partitions_from(first);
        let partitions: Vec<_> = rest
            .by_ref()
            .take(self.left)
            .map(|(index, state)| self.partition(index, state))
            .collect();
        let next = rest.next().map(|(index, _)| index);
        self.left -= partitions.len();
        self.push(topic, partitions);
        if let Some(next) = next {
            self.end_at(name, next);
            return false;
        }
        true
    }

    fn push(
        &mut self,
        topic: &TopicImage,
        partitions: Vec<DescribeTopicPartitionsResponsePartition>,
    ) {
        self.response
            .topics
            .push(DescribeTopicPartitionsResponseTopic {
                name: Some(ByteStr::from(&**topic.name())),
                topic_id: topic.id(),
                is_internal: topic_name::is_internal(topic.name()),
                partitions,
                topic_authorized_operations: authorized::TOPIC,
                ..DescribeTopicPartitionsResponseTopic::default()
            });
    }

    fn end_at(&mut self, topic: &str, partition_index: i32) {
        self.response.next_cursor = Some(Cursor {
            topic_name: topic.into(),
            partition_index,
            ..Cursor::default()
        });
    }

    fn partition(
        &self,
        index: i32,
        state: &PartitionImage,
    ) -> DescribeTopicPartitionsResponsePartition {
        let (leader, error) = self.broker.visible_leader(self.image, state, self.listener);
        DescribeTopicPartitionsResponsePartition {
            error_code: error.into(),
            partition_index: index,
            leader_id: leader,
            leader_epoch: state.leader_epoch,
            replica_nodes: state.replicas.clone(),
            isr_nodes: state.isr.clone(),
            eligible_leader_replicas: Some(state.elr.clone()),
            last_known_elr: Some(state.last_known_elr.clone()),
            offline_replicas: self.image.offline_replicas(state),
            ..DescribeTopicPartitionsResponsePartition::default()
        }
    }
}
