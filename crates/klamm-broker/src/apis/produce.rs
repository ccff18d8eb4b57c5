//! Produce: batches are validated and appended while the frame is at hand; only the wait for
//! replicas is left for later, so that the connection goes on reading (docs/architecture.md).

use std::sync::Arc;

use klamm_metadata::MetadataImage;
use klamm_net::{Handling, Part, Reply};
use klamm_protocol::hot::ProducedWriter;
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    TopicProduceResponse,
};
use klamm_protocol::messages::{ProduceRequest, ProduceResponse};
use klamm_protocol::{ByteStr, Decoder, ErrorCode, Records, Request};
use klamm_records::BatchHeader;
use klamm_replication::{Prepared, ProduceContext, ProduceResult, TopicRef};
use tokio::task::spawn_blocking;
use tracing::debug;

use super::transactional_writes::{Checks, Verdict};
use crate::context::RequestContext;
use crate::dispatch::{Entry, decode, encode};
use crate::ops::RequestTimer;
use crate::shared::Shared;

pub(super) const ENTRY: Entry = Entry {
    key: ProduceRequest::API_KEY,
    dispatch,
};

/// From here on topics are named by id.
const TOPIC_ID_VERSION: i16 = 13;
/// From here on an answer tells who leads instead and where that is (KIP-951).
const LEADER_HINT_VERSION: i16 = 10;
/// The client id with which tools may write to internal topics.
const ADMIN_CLIENT: &str = "__admin_client";

fn dispatch(broker: &Arc<Shared>, context: RequestContext, body: Decoder) -> Handling {
    let request = match decode::<ProduceRequest>(&context, body) {
        Ok(request) => request,
        Err(reply) => return Handling::Ready(reply),
    };
    let timer = broker
        .metrics
        .request_started(ProduceRequest::API_KEY, &context);
    let version = context.api_version;
    let checks = match &request.transactional_id {
        Some(_) => Checks::begin(broker, version, &request),
        None => None,
    };
    let Some(mut checks) = checks else {
        return append(broker, context, request, Vec::new(), timer);
    };
    if !checks.must_ask() {
        return append(broker, context, request, checks.into_verdicts(), timer);
    }
    // The connection waits: a later request of the producer must not overtake this one.
    let broker = broker.clone();
    Handling::Barrier(Box::pin(async move {
        let transactional_id = request.transactional_id.clone().unwrap_or_default();
        checks.ask(&broker, &transactional_id).await;
        let verdicts = checks.into_verdicts();
        match append(&broker, context, request, verdicts, timer) {
            Handling::Ready(reply) => reply,
            Handling::Pipelined(reply) | Handling::Barrier(reply) => reply.await,
        }
    }))
}

/// Validates and appends. `verdicts` has one for each partition, or none at all.
fn append(
    broker: &Arc<Shared>,
    context: RequestContext,
    request: ProduceRequest,
    verdicts: Vec<Verdict>,
    timer: RequestTimer,
) -> Handling {
    let prepared = prepare(broker, &context, &request, verdicts);
    let (acks, timeout_ms) = (request.acks, request.timeout_ms);
    let answer = Answer {
        topics: request.topic_data,
        acks,
    };
    if broker.replicas.would_stall(&prepared) {
        // The disk does not keep up. Waiting for it belongs on a thread that others do not need; a
        // barrier keeps what follows on this connection behind this request.
        let broker = broker.clone();
        return Handling::Barrier(Box::pin(async move {
            let replicas = broker.replicas.clone();
            let append = move || replicas.append_now(prepared, acks, timeout_ms);
            let Ok(pending) = spawn_blocking(append).await else {
                return Reply::Close;
            };
            let results = pending.wait().await;
            timer.handled();
            answer.reply(&broker, &context, results)
        }));
    }
    let pending = broker.replicas.append_now(prepared, acks, timeout_ms);
    if pending.is_ready() {
        let results = pending.into_results();
        timer.handled();
        return Handling::Ready(answer.reply(broker, &context, results));
    }
    let broker = broker.clone();
    Handling::Pipelined(Box::pin(async move {
        let results = pending.wait().await;
        timer.handled();
        answer.reply(&broker, &context, results)
    }))
}

/// Looks up and validates every partition of the request, in its order.
fn prepare(
    broker: &Shared,
    context: &RequestContext,
    request: &ProduceRequest,
    verdicts: Vec<Verdict>,
) -> Vec<Prepared> {
    let produce = ProduceContext {
        api_version: context.api_version,
        internal_topics_allowed: &*context.client_id == ADMIN_CLIENT,
    };
    let partitions = request
        .topic_data
        .iter()
        .map(|topic| topic.partition_data.len())
        .sum();
    let mut prepared = Vec::with_capacity(partitions);
    let unnamed_transaction = request.transactional_id.is_none()
        && request
            .topic_data
            .iter()
            .flat_map(|topic| &topic.partition_data)
            .any(is_transactional);
    let mut verdicts = verdicts.into_iter();
    for topic in &request.topic_data {
        let name = topic_ref(context.api_version, topic);
        for partition in &topic.partition_data {
            let verdict = verdicts.next().unwrap_or_default();
            if let Some(refused) = verdict.refused {
                prepared.push(Prepared::refused_with(refused));
                continue;
            }
            if unnamed_transaction {
                // As in Kafka: nobody may write to a transaction that is not named.
                let error = ErrorCode::TransactionalIdAuthorizationFailed;
                prepared.push(Prepared::refused(error));
                continue;
            }
            let records = partition
                .records
                .as_ref()
                .and_then(Records::as_bytes)
                .cloned();
            let records = records.unwrap_or_default();
            prepared.push(
                broker
                    .replicas
                    .prepare(name, partition.index, records, produce)
                    .verified(verdict.guard),
            );
        }
    }
    prepared
}

/// The topic as this version of the request names it.
pub(super) fn topic_ref(version: i16, topic: &TopicProduceData) -> TopicRef<'_> {
    if version >= TOPIC_ID_VERSION {
        TopicRef::Id(topic.topic_id)
    } else {
        TopicRef::Name(&topic.name)
    }
}

fn is_transactional(partition: &PartitionProduceData) -> bool {
    let records = partition.records.as_ref().and_then(Records::as_bytes);
    let header = records.and_then(|records| BatchHeader::parse(records).ok());
    header.is_some_and(|header| header.attributes.is_transactional())
}

/// What is kept of a request until it is answered.
struct Answer {
    topics: Vec<TopicProduceData>,
    acks: i16,
}

impl Answer {
    fn reply(
        self,
        broker: &Shared,
        context: &RequestContext,
        results: Vec<ProduceResult>,
    ) -> Reply {
        let image = broker.image();
        self.count(broker, &image, &results);
        if self.acks == 0 {
            // There is no answer that could carry an error: losing the connection tells a producer
            // with acks=0 that it should look at the metadata again.
            let failed = results
                .iter()
                .find(|result| result.error != ErrorCode::None);
            return match failed {
                None => Reply::Nothing,
                Some(result) => {
                    debug!(peer = %context.connection.peer, error = ?result.error, "acks=0 produce failed");
                    Reply::Close
                }
            };
        }
        if results.iter().all(is_plain) && ProducedWriter::VERSIONS.contains(&context.api_version) {
            return self.plain_reply(context, &results);
        }
        let mut nodes = Vec::new();
        let mut results = results.into_iter();
        let responses = self
            .topics
            .into_iter()
            .map(|topic| {
                let answers = topic.partition_data.iter().zip(&mut results);
                TopicProduceResponse {
                    name: topic.name.clone(),
                    topic_id: topic.topic_id,
                    partition_responses: answers
                        .map(|(asked, mut result)| {
                            if context.api_version < LEADER_HINT_VERSION {
                                result.current_leader = None;
                            }
                            note_leader(&mut nodes, &image, &result, context, broker);
                            partition_response(asked.index, result)
                        })
                        .collect(),
                    ..TopicProduceResponse::default()
                }
            })
            .collect();
        let response = ProduceResponse {
            responses,
            node_endpoints: nodes,
            ..ProduceResponse::default()
        };
        encode::<ProduceRequest>(context, &response)
    }

    /// The usual answer: all partitions were appended to.
    fn plain_reply(&self, context: &RequestContext, results: &[ProduceResult]) -> Reply {
        let (id, version) = (context.correlation_id, context.api_version);
        let mut writer = ProducedWriter::begin(id, version, self.topics.len(), results.len());
        let mut results = results.iter();
        for topic in &self.topics {
            let partitions = &topic.partition_data;
            writer.topic(&topic.name, topic.topic_id, partitions.len());
            for (asked, result) in partitions.iter().zip(&mut results) {
                writer.partition(
                    asked.index,
                    result.base_offset,
                    result.log_append_time_ms,
                    result.log_start_offset,
                );
            }
            writer.end_topic();
        }
        Reply::Send(vec![Part::Bytes(writer.finish())])
    }

    /// Counts each partition's outcome under its topic's name.
    fn count(&self, broker: &Shared, image: &MetadataImage, results: &[ProduceResult]) {
        let mut results = results.iter();
        for topic in &self.topics {
            let answers = topic.partition_data.iter().zip(&mut results);
            let found = match &*topic.name {
                "" => image.topic_by_id(topic.topic_id),
                name => image.topic(name),
            };
            let Some(found) = found else {
                answers.for_each(drop);
                continue;
            };
            let stats = broker.metrics.topic(found.name());
            let (mut failed, mut bytes, mut messages) = (0, 0, 0);
            for (asked, result) in answers {
                if result.error != ErrorCode::None {
                    failed += 1;
                } else if let Some(records) = asked.records.as_ref().and_then(Records::as_bytes) {
                    bytes += records.len() as u64;
                    messages += record_count(records);
                }
            }
            stats
                .produce_requests
                .add(topic.partition_data.len() as u64);
            stats.bytes_in.add(bytes);
            stats.messages_in.add(messages);
            if failed > 0 {
                stats.failed_produce_requests.add(failed);
            }
        }
    }
}

/// Whether there is no more to say than where the records are.
fn is_plain(result: &ProduceResult) -> bool {
    result.error == ErrorCode::None
        && result.error_message.is_none()
        && result.record_errors.is_empty()
        && result.current_leader.is_none()
}

/// How many records a batch says that it has.
fn record_count(records: &[u8]) -> u64 {
    let header = BatchHeader::parse(records).ok();
    header.map_or(0, |header| u64::try_from(header.record_count).unwrap_or(0))
}

fn partition_response(index: i32, result: ProduceResult) -> PartitionProduceResponse {
    let current_leader = result
        .current_leader
        .map_or_else(LeaderIdAndEpoch::default, |leader| LeaderIdAndEpoch {
            leader_id: leader.leader_id,
            leader_epoch: leader.leader_epoch,
            ..LeaderIdAndEpoch::default()
        });
    let record_errors = result
        .record_errors
        .into_iter()
        .map(|(batch_index, message)| BatchIndexAndErrorMessage {
            batch_index,
            batch_index_error_message: Some(message.into()),
            ..BatchIndexAndErrorMessage::default()
        });
    PartitionProduceResponse {
        index,
        error_code: result.error.into(),
        base_offset: result.base_offset,
        log_append_time_ms: result.log_append_time_ms,
        log_start_offset: result.log_start_offset,
        record_errors: record_errors.collect(),
        error_message: result.error_message.map(ByteStr::from),
        current_leader,
        ..PartitionProduceResponse::default()
    }
}

/// Tells where the leader is reached, next to saying who it is (KIP-951).
fn note_leader(
    nodes: &mut Vec<NodeEndpoint>,
    image: &MetadataImage,
    result: &ProduceResult,
    context: &RequestContext,
    broker: &Shared,
) {
    let Some(leader) = result.current_leader else {
        return;
    };
    if nodes.iter().any(|node| node.node_id == leader.leader_id) {
        return;
    }
    let listener = &context.connection.listener;
    if let Some((endpoint, rack)) = broker.endpoint_of(image, leader.leader_id, listener) {
        nodes.push(NodeEndpoint {
            node_id: leader.leader_id,
            host: endpoint.host.as_str().into(),
            port: endpoint.port.into(),
            rack: rack.map(ByteStr::from),
            ..NodeEndpoint::default()
        });
    }
}
