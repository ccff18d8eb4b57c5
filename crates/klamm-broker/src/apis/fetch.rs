//! Fetch: the session says what is wanted, replication reads or waits, and the response names the
//! file ranges that the socket is fed from.

use std::sync::Arc;

use klamm_log::LogSlice;
use klamm_metadata::MetadataImage;
use klamm_net::{Handling, Part, Reply};
use klamm_protocol::messages::fetch_request::FetchTopic;
use klamm_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
    PartitionData,
};
use klamm_protocol::messages::{FetchRequest, FetchResponse};
use klamm_protocol::{ByteStr, Decoder, ErrorCode, Records, Request, Segment};
use klamm_records::Uuid;
use klamm_replication::fetch_session::{
    FetchPartition, Finished, SessionRequest, TopicIdPartition,
};
use klamm_replication::{FetchParams, FetchedPartition};
use tracing::error;

use super::read_replica::redirect;
use crate::context::RequestContext;
use crate::dispatch::{Entry, decode, encode_segments};
use crate::shared::Shared;

pub(super) const ENTRY: Entry = Entry {
    key: FetchRequest::API_KEY,
    dispatch,
};

/// From here on topics are named by id.
const TOPIC_ID_VERSION: i16 = 13;
/// From here on a consumer tells its rack and may be sent to a follower (KIP-392).
const RACK_VERSION: i16 = 11;
/// From here on an answer tells who leads instead and where that is (KIP-951).
const LEADER_HINT_VERSION: i16 = 16;
/// The replica id of consumers.
const NO_REPLICA: i32 = -1;
/// `isolation_level` of consumers that must not see open or aborted transactions.
const READ_COMMITTED: i8 = 1;

fn dispatch(broker: &Arc<Shared>, context: RequestContext, body: Decoder) -> Handling {
    let request = match decode::<FetchRequest>(&context, body) {
        Ok(request) => request,
        Err(reply) => return Handling::Ready(reply),
    };
    let broker = broker.clone();
    Handling::Barrier(Box::pin(async move {
        let timer = broker
            .metrics
            .request_started(FetchRequest::API_KEY, &context);
        let finished = fetch(&broker, &context, request).await;
        timer.handled();
        respond(&broker, &context, finished)
    }))
}

async fn fetch(
    broker: &Shared,
    context: &RequestContext,
    request: FetchRequest,
) -> Finished<FetchedPartition> {
    let image = broker.image();
    let by_id = context.api_version >= TOPIC_ID_VERSION;
    let replica_id = if context.api_version >= 15 {
        request.replica_state.replica_id
    } else {
        request.replica_id
    };
    let names = Names {
        image: &image,
        by_id,
    };
    let forgotten: Vec<TopicIdPartition> = request
        .forgotten_topics_data
        .iter()
        .flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|partition| names.of(&topic.topic, topic.topic_id, *partition))
        })
        .collect();
    let sessions = broker.replicas.sessions();
    let session = sessions.begin(
        SessionRequest {
            session_id: request.session_id,
            epoch: request.session_epoch,
            uses_topic_ids: by_id,
            from_follower: replica_id >= 0,
            partitions: request
                .topics
                .iter()
                .flat_map(|topic| wishes(&names, topic))
                .collect(),
            forgotten: &forgotten,
        },
        &|id| image.topic_by_id(id).map(|topic| topic.name().clone()),
        broker.env.clock.wall_ms(),
    );
    let answers = if session.error().is_some() {
        Vec::new()
    } else {
        let params = params(broker, context, &request, replica_id);
        let rack = &*request.rack_id;
        let may_be_sent_elsewhere = broker.settings.rack_aware_reads
            && context.api_version >= RACK_VERSION
            && replica_id == NO_REPLICA
            && !rack.is_empty();
        if may_be_sent_elsewhere {
            fetch_near(broker, &image, rack, params, session.partitions()).await
        } else {
            broker.replicas.fetch(&params, session.partitions()).await
        }
    };
    let asked = session
        .partitions()
        .iter()
        .map(|(partition, _)| partition.clone());
    let answers = asked.zip(answers).collect();
    let now_ms = broker.env.clock.wall_ms();
    sessions.finish(session, answers, now_ms, &*broker.env.rng)
}

/// As [`klamm_replication::ReplicaManager::fetch`], but partitions that a replica in the consumer's
/// rack should be asked for are not read. The consumer hears of those at once.
async fn fetch_near(
    broker: &Shared,
    image: &MetadataImage,
    rack: &str,
    mut params: FetchParams,
    partitions: &[(TopicIdPartition, FetchPartition)],
) -> Vec<FetchedPartition> {
    let mut answers: Vec<Option<FetchedPartition>> = partitions
        .iter()
        .map(|(partition, wish)| redirect(broker, image, rack, partition, wish))
        .collect();
    let rest: Vec<(TopicIdPartition, FetchPartition)> = partitions
        .iter()
        .zip(&answers)
        .filter(|(_, answer)| answer.is_none())
        .map(|(partition, _)| partition.clone())
        .collect();
    if rest.len() < partitions.len() {
        params.max_wait_ms = 0;
    }
    let mut read = broker.replicas.fetch(&params, &rest).await.into_iter();
    for answer in &mut answers {
        if answer.is_none() {
            *answer = read.next();
        }
    }
    answers.into_iter().flatten().collect()
}

fn params(
    broker: &Shared,
    context: &RequestContext,
    request: &FetchRequest,
    replica_id: i32,
) -> FetchParams {
    let consumer = replica_id == NO_REPLICA;
    // A follower may fetch as much as it wants; consumers are bound by the broker as well.
    let limit = if consumer {
        broker.settings.fetch_bytes_max
    } else {
        i32::MAX
    };
    FetchParams {
        replica_id,
        replica_epoch: request.replica_state.replica_epoch,
        max_wait_ms: request.max_wait_ms,
        min_bytes: request.min_bytes,
        max_bytes: request.max_bytes.min(limit),
        isolation: FetchParams::isolation_of(replica_id, request.isolation_level == READ_COMMITTED),
        leader_only: !(consumer && context.api_version >= RACK_VERSION),
    }
}

/// Topics as sessions and replication know them.
struct Names<'a> {
    image: &'a MetadataImage,
    by_id: bool,
}

impl Names<'_> {
    fn of(&self, name: &ByteStr, id: Uuid, partition: i32) -> TopicIdPartition {
        if self.by_id {
            let topic = self.image.topic_by_id(id).map(|topic| topic.name().clone());
            return TopicIdPartition {
                topic,
                topic_id: id,
                partition,
            };
        }
        // The image's own text if there is one: sessions keep it.
        let known = self.image.topic(name).map(|topic| topic.name().clone());
        TopicIdPartition::by_name(known.unwrap_or_else(|| Arc::from(&**name)), partition)
    }
}

fn wishes<'a>(
    names: &'a Names<'_>,
    topic: &'a FetchTopic,
) -> impl Iterator<Item = (TopicIdPartition, FetchPartition)> + 'a {
    let given = |epoch: i32| (epoch >= 0).then_some(epoch);
    topic.partitions.iter().map(move |wish| {
        let partition = names.of(&topic.topic, topic.topic_id, wish.partition);
        let wish = FetchPartition {
            fetch_offset: wish.fetch_offset,
            log_start_offset: wish.log_start_offset,
            max_bytes: wish.partition_max_bytes,
            current_leader_epoch: given(wish.current_leader_epoch),
            last_fetched_epoch: given(wish.last_fetched_epoch),
            high_watermark: (wish.high_watermark != i64::MAX).then_some(wish.high_watermark),
        };
        (partition, wish)
    })
}

fn respond(
    broker: &Shared,
    context: &RequestContext,
    finished: Finished<FetchedPartition>,
) -> Reply {
    let image = broker.image();
    let mut files = Vec::new();
    let mut nodes: Vec<NodeEndpoint> = Vec::new();
    let mut topics: Vec<FetchableTopicResponse> = Vec::new();
    for (partition, mut answer) in finished.partitions {
        if context.api_version < LEADER_HINT_VERSION {
            answer.current_leader = None;
        }
        if let Some(leader) = answer.current_leader
            && nodes.iter().all(|node| node.node_id != leader.leader_id)
        {
            let listener = &context.connection.listener;
            let endpoint = broker.endpoint_of(&image, leader.leader_id, listener);
            nodes.extend(endpoint.map(|(endpoint, rack)| NodeEndpoint {
                node_id: leader.leader_id,
                host: endpoint.host.as_str().into(),
                port: endpoint.port.into(),
                rack: rack.map(ByteStr::from),
                ..NodeEndpoint::default()
            }));
        }
        count(broker, &image, &partition, &answer);
        let data = partition_data(partition.partition, answer, &mut files);
        // Partitions of one topic that follow each other share an entry, as in Kafka.
        match topics.last_mut() {
            Some(topic) if is_same(topic, &partition) => topic.partitions.push(data),
            _ => topics.push(FetchableTopicResponse {
                topic: partition.topic.as_deref().unwrap_or_default().into(),
                topic_id: partition.topic_id,
                partitions: vec![data],
                ..FetchableTopicResponse::default()
            }),
        }
    }
    let error = finished.error.map_or(ErrorCode::None, ErrorCode::from);
    let response = FetchResponse {
        error_code: error.into(),
        session_id: finished.session_id,
        responses: topics,
        node_endpoints: nodes,
        ..FetchResponse::default()
    };
    assemble(context, &response, files)
}

/// Counts a partition's answer under its topic's name.
fn count(
    broker: &Shared,
    image: &MetadataImage,
    partition: &TopicIdPartition,
    answer: &FetchedPartition,
) {
    let Some(topic) = partition
        .topic
        .as_deref()
        .and_then(|name| image.topic(name))
    else {
        return;
    };
    let stats = broker.metrics.topic(topic.name());
    stats.fetch_requests.add(1);
    stats.bytes_out.add(answer.records.len() as u64);
    if answer.error != ErrorCode::None {
        stats.failed_fetch_requests.add(1);
    }
}

fn is_same(topic: &FetchableTopicResponse, partition: &TopicIdPartition) -> bool {
    topic.topic_id == partition.topic_id
        && *topic.topic == *partition.topic.as_deref().unwrap_or_default()
}

/// One partition's part of the response. The records go into `files`, as one external segment that
/// stands for all of their ranges.
fn partition_data(
    index: i32,
    answer: FetchedPartition,
    files: &mut Vec<LogSlice>,
) -> PartitionData {
    let records = match answer.records.parts() {
        [] => Records::Bytes(bytes::Bytes::new()),
        parts => {
            let token = files.len();
            files.extend(parts.iter().cloned());
            Records::External {
                len: answer.records.len(),
                token,
            }
        }
    };
    let aborted = answer.aborted.map(|aborted| {
        let listed = aborted.into_iter().map(|txn| AbortedTransaction {
            producer_id: txn.producer_id,
            first_offset: txn.first_offset,
            ..AbortedTransaction::default()
        });
        listed.collect()
    });
    PartitionData {
        partition_index: index,
        error_code: answer.error.into(),
        high_watermark: answer.high_watermark,
        last_stable_offset: answer.last_stable_offset,
        log_start_offset: answer.log_start_offset,
        diverging_epoch: answer.diverging_epoch.map_or_else(
            EpochEndOffset::default,
            |(epoch, end_offset)| EpochEndOffset {
                epoch,
                end_offset,
                ..EpochEndOffset::default()
            },
        ),
        current_leader: answer
            .current_leader
            .map_or_else(LeaderIdAndEpoch::default, |leader| LeaderIdAndEpoch {
                leader_id: leader.leader_id,
                leader_epoch: leader.leader_epoch,
                ..LeaderIdAndEpoch::default()
            }),
        aborted_transactions: aborted,
        preferred_read_replica: answer.preferred_read_replica.unwrap_or(NO_REPLICA),
        records: Some(records),
        ..PartitionData::default()
    }
}

/// Encodes the response and puts the file ranges where their segments stand.
fn assemble(context: &RequestContext, response: &FetchResponse, files: Vec<LogSlice>) -> Reply {
    let segments = match encode_segments::<FetchRequest>(context, response) {
        Ok(segments) => segments,
        Err(error) => {
            error!(version = context.api_version, %error, "cannot encode a fetch response");
            return Reply::Close;
        }
    };
    let mut parts = Vec::with_capacity(segments.len() + files.len());
    for segment in segments {
        match segment {
            Segment::Bytes(bytes) => parts.push(Part::Bytes(bytes)),
            Segment::External { mut len, token } => {
                for slice in &files[token..] {
                    if len == 0 {
                        break;
                    }
                    len -= slice.len;
                    parts.push(Part::File {
                        file: slice.file.clone(),
                        position: slice.position,
                        len: slice.len as u64,
                    });
                }
            }
        }
    }
    Reply::Send(parts)
}
