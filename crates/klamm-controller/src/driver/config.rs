use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use klamm_protocol::messages::ControllerRegistrationRequest;
use klamm_protocol::messages::controller_registration_request::{Feature, Listener};
use klamm_records::Uuid;
use thiserror::Error;

use crate::managers::{Settings, features};
use crate::raft::{Joining, MetadataLogOptions, QuorumTransport, VoterEndpoint, Voters};
use crate::schema::ConfigSchema;

/// Where a controller can be reached by other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerListener {
    /// Name of the listener.
    pub name: String,
    /// Host name or address to be told to others.
    pub host: String,
    /// Port to be told to others.
    pub port: u16,
    /// Kafka's number of the security protocol.
    pub security_protocol: i16,
}

impl From<&ControllerListener> for VoterEndpoint {
    fn from(listener: &ControllerListener) -> Self {
        VoterEndpoint {
            name: listener.name.clone(),
            host: listener.host.clone(),
            port: listener.port,
        }
    }
}

/// A quorum whose voters are in its log and can be changed (KIP-853).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DynamicQuorum {
    /// `controller.quorum.bootstrap.servers`: where to ask for the controller that leads. The name of
    /// the listener is of no account.
    pub bootstrap_servers: Vec<VoterEndpoint>,
    /// `controller.quorum.auto.join.enable`: whether this controller makes itself a voter.
    pub auto_join: bool,
}

/// How a controller is started.
#[derive(Clone)]
pub struct ControllerConfig {
    /// This node's id.
    pub node_id: i32,
    /// The cluster's id; `None` to take the one found in the directory, or a new one.
    pub cluster_id: Option<String>,
    /// `metadata.log.dir`: `__cluster_metadata-0` lies directly below.
    pub metadata_dir: PathBuf,
    /// Id of that directory, from its `meta.properties`.
    pub directory_id: Uuid,
    /// Other voters than this node, and where they listen. A quorum that once had a log goes by
    /// the voters in it.
    pub other_voters: BTreeMap<i32, Vec<VoterEndpoint>>,
    /// Where the others are told that this voter listens, if that is not what `listeners` says: all
    /// voters of a new quorum have to begin with the same.
    pub voter_endpoints: Option<Vec<VoterEndpoint>>,
    /// Set where voters are not configured but found: those in the log, or those that the metadata
    /// directory was formatted with. A controller that is not among them follows the others until it
    /// is made a voter.
    pub dynamic: Option<DynamicQuorum>,
    /// The way to them; without other voters there is no need for one.
    pub transport: Option<Arc<dyn QuorumTransport>>,
    /// `controller.quorum.fetch.timeout.ms`: how long this node goes without hearing of the leader
    /// before it asks to be elected.
    pub election_timeout: Duration,
    /// `controller.quorum.election.backoff.max.ms`: how much longer than that it goes at most, by
    /// chance, so that not all ask at once. `None` for as long again.
    pub election_backoff_max: Option<Duration>,
    /// `controller.quorum.request.timeout.ms`: how long the answer of another controller is waited
    /// for. One that comes late counts until then.
    pub request_timeout: Duration,
    /// Entries of the Raft log that are kept behind a snapshot, for other voters to catch up with.
    pub entries_kept: u64,
    /// Where this controller can be reached.
    pub listeners: Vec<ControllerListener>,
    /// Levels of features that a new cluster starts with, in place of the highest ones.
    pub features: BTreeMap<String, i16>,
    /// Settings that the managers apply.
    pub settings: Settings,
    /// Knows all configs.
    pub schema: Arc<dyn ConfigSchema>,
    /// `broker.session.timeout.ms`: a broker that is silent for longer is fenced.
    pub session_timeout: Duration,
    /// `leader.imbalance.check.interval.seconds`, if `auto.leader.rebalance.enable` is on.
    pub leader_balance_interval: Option<Duration>,
    /// `unclean.leader.election.interval.ms`
    pub unclean_election_interval: Duration,
    /// `metadata.log.max.record.bytes.between.snapshots`
    pub snapshot_log_bytes: u64,
    /// `metadata.log.max.snapshot.interval.ms`; `None` for no such limit.
    pub snapshot_interval: Option<Duration>,
    /// `controller.quorum.fetch.snapshot.max.bytes`: snapshots go to other controllers in pieces of
    /// that size.
    pub snapshot_piece_bytes: usize,
    /// How the log in Kafka's format is kept.
    pub metadata_log: MetadataLogOptions,
}

impl ControllerConfig {
    /// The voters as the quorum begins with them. Where there are several, a voter's directory is
    /// not told to the others beforehand, so none is named: all have to begin with the same.
    pub(super) fn voters(&self) -> Voters {
        if self.dynamic.is_some() {
            return Voters::Formatted;
        }
        let own = match &self.voter_endpoints {
            Some(endpoints) => endpoints.clone(),
            None => self.endpoints(),
        };
        if self.other_voters.is_empty() {
            let own = (self.directory_id, own);
            return Voters::Given(BTreeMap::from([(self.node_id, own)]));
        }
        let others = self.other_voters.iter();
        let voters = others
            .map(|(id, endpoints)| (*id, (Uuid::ZERO, endpoints.clone())))
            .chain([(self.node_id, (Uuid::ZERO, own))]);
        Voters::Given(voters.collect())
    }

    /// Where this controller listens, as voters are told.
    fn endpoints(&self) -> Vec<VoterEndpoint> {
        self.listeners.iter().map(VoterEndpoint::from).collect()
    }

    /// How this controller gets into a quorum whose voters change.
    pub(super) fn joining(&self) -> Option<Joining> {
        let dynamic = self.dynamic.as_ref()?;
        Some(Joining {
            bootstrap_servers: dynamic.bootstrap_servers.clone(),
            endpoints: self.endpoints(),
            auto_join: dynamic.auto_join,
        })
    }

    /// A quorum of one with Kafka's defaults.
    pub fn new(
        node_id: i32,
        metadata_dir: impl Into<PathBuf>,
        directory_id: Uuid,
        schema: Arc<dyn ConfigSchema>,
    ) -> Self {
        ControllerConfig {
            node_id,
            cluster_id: None,
            metadata_dir: metadata_dir.into(),
            directory_id,
            other_voters: BTreeMap::new(),
            voter_endpoints: None,
            dynamic: None,
            transport: None,
            election_timeout: Duration::from_secs(2),
            election_backoff_max: None,
            request_timeout: Duration::from_secs(2),
            entries_kept: 10_000,
            listeners: Vec::new(),
            features: BTreeMap::new(),
            settings: Settings::default(),
            schema,
            session_timeout: Duration::from_secs(9),
            leader_balance_interval: Some(Duration::from_secs(300)),
            unclean_election_interval: Duration::from_secs(300),
            snapshot_log_bytes: 20 << 20,
            snapshot_interval: Some(Duration::from_secs(3600)),
            snapshot_piece_bytes: 1 << 20,
            metadata_log: MetadataLogOptions::default(),
        }
    }

    pub(super) fn check(&self) -> Result<(), ControllerError> {
        let alone = self.other_voters.is_empty() && self.dynamic.is_none();
        if !alone && self.transport.is_none() {
            return Err(ControllerError::NoTransport {
                voters: self.other_voters.keys().copied().collect(),
            });
        }
        for (name, level) in &self.features {
            let supported = features::SUPPORTED
                .iter()
                .find(|feature| feature.name == name);
            let fits = supported.is_some_and(|f| (f.min..=f.max).contains(level));
            if !fits {
                return Err(ControllerError::Feature {
                    name: name.clone(),
                    level: *level,
                });
            }
        }
        Ok(())
    }

    pub(super) fn registration(&self, incarnation_id: Uuid) -> ControllerRegistrationRequest {
        let listener = |listener: &ControllerListener| Listener {
            name: listener.name.as_str().into(),
            host: listener.host.as_str().into(),
            port: listener.port,
            security_protocol: listener.security_protocol,
            ..Listener::default()
        };
        let feature = |feature: &features::Feature| Feature {
            name: feature.name.into(),
            min_supported_version: feature.min,
            max_supported_version: feature.max,
            ..Feature::default()
        };
        ControllerRegistrationRequest {
            controller_id: self.node_id,
            incarnation_id,
            listeners: self.listeners.iter().map(listener).collect(),
            features: features::SUPPORTED.iter().map(feature).collect(),
            ..ControllerRegistrationRequest::default()
        }
    }
}

impl fmt::Debug for ControllerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControllerConfig")
            .field("node_id", &self.node_id)
            .field("cluster_id", &self.cluster_id)
            .field("metadata_dir", &self.metadata_dir)
            .field("other_voters", &self.other_voters)
            .finish_non_exhaustive()
    }
}

/// Why a controller cannot be started, or stopped in order.
#[derive(Debug, Error)]
pub enum ControllerError {
    /// There are other voters or may be, and no way to them.
    #[error("other voters of the metadata quorum ({voters:?}) cannot be reached from here")]
    NoTransport {
        /// The other voters, as far as they are known.
        voters: Vec<i32>,
    },
    /// A level that the feature does not have, or a feature that does not exist.
    #[error("feature {name} has no level {level}")]
    Feature {
        /// Name of the feature.
        name: String,
        /// The level asked for.
        level: i16,
    },
    /// The metadata directory is that of another cluster.
    #[error("the metadata directory belongs to cluster {found}, not {expected}")]
    ClusterId {
        /// The cluster asked for.
        expected: String,
        /// The cluster that the directory belongs to.
        found: String,
    },
    /// The logs of the quorum cannot be read or written.
    #[error("the metadata quorum cannot run: {0}")]
    Quorum(#[source] Box<dyn Error + Send + Sync>),
    /// The first records could not be committed.
    #[error("the first records of the cluster could not be committed")]
    Bootstrap,
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}
