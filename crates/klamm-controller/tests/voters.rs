//! Voters that change while the quorum runs, in one process, on real disks.

#![allow(
    clippy::disallowed_methods,
    reason = "a test waits for what elections take"
)]

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use klamm_config::BrokerConfig;
use klamm_controller::{
    Controller, ControllerConfig, ControllerListener, DynamicQuorum, InitialVoters, KafkaConfigs,
    QuorumTransport, VoterEndpoint, write_voters,
};
use klamm_env::Env;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::add_raft_voter_request::Listener;
use klamm_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use klamm_protocol::messages::describe_quorum_response;
use klamm_protocol::messages::{
    AddRaftVoterRequest, AllocateProducerIdsRequest, DescribeQuorumRequest, RemoveRaftVoterRequest,
    UpdateRaftVoterRequest, update_raft_voter_request,
};
use klamm_records::Uuid;

const CLUSTER: &str = "voters-come-and-go";
/// Longer than anything here takes, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who listens at which port.
#[derive(Debug, Default)]
struct Net(Mutex<BTreeMap<u16, Controller>>);

#[derive(Debug)]
struct End(Arc<Net>);

impl QuorumTransport for End {
    fn call<'a>(
        &'a self,
        _node: i32,
        endpoints: &'a [VoterEndpoint],
        request: Bytes,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send + 'a>> {
        Box::pin(async move {
            let port = endpoints
                .first()
                .ok_or(io::ErrorKind::AddrNotAvailable)?
                .port;
            let target = self.0.0.lock().unwrap().get(&port).cloned();
            let target = target.ok_or(io::ErrorKind::NotConnected)?;
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

fn directory(node: i32) -> Uuid {
    Uuid::from_bytes([u8::try_from(node).unwrap(); 16])
}

fn endpoint(port: u16) -> VoterEndpoint {
    VoterEndpoint {
        name: "CONTROLLER".to_owned(),
        host: "localhost".to_owned(),
        port,
    }
}

struct Cluster {
    dir: tempfile::TempDir,
    net: Arc<Net>,
    auto_join: bool,
}

impl Cluster {
    /// Nodes 1 to `count`, formatted as the first voters.
    async fn start(count: i32) -> Self {
        let cluster = Cluster::empty();
        let voter = |id| (id, (directory(id), vec![endpoint(port(id))]));
        let voters: InitialVoters = (1..=count).map(voter).collect();
        for id in 1..=count {
            let dir = cluster.metadata_dir(id, "a");
            write_voters(&Env::os(), &dir, &voters, 0).unwrap();
            cluster.start_node(id, directory(id), "a").await;
        }
        cluster
    }

    fn empty() -> Self {
        Cluster {
            dir: tempfile::tempdir().unwrap(),
            net: Arc::default(),
            auto_join: false,
        }
    }

    /// `disk` tells the disks apart that a node has in its life.
    fn metadata_dir(&self, id: i32, disk: &str) -> PathBuf {
        let dir = self.dir.path().join(format!("{id}{disk}"));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    async fn start_node(&self, id: i32, directory: Uuid, disk: &str) {
        self.start_at(id, directory, disk, port(id)).await;
    }

    async fn start_at(&self, id: i32, directory: Uuid, disk: &str, port: u16) {
        let dir = self.metadata_dir(id, disk);
        let config = self.config(id, directory, &dir, port);
        let controller = Controller::start(config, Env::os()).await.unwrap();
        self.net.0.lock().unwrap().insert(port, controller);
    }

    fn config(&self, id: i32, directory: Uuid, dir: &Path, at: u16) -> ControllerConfig {
        let broker = BrokerConfig::from_pairs([
            ("node.id", "1"),
            ("process.roles", "broker,controller"),
            ("controller.quorum.bootstrap.servers", "localhost:9091"),
            ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9091"),
            ("controller.listener.names", "CONTROLLER"),
        ])
        .unwrap();
        ControllerConfig {
            cluster_id: Some(CLUSTER.to_owned()),
            listeners: vec![ControllerListener {
                name: "CONTROLLER".to_owned(),
                host: "localhost".to_owned(),
                port: at,
                security_protocol: 0,
            }],
            dynamic: Some(DynamicQuorum {
                bootstrap_servers: (1..=3).map(|id| endpoint(port(id))).collect(),
                auto_join: self.auto_join,
            }),
            transport: Some(Arc::new(End(Arc::clone(&self.net)))),
            election_timeout: Duration::from_millis(1200),
            ..ControllerConfig::new(id, dir, directory, Arc::new(KafkaConfigs::new(broker)))
        }
    }

    async fn stop(&self, id: i32) {
        let stopped = self.net.0.lock().unwrap().remove(&port(id));
        stopped.unwrap().shutdown().await.unwrap();
    }

    fn nodes(&self) -> Vec<Controller> {
        self.net.0.lock().unwrap().values().cloned().collect()
    }

    async fn leader(&self) -> Controller {
        wait_for("a leader", || {
            let mut nodes = self.nodes().into_iter();
            nodes.find(Controller::is_active)
        })
        .await
    }

    /// The quorum as the leader describes it, once it is as asked.
    async fn described(&self, what: &str, test: impl Fn(&Described) -> bool) -> Described {
        wait_for(what, || {
            let mut nodes = self.nodes().into_iter();
            let leader = nodes.find(Controller::is_active)?;
            Some(describe(&leader)).filter(&test)
        })
        .await
    }

    /// Until the leader has something committed; then all of them have it in the end.
    async fn all_follow(&self) {
        let end = loop {
            let leader = self.leader().await;
            let request = AllocateProducerIdsRequest::default();
            // No broker has that id, which is decided by the one that leads.
            match leader.allocate_producer_ids(request).await {
                Err(error) if error.code == ErrorCode::NotController => {}
                _ => break leader.image().offset(),
            }
        };
        wait_for("all to follow", || {
            let mut nodes = self.nodes().into_iter();
            nodes.all(|node| node.image().offset() >= end).then_some(())
        })
        .await;
    }
}

async fn wait_for<T>(what: &str, mut test: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = test() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waiting for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Ids and directories.
#[derive(Debug, PartialEq)]
struct Described {
    voters: Vec<(i32, Uuid)>,
    observers: Vec<(i32, Uuid)>,
    nodes: Vec<(i32, u16)>,
}

fn describe(controller: &Controller) -> Described {
    let request = DescribeQuorumRequest {
        topics: vec![TopicData {
            topic_name: "__cluster_metadata".into(),
            partitions: vec![PartitionData::default()],
            ..TopicData::default()
        }],
        ..DescribeQuorumRequest::default()
    };
    let response = controller.describe_quorum(&request);
    let partition = &response.topics[0].partitions[0];
    let keys = |replicas: &[describe_quorum_response::ReplicaState]| {
        replicas
            .iter()
            .map(|replica| (replica.replica_id, replica.replica_directory_id))
            .collect()
    };
    let nodes = response.nodes.iter();
    Described {
        voters: keys(&partition.current_voters),
        observers: keys(&partition.observers),
        nodes: nodes.map(|n| (n.node_id, n.listeners[0].port)).collect(),
    }
}

fn keys(ids: &[i32]) -> Vec<(i32, Uuid)> {
    ids.iter().map(|id| (*id, directory(*id))).collect()
}

async fn add(leader: &Controller, id: i32, directory: Uuid) -> Result<(), ErrorCode> {
    add_within(20_000, leader, id, directory).await
}

async fn add_within(
    timeout_ms: i32,
    leader: &Controller,
    id: i32,
    directory: Uuid,
) -> Result<(), ErrorCode> {
    let request = AddRaftVoterRequest {
        cluster_id: Some(CLUSTER.into()),
        timeout_ms,
        voter_id: id,
        voter_directory_id: directory,
        listeners: vec![Listener {
            name: "CONTROLLER".into(),
            host: "localhost".into(),
            port: port(id),
            ..Listener::default()
        }],
        ..AddRaftVoterRequest::default()
    };
    let added = leader.add_raft_voter(&request).await;
    added.map(drop).map_err(|error| error.code)
}

async fn remove(leader: &Controller, id: i32, directory: Uuid) -> Result<(), ErrorCode> {
    let request = RemoveRaftVoterRequest {
        cluster_id: Some(CLUSTER.into()),
        voter_id: id,
        voter_directory_id: directory,
        ..RemoveRaftVoterRequest::default()
    };
    let removed = leader.remove_raft_voter(&request).await;
    removed.map(drop).map_err(|error| error.code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_grows_to_three_and_shrinks_again() {
    let cluster = Cluster::start(1).await;
    let first = cluster.leader().await;
    wait_for("the first records", || {
        (first.image().features().level("kraft.version") == 1).then_some(())
    })
    .await;
    for id in 2..=3 {
        // Nobody named these: they follow, and do not vote.
        cluster.start_node(id, directory(id), "a").await;
        let observing = |d: &Described| d.observers == keys(&[id]);
        cluster.described("an observer", observing).await;
        add(&first, id, directory(id)).await.unwrap();
    }
    let described = describe(&first);
    assert_eq!(described.voters, keys(&[1, 2, 3]));
    assert_eq!(described.observers, []);
    assert_eq!(described.nodes, [(1, 9091), (2, 9092), (3, 9093)]);
    cluster.all_follow().await;
    assert_eq!(
        add(&first, 2, directory(9)).await,
        Err(ErrorCode::DuplicateVoter)
    );
    assert_eq!(
        remove(&first, 2, directory(9)).await,
        Err(ErrorCode::VoterNotFound)
    );
    // The one that leads goes: another one takes over, and it follows that.
    remove(&first, 1, directory(1)).await.unwrap();
    for id in 1..=3 {
        let log = cluster.metadata_dir(id, "a").join("__cluster_metadata-0");
        let files = std::fs::read_dir(&log).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        let segments: Vec<_> = names.filter(|name| name.ends_with(".log")).collect();
        assert_eq!(segments, ["00000000000000000000.log"]);
    }
    let gone = |d: &Described| d.voters == keys(&[2, 3]) && d.observers == keys(&[1]);
    cluster.described("the first to follow", gone).await;
    assert!(!first.is_active());
    cluster.all_follow().await;
    let leader = cluster.leader().await;
    remove(&leader, 3, directory(3)).await.unwrap();
    let leader = cluster.leader().await;
    if remove(&leader, 2, directory(2)).await.is_ok() {
        panic!("the last voter is gone");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_with_another_disk_is_another_voter() {
    let cluster = Cluster::start(3).await;
    cluster.all_follow().await;
    let leader = cluster.leader().await;
    let lost = (1..=3).find(|id| *id != leader.node_id()).unwrap();
    cluster.stop(lost).await;
    // It has the id and nothing else: it must not vote, nor pass for the one that had the log.
    let new = directory(8);
    cluster.start_node(lost, new, "b").await;
    let offset = leader.image().offset();
    assert_eq!(
        add(&leader, lost, new).await,
        Err(ErrorCode::DuplicateVoter)
    );
    let again = cluster.net.0.lock().unwrap()[&port(lost)].clone();
    assert!(again.image().offset() < offset);
    remove(&leader, lost, directory(lost)).await.unwrap();
    cluster
        .described("the new disk to follow", |d| d.observers == [(lost, new)])
        .await;
    add(&leader, lost, new).await.unwrap();
    assert!(describe(&leader).voters.contains(&(lost, new)));
    cluster.all_follow().await;
    // It has a vote that counts.
    let third = (1..=3)
        .find(|id| ![lost, leader.node_id()].contains(id))
        .unwrap();
    cluster.stop(third).await;
    cluster.all_follow().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_looked_for_on_a_disk_it_does_not_have_makes_itself_known() {
    let cluster = Cluster::start(3).await;
    cluster.all_follow().await;
    let leader = cluster.leader().await;
    let id = (1..=3).find(|id| *id != leader.node_id()).unwrap();
    cluster.stop(id).await;
    // While it is away it loses its vote, and an operator mistakes its directory.
    remove(&leader, id, directory(id)).await.unwrap();
    let mistaken = add_within(500, &leader, id, directory(9)).await;
    assert_eq!(mistaken, Err(ErrorCode::RequestTimedOut));
    // It believes that it votes, and nobody tells it otherwise.
    cluster.start_node(id, directory(id), "a").await;
    let observing = |d: &Described| d.observers == keys(&[id]);
    cluster.described("it to follow", observing).await;
    cluster.all_follow().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn voters_that_changed_are_found_after_a_restart() {
    let cluster = Cluster::start(1).await;
    cluster.start_node(2, directory(2), "a").await;
    add(&cluster.leader().await, 2, directory(2)).await.unwrap();
    cluster.all_follow().await;
    cluster.leader().await.take_snapshot().await.unwrap();
    cluster.stop(2).await;
    cluster.stop(1).await;
    cluster.start_node(1, directory(1), "a").await;
    // Alone it is no majority any more.
    let alone = cluster.nodes().remove(0);
    assert!(!alone.is_active());
    cluster.start_node(2, directory(2), "a").await;
    let both = |d: &Described| d.voters == keys(&[1, 2]);
    cluster.described("both", both).await;
    cluster.all_follow().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controllers_that_may_make_themselves_voters() {
    let mut cluster = Cluster::start(1).await;
    cluster.auto_join = true;
    cluster.start_node(2, directory(2), "a").await;
    let both = |d: &Described| d.voters == keys(&[1, 2]);
    cluster.described("the second to vote", both).await;
    cluster.start_node(3, directory(3), "a").await;
    let all = |d: &Described| d.voters == keys(&[1, 2, 3]);
    cluster.described("the third to vote", all).await;
    let leader = cluster.leader().await.node_id();
    // A new disk takes the place of the old one.
    let lost = if leader == 2 { 3 } else { 2 };
    cluster.stop(lost).await;
    cluster.start_node(lost, directory(7), "b").await;
    let replaced = |d: &Described| d.voters.contains(&(lost, directory(7)));
    cluster.described("the new disk to vote", replaced).await;
    cluster.all_follow().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_tells_where_it_listens() {
    let cluster = Cluster::start(2).await;
    cluster.all_follow().await;
    let leader = cluster.leader().await;
    let other = 3 - leader.node_id();
    let request = |directory_id, port, epoch| UpdateRaftVoterRequest {
        cluster_id: Some(CLUSTER.into()),
        current_leader_epoch: epoch,
        voter_id: other,
        voter_directory_id: directory_id,
        listeners: vec![update_raft_voter_request::Listener {
            name: "CONTROLLER".into(),
            host: "localhost".into(),
            port,
            ..Default::default()
        }],
        k_raft_version_feature: update_raft_voter_request::KRaftVersionFeature {
            min_supported_version: 0,
            max_supported_version: 1,
            ..Default::default()
        },
        ..UpdateRaftVoterRequest::default()
    };
    let old = leader
        .update_raft_voter(&request(directory(other), 9999, 0))
        .await;
    assert_eq!(old.error_code, ErrorCode::FencedLeaderEpoch.code());
    let epoch = old.current_leader.leader_epoch;
    let stranger = request(directory(9), 9999, epoch);
    let refused = leader.update_raft_voter(&stranger).await;
    assert_eq!(refused.error_code, ErrorCode::VoterNotFound.code());
    // It is reached under the new address from then on.
    let moved = cluster.net.0.lock().unwrap().remove(&port(other)).unwrap();
    cluster.net.0.lock().unwrap().insert(9999, moved);
    let told = leader
        .update_raft_voter(&request(directory(other), 9999, epoch))
        .await;
    assert_eq!(
        (told.error_code, told.current_leader.leader_id),
        (0, leader.node_id())
    );
    let there = |d: &Described| d.nodes.contains(&(other, 9999));
    cluster.described("the new address", there).await;
    cluster.all_follow().await;
}
