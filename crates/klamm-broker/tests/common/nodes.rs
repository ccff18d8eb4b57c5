//! Several nodes in this process, each on a runtime of its own, on loopback ports.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use klamm_broker::{Broker, BrokerError};
use klamm_config::{BrokerConfig, Layers};
use klamm_env::Env;
use klamm_metadata::MetadataImage;
use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use klamm_protocol::messages::{
    CreateTopicsRequest, DescribeClusterRequest, DescribeClusterResponse, DescribeQuorumRequest,
};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::Client;

/// Longer than anything here takes, however slow the machine.
pub const PATIENCE: Duration = Duration::from_secs(90);
pub const CLUSTER_ID: &str = "of-several-nodes-at-once";

/// The roles of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roles {
    Both,
    Broker,
    Controller,
}

/// What is known of a node whether it runs or not.
#[derive(Debug)]
struct Place {
    roles: Roles,
    dir: TempDir,
    client_port: u16,
    controller_port: u16,
}

/// A node that runs.
struct Running {
    broker: Broker,
    runtime: Runtime,
}

/// Nodes 1, 2, ...
pub struct Nodes {
    places: BTreeMap<i32, Place>,
    running: BTreeMap<i32, Running>,
    more: Vec<(String, String)>,
    /// What only one node is told.
    own: Vec<(i32, String, String)>,
    /// For clients.
    runtime: Runtime,
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

/// Ports that nobody listens on. Not those that a system gives to outgoing connections: one of them
/// could take the port before the node does, or while the node is down.
fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    // Of another test process they are others.
    let start = (std::process::id() % u32::from(COUNT / 100)) as u16 * 100;
    let next = || FIRST + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(next)
        .filter(is_free)
        .take(count)
        .collect()
}

impl Nodes {
    /// Nodes with these roles, none of which runs yet.
    pub fn new(roles: &[Roles], more: &[(&str, &str)]) -> Nodes {
        let ports = free_ports(roles.len() * 2);
        let place = |(at, roles): (usize, &Roles)| {
            let place = Place {
                roles: *roles,
                dir: tempfile::tempdir().unwrap(),
                client_port: ports[at * 2],
                controller_port: ports[at * 2 + 1],
            };
            (i32::try_from(at).unwrap() + 1, place)
        };
        Nodes {
            places: roles.iter().enumerate().map(place).collect(),
            running: BTreeMap::new(),
            more: more
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            own: Vec::new(),
            runtime: runtime(),
        }
    }

    /// Configures one node; it is to be (re)started afterwards.
    pub fn set(&mut self, id: i32, name: &str, value: &str) {
        self.own.push((id, name.to_owned(), value.to_owned()));
    }

    /// Nodes that run; returns when all do.
    pub fn start(roles: &[Roles], more: &[(&str, &str)]) -> Nodes {
        let mut nodes = Nodes::new(roles, more);
        let all: Vec<i32> = nodes.places.keys().copied().collect();
        nodes.start_nodes(&all);
        nodes
    }

    pub fn config(&self, id: i32) -> BrokerConfig {
        let mut layers = self.layers(id);
        layers.set_cluster_id(CLUSTER_ID);
        BrokerConfig::load(layers).unwrap().config
    }

    /// All but the cluster's id.
    pub fn layers(&self, id: i32) -> Layers {
        let place = &self.places[&id];
        let voters: Vec<String> = self
            .places
            .iter()
            .filter(|(_, place)| place.roles != Roles::Broker)
            .map(|(id, place)| format!("{id}@127.0.0.1:{}", place.controller_port))
            .collect();
        let clients = format!("PLAINTEXT://127.0.0.1:{}", place.client_port);
        let quorum = format!("CONTROLLER://127.0.0.1:{}", place.controller_port);
        let (roles, listeners) = match place.roles {
            Roles::Both => ("broker,controller", format!("{clients},{quorum}")),
            Roles::Broker => ("broker", clients),
            Roles::Controller => ("controller", quorum),
        };
        let mut layers = Layers::new();
        layers
            .set("node.id", &id.to_string())
            .set("process.roles", roles)
            .set("listeners", &listeners)
            .set("controller.listener.names", "CONTROLLER")
            .set("controller.quorum.voters", &voters.join(","))
            .set("controller.quorum.fetch.timeout.ms", "2000")
            .set("broker.session.timeout.ms", "3000")
            .set("broker.heartbeat.interval.ms", "500")
            .set("log.dirs", &place.dir.path().to_string_lossy())
            .set("klamm.metrics.listeners", "")
            .set("group.initial.rebalance.delay.ms", "0")
            .set("offsets.topic.num.partitions", "2");
        for (name, value) in &self.more {
            layers.set(name, value);
        }
        for (_, name, value) in self.own.iter().filter(|(own, ..)| *own == id) {
            layers.set(name, value);
        }
        layers
    }

    /// Starts nodes at once, and waits until all of them run.
    pub fn start_nodes(&mut self, ids: &[i32]) {
        let starting: Vec<_> = ids
            .iter()
            .map(|id| {
                let (runtime, config) = (runtime(), self.config(*id));
                let started = runtime.spawn(Broker::start(config, Env::os()));
                (*id, runtime, started)
            })
            .collect();
        for (id, runtime, started) in starting {
            let broker = self.block_on(async { started.await.unwrap().unwrap() });
            self.running.insert(id, Running { broker, runtime });
        }
    }

    /// What comes of starting a node with other settings.
    pub fn try_start(&self, layers: Layers) -> Result<Broker, BrokerError> {
        let config = BrokerConfig::load(layers).unwrap().config;
        self.block_on(Broker::start(config, Env::os()))
    }

    /// Stops a node in order.
    pub fn stop(&mut self, id: i32) {
        let Running { broker, runtime } = self.running.remove(&id).unwrap();
        runtime.block_on(broker.shutdown());
        runtime.shutdown_timeout(PATIENCE);
    }

    /// Ends a node as a kill would: nothing of it runs on.
    pub fn kill(&mut self, id: i32) {
        let Running { broker, runtime } = self.running.remove(&id).unwrap();
        runtime.shutdown_timeout(PATIENCE);
        drop(broker);
    }

    /// The nodes that run.
    pub fn running(&self) -> Vec<i32> {
        self.running.keys().copied().collect()
    }

    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, work).await })
            .expect("this takes too long")
    }

    pub fn client_address(&self, id: i32) -> SocketAddr {
        ([127, 0, 0, 1], self.places[&id].client_port).into()
    }

    pub fn controller_address(&self, id: i32) -> SocketAddr {
        ([127, 0, 0, 1], self.places[&id].controller_port).into()
    }

    /// A client of a node's broker.
    pub fn client(&self, id: i32) -> Client {
        self.block_on(Client::connect_at(self.client_address(id)))
    }

    /// A client of a node's controller.
    pub fn controller_client(&self, id: i32) -> Client {
        self.block_on(Client::connect_at(self.controller_address(id)))
    }

    /// The metadata as a node knows it.
    pub fn image(&self, id: i32) -> Arc<MetadataImage> {
        self.running[&id].broker.metadata()
    }

    /// Waits until the metadata of all nodes that run is as asked.
    pub fn wait_for_images(&self, what: &str, test: impl Fn(&MetadataImage) -> bool) {
        wait_for(what, || {
            let mut ids = self.running.keys();
            ids.all(|id| test(&self.image(*id))).then_some(())
        });
    }

    /// The controllers as one of them describes them: the one that decides comes with it.
    pub fn describe_controllers(&self, id: i32) -> DescribeClusterResponse {
        let mut client = self.controller_client(id);
        let request = DescribeClusterRequest {
            endpoint_type: 2,
            ..DescribeClusterRequest::default()
        };
        self.block_on(client.ask(1, &request))
    }

    /// The controller that decides, once all that run agree on one of those that run.
    pub fn active_controller(&self) -> i32 {
        let controllers: Vec<i32> = self
            .running()
            .into_iter()
            .filter(|id| self.places[id].roles != Roles::Broker)
            .collect();
        wait_for("a controller that all agree on", || {
            let told: Vec<i32> = controllers
                .iter()
                .map(|id| self.describe_controllers(*id).controller_id)
                .collect();
            let first = told[0];
            let agreed = told.iter().all(|leader| *leader == first);
            (agreed && controllers.contains(&first)).then_some(first)
        })
    }
}

/// Asks again and again, as there is nothing to wait on from outside.
pub fn wait_for<T>(what: &str, test: impl FnMut() -> Option<T>) -> T {
    match wait_for_or(PATIENCE, test) {
        Some(found) => found,
        None => panic!("waiting for {what}"),
    }
}

/// The same for some time only.
#[allow(clippy::disallowed_methods, reason = "a test waits for elections")]
pub fn wait_for_or<T>(patience: Duration, mut test: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    while start.elapsed() < patience {
        if let Some(found) = test() {
            return Some(found);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    None
}

/// A request to make a topic with one replica.
pub fn topic(name: &str, partitions: i32) -> CreateTopicsRequest {
    CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: name.into(),
            num_partitions: partitions,
            replication_factor: 1,
            ..CreatableTopic::default()
        }],
        timeout_ms: 30_000,
        ..CreateTopicsRequest::default()
    }
}

pub async fn create(client: &mut Client, name: &str) -> i16 {
    let answer = client.ask(7, &topic(name, 3)).await;
    answer.topics[0].error_code
}

/// A request to describe the quorum.
pub fn quorum_request() -> DescribeQuorumRequest {
    DescribeQuorumRequest {
        topics: vec![TopicData {
            topic_name: "__cluster_metadata".into(),
            partitions: vec![PartitionData::default()],
            ..TopicData::default()
        }],
        ..DescribeQuorumRequest::default()
    }
}
