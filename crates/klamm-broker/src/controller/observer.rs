//! The metadata as a broker has it that is no controller: fetched from the controller that leads, as
//! Kafka's brokers do (`Fetch` of `__cluster_metadata-0`, `FetchSnapshot` where the log begins later).
//!
//! A copy of it is kept on disk, with snapshots of this broker's own: a broker that starts goes on from
//! there.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use klamm_client::{ClientError, Connection};
use klamm_controller::{MetadataReplica, VoterEndpoint};
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ReplicaState};
use klamm_protocol::messages::fetch_response::{PartitionData, SnapshotId};
use klamm_protocol::messages::fetch_snapshot_request::{
    PartitionSnapshot, SnapshotId as WantedId, TopicSnapshot,
};
use klamm_protocol::messages::{FetchRequest, FetchSnapshotRequest};
use klamm_protocol::{ByteStr, ErrorCode, Records, topic_name};
use klamm_records::Uuid;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, info, warn};

use super::code;
use super::peers::Peers;

/// How long a controller may hold back its answer while there is nothing to tell.
const WAIT: Duration = Duration::from_millis(500);
/// The most that one answer should hold.
const FETCH_BYTES: i32 = 4 << 20;

/// Why a step did not bring the metadata ahead.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("no answer in time")]
    Late,
    #[error("{0}")]
    Refused(ErrorCode),
    #[error("the answer does not fit: {0}")]
    Answer(&'static str),
    #[error("the metadata cannot be taken over: {0}")]
    Metadata(#[from] std::io::Error),
}

/// Who leads the controllers.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Leader {
    id: i32,
    epoch: i32,
    /// Where it listens, as far as that was told.
    endpoints: Vec<VoterEndpoint>,
}

/// Where controllers are asked while it is not known who leads.
#[derive(Clone, Debug)]
pub(crate) enum Contacts {
    /// By id: `controller.quorum.voters` says where they are.
    Voters(Vec<i32>),
    /// By address: `controller.quorum.bootstrap.servers`.
    Servers(Vec<VoterEndpoint>),
}

/// Stands for a node whose id is not known.
const UNKNOWN_NODE: i32 = -1;

impl Contacts {
    /// One of them, each in its turn; `None` if there are none.
    fn get(&self, turn: usize) -> Option<(i32, Vec<VoterEndpoint>)> {
        match self {
            Contacts::Voters(ids) => {
                let id = ids.get(turn.checked_rem(ids.len())?)?;
                Some((*id, Vec::new()))
            }
            Contacts::Servers(servers) => {
                let server = servers.get(turn.checked_rem(servers.len())?)?;
                Some((UNKNOWN_NODE, vec![server.clone()]))
            }
        }
    }
}

/// Follows the metadata log.
#[derive(Debug)]
pub(crate) struct Observer {
    node_id: i32,
    directory_id: Uuid,
    cluster_id: String,
    peers: Arc<Peers>,
    contacts: Contacts,
    replica: MetadataReplica,
    leader: Mutex<Option<Leader>>,
    /// Whose turn it is while it is not known who leads.
    next: AtomicUsize,
    /// How long to wait for an answer.
    patience: Duration,
    timing: Timing,
}

/// When what is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    /// `controller.quorum.fetch.timeout.ms`
    pub(crate) fetch_timeout: Duration,
    /// `controller.quorum.retry.backoff.ms`
    pub(crate) retry_backoff: Duration,
    /// `metadata.log.max.record.bytes.between.snapshots`
    pub(crate) snapshot_log_bytes: u64,
    /// `metadata.log.max.snapshot.interval.ms`; `None` for no such limit.
    pub(crate) snapshot_interval: Option<Duration>,
}

impl Observer {
    pub(crate) fn new(
        (node_id, directory_id): (i32, Uuid),
        cluster_id: &str,
        peers: Arc<Peers>,
        contacts: Contacts,
        replica: MetadataReplica,
        timing: Timing,
    ) -> Self {
        Observer {
            node_id,
            directory_id,
            cluster_id: cluster_id.to_owned(),
            peers,
            contacts,
            replica,
            leader: Mutex::default(),
            next: AtomicUsize::new(0),
            patience: timing.fetch_timeout + WAIT,
            timing,
        }
    }

    pub(crate) fn replica(&self) -> &MetadataReplica {
        &self.replica
    }

    /// The controller that leads, as far as this broker has heard.
    pub(crate) fn leader(&self) -> Option<i32> {
        self.known().map(|leader| leader.id)
    }

    /// That controller and where it listens, as far as that is known.
    pub(crate) fn leader_endpoints(&self) -> Option<(i32, Vec<VoterEndpoint>)> {
        self.known().map(|leader| (leader.id, leader.endpoints))
    }

    fn known(&self) -> Option<Leader> {
        let leader = self.leader.lock();
        leader.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes who is said to lead. An older epoch is no news; nobody in a newer one is.
    fn note_leader(&self, id: i32, epoch: i32, endpoints: Vec<VoterEndpoint>) {
        let mut leader = self.leader.lock().unwrap_or_else(PoisonError::into_inner);
        if epoch < leader.as_ref().map_or(-1, |leader| leader.epoch) {
            return;
        }
        let now = (id >= 0).then_some(Leader {
            id,
            epoch,
            endpoints,
        });
        if now != *leader {
            info!(leader = id, epoch, "following the controllers' leader");
            *leader = now;
        }
    }

    fn forget_leader(&self) {
        *self.leader.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Follows until the task is ended.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut last_snapshot = Instant::now();
        loop {
            self.snapshot_if_due(&mut last_snapshot).await;
            let leader = self.leader_endpoints();
            let next = || self.contacts.get(self.next.fetch_add(1, Ordering::Relaxed));
            let Some((node, endpoints)) = leader.or_else(next) else {
                return;
            };
            if let Err(failed) = self.step(node, &endpoints).await {
                match &failed {
                    Failed::Metadata(_) | Failed::Answer(_) => {
                        error!(controller = node, error = %failed, "metadata does not come through");
                    }
                    _ => debug!(controller = node, error = %failed, "no metadata from there"),
                }
                if !matches!(failed, Failed::Refused(_)) {
                    self.forget_leader();
                }
                sleep(self.timing.retry_backoff).await;
            }
        }
    }

    async fn step(&self, node: i32, endpoints: &[VoterEndpoint]) -> Result<(), Failed> {
        let fetched = timeout(self.patience, async {
            let connection = self.peers.for_metadata(node, endpoints).await?;
            let request = self.fetch_request();
            let answer = connection.request(&request).await?;
            Ok::<_, ClientError>((connection, answer))
        });
        let (connection, answer) = fetched.await.map_err(|_| Failed::Late)??;
        refused(answer.error_code)?;
        let told = answer.node_endpoints;
        let mut topics = answer.responses.into_iter();
        let partition = topics
            .next()
            .and_then(|topic| topic.partitions.into_iter().next());
        let partition = partition.ok_or(Failed::Answer("there is no partition in it"))?;
        let leader = &partition.current_leader;
        let endpoints = told.iter().filter(|told| told.node_id == leader.leader_id);
        let endpoints = endpoints.filter_map(|told| {
            Some(VoterEndpoint {
                name: String::new(),
                host: told.host.to_string(),
                port: u16::try_from(told.port).ok()?,
            })
        });
        self.note_leader(leader.leader_id, leader.leader_epoch, endpoints.collect());
        refused(partition.error_code)?;
        if partition.diverging_epoch.end_offset >= 0 {
            return Err(Failed::Answer(
                "what this broker knows was never committed there: is it another cluster?",
            ));
        }
        if partition.snapshot_id.end_offset >= 0 {
            return self.load(&connection, &partition.snapshot_id).await;
        }
        self.take(partition).await
    }

    async fn take(&self, partition: PartitionData) -> Result<(), Failed> {
        match partition.records {
            Some(Records::Bytes(bytes)) => Ok(self.replica.append(&bytes).await?),
            _ => Ok(()),
        }
    }

    fn fetch_request(&self) -> FetchRequest {
        let image = self.replica.image();
        FetchRequest {
            cluster_id: Some(ByteStr::from(self.cluster_id.clone())),
            replica_state: ReplicaState {
                replica_id: self.node_id,
                ..ReplicaState::default()
            },
            max_wait_ms: i32::try_from(WAIT.as_millis()).unwrap_or(i32::MAX),
            min_bytes: 1,
            max_bytes: FETCH_BYTES,
            topics: vec![FetchTopic {
                topic: topic_name::CLUSTER_METADATA.into(),
                topic_id: Uuid::METADATA_TOPIC,
                partitions: vec![FetchPartition {
                    current_leader_epoch: self.known().map_or(-1, |leader| leader.epoch),
                    fetch_offset: image.offset() + 1,
                    last_fetched_epoch: image.epoch(),
                    partition_max_bytes: FETCH_BYTES,
                    replica_directory_id: self.directory_id,
                    ..FetchPartition::default()
                }],
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        }
    }

    async fn snapshot_if_due(&self, last: &mut Instant) {
        let bytes = self.replica.log_bytes();
        let interval = self.timing.snapshot_interval;
        let too_old = interval.is_some_and(|interval| bytes > 0 && last.elapsed() >= interval);
        if bytes < self.timing.snapshot_log_bytes && !too_old {
            return;
        }
        *last = Instant::now();
        if let Err(failed) = self.replica.take_snapshot().await {
            error!(error = %failed, "a snapshot of the metadata cannot be written");
        }
    }

    /// Fetches a snapshot piece by piece and goes on from there.
    async fn load(&self, connection: &Connection, id: &SnapshotId) -> Result<(), Failed> {
        let mut incoming = self.replica.incoming(id.end_offset, id.epoch)?;
        loop {
            let position = incoming.position();
            let (piece, size) = self.snapshot_piece(connection, id, position).await?;
            if size <= 0 || piece.is_empty() {
                return Err(Failed::Answer("a snapshot of an impossible size"));
            }
            incoming.push(&piece)?;
            if incoming.position() >= size.unsigned_abs() {
                break;
            }
        }
        let bytes = incoming.position();
        self.replica.load(incoming).await?;
        info!(
            end_offset = id.end_offset,
            bytes, "loaded a metadata snapshot"
        );
        Ok(())
    }

    async fn snapshot_piece(
        &self,
        connection: &Connection,
        id: &SnapshotId,
        position: u64,
    ) -> Result<(Bytes, i64), Failed> {
        let request = FetchSnapshotRequest {
            cluster_id: Some(ByteStr::from(self.cluster_id.clone())),
            replica_id: self.node_id,
            max_bytes: FETCH_BYTES,
            topics: vec![TopicSnapshot {
                name: topic_name::CLUSTER_METADATA.into(),
                partitions: vec![PartitionSnapshot {
                    current_leader_epoch: self.known().map_or(-1, |leader| leader.epoch),
                    snapshot_id: WantedId {
                        end_offset: id.end_offset,
                        epoch: id.epoch,
                        ..WantedId::default()
                    },
                    position: i64::try_from(position).unwrap_or(i64::MAX),
                    replica_directory_id: self.directory_id,
                    ..PartitionSnapshot::default()
                }],
                ..TopicSnapshot::default()
            }],
            ..FetchSnapshotRequest::default()
        };
        let answer = timeout(self.patience, connection.request(&request));
        let answer = answer.await.map_err(|_| Failed::Late)??;
        refused(answer.error_code)?;
        let mut topics = answer.topics.into_iter();
        let partition = topics
            .next()
            .and_then(|topic| topic.partitions.into_iter().next());
        let partition = partition.ok_or(Failed::Answer("there is no partition in it"))?;
        refused(partition.error_code)?;
        match partition.unaligned_records {
            Some(Records::Bytes(bytes)) => Ok((bytes, partition.size)),
            _ => Err(Failed::Answer("there is nothing in it")),
        }
    }
}

fn refused(error_code: i16) -> Result<(), Failed> {
    match code(error_code) {
        ErrorCode::None => Ok(()),
        error => {
            if error == ErrorCode::InconsistentClusterId {
                warn!("the controllers are those of another cluster");
            }
            Err(Failed::Refused(error))
        }
    }
}
