//! The controller as a whole, on a real disk.

#![allow(
    clippy::disallowed_methods,
    reason = "a test looks at files and drives tasks itself"
)]

use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_config::BrokerConfig;
use klamm_controller::{
    Controller, ControllerConfig, ControllerError, Describable, KafkaConfigs, MetadataPublisher,
    MetadataUpdate,
};
use klamm_env::{Env, ManualClock};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::broker_registration_request::{Feature, Listener};
use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::delete_topics_request::DeleteTopicState;
use klamm_protocol::messages::{
    AllocateProducerIdsRequest, BrokerHeartbeatRequest, BrokerRegistrationRequest,
    CreateTopicsRequest, DeleteTopicsRequest, DescribeQuorumRequest, describe_quorum_request,
};
use klamm_records::Uuid;

const DIRECTORY: Uuid = Uuid::from_bytes([9; 16]);

fn config(dir: &Path) -> ControllerConfig {
    let broker = BrokerConfig::from_pairs([
        ("node.id", "1"),
        ("process.roles", "broker,controller"),
        ("controller.quorum.voters", "1@localhost:9093"),
        ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
        ("controller.listener.names", "CONTROLLER"),
    ])
    .unwrap();
    ControllerConfig::new(1, dir, DIRECTORY, Arc::new(KafkaConfigs::new(broker)))
}

async fn start(dir: &Path) -> Controller {
    Controller::start(config(dir), Env::os()).await.unwrap()
}

fn registration(controller: &Controller, incarnation: u8) -> BrokerRegistrationRequest {
    let feature = |name: &str, max| Feature {
        name: name.into(),
        min_supported_version: 0,
        max_supported_version: max,
        ..Default::default()
    };
    let supported = klamm_controller::managers::features::SUPPORTED;
    BrokerRegistrationRequest {
        broker_id: 1,
        cluster_id: controller.cluster_id().into(),
        incarnation_id: Uuid::from_bytes([incarnation; 16]),
        listeners: vec![Listener {
            name: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9092,
            ..Default::default()
        }],
        features: supported.iter().map(|f| feature(f.name, f.max)).collect(),
        log_dirs: vec![DIRECTORY],
        previous_broker_epoch: -1,
        ..Default::default()
    }
}

async fn join(controller: &Controller, incarnation: u8) -> i64 {
    let request = registration(controller, incarnation);
    let epoch = controller
        .register_broker(request, true)
        .await
        .unwrap()
        .broker_epoch;
    let beat = BrokerHeartbeatRequest {
        broker_id: 1,
        broker_epoch: epoch,
        current_metadata_offset: controller.image().offset(),
        ..Default::default()
    };
    let reply = controller.broker_heartbeat(beat).await.unwrap();
    assert!(!reply.is_fenced);
    epoch
}

fn topics(names: &[&str], partitions: i32) -> CreateTopicsRequest {
    let topic = |name: &&str| CreatableTopic {
        name: (*name).into(),
        num_partitions: partitions,
        replication_factor: 1,
        ..Default::default()
    };
    CreateTopicsRequest {
        topics: names.iter().map(topic).collect(),
        ..Default::default()
    }
}

async fn create(controller: &Controller, names: &[&str], partitions: i32) {
    let response = controller
        .create_topics(topics(names, partitions), Describable::All)
        .await;
    for topic in response.unwrap().topics {
        assert_eq!(topic.error_code, 0, "{topic:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_starts_with_kafkas_features() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    assert!(controller.is_active());
    let image = controller.image();
    let levels: Vec<(String, i16)> = image.features().finalized().into_iter().collect();
    let names: Vec<(&str, i16)> = levels
        .iter()
        .map(|(name, level)| (name.as_str(), *level))
        .collect();
    assert_eq!(
        names,
        [
            ("eligible.leader.replicas.version", 1),
            ("group.version", 1),
            ("kraft.version", 1),
            ("metadata.version", 30),
            ("share.version", 1),
            ("streams.version", 1),
            ("transaction.version", 2),
        ]
    );
    assert!(controller.cluster_id().parse::<Uuid>().is_ok());
    controller.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    join(&controller, 1).await;
    create(&controller, &["a", "b"], 3).await;
    let (image, cluster_id) = (controller.image(), controller.cluster_id().to_owned());
    controller.shutdown().await.unwrap();
    drop(controller);

    let controller = start(dir.path()).await;
    assert_eq!(controller.cluster_id(), cluster_id);
    assert_eq!(controller.image().topics(), image.topics());
    assert_eq!(controller.image().broker(1), image.broker(1));
    join(&controller, 2).await;
    create(&controller, &["c"], 1).await;
    assert_eq!(controller.image().topics().len(), 3);
    // All replicas of the old topics were on the broker that went without a word.
    assert_eq!(controller.image().partition("a", 0).unwrap().leader, 1);
    controller.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_takes_the_place_of_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    join(&controller, 1).await;
    create(&controller, &["a"], 5).await;
    controller.take_snapshot().await.unwrap();
    let checkpoint = || {
        std::fs::read_dir(dir.path().join("__cluster_metadata-0"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .find(|name| name.ends_with(".checkpoint"))
    };
    for _ in 0..500 {
        if checkpoint().is_some() {
            break;
        }
        tokio::task::yield_now().await;
        std::thread::yield_now();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(checkpoint().is_some());
    create(&controller, &["b"], 2).await;
    let image = controller.image();
    controller.shutdown().await.unwrap();

    let controller = start(dir.path()).await;
    assert_eq!(controller.image().topics(), image.topics());
    assert_eq!(controller.image().features(), image.features());
    create(&controller, &["c"], 1).await;
    controller.shutdown().await.unwrap();
}

#[derive(Default)]
struct Recorder(Mutex<Vec<(i64, usize)>>);

impl MetadataPublisher for Recorder {
    fn publish<'a>(
        &'a self,
        update: &'a MetadataUpdate,
    ) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        let seen = (update.image.offset(), update.image.topics().len());
        self.0.lock().unwrap().push(seen);
        Box::pin(async {})
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_hears_of_a_topic_before_its_maker_does() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    join(&controller, 1).await;
    let recorder = Arc::new(Recorder::default());
    controller.subscribe(recorder.clone()).await;
    create(&controller, &["a"], 1).await;
    assert_eq!(recorder.0.lock().unwrap().last().unwrap().1, 1);
    let delete = DeleteTopicsRequest {
        topics: vec![DeleteTopicState {
            name: Some("a".into()),
            ..Default::default()
        }],
        timeout_ms: 60_000,
        ..Default::default()
    };
    controller.delete_topics(delete).await.unwrap();
    let seen = recorder.0.lock().unwrap().clone();
    assert_eq!(seen.last().unwrap().1, 0);
    assert!(seen.is_sorted(), "offsets never go back: {seen:?}");
    controller.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_at_once_each_get_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    let broker_epoch = join(&controller, 1).await;
    let asks = (0..50).map(|_| {
        let controller = controller.clone();
        tokio::spawn(async move {
            let request = AllocateProducerIdsRequest {
                broker_id: 1,
                broker_epoch,
                ..Default::default()
            };
            controller
                .allocate_producer_ids(request)
                .await
                .unwrap()
                .producer_id_start
        })
    });
    let mut starts = Vec::new();
    for ask in asks.collect::<Vec<_>>() {
        starts.push(ask.await.unwrap());
    }
    starts.sort_unstable();
    assert_eq!(starts, (0..50).map(|n| n * 1000).collect::<Vec<_>>());
    controller.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_broker_is_fenced_after_its_session() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::new(1_000_000));
    let env = Env {
        clock: clock.clone(),
        ..Env::os()
    };
    let controller = Controller::start(config(dir.path()), env).await.unwrap();
    join(&controller, 1).await;
    create(&controller, &["a"], 1).await;
    clock.advance_ms(9_001);
    // Any request makes the task look at its timers first.
    let response = controller
        .create_topics(topics(&["b"], 1), Describable::All)
        .await
        .unwrap();
    assert_eq!(
        response.topics[0].error_code,
        ErrorCode::InvalidReplicationFactor.code()
    );
    let image = controller.image();
    assert!(image.broker(1).unwrap().fenced);
    assert_eq!(image.partition("a", 0).unwrap().leader, -1);
    assert_eq!(image.partition("a", 0).unwrap().elr, [1]);
    controller.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_to_start_where_it_must_not() {
    let dir = tempfile::tempdir().unwrap();
    let several = ControllerConfig {
        other_voters: [(2, Vec::new()), (3, Vec::new())].into(),
        ..config(dir.path())
    };
    let error = Controller::start(several, Env::os()).await.unwrap_err();
    assert!(matches!(error, ControllerError::NoTransport { voters } if voters == [2, 3]));

    let first = ControllerConfig {
        cluster_id: Some("one".to_owned()),
        ..config(dir.path())
    };
    Controller::start(first, Env::os())
        .await
        .unwrap()
        .shutdown()
        .await
        .unwrap();
    let second = ControllerConfig {
        cluster_id: Some("two".to_owned()),
        ..config(dir.path())
    };
    let error = Controller::start(second, Env::os()).await.unwrap_err();
    assert!(matches!(error, ControllerError::ClusterId { found, .. } if found == "one"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_quorum_tells_of_itself() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    let topic = |name: &str, partition_index| describe_quorum_request::TopicData {
        topic_name: name.into(),
        partitions: vec![describe_quorum_request::PartitionData {
            partition_index,
            ..Default::default()
        }],
        ..Default::default()
    };
    let request = DescribeQuorumRequest {
        topics: vec![topic("__cluster_metadata", 0), topic("other", 0)],
        ..Default::default()
    };
    let response = controller.describe_quorum(&request);
    let quorum = &response.topics[0].partitions[0];
    assert_eq!((quorum.error_code, quorum.leader_id), (0, 1));
    assert_eq!(quorum.high_watermark, controller.image().offset() + 1);
    assert_eq!(quorum.current_voters[0].replica_directory_id, DIRECTORY);
    let other = &response.topics[1].partitions[0];
    assert_eq!(other.error_code, ErrorCode::UnknownTopicOrPartition.code());
    controller.shutdown().await.unwrap();
    let late = controller
        .create_topics(topics(&["late"], 1), Describable::All)
        .await
        .unwrap_err();
    assert_eq!(late.code, ErrorCode::NotController);
}

/// What a kill at this moment would leave of `from`. The node goes on writing meanwhile, and what was
/// listed may have been renamed or removed before it is copied: then the listing was of no one moment,
/// and is made again.
fn copy_running(from: &Path) -> tempfile::TempDir {
    for _ in 0..100 {
        let copy = tempfile::tempdir().unwrap();
        match copy_dir(from, copy.path()) {
            Ok(()) => return copy,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("copying {}: {error}", from.display()),
        }
    }
    panic!("{} never stands still", from.display());
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// What the files hold while the controller runs is what it finds after it was killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    join(&controller, 1).await;
    for round in 0..5 {
        create(&controller, &[&format!("t{round}")], 2).await;
        if round == 2 {
            controller.take_snapshot().await.unwrap();
        }
        let killed = copy_running(dir.path());
        let image = controller.image();
        let again = start(killed.path()).await;
        assert_eq!(again.image().topics(), image.topics(), "round {round}");
        assert_eq!(again.image().cluster().brokers(), image.cluster().brokers());
        create(&again, &["after"], 1).await;
        again.shutdown().await.unwrap();
    }
    controller.shutdown().await.unwrap();
}

/// A crash within an append leaves half a batch; it was acknowledged to nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_append_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    join(&controller, 1).await;
    create(&controller, &["a"], 2).await;
    let killed = copy_running(dir.path());
    for log in ["", "raft/"] {
        let name = format!("__cluster_metadata-0/{log}00000000000000000000.log");
        let path = killed.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        let torn = bytes[bytes.len() - 40..].to_vec();
        bytes.extend(torn);
        std::fs::write(path, bytes).unwrap();
    }
    let again = start(killed.path()).await;
    assert_eq!(again.image().topics(), controller.image().topics());
    create(&again, &["b"], 1).await;
    again.shutdown().await.unwrap();
    controller.shutdown().await.unwrap();
}

/// The log as Kafka knows it is made from the quorum's own, and made again to the byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_projection_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let controller = start(dir.path()).await;
    join(&controller, 1).await;
    create(&controller, &["a", "b"], 3).await;
    controller.shutdown().await.unwrap();
    let log = dir.path().join("__cluster_metadata-0");
    let segment = log.join("00000000000000000000.log");
    let before = std::fs::read(&segment).unwrap();
    for entry in std::fs::read_dir(&log).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let controller = start(dir.path()).await;
    let after = std::fs::read(&segment).unwrap();
    assert_eq!(after[..before.len()], before);
    controller.shutdown().await.unwrap();
}

/// The metadata log of a Kafka 4.3.1 that made topics, configs, quotas, credentials and more, and
/// was then shut down.
fn kafkas_directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("__cluster_metadata-0");
    std::fs::create_dir(&log).unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kafka-4.3.1");
    copy_dir(&fixture, &log).unwrap();
    dir
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn takes_over_what_kafka_wrote() {
    let dir = kafkas_directory();
    let controller = start(dir.path()).await;
    let image = controller.image();
    let topics: Vec<&str> = image.topics().iter().map(|topic| &**topic.name()).collect();
    assert_eq!(topics, ["a.b", "dup"]);
    assert_eq!(
        image.topic("dup").unwrap().id().to_string(),
        "SDcIWQ3NQISAy6jKmo5JLw"
    );
    assert_eq!(image.partition("dup", 0).unwrap().elr, [1]);
    assert_eq!(image.features().level("metadata.version"), 30);
    assert_eq!(image.features().level("kraft.version"), 1);
    let cluster = image.config(&klamm_metadata::ConfigResource::cluster());
    assert_eq!(cluster["min.insync.replicas"], "2");
    assert_eq!(image.scram().get(1, "zoe").unwrap().iterations, 4096);
    assert_eq!(image.quotas().iter().count(), 2);
    let broker = image.broker(1).unwrap();
    assert!(broker.fenced && broker.in_controlled_shutdown);
    assert_eq!(broker.endpoint("PLAINTEXT").unwrap().port, 19400);
    // Epochs and offsets go on from where Kafka's ended.
    assert_eq!(image.epoch(), 2);
    assert!(image.offset() >= 462);

    create_after_take_over(&controller).await;
    let before = controller.image();
    controller.shutdown().await.unwrap();
    let again = start(dir.path()).await;
    assert_eq!(again.image().topics(), before.topics());
    assert_eq!(
        again.image().epoch(),
        2,
        "a quorum of one leads on in its term"
    );
    again.shutdown().await.unwrap();
}

async fn create_after_take_over(controller: &Controller) {
    let mut request = registration(controller, 7);
    request.log_dirs = controller.image().broker(1).unwrap().log_dirs.clone();
    request.previous_broker_epoch = controller.image().broker(1).unwrap().epoch;
    let broker_epoch = controller
        .register_broker(request, true)
        .await
        .unwrap()
        .broker_epoch;
    let beat = BrokerHeartbeatRequest {
        broker_id: 1,
        broker_epoch,
        current_metadata_offset: controller.image().offset(),
        ..Default::default()
    };
    controller.broker_heartbeat(beat).await.unwrap();
    // Kafka went in order, so the replica is eligible and leads at once, cleanly.
    let partition = Arc::clone(controller.image().partition("dup", 0).unwrap());
    assert_eq!((partition.leader, partition.isr.as_slice()), (1, &[1][..]));
    assert_eq!(partition.leader_recovery_state.value(), 0);
    create(controller, &["new"], 1).await;
}
