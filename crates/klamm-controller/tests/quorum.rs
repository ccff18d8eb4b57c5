//! Three controllers in one process, on real disks, with a network that can be cut.

#![allow(
    clippy::disallowed_methods,
    reason = "a test waits for what elections take"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use klamm_config::BrokerConfig;
use klamm_controller::{
    Controller, ControllerConfig, ControllerListener, KafkaConfigs, QuorumTransport, VoterEndpoint,
};
use klamm_env::Env;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use klamm_protocol::messages::update_features_request::FeatureUpdateKey;
use klamm_protocol::messages::{
    AllocateProducerIdsRequest, DescribeQuorumRequest, IncrementalAlterConfigsRequest,
    RemoveRaftVoterRequest, UpdateFeaturesRequest,
};
use klamm_records::Uuid;

use self::faulty::{FATAL_VALUE, Faulty};

mod faulty;

const CLUSTER: &str = "two-of-three-is-enough";
/// Longer than anything here takes, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The network between them.
#[derive(Debug, Default)]
struct Net {
    nodes: Mutex<BTreeMap<i32, Controller>>,
    /// Nodes that nobody reaches and that reach nobody.
    cut: Mutex<BTreeSet<i32>>,
}

/// One node's end of it.
#[derive(Debug)]
struct End {
    net: Arc<Net>,
    node: i32,
}

impl QuorumTransport for End {
    fn call<'a>(
        &'a self,
        node: i32,
        endpoints: &'a [VoterEndpoint],
        request: Bytes,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send + 'a>> {
        assert_eq!(endpoints[0].port, port(node));
        Box::pin(async move {
            let cut = {
                let cut = self.net.cut.lock().unwrap();
                cut.contains(&node) || cut.contains(&self.node)
            };
            let target = self.net.nodes.lock().unwrap().get(&node).cloned();
            let target = target.filter(|_| !cut).ok_or(io::ErrorKind::NotConnected)?;
            match tokio::time::timeout(limit, target.serve_quorum(&request)).await {
                Ok(answer) => Ok(answer.into()),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

fn port(node: i32) -> u16 {
    9090 + u16::try_from(node).unwrap()
}

fn endpoint(node: i32) -> VoterEndpoint {
    VoterEndpoint {
        name: "CONTROLLER".to_owned(),
        host: "localhost".to_owned(),
        port: port(node),
    }
}

fn config(node: i32, dir: &Path, net: &Arc<Net>) -> ControllerConfig {
    let broker = BrokerConfig::from_pairs([
        ("node.id", "1"),
        ("process.roles", "broker,controller"),
        ("controller.quorum.voters", "1@localhost:9091"),
        ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9091"),
        ("controller.listener.names", "CONTROLLER"),
    ])
    .unwrap();
    let others = (1..=3).filter(|other| *other != node);
    let schema = Faulty(KafkaConfigs::new(broker));
    ControllerConfig {
        cluster_id: Some(CLUSTER.to_owned()),
        listeners: vec![ControllerListener {
            name: "CONTROLLER".to_owned(),
            host: "localhost".to_owned(),
            port: port(node),
            security_protocol: 0,
        }],
        other_voters: others.map(|other| (other, vec![endpoint(other)])).collect(),
        transport: Some(Arc::new(End {
            net: Arc::clone(net),
            node,
        })),
        election_timeout: Duration::from_millis(1200),
        entries_kept: 0,
        // A snapshot takes many calls.
        snapshot_piece_bytes: 100,
        ..ControllerConfig::new(
            node,
            dir.join(node.to_string()),
            Uuid::from_bytes([u8::try_from(node).unwrap(); 16]),
            Arc::new(schema),
        )
    }
}

struct Cluster {
    dir: tempfile::TempDir,
    net: Arc<Net>,
}

impl Cluster {
    async fn start() -> Self {
        let cluster = Cluster {
            dir: tempfile::tempdir().unwrap(),
            net: Arc::default(),
        };
        for node in 1..=3 {
            cluster.start_node(node).await;
        }
        cluster
    }

    async fn start_node(&self, node: i32) {
        let config = config(node, self.dir.path(), &self.net);
        let controller = Controller::start(config, Env::os()).await.unwrap();
        self.net.nodes.lock().unwrap().insert(node, controller);
    }

    async fn stop_node(&self, node: i32) {
        let stopped = self.net.nodes.lock().unwrap().remove(&node);
        if let Some(controller) = stopped {
            controller.shutdown().await.unwrap();
        }
    }

    fn cut(&self, node: i32) {
        self.net.cut.lock().unwrap().insert(node);
    }

    fn heal(&self) {
        self.net.cut.lock().unwrap().clear();
    }

    fn node(&self, node: i32) -> Controller {
        self.net.nodes.lock().unwrap()[&node].clone()
    }

    fn nodes(&self) -> Vec<Controller> {
        self.net.nodes.lock().unwrap().values().cloned().collect()
    }

    /// Asks whoever will decide among `among` for a config, until it is committed. Returns who did.
    async fn decide(&self, among: &[i32], value: &str) -> i32 {
        let begun = Instant::now();
        loop {
            for node in among {
                let Some(controller) = self.net.nodes.lock().unwrap().get(node).cloned() else {
                    continue;
                };
                let asked = controller.incremental_alter_configs(set(value));
                // One that lost its quorum waits for it for ever.
                let Ok(answer) = tokio::time::timeout(Duration::from_secs(2), asked).await else {
                    continue;
                };
                match answer {
                    Ok(response) => {
                        assert_eq!(response.responses[0].error_code, 0, "{response:?}");
                        return *node;
                    }
                    Err(error) => assert_eq!(error.code, ErrorCode::NotController),
                }
            }
            assert!(begun.elapsed() < PATIENCE, "nobody of {among:?} decides");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Until a node has a snapshot in its directory.
    async fn wait_for_snapshot(&self, node: i32) {
        let dir = self
            .dir
            .path()
            .join(node.to_string())
            .join("__cluster_metadata-0");
        let begun = Instant::now();
        let has_one = || {
            std::fs::read_dir(&dir).unwrap().any(|entry| {
                let path = entry.unwrap().path();
                path.extension()
                    .is_some_and(|extension| extension == "checkpoint")
            })
        };
        while !has_one() {
            assert!(begun.elapsed() < PATIENCE, "node {node} has no snapshot");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Until all nodes among `among` know of a value.
    async fn all_know(&self, among: &[i32], value: &str) {
        let begun = Instant::now();
        while !among
            .iter()
            .all(|node| known(&self.node(*node)).as_deref() == Some(value))
        {
            assert!(begun.elapsed() < PATIENCE, "not everybody hears of {value}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn set(value: &str) -> IncrementalAlterConfigsRequest {
    IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 4,
            resource_name: "".into(),
            configs: vec![AlterableConfig {
                name: "log.retention.ms".into(),
                config_operation: 0,
                value: Some(value.into()),
                ..AlterableConfig::default()
            }],
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    }
}

fn known(controller: &Controller) -> Option<String> {
    let cluster = klamm_metadata::ConfigResource::cluster();
    let image = controller.image();
    let value = image.config(&cluster).get("log.retention.ms");
    value.map(|value| value.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_three_decides_and_all_follow() {
    let cluster = Cluster::start().await;
    let leader = cluster.decide(&[1, 2, 3], "1000").await;
    cluster.all_know(&[1, 2, 3], "1000").await;
    let epochs: BTreeSet<_> = cluster.nodes().iter().map(Controller::leader).collect();
    assert_eq!(epochs, BTreeSet::from([Some(leader)]));
    // The projection is the same everywhere: so are offsets, which brokers go by.
    let offsets: BTreeSet<_> = cluster.nodes().iter().map(|c| c.image().offset()).collect();
    assert_eq!(offsets.len(), 1, "{offsets:?}");
    // Who does not lead says so.
    let other = (1..=3).find(|node| *node != leader).unwrap();
    let refused = cluster
        .node(other)
        .allocate_producer_ids(AllocateProducerIdsRequest::default())
        .await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::NotController);
    for node in 1..=3 {
        cluster.stop_node(node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_takes_over_and_the_former_leader_follows_when_it_is_back() {
    let cluster = Cluster::start().await;
    let first = cluster.decide(&[1, 2, 3], "1").await;
    cluster.all_know(&[1, 2, 3], "1").await;
    cluster.cut(first);
    let others: Vec<i32> = (1..=3).filter(|node| *node != first).collect();
    let second = cluster.decide(&others, "2").await;
    assert_ne!(second, first);
    // Alone it must not decide, nor hear of what others did.
    assert_eq!(known(&cluster.node(first)).as_deref(), Some("1"));
    cluster.heal();
    cluster.all_know(&[1, 2, 3], "2").await;
    cluster.decide(&[1, 2, 3], "3").await;
    cluster.all_know(&[1, 2, 3], "3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_is_there_after_all_have_stopped() {
    let cluster = Cluster::start().await;
    cluster.decide(&[1, 2, 3], "1").await;
    for node in 1..=3 {
        cluster.stop_node(node).await;
    }
    for node in 1..=3 {
        cluster.start_node(node).await;
    }
    cluster.all_know(&[1, 2, 3], "1").await;
    cluster.decide(&[1, 2, 3], "2").await;
    cluster.all_know(&[1, 2, 3], "2").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_late_gets_a_snapshot() {
    let cluster = Cluster {
        dir: tempfile::tempdir().unwrap(),
        net: Arc::default(),
    };
    cluster.start_node(1).await;
    cluster.start_node(2).await;
    let leader = cluster.decide(&[1, 2], "0").await;
    for value in 1..=50 {
        cluster
            .decide(&[leader, 3 - leader], &value.to_string())
            .await;
    }
    cluster.node(leader).take_snapshot().await.unwrap();
    cluster.wait_for_snapshot(leader).await;
    // The log no longer has what the snapshot holds.
    cluster.start_node(3).await;
    cluster.all_know(&[1, 2, 3], "50").await;
    cluster.wait_for_snapshot(3).await;
    cluster.decide(&[1, 2, 3], "51").await;
    cluster.all_know(&[1, 2, 3], "51").await;
    let offsets: BTreeSet<_> = cluster.nodes().iter().map(|c| c.image().offset()).collect();
    assert_eq!(offsets.len(), 1, "{offsets:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_panics_gives_up_the_lead_and_follows() {
    let cluster = Cluster::start().await;
    let first = cluster.decide(&[1, 2, 3], "1").await;
    cluster.all_know(&[1, 2, 3], "1").await;
    let controller = cluster.node(first);
    let refused = controller.incremental_alter_configs(set(FATAL_VALUE)).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::UnknownServerError);
    let others: Vec<i32> = (1..=3).filter(|node| *node != first).collect();
    cluster.decide(&others, "2").await;
    cluster.all_know(&[1, 2, 3], "2").await;
    assert_eq!(controller.panics(), 1);
}

fn feature(name: &str, level: i16, upgrade_type: i8) -> UpdateFeaturesRequest {
    UpdateFeaturesRequest {
        feature_updates: vec![FeatureUpdateKey {
            feature: name.into(),
            max_version_level: level,
            upgrade_type,
            ..FeatureUpdateKey::default()
        }],
        ..UpdateFeaturesRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_committed_in_time_is_given_up() {
    let cluster = Cluster::start().await;
    let leader = cluster.decide(&[1, 2, 3], "1").await;
    cluster.cut(leader);
    let off = UpdateFeaturesRequest {
        timeout_ms: 200,
        ..feature("share.version", 0, 2)
    };
    let late = cluster.node(leader).update_features(off, 1).await;
    assert_eq!(late.unwrap_err().code, ErrorCode::RequestTimedOut);
}

/// Ids and directories of the voters, as a node describes the quorum.
fn voters(controller: &Controller) -> Vec<(i32, Uuid)> {
    let request = DescribeQuorumRequest {
        topics: vec![TopicData {
            topic_name: "__cluster_metadata".into(),
            partitions: vec![PartitionData::default()],
            ..TopicData::default()
        }],
        ..DescribeQuorumRequest::default()
    };
    let response = controller.describe_quorum(&request);
    let voters = response.topics[0].partitions[0].current_voters.iter();
    voters
        .map(|voter| (voter.replica_id, voter.replica_directory_id))
        .collect()
}

fn directory(node: i32) -> Uuid {
    Uuid::from_bytes([u8::try_from(node).unwrap(); 16])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn configured_voters_move_into_the_log_once_all_have_told_their_directory() {
    let cluster = Cluster::start().await;
    let id = cluster.decide(&[1, 2, 3], "1").await;
    let leader = cluster.node(id);
    assert_eq!(
        voters(&leader),
        (1..=3).map(|node| (node, Uuid::ZERO)).collect::<Vec<_>>()
    );
    let upgrade = feature("kraft.version", 1, 1);
    let early = leader.update_features(upgrade.clone(), 1).await.unwrap();
    assert_eq!(early.error_code, ErrorCode::InvalidUpdateVersion.code());
    let message = early.error_message.unwrap_or_default();
    assert!(
        message.ends_with(
            "Invalid upgrade of kraft.version to KRAFT_VERSION_1 because not all of the voters \
             support it"
        ),
        "{message}"
    );
    cluster.all_know(&[1, 2, 3], "1").await;
    for node in cluster.nodes() {
        let Some(update) = node.voter_update() else {
            assert_eq!(node.node_id(), id, "it knows of itself");
            continue;
        };
        let told = leader.update_raft_voter(&update).await;
        assert_eq!(told.error_code, 0);
        node.voter_is_known_in(update.current_leader_epoch);
        assert_eq!(node.voter_update(), None, "each leader is told once");
    }
    let trial = UpdateFeaturesRequest {
        validate_only: true,
        ..upgrade.clone()
    };
    let tried = leader.update_features(trial, 1).await.unwrap();
    assert_eq!(tried.error_code, 0);
    assert_eq!(leader.image().features().level("kraft.version"), 0);
    let upgraded = leader.update_features(upgrade.clone(), 1).await.unwrap();
    assert_eq!(upgraded.error_code, 0, "{upgraded:?}");
    assert_eq!(leader.image().features().level("kraft.version"), 1);
    let known = [1, 2, 3].map(|node| (node, directory(node)));
    assert_eq!(voters(&leader), known);
    // Once more does no harm.
    let again = leader.update_features(upgrade, 1).await.unwrap();
    assert_eq!(again.error_code, 0);
    // It outlives all of them, and voters can be changed from now on.
    for node in 1..=3 {
        cluster.stop_node(node).await;
    }
    for node in 1..=3 {
        cluster.start_node(node).await;
    }
    let id = cluster.decide(&[1, 2, 3], "2").await;
    let leader = cluster.node(id);
    assert_eq!(voters(&leader), known);
    assert_eq!(leader.image().features().level("kraft.version"), 1);
    let other = 1 + id % 3;
    let remove = RemoveRaftVoterRequest {
        cluster_id: Some(CLUSTER.into()),
        voter_id: other,
        voter_directory_id: directory(other),
        ..RemoveRaftVoterRequest::default()
    };
    leader.remove_raft_voter(&remove).await.unwrap();
    assert_eq!(voters(&leader).len(), 2);
}
