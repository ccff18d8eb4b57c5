//! The replica manager: all replicas of one broker, their logs, and the requests that wait for
//! them. The only part of this crate that touches files and tasks.
//!
//! - `metadata`: which replicas there are and in which role, as the metadata says.
//! - `produce`, `fetch`, `offsets`, `delete_records`, `coordinator`, `describe`: what
//!   requests ask for, one file each; `fetched` is the answer to a fetch.
//! - `nearest`: which replicas consumers may read from.
//! - `follow`: what fetchers bring from leaders of other brokers.
//! - `quota`: how fast replicas that are behind are copied.
//! - `moves`: replicas that move between the directories of this broker.
//! - `partition`: one replica: its log, the state machine of its role, its waiting lists.
//! - `map`: finding a replica by topic name or id.
//! - `wait`, `timer`: how requests sleep, and the one timer that wakes them in the end.
//! - `error`: Kafka's error codes for what fails below.
//!
//! Calls that change or read a partition are synchronous; only waiting is `async`. No lock is held
//! across an await.

mod coordinator;
mod delete_records;
mod describe;
mod error;
mod fetch;
mod fetched;
mod follow;
mod map;
mod metadata;
mod moves;
mod nearest;
mod offsets;
mod partition;
mod produce;
mod quota;
mod timer;
mod wait;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use klamm_env::Env;
use klamm_log::LogManager;
use klamm_metadata::MetadataImage;
use klamm_protocol::ErrorCode;
use klamm_records::{TopicPartition, Uuid};
use tokio::sync::Notify;

pub use coordinator::{CoordinatorAppend, LoadedRange, ProducerClaim};
pub use delete_records::DeletedRecords;
pub use describe::{LeaderStatus, ReplicaStatus};
pub use fetch::FetchParams;
pub use fetched::{FetchSlices, FetchedPartition};
pub use follow::{FollowError, Followed, FollowerWish};
pub use metadata::{Elected, Following, ReplicaChanges, TopicSettings};
pub use moves::{DirectoryAssignment, DirectorySink, MoveStep, MoveTicket};
pub use nearest::ReadableReplica;
pub use offsets::{
    EARLIEST_LOCAL_TIMESTAMP, EARLIEST_PENDING_UPLOAD_TIMESTAMP, EARLIEST_TIMESTAMP,
    LATEST_TIERED_TIMESTAMP, LATEST_TIMESTAMP, MAX_TIMESTAMP, OffsetAnswer, OffsetQuery,
    ReadIsolation, is_timestamp_supported,
};
pub use partition::ReplicaOffsets;
pub use produce::{PendingProduce, Prepared, ProduceContext, ProduceResult, TopicRef};
pub use quota::ThrottledPartitions;

use self::map::{Hosted, PartitionMap};
use self::moves::Moves;
use self::partition::Partition;
use self::quota::Quotas;
use self::timer::Timer;
use crate::fetch_session::{FetchPartition, FetchSessionCache};
use crate::partition::{
    AlterPartitionError, FollowerFetch, IsrProposal, LeaderState, PartitionMetadata, Role,
};
use crate::time::within;

/// The configs of a broker that replication acts on.
#[derive(Clone, Debug)]
pub struct ReplicaManagerConfig {
    /// This broker.
    pub node_id: i32,
    /// `replica.lag.time.max.ms`
    pub replica_lag_max_ms: i64,
    /// `max.incremental.fetch.session.cache.slots`
    pub fetch_session_slots: usize,
    /// Threads that make and open logs when the metadata assigns several replicas at once. With
    /// one, the caller's does it.
    pub assign_threads: usize,
}

impl ReplicaManagerConfig {
    /// Kafka's defaults.
    pub fn new(node_id: i32) -> Self {
        ReplicaManagerConfig {
            node_id,
            replica_lag_max_ms: 30_000,
            fetch_session_slots: 1_000,
            assign_threads: 8,
        }
    }
}

/// Takes ISR changes to the controller. The answer comes back through
/// [`ReplicaManager::alter_partition_answered`].
pub trait ProposalSink: std::fmt::Debug + Send + Sync {
    /// Sends a proposal on its way; must not block.
    fn propose(&self, partition: &TopicPartition, topic_id: Uuid, proposal: IsrProposal);
}

/// Runs what may wait for a disk, where that keeps nobody else from going on.
pub trait BlockingPool: std::fmt::Debug + Send + Sync {
    /// Runs `work`; the result is ready once it is done.
    fn run(&self, work: Box<dyn FnOnce() + Send>) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// Who leads a partition, as far as this broker knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaderHint {
    /// The leader, -1 for none.
    pub leader_id: i32,
    /// Its epoch, -1 if unknown.
    pub leader_epoch: i32,
}

impl From<&Role> for LeaderHint {
    fn from(role: &Role) -> LeaderHint {
        LeaderHint {
            leader_id: role.leader_id().unwrap_or(-1),
            leader_epoch: role.leader_epoch(),
        }
    }
}

/// All replicas of a broker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ReplicaManager(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: ReplicaManagerConfig,
    env: Env,
    logs: Arc<LogManager>,
    proposals: Arc<dyn ProposalSink>,
    sessions: FetchSessionCache,
    partitions: PartitionMap,
    image: ArcSwap<MetadataImage>,
    timer: Timer,
    moves: Moves,
    quotas: Quotas,
    /// Told when the log of a follower was synced.
    follower_synced: Arc<Notify>,
    blocking: OnceLock<Arc<dyn BlockingPool>>,
    /// Held while the metadata changes replicas.
    changes: Mutex<()>,
}

impl ReplicaManager {
    /// A manager without replicas; [`ReplicaManager::apply_metadata`] brings them.
    pub fn new(
        config: ReplicaManagerConfig,
        logs: Arc<LogManager>,
        proposals: Arc<dyn ProposalSink>,
        env: Env,
    ) -> Self {
        let sessions = FetchSessionCache::new(config.fetch_session_slots);
        ReplicaManager(Arc::new(Inner {
            config,
            env,
            logs,
            proposals,
            sessions,
            partitions: PartitionMap::default(),
            image: ArcSwap::default(),
            timer: Timer::default(),
            moves: Moves::default(),
            quotas: Quotas::default(),
            follower_synced: Arc::default(),
            blocking: OnceLock::new(),
            changes: Mutex::new(()),
        }))
    }

    /// Has fetches far behind find their place by way of `pool`. Without one, and to be said only
    /// once, they do so where they are polled.
    pub fn set_blocking_pool(&self, pool: Arc<dyn BlockingPool>) {
        // A second pool would do what the first does.
        let _ = self.0.blocking.set(pool);
    }

    /// The logs.
    pub fn logs(&self) -> &Arc<LogManager> {
        &self.0.logs
    }

    /// The fetch sessions of this broker.
    pub fn sessions(&self) -> &FetchSessionCache {
        &self.0.sessions
    }

    /// Whether this broker leads a partition, and in which epoch.
    pub fn leader_epoch(&self, topic: &str, partition: i32) -> Option<i32> {
        let partition = self.find(topic, partition).ok()?;
        partition.role(|role| role.as_leader().map(LeaderState::epoch))
    }

    /// Who leads a partition: by this broker's replica if it has one, else by the metadata.
    pub fn leader_hint(&self, topic: TopicRef<'_>, partition: i32) -> Option<LeaderHint> {
        let found = match topic {
            TopicRef::Name(name) => self.find(name, partition),
            TopicRef::Id(id) => self.find_by_id(id, partition),
        };
        if let Ok(found) = found {
            return Some(found.role(|role| LeaderHint::from(role)));
        }
        let image = self.0.image.load();
        let topic = match topic {
            TopicRef::Name(name) => image.topic(name),
            TopicRef::Id(id) => image.topic_by_id(id),
        };
        let partition = topic?.partition(partition)?;
        Some(LeaderHint {
            leader_id: partition.leader,
            leader_epoch: partition.leader_epoch,
        })
    }

    /// The replica of a partition. A partition that exists elsewhere is not led here: the client
    /// must look for its leader again.
    fn find(&self, topic: &str, partition: i32) -> Result<Arc<Partition>, ErrorCode> {
        match self.0.partitions.by_name(topic, partition) {
            Some(Hosted::Online(found)) => Ok(found),
            Some(Hosted::Offline) => Err(ErrorCode::KafkaStorageError),
            None if self.0.image.load().partition(topic, partition).is_some() => {
                Err(ErrorCode::NotLeaderOrFollower)
            }
            None => Err(ErrorCode::UnknownTopicOrPartition),
        }
    }

    fn find_by_id(&self, topic_id: Uuid, partition: i32) -> Result<Arc<Partition>, ErrorCode> {
        match self.0.partitions.by_id(topic_id, partition) {
            Some(Hosted::Online(found)) => Ok(found),
            Some(Hosted::Offline) => Err(ErrorCode::KafkaStorageError),
            None => match self.0.image.load().topic_by_id(topic_id) {
                Some(topic) if topic.partition(partition).is_some() => {
                    Err(ErrorCode::NotLeaderOrFollower)
                }
                Some(_) => Err(ErrorCode::UnknownTopicOrPartition),
                None => Err(ErrorCode::UnknownTopicId),
            },
        }
    }

    fn follower_fetched(
        &self,
        params: &FetchParams,
        partition: &Partition,
        wish: &FetchPartition,
        seen: &ReplicaOffsets,
    ) -> Result<(), ErrorCode> {
        let fetch = FollowerFetch {
            replica: params.replica_id,
            broker_epoch: params.replica_epoch,
            offset: wish.fetch_offset,
            log_start_offset: wish.log_start_offset,
            leader_end_offset: seen.log_end_offset,
            now_ms: self.0.env.clock.wall_ms(),
        };
        let names_epoch = wish.current_leader_epoch.is_some();
        let proposal = partition.follower_fetched(fetch, names_epoch)?;
        self.propose(partition, proposal);
        Ok(())
    }

    /// Proposes to drop replicas that have lagged for too long, in all partitions led here. To be
    /// called every half of `replica.lag.time.max.ms`.
    pub fn check_in_sync_replicas(&self) {
        let now_ms = self.0.env.clock.wall_ms();
        for partition in self.0.partitions.online() {
            self.propose(&partition, partition.check_lag(now_ms));
        }
    }

    /// Takes the controller's answer to the proposal `proposal` for a partition.
    pub fn alter_partition_answered(
        &self,
        partition: &TopicPartition,
        proposal: u64,
        answer: Result<&PartitionMetadata, ErrorCode>,
    ) {
        let Ok(found) = self.find(&partition.topic, partition.partition) else {
            return;
        };
        let answer = answer.map_err(AlterPartitionError::from);
        let now_ms = self.0.env.clock.wall_ms();
        self.propose(
            &found,
            found.alter_partition_answered(proposal, answer, now_ms),
        );
    }

    fn propose(&self, partition: &Partition, proposal: Option<IsrProposal>) {
        if let Some(proposal) = proposal {
            self.0
                .proposals
                .propose(partition.name(), partition.topic_id(), proposal);
        }
    }

    /// Wakes requests whose time is up; returns when the next one's will be, as monotonic time of
    /// the clock. [`ReplicaManager::run_timer`] calls it; simulations do so themselves.
    pub fn expire(&self) -> Option<Duration> {
        self.0.timer.expire(self.0.env.clock.monotonic())
    }

    /// Wakes requests as their time comes. To be spawned once per manager; never returns.
    pub async fn run_timer(self) {
        loop {
            match self.expire() {
                Some(next) => {
                    let sleep = next.saturating_sub(self.0.env.clock.monotonic());
                    within(sleep, self.0.timer.disturbed()).await;
                }
                None => self.0.timer.disturbed().await,
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
