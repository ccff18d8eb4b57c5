//! The quorum: metadata records, committed in order on a majority of controllers.
//!
//! This folder is the only place that names openraft. The rest of the crate sees a [`RaftNode`]:
//! groups of records go in, and come out applied to the image, written to `__cluster_metadata-0`
//! as Kafka writes it, and told to listeners.
//!
//! - `log_store`, `flusher`, `codec`: the Raft log over `klamm-log`; `hard_state`: the vote.
//! - `state_machine`: what committed entries do; `projection`: the log in Kafka's format.
//! - `checkpoint`, `snapshots`: snapshots in Kafka's format; `batches`: what is in both.
//! - `import`: taking over a directory from Kafka.
//! - `network`: the way to other controllers; `rpc`: what they say to each other; `serve`: what they
//!   are answered.
//! - `writing`: committing records; `reading`: the log for brokers that follow it; `replica`: what
//!   such a broker makes of it.
//! - `runtime`: what openraft runs on; `timing`: how patient it is.
//! - `leadership`: knowing when this node begins and ceases to lead; `succession`: following one whose
//!   process has ended; `candidacy`: who may stand for election; `status`: who else is there.
//! - `voters`: who votes, and changing it; `joining`: how a controller gets in; `upgrade`: from
//!   configured voters to those; `bootstrap`: the voters and feature levels that a directory was
//!   formatted with; `addresses`: where members are.
//!
//! On disk, below the metadata directory:
//!
//! ```text
//! __cluster_metadata-0/                 the log as Kafka knows it, and its .checkpoint snapshots
//! __cluster_metadata-0/raft/            the Raft log: Kafka takes no notice of a directory in here
//! __cluster_metadata-0/raft/hard-state  the vote
//! __cluster_metadata-0/raft/snapshot    where the newest snapshot stands in the Raft log
//! ```

mod addresses;
mod batches;
mod bootstrap;
mod candidacy;
mod checkpoint;
mod codec;
mod flusher;
mod hard_state;
mod import;
mod joining;
mod leadership;
mod log_store;
mod network;
mod projection;
mod reading;
mod replica;
mod rpc;
mod runtime;
mod serve;
mod snapshots;
mod state_machine;
mod status;
mod succession;
#[cfg(test)]
mod tests;
mod timing;
mod types;
mod upgrade;
mod voters;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use klamm_env::{Env, FsExt};
use klamm_log::meta_properties::MetaProperties;
use klamm_metadata::MetadataImage;
use klamm_records::Uuid;
use openraft::impls::leader_id_std::LeaderId;
use openraft::vote::RaftLeaderId;
use openraft::{Raft, ServerState};
use tokio::sync::watch;

use self::addresses::Addresses;
use self::log_store::LogStore;
use self::network::Network;
use self::projection::Projection;
use self::snapshots::SnapshotStore;
use self::state_machine::StateMachine;
use self::types::{
    LogId, Membership, NodeId, StoredMembership, TypeConfig, Vote, epoch_of, log_id,
};
use crate::runtime::Moment;

pub(crate) use self::bootstrap::levels as formatted_levels;
pub use self::bootstrap::{InitialVoters, write_levels, write_voters};
pub(crate) use self::joining::Joining;
pub(crate) use self::leadership::Leadership;
pub(crate) use self::network::NoTransport;
pub use self::network::QuorumTransport;
pub use self::projection::MetadataLogOptions;
pub(crate) use self::reading::Found;
pub use self::replica::{IncomingSnapshot, MetadataReplica};
pub(crate) use self::state_machine::Published;
pub use self::state_machine::{MetadataPublisher, MetadataUpdate};
pub(crate) use self::status::QuorumMember;
pub use self::types::VoterEndpoint;
pub(crate) use self::types::{RecordGroup, Voter};
pub(crate) use self::voters::VoterKey;
pub(crate) use self::writing::WriteError;

/// Name of the directory of the Raft log, in that of the metadata log.
const RAFT_DIR: &str = "raft";
const CLUSTER_ID_FILE: &str = "cluster-id";
/// How long a node that is a quorum by itself may take to lead.
const LEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// How to open a node.
#[derive(Clone, Debug)]
pub(crate) struct RaftOptions {
    pub(crate) node_id: i32,
    pub(crate) metadata_dir: PathBuf,
    pub(crate) cluster_id: String,
    /// Id of the metadata directory.
    pub(crate) directory_id: Uuid,
    pub(crate) voters: Voters,
    pub(crate) transport: Arc<dyn QuorumTransport>,
    /// How long a follower goes without hearing of the leader before it asks for votes.
    pub(crate) election_timeout: Duration,
    /// How much longer it goes at most.
    pub(crate) election_backoff_max: Duration,
    /// How long the answer of another node is waited for.
    pub(crate) request_timeout: Duration,
    /// Entries kept behind a snapshot for other voters to catch up with.
    pub(crate) entries_kept: u64,
    /// How much of a snapshot is sent to another node at once.
    pub(crate) snapshot_piece_bytes: usize,
    /// How the log in Kafka's format is kept.
    pub(crate) log: MetadataLogOptions,
}

/// The voters that a new quorum begins with. One that has a log goes by that.
#[derive(Clone, Debug)]
pub(crate) enum Voters {
    /// These, this node among them.
    Given(BTreeMap<i32, (Uuid, Vec<VoterEndpoint>)>),
    /// Those that the directory was formatted with. If this node is not among them, it waits until
    /// it is let in.
    Formatted,
}

fn members_of(voters: &InitialVoters) -> BTreeMap<NodeId, Voter> {
    let voter = |(id, (directory_id, endpoints)): (&i32, &(Uuid, Vec<VoterEndpoint>))| {
        let voter = Voter {
            directory_id: *directory_id,
            endpoints: endpoints.clone(),
        };
        (NodeId(*id), voter)
    };
    voters.iter().map(voter).collect()
}

type BoxError = Box<dyn Error + Send + Sync>;

/// A member of the quorum.
pub(crate) struct RaftNode {
    raft: Raft<TypeConfig, StateMachine>,
    store: LogStore,
    projection: Projection,
    snapshots: SnapshotStore,
    published: Arc<Published>,
    alone: bool,
    node: NodeId,
    directory_id: Uuid,
    cluster_id: Arc<str>,
    transport: Arc<dyn QuorumTransport>,
    addresses: Addresses,
    /// Held while voters are changed.
    changing: tokio::sync::Mutex<()>,
    /// What configured voters have told of themselves.
    told: upgrade::Told,
    election_timeout: Duration,
    /// When each other voter was last seen to have all there is, in milliseconds of the epoch.
    caught_up: Mutex<BTreeMap<i32, i64>>,
    env: Env,
    /// Where snapshots from other nodes are put until they are taken over.
    raft_dir: PathBuf,
    /// The one that is being received; locked while one is taken over.
    incoming: tokio::sync::Mutex<Option<serve::Incoming>>,
    /// When the leader was last heard of.
    heard: Mutex<Moment>,
    /// Whether writes are waited for no more.
    given_up: watch::Sender<bool>,
}

impl RaftNode {
    /// Opens the node's logs, taking over what Kafka left there. A quorum of one then waits until
    /// it leads; in a larger one the others may not be there yet.
    pub(crate) async fn open(options: RaftOptions, env: &Env) -> Result<Self, BoxError> {
        let log_dir = options.metadata_dir.join(projection::DIR_NAME);
        let raft_dir = log_dir.join(RAFT_DIR);
        let node_id = options.node_id;
        let projection = Projection::open(&log_dir, env, options.log)?;
        let (members, alone) = match &options.voters {
            Voters::Given(voters) => (members_of(voters), voters.len() == 1),
            // Others may come.
            Voters::Formatted => (formatted_members(env, &log_dir)?, false),
        };
        let store = LogStore::open(&raft_dir, env, alone)?;
        serve::remove_incoming(env, &raft_dir)?;
        let snapshots = SnapshotStore::open(env, &log_dir, &raft_dir)?;
        let foreign = take_over(
            env,
            &log_dir,
            NodeId(node_id),
            &members,
            &store,
            &projection,
            &snapshots,
        )?;
        if foreign && members.len() != 1 {
            return Err("Kafka's metadata can be taken over by a quorum of one only".into());
        }
        snapshots.check(store.purged())?;

        let published = Arc::new(Published::default());
        let addresses = Addresses::default();
        let state_machine = StateMachine::new(
            node_id,
            Arc::clone(&published),
            projection.clone(),
            snapshots.clone(),
            addresses.clone(),
        );
        let config = Arc::new(timing::config(alone, &options).validate()?);
        let cluster_id: Arc<str> = options.cluster_id.into();
        let network = Network {
            transport: Arc::clone(&options.transport),
            cluster_id: Arc::clone(&cluster_id),
            env: env.clone(),
            addresses: addresses.clone(),
            snapshot_piece_bytes: options.snapshot_piece_bytes.max(1),
            request_timeout: options.request_timeout,
        };
        let raft = Raft::new(
            NodeId(node_id),
            config,
            network,
            store.clone(),
            state_machine,
        )
        .await?;
        let node = NodeId(node_id);
        if !raft.is_initialized().await? {
            let own = members.get(&node);
            let votes =
                |own: &Voter| [Uuid::ZERO, options.directory_id].contains(&own.directory_id);
            if own.is_some_and(votes) {
                // Every voter begins with the same members: whoever is there first asks for votes.
                raft.initialize(members).await?;
            }
        } else if raft.voter_ids().eq([node])
            && !raft.is_leader()
            && candidacy::stands(&raft, node, options.directory_id)
        {
            // Nobody else could be heard of first.
            raft.trigger().elect(false).await?;
        }
        if alone {
            let leads = |metrics: &openraft::RaftMetrics<TypeConfig>| {
                metrics.state == ServerState::Leader
                    && metrics.last_applied.map(|id| id.index) == metrics.last_log_index
            };
            raft.wait(Some(LEAD_TIMEOUT))
                .metrics(leads, "leading the quorum")
                .await?;
        } else {
            let me = (node, options.directory_id);
            candidacy::watch(raft.clone(), me, options.election_timeout);
            let transport = Arc::clone(&options.transport);
            succession::watch_leader(raft.clone(), me, transport, addresses.clone());
        }
        Ok(RaftNode {
            raft,
            store,
            projection,
            snapshots,
            published,
            alone,
            node,
            directory_id: options.directory_id,
            cluster_id,
            transport: options.transport,
            addresses,
            changing: tokio::sync::Mutex::default(),
            told: upgrade::Told::default(),
            election_timeout: options.election_timeout,
            caught_up: Mutex::default(),
            env: env.clone(),
            raft_dir,
            incoming: tokio::sync::Mutex::default(),
            heard: Mutex::new(Moment::now()),
            given_up: watch::Sender::default(),
        })
    }

    /// Whether the quorum is this node alone, and will be.
    pub(crate) fn is_alone(&self) -> bool {
        self.alone
    }

    /// Id of the metadata directory of this node.
    pub(crate) fn directory_id(&self) -> Uuid {
        self.directory_id
    }

    /// Whether this node is the only voter of now.
    pub(crate) fn is_only_voter(&self) -> bool {
        self.raft.voter_ids().eq([self.node])
    }

    /// Follows when this node begins and ceases to lead.
    pub(crate) fn leadership(&self) -> Leadership {
        Leadership::new(&self.raft)
    }

    pub(crate) fn published(&self) -> &Arc<Published> {
        &self.published
    }

    pub(crate) fn image(&self) -> Arc<MetadataImage> {
        self.published.image()
    }

    /// Has a snapshot taken, and the log before it given up.
    pub(crate) async fn take_snapshot(&self) -> Result<(), WriteError> {
        self.raft
            .trigger()
            .snapshot()
            .await
            .map_err(|_| WriteError::Stopped)
    }

    /// Bytes of the Raft log since the last snapshot, or since the node was opened.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.store.bytes_appended()
    }

    /// Starts counting [`RaftNode::log_bytes`] anew.
    pub(crate) fn forget_log_bytes(&self) {
        self.store.forget_bytes_appended();
    }

    /// Stops, with everything durable.
    pub(crate) async fn shutdown(&self) -> io::Result<()> {
        self.raft.shutdown().await.map_err(io::Error::other)?;
        self.store.close()?;
        self.projection.close()
    }
}

/// A membership of these voters; the one of nobody without them.
fn membership_of(voters: Option<InitialVoters>) -> io::Result<Membership> {
    let nodes = members_of(&voters.unwrap_or_default());
    if nodes.is_empty() {
        return Ok(Membership::default());
    }
    let ids = nodes.keys().copied().collect();
    Membership::new(vec![ids], nodes).map_err(io::Error::other)
}

/// The voters that the directory was formatted with.
fn formatted_members(env: &Env, log_dir: &Path) -> io::Result<BTreeMap<NodeId, Voter>> {
    Ok(members_of(&bootstrap::voters(&*env.fs, log_dir)?))
}

/// Starts the Raft log behind what Kafka wrote, if it wrote: into a directory that was never ours,
/// or into ours since. Returns whether it did.
fn take_over(
    env: &Env,
    log_dir: &Path,
    node_id: NodeId,
    members: &BTreeMap<NodeId, Voter>,
    store: &LogStore,
    projection: &Projection,
    snapshots: &SnapshotStore,
) -> Result<bool, BoxError> {
    let own_term = store.vote().map_or(0, |vote| vote.leader_id.term);
    let foreign = projection
        .log()
        .latest_epoch()
        .is_some_and(|epoch| epoch > epoch_of(own_term));
    if !store.is_pristine() && !foreign {
        return Ok(false);
    }
    let Some(import::Found { image, .. }) = import::read(env, log_dir, projection)? else {
        return Ok(false);
    };
    let term = u64::from(image.epoch().unsigned_abs()).max(own_term);
    let last = log_id(term, store.last().map_or(0, |last: LogId| last.index + 1));
    let voters = BTreeSet::from([node_id]);
    let membership =
        StoredMembership::new(Some(last), Membership::new(vec![voters], members.clone())?);
    snapshots.write(&image, Some(last), &membership)?;
    let vote = Vote {
        leader_id: LeaderId::new(term, node_id),
        committed: false,
    };
    store.start_behind(last, vote)?;
    tracing::info!(
        offset = image.offset(),
        epoch = image.epoch(),
        topics = image.topics().len(),
        "took over the metadata that Kafka wrote"
    );
    Ok(true)
}

/// The cluster's id as this node keeps it: the given one, or the one found, or a new one.
pub(crate) fn cluster_id(
    env: &Env,
    metadata_dir: &Path,
    given: Option<&str>,
    new: impl FnOnce() -> String,
) -> io::Result<Result<String, String>> {
    let dir = metadata_dir.join(projection::DIR_NAME).join(RAFT_DIR);
    let path = dir.join(CLUSTER_ID_FILE);
    let found = match env.fs.read(&path) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).trim().to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // A directory that Kafka or the broker formatted says so itself.
            let formatted =
                MetaProperties::read(&*env.fs, metadata_dir).map_err(io::Error::other)?;
            formatted.and_then(|properties| properties.cluster_id)
        }
        Err(error) => return Err(error),
    };
    let noted = env.fs.exists(&path)?;
    match (found, given) {
        (Some(found), Some(given)) if found != given => Ok(Err(found)),
        (Some(found), _) if noted => Ok(Ok(found)),
        (found, given) => {
            let id = found
                .or_else(|| given.map(str::to_owned))
                .unwrap_or_else(new);
            env.fs.create_dir_all(&dir)?;
            // Durably: a name that outlives a crash without its content would be that of a cluster
            // which does not exist, and this node would never start again.
            env.fs.write_atomically(&path, id.as_bytes())?;
            Ok(Ok(id))
        }
    }
}
