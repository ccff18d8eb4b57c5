//! Metadata: brokers and topics as the client's listener sees them; creates topics on the way if
//! the client and the broker allow it.

use std::sync::Arc;

use klamm_metadata::{MetadataImage, PartitionImage, TopicImage};
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_protocol::messages::{MetadataRequest, MetadataResponse};
use klamm_protocol::{ByteStr, ErrorCode, topic_name};
use klamm_records::Uuid;

use crate::authorized;
use crate::auto_create;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

/// From here on a topic can be asked for by id.
const TOPIC_ID_VERSION: i16 = 12;
/// Before this version offline partitions were hidden, and every topic had to have a name.
const NULLABLE_NAME_VERSION: i16 = 12;

impl Api for MetadataRequest {
    const MAY_BE_OVERTAKEN: bool = true;

    async fn handle(mut self, broker: Arc<Shared>, context: RequestContext) -> MetadataResponse {
        if let Some(refused) = refuse_early_ids(&self, context.api_version) {
            return refused;
        }
        if let Some(topics) = &mut self.topics {
            keep_ids_if_any(topics);
        }
        // In version 0 there was no null: an empty list asked for everything.
        let all = match &self.topics {
            None => true,
            Some(topics) => topics.is_empty() && context.api_version == 0,
        };
        let mut image = broker.image();
        if !all && (self.allow_auto_topic_creation || context.api_version < 4) {
            let names = self
                .topics
                .iter()
                .flatten()
                .filter_map(|topic| topic.name.as_deref());
            let missing: Vec<&str> = names.filter(|name| image.topic(name).is_none()).collect();
            if auto_create::create_missing(&broker, &missing).await {
                image = broker.image();
            }
        }
        let answer = Answer {
            broker: &broker,
            image: &image,
            context: &context,
            request: &self,
        };
        let topics = if all {
            image
                .topics()
                .iter()
                .map(|topic| answer.topic(topic))
                .collect()
        } else {
            self.topics
                .iter()
                .flatten()
                .map(|topic| answer.asked(topic))
                .collect()
        };
        MetadataResponse {
            brokers: answer.brokers(),
            cluster_id: Some(broker.cluster_id.as_str().into()),
            controller_id: broker.some_alive_broker(&image, &context.connection.listener),
            topics,
            cluster_authorized_operations: authorized::if_requested(
                self.include_cluster_authorized_operations,
                authorized::CLUSTER,
            ),
            ..MetadataResponse::default()
        }
    }
}

/// Versions 10 and 11 have room for ids but Kafka does not take them there.
fn refuse_early_ids(request: &MetadataRequest, version: i16) -> Option<MetadataResponse> {
    let topics = request.topics.as_ref()?;
    let early = |topic: &MetadataRequestTopic| topic.name.is_none() || !topic.topic_id.is_zero();
    if version >= TOPIC_ID_VERSION || !topics.iter().any(early) {
        return None;
    }
    let refused = |topic: &MetadataRequestTopic| MetadataResponseTopic {
        error_code: ErrorCode::InvalidRequest.into(),
        name: Some(topic.name.clone().unwrap_or_default()),
        topic_id: topic.topic_id,
        ..MetadataResponseTopic::default()
    };
    Some(MetadataResponse {
        topics: topics.iter().map(refused).collect(),
        ..MetadataResponse::default()
    })
}

/// One id makes it a request by ids: names, which Java's client leaves empty and not null then, do
/// not count.
fn keep_ids_if_any(topics: &mut Vec<MetadataRequestTopic>) {
    if topics.iter().all(|topic| topic.topic_id.is_zero()) {
        return;
    }
    topics.retain(|topic| !topic.topic_id.is_zero());
    for topic in topics {
        topic.name = None;
    }
}

struct Answer<'a> {
    broker: &'a Shared,
    image: &'a MetadataImage,
    context: &'a RequestContext,
    request: &'a MetadataRequest,
}

impl Answer<'_> {
    fn brokers(&self) -> Vec<MetadataResponseBroker> {
        let endpoints = self
            .image
            .cluster()
            .alive_endpoints(&self.context.connection.listener);
        endpoints
            .map(|(broker, endpoint)| MetadataResponseBroker {
                node_id: broker.id,
                host: endpoint.host.as_str().into(),
                port: endpoint.port.into(),
                rack: broker.rack.as_deref().map(ByteStr::from),
                ..MetadataResponseBroker::default()
            })
            .collect()
    }

    fn asked(&self, asked: &MetadataRequestTopic) -> MetadataResponseTopic {
        let found = match &asked.name {
            Some(name) => self.image.topic(name).ok_or_else(|| name_error(name)),
            None => self
                .image
                .topic_by_id(asked.topic_id)
                .ok_or(ErrorCode::UnknownTopicId),
        };
        match found {
            Ok(topic) => self.topic(topic),
            Err(error) => self.unknown(asked.name.clone(), asked.topic_id, error),
        }
    }

    fn unknown(&self, name: Option<ByteStr>, id: Uuid, error: ErrorCode) -> MetadataResponseTopic {
        let nullable = self.context.api_version >= NULLABLE_NAME_VERSION;
        MetadataResponseTopic {
            error_code: error.into(),
            is_internal: name.as_deref().is_some_and(topic_name::is_internal),
            name: if nullable {
                name
            } else {
                Some(name.unwrap_or_default())
            },
            topic_id: id,
            topic_authorized_operations: authorized::NOT_REQUESTED,
            ..MetadataResponseTopic::default()
        }
    }

    fn topic(&self, topic: &TopicImage) -> MetadataResponseTopic {
        let partitions = topic.partitions();
        MetadataResponseTopic {
            name: Some(ByteStr::from(&**topic.name())),
            topic_id: topic.id(),
            is_internal: topic_name::is_internal(topic.name()),
            partitions: partitions
                .map(|(index, state)| self.partition(index, state))
                .collect(),
            topic_authorized_operations: authorized::if_requested(
                self.request.include_topic_authorized_operations,
                authorized::TOPIC,
            ),
            ..MetadataResponseTopic::default()
        }
    }

    fn partition(&self, index: i32, state: &PartitionImage) -> MetadataResponsePartition {
        let (leader, error) =
            self.broker
                .visible_leader(self.image, state, &self.context.connection.listener);
        MetadataResponsePartition {
            error_code: error.into(),
            partition_index: index,
            leader_id: leader,
            leader_epoch: state.leader_epoch,
            replica_nodes: state.replicas.clone(),
            isr_nodes: state.isr.clone(),
            offline_replicas: self.image.offline_replicas(state),
            ..MetadataResponsePartition::default()
        }
    }
}

/// Why there is no topic of this name.
fn name_error(name: &str) -> ErrorCode {
    match topic_name::validate(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    }
}
