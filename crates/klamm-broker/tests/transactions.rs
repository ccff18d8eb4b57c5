//! Transactions over loopback, request by request: old clients and new ones, what each is told, and
//! what is left after a restart.

mod common;

use common::transactions::{
    FETCH, ID, Producer, batch, end_request, init_request, produce_one, stable, stable_request,
};
use common::{Client, produce_error, produce_request, start};
use klamm_broker::Broker;
use klamm_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use klamm_protocol::messages::*;
use klamm_protocol::{ErrorCode, Records};

/// The last version of each request of clients without epoch bumps.
const OLD_PRODUCE: i16 = 11;

fn code(error: ErrorCode) -> i16 {
    error.into()
}

struct World {
    dir: tempfile::TempDir,
    broker: Broker,
    client: Client,
}

impl World {
    async fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let broker = start(dir.path(), &[("transaction.state.log.num.partitions", "2")]).await;
        let mut client = Client::connect(&broker).await;
        let topic = MetadataRequestTopic {
            name: Some("t".into()),
            ..MetadataRequestTopic::default()
        };
        let metadata = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: true,
            ..MetadataRequest::default()
        };
        client.ask(9, &metadata).await;
        let mut world = World {
            dir,
            broker,
            client,
        };
        world.find(1, ID).await;
        world.find(0, "g").await;
        world
    }

    /// FindCoordinator, which makes the internal topic.
    async fn find(&mut self, key_type: i8, key: &str) {
        let request = FindCoordinatorRequest {
            key_type,
            coordinator_keys: vec![key.into()],
            ..FindCoordinatorRequest::default()
        };
        let found = self.client.ask(4, &request).await;
        assert_eq!(found.coordinators[0].error_code, 0);
    }

    async fn restart(self) -> World {
        self.broker.shutdown().await;
        let broker = start(self.dir.path(), &[]).await;
        let client = Client::connect(&broker).await;
        World {
            dir: self.dir,
            broker,
            client,
        }
    }

    /// InitProducerId, again while the coordinator loads or a transaction ends.
    async fn init(&mut self, version: i16) -> Producer {
        let request = init_request();
        loop {
            let answer = self.client.ask(version, &request).await;
            match ErrorCode::from_code(answer.error_code).unwrap() {
                ErrorCode::None => return (answer.producer_id, answer.producer_epoch),
                ErrorCode::CoordinatorLoadInProgress | ErrorCode::ConcurrentTransactions => {
                    tokio::task::yield_now().await;
                }
                error => panic!("InitProducerId: {error}"),
            }
        }
    }

    async fn add(&mut self, version: i16, producer: Producer, topic: &str) -> i16 {
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: ID.into(),
            v3_and_below_producer_id: producer.0,
            v3_and_below_producer_epoch: producer.1,
            v3_and_below_topics: vec![AddPartitionsToTxnTopic {
                name: topic.into(),
                partitions: vec![0],
                ..AddPartitionsToTxnTopic::default()
            }],
            ..AddPartitionsToTxnRequest::default()
        };
        let answer = self.client.ask(version, &request).await;
        answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
    }

    async fn produce(&mut self, version: i16, producer: Producer, sequence: i32) -> i16 {
        let request = produce_one("t", producer, sequence);
        produce_error(&self.client.ask(version, &request).await)
    }

    async fn end(&mut self, version: i16, producer: Producer, committed: bool) -> EndTxnResponse {
        let request = end_request(producer, committed);
        self.client.ask(version, &request).await
    }

    /// How far one may read with `read_committed`, and how many transactions were aborted.
    async fn stable(&mut self) -> (i64, usize) {
        let request = stable_request("t");
        stable(&self.client.ask(FETCH, &request).await)
    }

    /// The same once the stable offset has moved to `offset`.
    async fn stable_at(&mut self, offset: i64) -> usize {
        loop {
            let (stable, aborted) = self.stable().await;
            if stable == offset {
                return aborted;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn commit_offset(&mut self, version: i16, producer: Producer, offset: i64) -> i16 {
        let request = TxnOffsetCommitRequest {
            transactional_id: ID.into(),
            group_id: "g".into(),
            producer_id: producer.0,
            producer_epoch: producer.1,
            generation_id: -1,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: "t".into(),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    committed_offset: offset,
                    ..TxnOffsetCommitRequestPartition::default()
                }],
                ..TxnOffsetCommitRequestTopic::default()
            }],
            ..TxnOffsetCommitRequest::default()
        };
        let answer = self.client.ask(version, &request).await;
        answer.topics[0].partitions[0].error_code
    }

    /// The committed offset, or the error; waits for a stable one if that is asked for.
    async fn offset(&mut self, require_stable: bool) -> Result<i64, i16> {
        let request = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: "g".into(),
                topics: Some(vec![OffsetFetchRequestTopics {
                    name: "t".into(),
                    partition_indexes: vec![0],
                    ..OffsetFetchRequestTopics::default()
                }]),
                ..OffsetFetchRequestGroup::default()
            }],
            require_stable,
            ..OffsetFetchRequest::default()
        };
        let answer = self.client.ask(8, &request).await;
        let group = &answer.groups[0];
        if group.error_code != 0 {
            return Err(group.error_code);
        }
        let partition = &group.topics[0].partitions[0];
        match partition.error_code {
            0 => Ok(partition.committed_offset),
            error => Err(error),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_clients_add_partitions_and_keep_their_epoch() {
    let mut world = World::new().await;
    let producer = world.init(3).await;
    // Not added: what an old client understands depends on its version.
    let refused = world.produce(9, producer, 0).await;
    assert_eq!(refused, code(ErrorCode::InvalidTxnState));
    let refused = world.produce(OLD_PRODUCE, producer, 0).await;
    assert_eq!(refused, code(ErrorCode::TransactionAbortable));
    let absent = world.add(3, producer, "absent").await;
    assert_eq!(absent, code(ErrorCode::UnknownTopicOrPartition));
    assert_eq!(world.add(3, producer, "t").await, 0);
    assert_eq!(world.produce(OLD_PRODUCE, producer, 0).await, 0);
    assert_eq!(world.produce(OLD_PRODUCE, producer, 1).await, 0);
    assert_eq!(world.stable().await, (0, 0));
    let ended = world.end(4, producer, true).await;
    assert_eq!((ended.error_code, ended.producer_id), (0, -1));
    assert_eq!(world.stable_at(3).await, 0);
    // A late batch of the transaction must not open one that nobody ends.
    // Between the marker and the note that the transaction is over it is to be tried again.
    let again = code(ErrorCode::NotEnoughReplicas);
    let mut late = again;
    while late == again {
        late = world.produce(OLD_PRODUCE, producer, 2).await;
    }
    assert_eq!(late, code(ErrorCode::TransactionAbortable));
    assert_eq!(world.stable_at(3).await, 0);
    world.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fenced_clients_are_told_what_their_version_knows() {
    let mut world = World::new().await;
    let old = world.init(4).await;
    assert_eq!(world.add(3, old, "t").await, 0);
    assert_eq!(world.produce(OLD_PRODUCE, old, 0).await, 0);
    let new = world.init(4).await;
    assert_eq!(new.0, old.0);
    let (fenced, outdated) = (
        code(ErrorCode::ProducerFenced),
        code(ErrorCode::InvalidProducerEpoch),
    );
    assert_eq!(world.add(1, old, "t").await, outdated);
    assert_eq!(world.add(2, old, "t").await, fenced);
    assert_eq!(world.end(1, old, true).await.error_code, outdated);
    assert_eq!(world.end(2, old, true).await.error_code, fenced);
    assert_eq!(world.end(5, old, true).await.error_code, fenced);
    assert_eq!(world.produce(OLD_PRODUCE, old, 1).await, outdated);
    assert_eq!(world.stable_at(2).await, 1);
    world.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_clients_leave_partitions_to_the_broker_and_change_their_epoch() {
    let mut world = World::new().await;
    let first = world.init(5).await;
    assert_eq!(world.produce(12, first, 0).await, 0);
    let ended = world.end(5, first, false).await;
    let second = (ended.producer_id, ended.producer_epoch);
    assert_eq!((ended.error_code, second), (0, (first.0, first.1 + 1)));
    // At once: the broker waits for the transaction before to end.
    assert_eq!(world.produce(12, second, 0).await, 0);
    let late = world.produce(12, first, 1).await;
    assert_eq!(late, code(ErrorCode::InvalidProducerEpoch));
    // The answer got lost.
    let again = world.end(5, second, true).await;
    let lost = world.end(5, second, true).await;
    if lost.error_code == 0 {
        assert_eq!(lost.producer_epoch, again.producer_epoch);
    } else {
        assert_eq!(lost.error_code, code(ErrorCode::ConcurrentTransactions));
    }
    assert_eq!(world.stable_at(4).await, 1);
    world.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_transaction_survives_a_restart() {
    let mut world = World::new().await;
    let producer = world.init(5).await;
    assert_eq!(world.produce(12, producer, 0).await, 0);
    assert_eq!(world.commit_offset(5, producer, 7).await, 0);
    let mut world = world.restart().await;
    assert_eq!(world.stable().await, (0, 0));
    let ended = loop {
        let ended = world.end(5, producer, true).await;
        if ended.error_code != code(ErrorCode::CoordinatorLoadInProgress) {
            break ended;
        }
    };
    assert_eq!(ended.error_code, 0);
    assert_eq!(world.stable_at(2).await, 0);
    while world.offset(true).await != Ok(7) {
        tokio::task::yield_now().await;
    }
    let mut world = world.restart().await;
    while world.offset(true).await != Ok(7) {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.stable().await, (2, 0));
    world.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_a_transaction_are_added_before_they_are_committed() {
    let mut world = World::new().await;
    let producer = world.init(3).await;
    let refused = world.commit_offset(3, producer, 5).await;
    assert_eq!(refused, code(ErrorCode::InvalidTxnState));
    let refused = world.commit_offset(4, producer, 5).await;
    assert_eq!(refused, code(ErrorCode::TransactionAbortable));
    let add = AddOffsetsToTxnRequest {
        transactional_id: ID.into(),
        producer_id: producer.0,
        producer_epoch: producer.1,
        group_id: "g".into(),
        ..AddOffsetsToTxnRequest::default()
    };
    assert_eq!(world.client.ask(3, &add).await.error_code, 0);
    assert_eq!(world.commit_offset(3, producer, 5).await, 0);
    assert_eq!(world.offset(false).await, Ok(-1));
    let unstable = Err(code(ErrorCode::UnstableOffsetCommit));
    assert_eq!(world.offset(true).await, unstable);
    assert_eq!(world.end(3, producer, true).await.error_code, 0);
    while world.offset(true).await != Ok(5) {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.offset(false).await, Ok(5));
    world.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_producers_in_one_request_are_refused() {
    let mut world = World::new().await;
    let producer = world.init(5).await;
    let mut request = ProduceRequest {
        transactional_id: Some(ID.into()),
        ..produce_request("t", batch(producer, 0), -1)
    };
    let mut other = request.topic_data[0].clone();
    let another = batch((producer.0 + 1, 0), 0);
    other.name = "u".into();
    other.partition_data[0].records = Some(Records::Bytes(another));
    request.topic_data.push(other);
    let answer = world.client.ask(12, &request).await;
    assert_eq!(
        produce_error(&answer),
        code(ErrorCode::InvalidProducerIdMapping)
    );
    world.broker.shutdown().await;
}
