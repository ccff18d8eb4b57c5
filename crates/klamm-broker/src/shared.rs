use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arc_swap::ArcSwap;
use klamm_config::BrokerConfig;
use klamm_coordinator::{
    GroupCoordinator, ShareStateCoordinator, TopicLookup, TransactionCoordinator,
};
use klamm_env::Env;
use klamm_metadata::{MetadataImage, NO_LEADER, PartitionImage};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;
use klamm_replication::ReplicaManager;
use tokio::sync::Notify;

use crate::controller::ControllerHandle;
use crate::fetchers::Fetchers;
use crate::group_cluster::GroupCluster;
use crate::movers::Movers;
use crate::ops::Metrics;
use crate::peers::{Line, Peers};
use crate::producer_ids::ProducerIds;
use crate::settings::Settings;
use crate::shares::{Persister, SharePartitions};
use crate::streams::InternalTopics;
use crate::supervise::Supervisor;

/// What the request handlers work with.
#[derive(Debug)]
pub(crate) struct Shared {
    /// This broker's id.
    pub(crate) node_id: i32,
    /// The cluster's id.
    pub(crate) cluster_id: String,
    /// Clock, randomness, storage.
    pub(crate) env: Env,
    /// What was read out of the configuration once.
    pub(crate) settings: Settings,
    /// The configuration with the dynamic values of now.
    pub(crate) config: Arc<ArcSwap<BrokerConfig>>,
    /// Decides what changes the cluster's metadata.
    pub(crate) controller: ControllerHandle,
    /// The partitions this broker has a replica of.
    pub(crate) replicas: ReplicaManager,
    /// The consumer groups this broker coordinates.
    pub(crate) groups: Arc<GroupCoordinator>,
    /// What the coordinator of groups sees of the cluster.
    pub(crate) group_cluster: Arc<GroupCluster>,
    /// The transactions this broker coordinates.
    pub(crate) transactions: Arc<TransactionCoordinator>,
    /// The states of share groups this broker coordinates.
    pub(crate) share_states: Arc<ShareStateCoordinator>,
    /// The way to the share coordinators of all.
    pub(crate) persister: Arc<Persister>,
    /// Deliveries to share groups of partitions this broker leads.
    pub(crate) shares: SharePartitions,
    /// Internal topics of streams groups on their way.
    pub(crate) internal_topics: InternalTopics,
    /// Ids for idempotent producers.
    pub(crate) producer_ids: ProducerIds,
    /// Move replicas between log directories.
    pub(crate) movers: Movers,
    /// Told when the state of a log directory changes, which the controller is to hear soon.
    pub(crate) directories_changed: Arc<Notify>,
    /// Told when no log directory is left.
    pub(crate) directories_lost: Arc<Notify>,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// Given by the controller at registration.
    pub(crate) broker_epoch: Arc<AtomicI64>,
    /// Set once this broker leaves the cluster: from then on its heartbeats ask for nothing else.
    pub(crate) leaving: AtomicBool,
    /// Where the other brokers are.
    pub(crate) peers: Peers,
    /// To coordinators of transactions on other brokers.
    pub(crate) transaction_line: Line,
    /// Questions to share coordinators on other brokers.
    pub(crate) share_line: Line,
    /// To other brokers, with transaction markers.
    pub(crate) marker_line: Line,
    /// Starts tasks again that panic.
    pub(crate) supervisor: Supervisor,
    /// Fetch what is led by other brokers.
    pub(crate) fetchers: Fetchers,
}

impl Shared {
    /// The metadata of now.
    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.controller.image()
    }

    /// The configuration of now.
    pub(crate) fn config(&self) -> Arc<BrokerConfig> {
        self.config.load_full()
    }

    /// Milliseconds of a clock that never goes back.
    pub(crate) fn monotonic_ms(&self) -> u64 {
        u64::try_from(self.env.clock.monotonic().as_millis()).unwrap_or(u64::MAX)
    }

    /// The epoch of this broker's registration.
    pub(crate) fn epoch(&self) -> i64 {
        self.broker_epoch.load(Ordering::Acquire)
    }

    /// Whether a listener is one of those in `controller.listener.names`.
    pub(crate) fn is_controller_listener(&self, name: &str) -> bool {
        self.settings
            .controller_listeners
            .iter()
            .any(|listener| listener == name)
    }

    /// The node that clients are told is the controller: with KRaft any broker will do, because each
    /// passes requests on. This one if it can be seen, else the first that can.
    pub(crate) fn some_alive_broker(&self, image: &MetadataImage, listener: &str) -> i32 {
        let ids = || {
            image
                .cluster()
                .alive_endpoints(listener)
                .map(|(broker, _)| broker.id)
        };
        let own = ids().find(|id| *id == self.node_id);
        own.or_else(|| ids().next()).unwrap_or(-1)
    }

    /// A partition's leader as clients of a listener may see it, and the error to give with it.
    pub(crate) fn visible_leader(
        &self,
        image: &MetadataImage,
        partition: &PartitionImage,
        listener: &str,
    ) -> (i32, ErrorCode) {
        if partition.leader == NO_LEADER {
            return (NO_LEADER, ErrorCode::LeaderNotAvailable);
        }
        match image.broker(partition.leader).filter(|node| !node.fenced) {
            None => (NO_LEADER, ErrorCode::LeaderNotAvailable),
            Some(node) if node.endpoint(listener).is_none() => {
                (NO_LEADER, ErrorCode::ListenerNotFound)
            }
            Some(node) => (node.id, ErrorCode::None),
        }
    }

    /// Where clients of a listener reach a broker, for leader hints (KIP-951).
    pub(crate) fn endpoint_of(
        &self,
        image: &MetadataImage,
        node: i32,
        listener: &str,
    ) -> Option<(klamm_metadata::Endpoint, Option<String>)> {
        let node = image.broker(node).filter(|node| !node.fenced)?;
        Some((node.endpoint(listener)?.clone(), node.rack.clone()))
    }
}

/// The topics of an image, as the group coordinator asks for them.
pub(crate) struct Topics(pub(crate) Arc<MetadataImage>);

impl TopicLookup for Topics {
    fn topic_name(&self, id: Uuid) -> Option<ByteStr> {
        self.0
            .topic_by_id(id)
            .map(|topic| ByteStr::from(&**topic.name()))
    }

    fn topic_id(&self, name: &str) -> Option<Uuid> {
        self.0.topic(name).map(|topic| topic.id())
    }

    fn has_partition(&self, name: &str, partition: i32) -> bool {
        self.0.partition(name, partition).is_some()
    }
}
