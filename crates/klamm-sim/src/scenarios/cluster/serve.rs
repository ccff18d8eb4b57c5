//! What a broker answers: the thin part between requests and the replica manager.

use std::sync::Arc;

use bytes::Bytes;
use klamm_env::Clock as _;
use klamm_metadata::MetadataImage;
use klamm_protocol::messages::fetch_request::FetchTopic;
use klamm_protocol::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use klamm_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use klamm_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
};
use klamm_protocol::{ErrorCode, Records};
use klamm_records::{TopicPartition, Uuid};
use klamm_replication::fetch_session::{FetchPartition, SessionRequest, TopicIdPartition};
use klamm_replication::{
    FetchParams, FetchedPartition, Isolation, OffsetQuery, ProduceContext, ProduceResult,
    ReadIsolation, TopicRef,
};

use super::Flaw;
use super::node::Broker;
use super::world::World;

fn broker(world: &World, id: i32) -> Option<Broker> {
    world.nodes.get(&id)?.broker()
}

/// Who leads a partition, as a broker knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lead {
    pub(super) leader: i32,
    pub(super) epoch: i32,
    pub(super) topic_id: Uuid,
}

/// Answers a client's question for the leader of a partition.
pub(super) fn lead(world: &World, id: i32, partition: &TopicPartition) -> Option<Lead> {
    let image = broker(world, id)?.image();
    let topic = image.topic(&partition.topic)?;
    let known = topic.partition(partition.partition)?;
    Some(Lead {
        leader: known.leader,
        epoch: known.leader_epoch,
        topic_id: topic.id(),
    })
}

/// Appends a batch, and answers once it is acknowledged as `acks` wants it, or time is up.
pub(super) async fn produce(
    world: &World,
    id: i32,
    partition: &TopicPartition,
    batch: Bytes,
    acks: i16,
) -> Option<ProduceResult> {
    let replicas = broker(world, id)?.replicas.clone();
    let context = ProduceContext {
        api_version: 12,
        internal_topics_allowed: false,
    };
    let topic = TopicRef::Name(&partition.topic);
    let prepared = replicas.prepare(topic, partition.partition, batch, context);
    let epoch = replicas.leader_epoch(&partition.topic, partition.partition);
    let acks = match world.flaw {
        Flaw::AckBeforeReplication => acks.max(1),
        _ => acks,
    };
    let end = || {
        let offsets = replicas.offsets(&partition.topic, partition.partition);
        offsets.map_or(-1, |offsets| offsets.log_end_offset)
    };
    let before = end();
    let timeout_ms = 1_000 * world.plan.timing.stretch;
    let pending = replicas.append_now(vec![prepared], acks, timeout_ms as i32);
    if end() > before {
        world.note(format_args!(
            "{id} appends {partition} {before} in {epoch:?}"
        ));
        world.history().appended(partition, epoch, id);
    }
    pending.wait().await.pop()
}

/// Answers a fetch of a follower or a consumer.
pub(super) async fn fetch(world: &World, id: i32, request: FetchRequest) -> Option<FetchResponse> {
    let broker = broker(world, id)?;
    let clock = &world.nodes.get(&id)?.clock;
    let image = broker.image();
    let replica = request.replica_state.replica_id;
    let forgotten: Vec<TopicIdPartition> = request
        .forgotten_topics_data
        .iter()
        .flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|partition| named(&image, topic.topic_id, *partition))
        })
        .collect();
    let sessions = broker.replicas.sessions();
    let request_of_session = SessionRequest {
        session_id: request.session_id,
        epoch: request.session_epoch,
        uses_topic_ids: true,
        from_follower: replica >= 0,
        partitions: request
            .topics
            .iter()
            .flat_map(|topic| wishes(&image, topic))
            .collect(),
        forgotten: &forgotten,
    };
    let resolve = |id| image.topic_by_id(id).map(|topic| topic.name().clone());
    let session = sessions.begin(request_of_session, &resolve, clock.wall_ms());
    let answers = if session.error().is_some() {
        Vec::new()
    } else {
        let mut isolation = FetchParams::isolation_of(replica, false);
        if world.flaw == Flaw::DirtyReads {
            isolation = Isolation::LogEnd;
        }
        let params = FetchParams {
            replica_id: replica,
            replica_epoch: request.replica_state.replica_epoch,
            max_wait_ms: request.max_wait_ms,
            min_bytes: request.min_bytes,
            max_bytes: request.max_bytes,
            isolation,
            leader_only: true,
        };
        broker.replicas.fetch(&params, session.partitions()).await
    };
    let asked = session.partitions().iter().map(|(name, _)| name.clone());
    let answers = asked.zip(answers).collect();
    let finished = sessions.finish(session, answers, clock.wall_ms(), &broker.rng);
    let mut response = FetchResponse {
        error_code: finished
            .error
            .map_or(ErrorCode::None, ErrorCode::from)
            .code(),
        session_id: finished.session_id,
        ..FetchResponse::default()
    };
    for (name, answer) in finished.partitions {
        response.responses.push(FetchableTopicResponse {
            topic_id: name.topic_id,
            partitions: vec![partition_data(name.partition, &answer)?],
            ..FetchableTopicResponse::default()
        });
    }
    Some(response)
}

fn named(image: &MetadataImage, topic_id: Uuid, partition: i32) -> TopicIdPartition {
    TopicIdPartition {
        topic: image
            .topic_by_id(topic_id)
            .map(|topic| topic.name().clone()),
        topic_id,
        partition,
    }
}

fn wishes<'a>(
    image: &'a Arc<MetadataImage>,
    topic: &'a FetchTopic,
) -> impl Iterator<Item = (TopicIdPartition, FetchPartition)> + 'a {
    let given = |epoch: i32| (epoch >= 0).then_some(epoch);
    topic.partitions.iter().map(move |wish| {
        let partition = named(image, topic.topic_id, wish.partition);
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

/// `None` if the records cannot be read: the connection would break.
fn partition_data(index: i32, answer: &FetchedPartition) -> Option<PartitionData> {
    let records = answer.records.read().ok()?;
    let parted =
        answer
            .diverging_epoch
            .map_or_else(EpochEndOffset::default, |(epoch, end_offset)| {
                EpochEndOffset {
                    epoch,
                    end_offset,
                    ..EpochEndOffset::default()
                }
            });
    Some(PartitionData {
        partition_index: index,
        error_code: answer.error.code(),
        high_watermark: answer.high_watermark,
        last_stable_offset: answer.last_stable_offset,
        log_start_offset: answer.log_start_offset,
        diverging_epoch: parted,
        records: Some(Records::Bytes(records.into())),
        ..PartitionData::default()
    })
}

/// Answers where logs start and end. Consumers see committed records only.
pub(super) fn list_offsets(
    world: &World,
    id: i32,
    request: &ListOffsetsRequest,
) -> ListOffsetsResponse {
    let broker = broker(world, id);
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let query = OffsetQuery {
                timestamp: asked.timestamp,
                current_leader_epoch: (asked.current_leader_epoch >= 0)
                    .then_some(asked.current_leader_epoch),
                isolation: (request.replica_id < 0).then_some(ReadIsolation::Uncommitted),
                leader_only: true,
            };
            let found = broker
                .as_ref()
                .map_or(Err(ErrorCode::BrokerNotAvailable), |broker| {
                    broker
                        .replicas
                        .list_offset(&topic.name, asked.partition_index, query)
                });
            ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                error_code: found.err().unwrap_or(ErrorCode::None).code(),
                offset: found.map_or(-1, |found| found.offset),
                leader_epoch: found.map_or(-1, |found| found.leader_epoch),
                ..ListOffsetsPartitionResponse::default()
            }
        });
        ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions: partitions.collect(),
            ..ListOffsetsTopicResponse::default()
        }
    });
    ListOffsetsResponse {
        topics: topics.collect(),
        ..ListOffsetsResponse::default()
    }
}
