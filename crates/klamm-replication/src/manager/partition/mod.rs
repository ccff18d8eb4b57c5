//! One replica on this broker: its log, its role and who waits for it.
//!
//! Two locks. The *gate* is held for reading while a batch is appended and for writing while the
//! role changes, so that a batch never gets the epoch of a leader that is none any more. The
//! *core* is held for moments only, never across file access: role, offsets, waiters. Order: gate,
//! core. The log has a lock of its own below both.
//!
//! - [`core`]: what the core lock guards, and what follows from a change of it.
//! - [`append`], [`read`]: records in and out.
//! - [`following`]: records in from the leader, and cuts where the logs part.
//! - [`replication`]: roles, followers, ISR.
//! - [`syncing`]: following how much of the log is on disk.
//! - [`waiting`]: entering and leaving the waiting lists.

mod append;
mod core;
mod following;
mod read;
mod replication;
mod syncing;
mod waiting;

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, Weak};

use klamm_env::Clock;
use klamm_log::Log;
use klamm_protocol::ErrorCode;
use klamm_records::produce::ProduceRules;
use klamm_records::{TopicPartition, Uuid};
use tokio::sync::Notify;

pub(crate) use self::append::Acks;
use self::core::Core;
pub(crate) use self::read::Limits;
use self::syncing::Syncs;
use super::metadata::TopicSettings;
use super::quota::Throttled;
use super::{ReplicaManagerConfig, lock};
use crate::partition::Role;
use crate::waiters::Isolation;

/// A replica on this broker.
#[derive(Debug)]
pub(crate) struct Partition {
    me: Weak<Partition>,
    name: TopicPartition,
    topic_id: Uuid,
    local_id: i32,
    lag_max_ms: i64,
    log: Arc<Log>,
    gate: RwLock<()>,
    core: Mutex<Core>,
    rules: RwLock<ProduceRules>,
    syncs: Syncs,
    throttled: Throttled,
}

/// Offsets of a replica at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaOffsets {
    /// First offset that may be read.
    pub log_start_offset: i64,
    /// Offset of the next record.
    pub log_end_offset: i64,
    /// Offset below which records are committed.
    pub high_watermark: i64,
    /// Offset below which all transactions are decided.
    pub last_stable_offset: i64,
    /// Leader epoch of the replica.
    pub leader_epoch: i32,
}

impl ReplicaOffsets {
    /// The end of what a reader may see.
    pub fn bound(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::LogEnd => self.log_end_offset,
            Isolation::HighWatermark => self.high_watermark,
            Isolation::LastStable => self.last_stable_offset,
        }
    }
}

impl Partition {
    pub(crate) fn new(
        name: TopicPartition,
        topic_id: Uuid,
        config: &ReplicaManagerConfig,
        log: Arc<Log>,
        settings: &TopicSettings,
        clock: Arc<dyn Clock>,
        follower_synced: Arc<Notify>,
    ) -> Arc<Self> {
        log.update_config(settings.log.clone());
        let high_watermark = log.high_watermark();
        let partition = Arc::new_cyclic(|me| Partition {
            me: me.clone(),
            name,
            topic_id,
            local_id: config.node_id,
            lag_max_ms: config.replica_lag_max_ms,
            log,
            gate: RwLock::new(()),
            core: Mutex::new(Core::new(high_watermark, settings.min_insync_replicas)),
            rules: RwLock::new(settings.rules),
            syncs: Syncs::new(clock, follower_synced),
            throttled: Throttled::default(),
        });
        partition
            .throttled
            .configure(partition.name.partition, settings);
        partition.follow_syncs(settings);
        partition
    }

    pub(crate) fn name(&self) -> &TopicPartition {
        &self.name
    }

    pub(crate) fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    pub(crate) fn log(&self) -> &Arc<Log> {
        &self.log
    }

    pub(crate) fn throttled(&self) -> &Throttled {
        &self.throttled
    }

    pub(crate) fn rules(&self) -> ProduceRules {
        *self.rules.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the role.
    pub(crate) fn role<T>(&self, look: impl FnOnce(&Role) -> T) -> T {
        look(&lock(&self.core).role)
    }

    /// Keeps the role from changing.
    fn hold_role(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Offsets and epoch, read together.
    pub(crate) fn offsets(&self) -> ReplicaOffsets {
        self.offsets_of(&lock(&self.core))
    }

    fn offsets_of(&self, core: &Core) -> ReplicaOffsets {
        let high_watermark = core.role.high_watermark();
        ReplicaOffsets {
            log_start_offset: self.log.log_start_offset(),
            log_end_offset: self.log.log_end_offset(),
            high_watermark,
            last_stable_offset: self.log.last_stable_offset(high_watermark),
            leader_epoch: core.role.leader_epoch(),
        }
    }

    /// As [`Partition::offsets`], after checking that the epoch that a client claims is current
    /// and, if `leader_only`, that this broker leads.
    pub(crate) fn offsets_for(
        &self,
        claimed_epoch: Option<i32>,
        leader_only: bool,
    ) -> Result<ReplicaOffsets, ErrorCode> {
        let core = lock(&self.core);
        core.role.check_epoch(claimed_epoch)?;
        if leader_only && core.role.as_leader().is_none() {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        Ok(self.offsets_of(&core))
    }
}
