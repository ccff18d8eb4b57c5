//! One replica on this broker: its log, its role and who waits for it.
//!
//! Two locks. The *gate* is held for reading while a batch is appended and for writing while the
//! role changes, so that a batch never gets the epoch of a leader that is none any more. The
//! *core* is held for moments only, never across file access: role, offsets, waiters. Order: gate,
//! core. The log has a lock of its own below both.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use klamm_log::{AppendInfo, AppendOrigin, Log};
use klamm_protocol::ErrorCode;
use klamm_records::produce::{PreparedBatch, ProduceRules};
use klamm_records::{TopicPartition, Uuid};
use tokio::sync::watch;

use super::error::{follower_error_code, log_error_code};
use super::metadata::TopicSettings;
use super::wait::{FetchWaiter, OffsetWaiter, Outcome, Ticket, Wakes};
use super::{ReplicaManagerConfig, lock};
use crate::partition::{
    AckState, AlterOutcome, AlterPartitionError, BrokerLiveness, FollowerFetch, IsrProposal,
    LocalLog, PartitionMetadata, Role, Transition,
};
use crate::waiters::{AckQueue, ByteLedger, FetchWaiters, Isolation, WaiterKey};

/// A replica on this broker.
#[derive(Debug)]
pub(crate) struct Partition {
    name: TopicPartition,
    topic_id: Uuid,
    local_id: i32,
    lag_max_ms: i64,
    log: Arc<Log>,
    gate: RwLock<()>,
    core: Mutex<Core>,
    rules: RwLock<ProduceRules>,
}

#[derive(Debug)]
struct Core {
    role: Role,
    min_insync_replicas: i32,
    ledger: ByteLedger,
    acks: AckQueue<Ticket>,
    deletes: AckQueue<Ticket>,
    fetches: FetchWaiters<Arc<FetchWaiter>>,
    /// The high watermark, for coordinators that wait for their records to be committed.
    watch: Option<watch::Sender<i64>>,
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

/// An append that succeeded.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) info: AppendInfo,
    /// Whether the acknowledgement is still to come; the ticket is in the queue then.
    pub(crate) waits: bool,
    /// How the records are acknowledged, unless they wait.
    pub(crate) outcome: Outcome,
}

/// How an append is to be acknowledged.
pub(crate) enum Acks<'a> {
    /// By the leader alone.
    Leader,
    /// By all in-sync replicas, and the caller follows the high watermark by itself.
    AllUnwatched,
    /// By all in-sync replicas; the function makes the ticket if that takes time.
    All(&'a mut dyn FnMut() -> Ticket),
}

impl Partition {
    pub(crate) fn new(
        name: TopicPartition,
        topic_id: Uuid,
        config: &ReplicaManagerConfig,
        log: Arc<Log>,
        settings: &TopicSettings,
    ) -> Self {
        log.update_config(settings.log.clone());
        let high_watermark = log.high_watermark();
        Partition {
            name,
            topic_id,
            local_id: config.node_id,
            lag_max_ms: config.replica_lag_max_ms,
            log,
            gate: RwLock::new(()),
            core: Mutex::new(Core {
                role: Role::unassigned(high_watermark),
                min_insync_replicas: settings.min_insync_replicas,
                ledger: ByteLedger::default(),
                acks: AckQueue::default(),
                deletes: AckQueue::default(),
                fetches: FetchWaiters::default(),
                watch: None,
            }),
            rules: RwLock::new(settings.rules),
        }
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

    /// Appends as leader. `expected_epoch` refuses the append if the leader epoch is another.
    pub(crate) fn append(
        &self,
        batches: &mut [PreparedBatch],
        origin: AppendOrigin,
        expected_epoch: Option<i32>,
        acks: Acks<'_>,
        now_ms: i64,
        wakes: &mut Wakes,
    ) -> Result<Appended, ErrorCode> {
        let _role_held = self.hold_role();
        let epoch = {
            let core = lock(&self.core);
            let leader = core
                .role
                .as_leader()
                .ok_or(ErrorCode::NotLeaderOrFollower)?;
            if !matches!(acks, Acks::Leader) && !leader.has_enough_replicas() {
                return Err(ErrorCode::NotEnoughReplicas);
            }
            if expected_epoch.is_some_and(|expected| expected != leader.epoch()) {
                return Err(ErrorCode::NotLeaderOrFollower);
            }
            leader.epoch()
        };
        let size = batches.iter().map(PreparedBatch::size).sum::<usize>() as u64;
        let info = self
            .log
            .append_as_leader(batches, epoch, now_ms, origin)
            .map_err(|error| self.append_failed(&error))?;
        let mut core = lock(&self.core);
        if !info.duplicate {
            let end_offset = info.last_offset + 1;
            if let Some(leader) = core.role.as_leader_mut() {
                leader.appended(end_offset, now_ms);
            }
            self.log_grew(&mut core, end_offset, size, wakes);
        }
        let (waits, outcome) = match acks {
            Acks::Leader | Acks::AllUnwatched => (false, Outcome::Done),
            Acks::All(ticket) => core.acknowledge(info.last_offset + 1, ticket),
        };
        Ok(Appended {
            info,
            waits,
            outcome,
        })
    }

    fn append_failed(&self, error: &klamm_log::LogError) -> ErrorCode {
        let code = log_error_code(error);
        if error.is_storage_failure() {
            tracing::error!(partition = %self.name, %error, "append failed");
        } else {
            tracing::debug!(partition = %self.name, %error, "append refused");
        }
        code
    }

    /// Passes on that `size` bytes up to `end_offset` were appended, and where the high watermark
    /// is after that.
    fn log_grew(&self, core: &mut Core, end_offset: i64, size: u64, wakes: &mut Wakes) {
        let high_watermark = self.log.set_high_watermark(core.role.high_watermark());
        let stable = self.log.last_stable_offset(high_watermark);
        let readable = core
            .ledger
            .appended(end_offset, size, high_watermark, stable);
        core.fetches.credit(readable, |waiter, bytes| {
            if waiter.credit(bytes) {
                wakes.fetches.push(Arc::clone(waiter));
            }
        });
        core.settle_acks(wakes);
    }

    /// Passes on that the high watermark moved.
    fn high_watermark_moved(&self, core: &mut Core, wakes: &mut Wakes) {
        let high_watermark = self.log.set_high_watermark(core.role.high_watermark());
        let stable = self.log.last_stable_offset(high_watermark);
        let readable = core.ledger.moved(high_watermark, stable);
        core.fetches.credit(readable, |waiter, bytes| {
            if waiter.credit(bytes) {
                wakes.fetches.push(Arc::clone(waiter));
            }
        });
        core.settle_acks(wakes);
    }

    /// Notes a follower's fetch; returns the ISR change to propose, if any.
    pub(crate) fn follower_fetched(
        &self,
        fetch: FollowerFetch,
        names_epoch: bool,
    ) -> Result<Option<IsrProposal>, ErrorCode> {
        let mut wakes = Wakes::default();
        let proposal = {
            let mut core = lock(&self.core);
            let leader = core
                .role
                .as_leader_mut()
                .ok_or(ErrorCode::NotLeaderOrFollower)?;
            let effects = leader
                .follower_fetched(fetch)
                .map_err(|refused| follower_error_code(refused, names_epoch))?;
            if effects.high_watermark.is_some() {
                self.high_watermark_moved(&mut core, &mut wakes);
            }
            self.settle_deletes(&mut core, &mut wakes);
            effects.proposal
        };
        wakes.wake();
        Ok(proposal)
    }

    /// Whether broker `id` holds a replica, as far as this leader knows.
    pub(crate) fn check_follower(&self, id: i32, names_epoch: bool) -> Result<(), ErrorCode> {
        let core = lock(&self.core);
        let leader = core
            .role
            .as_leader()
            .ok_or(ErrorCode::NotLeaderOrFollower)?;
        match leader.follower(id) {
            Some(_) => Ok(()),
            None => Err(follower_error_code(
                crate::partition::leader::FollowerRefused::NotAReplica,
                names_epoch,
            )),
        }
    }

    /// Proposes to drop lagging replicas.
    pub(crate) fn check_lag(&self, now_ms: i64) -> Option<IsrProposal> {
        lock(&self.core).role.as_leader_mut()?.check_lag(now_ms)
    }

    /// Takes the controller's answer to an ISR proposal; returns what to send again.
    pub(crate) fn alter_partition_answered(
        &self,
        proposal: u64,
        answer: Result<&PartitionMetadata, AlterPartitionError>,
        now_ms: i64,
    ) -> Option<IsrProposal> {
        let mut wakes = Wakes::default();
        let again = {
            let mut core = lock(&self.core);
            let leader = core.role.as_leader_mut()?;
            match leader.alter_partition_answered(proposal, answer, now_ms) {
                AlterOutcome::Committed { .. } => {
                    self.high_watermark_moved(&mut core, &mut wakes);
                    None
                }
                AlterOutcome::Retry(again) => Some(again),
                AlterOutcome::Ignored | AlterOutcome::Withdrawn | AlterOutcome::AwaitMetadata => {
                    None
                }
            }
        };
        wakes.wake();
        again
    }

    /// Takes on the role that the metadata gives. `liveness` tells of the other replicas' brokers.
    pub(crate) fn apply(
        &self,
        metadata: &PartitionMetadata,
        liveness: &dyn Fn(i32) -> BrokerLiveness,
        now_ms: i64,
    ) -> Result<Transition, klamm_log::LogError> {
        let _no_appends = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut wakes = Wakes::default();
        let mut core = lock(&self.core);
        let log = LocalLog {
            end_offset: self.log.log_end_offset(),
            high_watermark: core.role.high_watermark(),
            min_insync_replicas: core.min_insync_replicas,
            lag_max_ms: self.lag_max_ms,
        };
        let transition = core.role.apply(self.local_id, metadata, log, now_ms);
        for &id in &metadata.replicas {
            if let Some(leader) = core.role.as_leader_mut() {
                leader.set_liveness(id, liveness(id));
            }
        }
        match transition {
            Transition::Stale => {}
            Transition::Unchanged => self.high_watermark_moved(&mut core, &mut wakes),
            Transition::Elected { .. } | Transition::Following { .. } => {
                core.interrupt(&mut wakes);
                self.high_watermark_moved(&mut core, &mut wakes);
                core.announce();
            }
        }
        drop(core);
        wakes.wake();
        if let Transition::Elected { .. } = transition {
            // Followers find by this where their logs part from the leader's, so it must be known
            // even before the epoch has its first record.
            self.log.assign_epoch_start(metadata.leader_epoch)?;
        }
        Ok(transition)
    }

    /// Ends the replica's life on this broker: whoever waits is told, nothing is appended any
    /// more. Returns whether it led.
    pub(crate) fn retire(&self) -> bool {
        let _no_appends = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut wakes = Wakes::default();
        let led = {
            let mut core = lock(&self.core);
            let led = core.role.as_leader().is_some();
            core.role = Role::unassigned(core.role.high_watermark());
            core.interrupt(&mut wakes);
            core.announce();
            led
        };
        wakes.wake();
        led
    }

    /// Takes over what the metadata says of broker `id`.
    pub(crate) fn set_liveness(&self, id: i32, liveness: BrokerLiveness) {
        let mut wakes = Wakes::default();
        {
            let mut core = lock(&self.core);
            if let Some(leader) = core.role.as_leader_mut() {
                leader.set_liveness(id, liveness);
                self.settle_deletes(&mut core, &mut wakes);
            }
        }
        wakes.wake();
    }

    /// Takes over changed topic configs.
    pub(crate) fn configure(&self, settings: &TopicSettings, now_ms: i64) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = settings.rules;
        self.log.update_config(settings.log.clone());
        let mut wakes = Wakes::default();
        {
            let mut core = lock(&self.core);
            core.min_insync_replicas = settings.min_insync_replicas;
            if let Some(leader) = core.role.as_leader_mut() {
                leader.set_min_insync_replicas(settings.min_insync_replicas, now_ms);
                self.high_watermark_moved(&mut core, &mut wakes);
            }
        }
        wakes.wake();
    }

    /// Lets a fetch wait for bytes, unless something it would have waited for has happened since
    /// it looked: `seen` are the offsets it saw.
    pub(crate) fn park(
        &self,
        isolation: Isolation,
        fetch_offset: i64,
        room: u64,
        seen: &ReplicaOffsets,
        waiter: &Arc<FetchWaiter>,
    ) -> Option<WaiterKey> {
        let mut core = lock(&self.core);
        let now = self.offsets_of(&core);
        let same = now.bound(isolation) == seen.bound(isolation)
            && now.leader_epoch == seen.leader_epoch
            && now.log_start_offset <= fetch_offset;
        same.then(|| {
            core.fetches
                .insert(isolation, fetch_offset, room, Arc::clone(waiter))
        })
    }

    /// Ends a wait begun with [`Partition::park`].
    pub(crate) fn unpark(&self, key: WaiterKey) {
        lock(&self.core).fetches.remove(key);
    }

    /// Removes the tickets of a request that waits no longer.
    pub(crate) fn forget(&self, required_offset: i64, waiter: &Arc<OffsetWaiter>) {
        let mut core = lock(&self.core);
        core.acks
            .remove(required_offset, |ticket| ticket.belongs_to(waiter));
        core.deletes
            .remove(required_offset, |ticket| ticket.belongs_to(waiter));
    }

    /// Deletes the records below `offset`, -1 for all that are committed. Returns the offset in
    /// absolute terms and the low watermark, and enqueues a ticket if that is still behind.
    pub(crate) fn delete_records(
        &self,
        offset: i64,
        ticket: &mut dyn FnMut() -> Ticket,
    ) -> Result<(i64, i64), ErrorCode> {
        let _role_held = self.hold_role();
        let high_watermark = {
            let core = lock(&self.core);
            let leader = core
                .role
                .as_leader()
                .ok_or(ErrorCode::NotLeaderOrFollower)?;
            leader.high_watermark()
        };
        if !self.log.config().delete {
            return Err(ErrorCode::PolicyViolation);
        }
        let offset = if offset == -1 { high_watermark } else { offset };
        if offset < 0 || offset > high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        self.log
            .delete_records_before(offset)
            .map_err(|error| log_error_code(&error))?;
        let mut wakes = Wakes::default();
        let low_watermark = {
            let mut core = lock(&self.core);
            wakes
                .fetches
                .extend(core.fetches.below(offset).map(|waiter| {
                    waiter.disturb();
                    Arc::clone(waiter)
                }));
            self.settle_deletes(&mut core, &mut wakes);
            let low_watermark = self.low_watermark(&core);
            if low_watermark < offset {
                core.deletes.push(offset, ticket());
            }
            low_watermark
        };
        wakes.wake();
        Ok((offset, low_watermark))
    }

    /// The smallest log start offset among the live replicas; -1 if this broker does not lead.
    pub(crate) fn current_low_watermark(&self) -> i64 {
        self.low_watermark(&lock(&self.core))
    }

    fn low_watermark(&self, core: &Core) -> i64 {
        core.role.as_leader().map_or(-1, |leader| {
            leader.low_watermark(self.log.log_start_offset())
        })
    }

    fn settle_deletes(&self, core: &mut Core, wakes: &mut Wakes) {
        if core.deletes.is_empty() {
            return;
        }
        let low_watermark = self.low_watermark(core);
        while let Some(ticket) = core.deletes.pop_reached(low_watermark) {
            wakes.offsets.extend(ticket.settle(Outcome::Done));
        }
    }

    /// Follows the high watermark of this replica.
    pub(crate) fn watch(&self) -> watch::Receiver<i64> {
        let mut core = lock(&self.core);
        let now = core.role.high_watermark();
        core.watch
            .get_or_insert_with(|| watch::Sender::new(now))
            .subscribe()
    }
}

impl Core {
    /// How records below `required_offset` are acknowledged; enqueues a ticket if not yet.
    fn acknowledge(
        &mut self,
        required_offset: i64,
        ticket: &mut dyn FnMut() -> Ticket,
    ) -> (bool, Outcome) {
        let Some(leader) = self.role.as_leader() else {
            return (false, Outcome::NotLeader);
        };
        match leader.ack_state(required_offset) {
            AckState::Done => (false, Outcome::Done),
            AckState::NotEnoughReplicas => (false, Outcome::NotEnoughReplicas),
            AckState::Waiting => {
                self.acks.push(required_offset, ticket());
                (true, Outcome::Waiting)
            }
        }
    }

    fn settle_acks(&mut self, wakes: &mut Wakes) {
        if !self.acks.is_empty() {
            let high_watermark = self.role.high_watermark();
            while let Some(ticket) = self.acks.pop_reached(high_watermark) {
                let enough = self
                    .role
                    .as_leader()
                    .map(|leader| leader.ack_state(high_watermark));
                let outcome = match enough {
                    Some(AckState::NotEnoughReplicas) => Outcome::NotEnoughReplicas,
                    Some(_) => Outcome::Done,
                    None => Outcome::NotLeader,
                };
                wakes.offsets.extend(ticket.settle(outcome));
            }
        }
        self.announce();
    }

    /// Tells everyone who waits that the epoch or the role is another one.
    fn interrupt(&mut self, wakes: &mut Wakes) {
        for waiter in self.fetches.iter() {
            waiter.disturb();
        }
        if self.role.as_leader().is_none() {
            for ticket in self.acks.drain() {
                wakes.offsets.extend(ticket.settle(Outcome::NotLeader));
            }
            for ticket in self.deletes.drain() {
                wakes.offsets.extend(ticket.settle(Outcome::NotLeader));
            }
        }
    }

    fn announce(&self) {
        if let Some(watch) = &self.watch {
            let now = self.role.high_watermark();
            watch.send_if_modified(|seen| {
                let changed = *seen != now;
                *seen = now;
                changed
            });
        }
    }
}
