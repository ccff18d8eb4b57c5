//! The metadata log as brokers fetch it.

use std::path::Path;
use std::sync::Arc;

use klamm_config::BrokerConfig;
use klamm_controller::{
    Controller, ControllerConfig, KafkaConfigs, MetadataLogOptions, MetadataReplica,
};
use klamm_env::Env;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_protocol::messages::fetch_response::PartitionData;
use klamm_protocol::messages::fetch_snapshot_request::{
    PartitionSnapshot, SnapshotId, TopicSnapshot,
};
use klamm_protocol::messages::{
    AllocateProducerIdsRequest, ControllerRegistrationRequest, FetchRequest, FetchSnapshotRequest,
};
use klamm_protocol::{ErrorCode, Records, topic_name};
use klamm_records::Uuid;

const VERSION: i16 = 17;

async fn start(dir: &Path) -> Controller {
    let broker = BrokerConfig::from_pairs([
        ("node.id", "1"),
        ("process.roles", "broker,controller"),
        ("controller.quorum.voters", "1@localhost:9093"),
        ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
        ("controller.listener.names", "CONTROLLER"),
    ])
    .unwrap();
    let schema = Arc::new(KafkaConfigs::new(broker));
    let config = ControllerConfig::new(1, dir, Uuid::from_bytes([9; 16]), schema);
    Controller::start(config, Env::os()).await.unwrap()
}

async fn replica(dir: &Path) -> MetadataReplica {
    let options = MetadataLogOptions::default();
    MetadataReplica::open(&Env::os(), dir, options)
        .await
        .unwrap()
}

fn request(wanted: FetchPartition) -> FetchRequest {
    FetchRequest {
        topics: vec![FetchTopic {
            topic_id: Uuid::METADATA_TOPIC,
            partitions: vec![FetchPartition {
                partition_max_bytes: 1 << 20,
                ..wanted
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

async fn fetch(controller: &Controller, wanted: FetchPartition) -> PartitionData {
    let answer = controller.fetch_metadata(&request(wanted), VERSION).await;
    assert_eq!(answer.error_code, 0);
    answer.responses[0].partitions[0].clone()
}

fn bytes(records: Option<Records>) -> bytes::Bytes {
    match records {
        Some(Records::Bytes(bytes)) => bytes,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_replica_becomes_what_the_controller_has() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    // Everything up to the controller's own registration.
    let again = controller.registration().clone();
    controller.register_controller(again).await.unwrap();
    let copy = tempfile::tempdir().unwrap();
    let replica = replica(copy.path()).await;
    let data = fetch(&controller, FetchPartition::default()).await;
    assert_eq!((data.error_code, data.current_leader.leader_id), (0, 1));
    replica.append(&bytes(data.records)).await.unwrap();
    assert_eq!(*replica.image(), *controller.image());
    assert_eq!(data.high_watermark, controller.image().offset() + 1);
    // There is no more.
    let image = replica.image();
    let next = FetchPartition {
        fetch_offset: image.offset() + 1,
        last_fetched_epoch: image.epoch(),
        ..FetchPartition::default()
    };
    let data = fetch(&controller, next).await;
    assert!(bytes(data.records).is_empty());
    controller.shutdown().await.unwrap();
}

#[tokio::test]
async fn fetches_that_cannot_be_right_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    let epoch = controller.image().epoch();
    let asked = |current_leader_epoch, fetch_offset| FetchPartition {
        current_leader_epoch,
        fetch_offset,
        ..FetchPartition::default()
    };
    for (wanted, error) in [
        (asked(epoch + 1, 0), ErrorCode::UnknownLeaderEpoch),
        (asked(epoch - 1, 0), ErrorCode::FencedLeaderEpoch),
        (asked(epoch, -1), ErrorCode::InvalidRequest),
        (asked(epoch, 0), ErrorCode::None),
    ] {
        let data = fetch(&controller, wanted).await;
        assert_eq!(data.error_code, error.code());
        assert_eq!(data.current_leader.leader_epoch, epoch);
    }
    let elsewhere = FetchRequest {
        cluster_id: Some("another".into()),
        ..request(FetchPartition::default())
    };
    let answer = controller.fetch_metadata(&elsewhere, VERSION).await;
    assert_eq!(answer.error_code, ErrorCode::InconsistentClusterId.code());
    // A log that went another way is told where it parts.
    let strange = FetchPartition {
        fetch_offset: 2,
        last_fetched_epoch: epoch + 7,
        ..FetchPartition::default()
    };
    let data = fetch(&controller, strange).await;
    assert_eq!(data.diverging_epoch.epoch, epoch);
    controller.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_fetch_waits_for_the_next_record() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    // The controller tells of itself in a first round of its own.
    let allocate = || async {
        let asked = AllocateProducerIdsRequest {
            broker_id: 1,
            ..AllocateProducerIdsRequest::default()
        };
        controller.allocate_producer_ids(asked).await
    };
    assert!(allocate().await.is_err(), "there is no such broker");
    let image = controller.image();
    let waiting = FetchRequest {
        max_wait_ms: 60_000,
        ..request(FetchPartition {
            fetch_offset: image.offset() + 1,
            last_fetched_epoch: image.epoch(),
            ..FetchPartition::default()
        })
    };
    let register = async {
        let another = ControllerRegistrationRequest {
            incarnation_id: Uuid::from_bytes([3; 16]),
            ..controller.registration().clone()
        };
        controller.register_controller(another).await.unwrap();
    };
    let (answer, ()) = tokio::join!(controller.fetch_metadata(&waiting, VERSION), register);
    let data = answer.responses[0].partitions[0].clone();
    assert!(!bytes(data.records).is_empty());
    controller.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_snapshot_is_fetched_piece_by_piece() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    // Everything up to the controller's own registration.
    let again = controller.registration().clone();
    controller.register_controller(again).await.unwrap();
    let image = controller.image();
    let id = SnapshotId {
        end_offset: image.offset() + 1,
        epoch: image.epoch(),
        ..SnapshotId::default()
    };
    let ask = |id: SnapshotId, position| FetchSnapshotRequest {
        max_bytes: 200,
        topics: vec![TopicSnapshot {
            name: topic_name::CLUSTER_METADATA.into(),
            partitions: vec![PartitionSnapshot {
                snapshot_id: id,
                position,
                ..PartitionSnapshot::default()
            }],
            ..TopicSnapshot::default()
        }],
        ..FetchSnapshotRequest::default()
    };
    let fetch = |id: SnapshotId, position| {
        let (controller, request) = (&controller, ask(id, position));
        async move {
            let answer = controller.fetch_snapshot(&request).await;
            answer.topics[0].partitions[0].clone()
        }
    };
    controller.take_snapshot().await.unwrap();
    let mut first = fetch(id.clone(), 0).await;
    while first.error_code == ErrorCode::SnapshotNotFound.code() {
        // It is being written.
        tokio::task::yield_now().await;
        first = fetch(id.clone(), 0).await;
    }
    assert_eq!(first.error_code, 0);
    let mut content = bytes(first.unaligned_records).to_vec();
    while i64::try_from(content.len()).unwrap() < first.size {
        let piece = fetch(id.clone(), i64::try_from(content.len()).unwrap()).await;
        let piece = bytes(piece.unaligned_records);
        assert!((1..=200).contains(&piece.len()));
        content.extend_from_slice(&piece);
    }
    let copy = tempfile::tempdir().unwrap();
    let replica = replica(copy.path()).await;
    let mut incoming = replica.incoming(id.end_offset, id.epoch).unwrap();
    incoming.push(&content).unwrap();
    replica.load(incoming).await.unwrap();
    assert_eq!(*replica.image(), *image);

    let beyond = fetch(id.clone(), first.size).await;
    assert_eq!(beyond.error_code, ErrorCode::PositionOutOfRange.code());
    let unknown = SnapshotId {
        end_offset: 1,
        ..id
    };
    let missing = fetch(unknown, 0).await;
    assert_eq!(missing.error_code, ErrorCode::SnapshotNotFound.code());
    controller.shutdown().await.unwrap();
}
