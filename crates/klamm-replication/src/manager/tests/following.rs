//! A follower beside its leader: two managers in one process, with a channel that serves fetches as
//! a broker does. Rounds are run by hand.

use std::sync::atomic::AtomicI64;

use klamm_protocol::Records;
use klamm_protocol::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use klamm_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use klamm_protocol::messages::{
    FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse,
};

use super::*;
use crate::fetch_session::SessionRequest;
use crate::fetcher::plan::FetchLimits;
use crate::fetcher::{ChannelError, Fetcher, FetcherCommand, LeaderChannel, RoundEnd};

/// The leader, reached without a network.
#[derive(Debug)]
struct Local {
    leader: ReplicaManager,
    image: Arc<MetadataImage>,
    /// Requests as they came: how many partitions each named.
    named: Arc<Mutex<Vec<usize>>>,
    broken: Arc<Mutex<bool>>,
}

impl Local {
    async fn serve(&self, request: FetchRequest) -> FetchResponse {
        let wishes = request.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|wish| {
                let partition = self.name(topic.topic_id, wish.partition);
                let given = |epoch: i32| (epoch >= 0).then_some(epoch);
                let wish = FetchPartition {
                    fetch_offset: wish.fetch_offset,
                    log_start_offset: wish.log_start_offset,
                    max_bytes: wish.partition_max_bytes,
                    current_leader_epoch: given(wish.current_leader_epoch),
                    last_fetched_epoch: given(wish.last_fetched_epoch),
                    high_watermark: (wish.high_watermark != i64::MAX)
                        .then_some(wish.high_watermark),
                };
                (partition, wish)
            })
        });
        let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
            let partitions = topic.partitions.iter();
            partitions.map(|partition| self.name(topic.topic_id, *partition))
        });
        let forgotten: Vec<_> = forgotten.collect();
        let sessions = self.leader.sessions();
        let session = sessions.begin(
            SessionRequest {
                session_id: request.session_id,
                epoch: request.session_epoch,
                uses_topic_ids: true,
                from_follower: true,
                partitions: wishes.collect(),
                forgotten: &forgotten,
            },
            &|id| self.image.topic_by_id(id).map(|topic| topic.name().clone()),
            START_MS,
        );
        let params = FetchParams {
            replica_id: request.replica_state.replica_id,
            replica_epoch: request.replica_state.replica_epoch,
            max_wait_ms: 0,
            min_bytes: request.min_bytes,
            max_bytes: request.max_bytes,
            isolation: Isolation::LogEnd,
            leader_only: true,
        };
        let answers = match session.error() {
            Some(_) => Vec::new(),
            None => self.leader.fetch(&params, session.partitions()).await,
        };
        let asked: Vec<_> = session
            .partitions()
            .iter()
            .map(|(p, _)| p.clone())
            .collect();
        let answers = asked.into_iter().zip(answers).collect();
        let finished = sessions.finish(session, answers, START_MS, &SplitMix64::new(3));
        FetchResponse {
            error_code: finished
                .error
                .map_or(0, |error| ErrorCode::from(error).code()),
            session_id: finished.session_id,
            responses: finished.partitions.into_iter().map(wire).collect(),
            ..FetchResponse::default()
        }
    }

    fn name(&self, topic_id: Uuid, partition: i32) -> TopicIdPartition {
        TopicIdPartition {
            topic: self
                .image
                .topic_by_id(topic_id)
                .map(|topic| topic.name().clone()),
            topic_id,
            partition,
        }
    }
}

fn wire((name, answer): (TopicIdPartition, FetchedPartition)) -> FetchableTopicResponse {
    let parted = answer
        .diverging_epoch
        .map(|(epoch, end_offset)| EpochEndOffset {
            epoch,
            end_offset,
            ..EpochEndOffset::default()
        });
    let records = answer.records.read().unwrap();
    FetchableTopicResponse {
        topic_id: name.topic_id,
        partitions: vec![PartitionData {
            partition_index: name.partition,
            error_code: answer.error.code(),
            high_watermark: answer.high_watermark,
            log_start_offset: answer.log_start_offset,
            diverging_epoch: parted.unwrap_or_default(),
            records: Some(Records::Bytes(records.into())),
            ..PartitionData::default()
        }],
        ..FetchableTopicResponse::default()
    }
}

impl LeaderChannel for Local {
    async fn fetch(&mut self, request: FetchRequest) -> Result<FetchResponse, ChannelError> {
        let named = request.topics.iter().map(|topic| topic.partitions.len());
        lock(&self.named).push(named.sum());
        let response = self.serve(request).await;
        match *lock(&self.broken) {
            true => Err(ChannelError::Answer("lost".into())),
            false => Ok(response),
        }
    }

    async fn list_offsets(
        &mut self,
        request: ListOffsetsRequest,
    ) -> Result<ListOffsetsResponse, ChannelError> {
        let offsets = self.leader.offsets(&request.topics[0].name, 0).unwrap();
        let offset = match request.topics[0].partitions[0].timestamp {
            LATEST_TIMESTAMP => offsets.log_end_offset,
            EARLIEST_TIMESTAMP => offsets.log_start_offset,
            other => panic!("{other}"),
        };
        Ok(ListOffsetsResponse {
            topics: vec![ListOffsetsTopicResponse {
                partitions: vec![ListOffsetsPartitionResponse {
                    offset,
                    ..ListOffsetsPartitionResponse::default()
                }],
                ..ListOffsetsTopicResponse::default()
            }],
            ..ListOffsetsResponse::default()
        })
    }
}

/// Node 1 leads `t-0`, node 2 follows.
struct Pair {
    leader: Broker,
    follower: Broker,
    fetcher: Fetcher<Local>,
    named: Arc<Mutex<Vec<usize>>>,
    broken: Arc<Mutex<bool>>,
}

impl Pair {
    fn new() -> Self {
        Pair::with(Broker::new(), Broker::of_node(OTHER))
    }

    fn with(mut leader: Broker, mut follower: Broker) -> Self {
        let replicas = partition(0, &[NODE, OTHER]);
        leader.create("t", std::slice::from_ref(&replicas));
        let changes = follower.create("t", &[replicas]);
        assert_eq!(changes.following.len(), 1);
        assert_eq!(changes.following[0].leader, Some(NODE));
        let (named, broken) = (Arc::default(), Arc::default());
        let channel = Local {
            leader: leader.manager.clone(),
            image: Arc::clone(&leader.image),
            named: Arc::clone(&named),
            broken: Arc::clone(&broken),
        };
        let mut fetcher = Fetcher::new(
            follower.manager.clone(),
            NODE,
            Arc::new(AtomicI64::new(9)),
            channel,
            FetchLimits::default(),
        );
        fetcher.command(FetcherCommand::Follow(TopicPartition::new("t", 0), id("t")));
        Pair {
            leader,
            follower,
            fetcher,
            named,
            broken,
        }
    }

    fn round(&mut self) -> RoundEnd {
        ready(self.fetcher.round())
    }

    /// Until the follower knows of all that the leader has, and that it is committed.
    fn catch_up(&mut self) {
        for _ in 0..10 {
            self.round();
        }
        let (leader, follower) = (self.leader.offsets(), self.follower.offsets());
        assert_eq!(leader.log_end_offset, follower.log_end_offset);
        assert_eq!(leader.high_watermark, follower.high_watermark);
    }

    /// The bytes of both logs, which must be the same.
    fn log(&self) -> Vec<u8> {
        let bytes = |broker: &Broker| {
            let log = broker
                .manager
                .logs()
                .get(&TopicPartition::new("t", 0))
                .unwrap();
            let read = log
                .read(log.log_start_offset(), 1 << 20, i64::MAX, true)
                .unwrap();
            FetchSlices::new(read.parts, read.len).read().unwrap()
        };
        let leader = bytes(&self.leader);
        assert_eq!(leader, bytes(&self.follower));
        leader
    }
}

#[test]
fn an_answer_may_fill_several_segments() {
    let with_small_segments = |mut broker: Broker| {
        broker.settings.log.segment_bytes = 200;
        broker
    };
    let follower = with_small_segments(Broker::of_node(OTHER));
    let mut pair = Pair::with(with_small_segments(Broker::new()), follower);
    for value in ["a", "b", "c", "d", "e"] {
        pair.leader.produce(&[value]);
    }
    pair.round();
    assert_eq!(pair.follower.offsets().log_end_offset, 5);
    let segments = |broker: &Broker| {
        let logs = broker.manager.logs();
        let log = logs.get(&TopicPartition::new("t", 0)).unwrap();
        log.segment_base_offsets()
    };
    assert_eq!(segments(&pair.leader), [0, 2, 4]);
    assert_eq!(segments(&pair.follower), [0, 2, 4]);
}

#[test]
fn a_follower_copies_the_log_and_lets_the_high_watermark_move() {
    let mut pair = Pair::new();
    let waiting = pair.leader.produce_acks(&["a", "b"], -1);
    assert!(!waiting.is_ready());
    pair.round();
    // The records are there; that they are is known with the next fetch.
    assert_eq!(pair.follower.offsets().log_end_offset, 2);
    assert!(!waiting.is_ready());
    pair.round();
    assert!(waiting.is_ready());
    assert_eq!(ready(waiting.wait())[0].error, ErrorCode::None);
    // That fetch was answered before it moved the high watermark: the follower hears of it next.
    assert_eq!(pair.follower.offsets().high_watermark, 0);
    pair.round();
    assert_eq!(pair.follower.offsets().high_watermark, 2);
    pair.leader.produce(&["c"]);
    pair.catch_up();
    assert!(!pair.log().is_empty());
}

#[test]
fn a_round_names_only_what_moved() {
    let mut pair = Pair::new();
    pair.leader.produce(&["a"]);
    for _ in 0..5 {
        pair.round();
    }
    // All; then the new offset; nothing; the new high watermark; then nothing any more.
    assert_eq!(*lock(&pair.named), [1, 1, 0, 1, 0]);
}

#[test]
fn a_lost_answer_starts_the_session_over() {
    let mut pair = Pair::new();
    pair.leader.produce(&["a"]);
    pair.round();
    *lock(&pair.broken) = true;
    assert_eq!(pair.round(), RoundEnd::Pause(1_000));
    *lock(&pair.broken) = false;
    pair.leader.produce(&["b"]);
    pair.catch_up();
    assert_eq!(lock(&pair.named)[2], 1);
    pair.log();
}

#[test]
fn a_parted_log_is_cut_to_the_common_part() {
    let mut pair = Pair::new();
    pair.leader.produce(&["a", "b"]);
    pair.catch_up();
    // The follower leads for a while and takes a record that nobody copies, then the former
    // leader is back and goes on.
    let led_by = |leader, epoch| PartitionRecord {
        leader,
        leader_epoch: epoch,
        partition_epoch: epoch,
        ..partition(0, &[NODE, OTHER])
    };
    pair.follower.change("t", led_by(OTHER, 4));
    pair.follower.produce(&["lost", "as well"]);
    pair.follower.produce(&["and this"]);
    pair.leader.change("t", led_by(NODE, 5));
    pair.leader.produce(&["c"]);
    // Still under the old epoch the answer must not be followed.
    assert_eq!(pair.follower.offsets().log_end_offset, 5);
    pair.follower.change("t", led_by(NODE, 5));
    pair.fetcher
        .command(FetcherCommand::Follow(TopicPartition::new("t", 0), id("t")));
    pair.catch_up();
    assert_eq!(pair.follower.offsets().log_end_offset, 3);
    pair.log();
}

#[test]
fn an_answer_from_a_former_epoch_is_not_followed() {
    let mut pair = Pair::new();
    pair.leader.produce(&["a"]);
    let t0 = TopicPartition::new("t", 0);
    let data = PartitionData {
        high_watermark: 1,
        log_start_offset: 0,
        ..PartitionData::default()
    };
    let followed = pair.follower.manager.follow(&t0, 2, &data);
    assert_eq!(followed, Err(FollowError::Moved));
    assert!(pair.follower.manager.follower_wish(&t0, 7).is_none());
    pair.catch_up();
}

#[test]
fn a_follower_left_behind_starts_at_the_leaders_start() {
    let mut pair = Pair::new();
    for record in ["a", "b", "c"] {
        pair.leader.produce(&[record]);
    }
    let log = pair
        .leader
        .manager
        .logs()
        .get(&TopicPartition::new("t", 0))
        .unwrap();
    log.set_high_watermark(3);
    log.delete_records_before(2).unwrap();
    pair.catch_up();
    assert_eq!(pair.follower.offsets().log_start_offset, 2);
    pair.log();
}

#[test]
fn what_the_leader_deletes_is_deleted() {
    let mut pair = Pair::new();
    for record in ["a", "b", "c"] {
        pair.leader.produce(&[record]);
    }
    pair.catch_up();
    let log = pair
        .leader
        .manager
        .logs()
        .get(&TopicPartition::new("t", 0))
        .unwrap();
    log.delete_records_before(2).unwrap();
    pair.leader.produce(&["d"]);
    pair.catch_up();
    assert_eq!(pair.follower.offsets().log_start_offset, 2);
}

#[test]
fn an_error_of_one_partition_pauses_it() {
    let mut pair = Pair::new();
    pair.leader.delete("t");
    assert_eq!(pair.round(), RoundEnd::GoOn);
    assert_eq!(pair.round(), RoundEnd::Pause(1_000));
    pair.fetcher.command(FetcherCommand::Unfollow(id("t"), 0));
    assert_eq!(pair.round(), RoundEnd::Idle);
}
