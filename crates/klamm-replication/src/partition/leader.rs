//! The leader of a partition: what is appended, what is committed, who is in sync.

use super::isr::{AlterPartitionError, IsrChange, IsrMember, IsrProposal, IsrState};
use super::replica::{BrokerLiveness, ReplicaProgress};
use super::{LocalLog, PartitionMetadata};

/// State of a replica that leads.
///
/// # Invariants
/// - The high watermark never falls, and never exceeds the end offset of a member of the maximal
///   ISR that has fetched in this epoch, nor the leader's own, which is its durable offset where
///   that is what counts.
/// - At most one ISR proposal is in flight.
#[derive(Clone, Debug)]
pub struct LeaderState {
    local_id: i32,
    epoch: i32,
    partition_epoch: i32,
    epoch_start_offset: i64,
    log_end_offset: i64,
    /// See [`LocalLog::durable_offset`].
    durable_offset: Option<i64>,
    high_watermark: i64,
    min_insync_replicas: i32,
    lag_max_ms: i64,
    replicas: Vec<i32>,
    adding: Vec<i32>,
    removing: Vec<i32>,
    isr: IsrState,
    followers: Vec<ReplicaProgress>,
    last_proposal: u64,
}

/// A follower's fetch, as far as replication state goes.
#[derive(Clone, Copy, Debug)]
pub struct FollowerFetch {
    /// The follower's broker id.
    pub replica: i32,
    /// The follower's broker epoch, -1 if it doesn't tell.
    pub broker_epoch: i64,
    /// The offset it asks for, which is the end of its log.
    pub offset: i64,
    /// The start of its log.
    pub log_start_offset: i64,
    /// Where the leader's log ended before the read that serves the fetch.
    pub leader_end_offset: i64,
    /// Time of the fetch.
    pub now_ms: i64,
}

/// What a follower's fetch led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FollowerFetchEffects {
    /// The high watermark, if it moved.
    pub high_watermark: Option<i64>,
    /// An ISR change to send to the controller.
    pub proposal: Option<IsrProposal>,
}

/// Why a follower's fetch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FollowerRefused {
    /// The broker holds no replica of this partition as far as this leader knows.
    NotAReplica,
    /// The fetch comes from a former incarnation of the broker (`NOT_LEADER_OR_FOLLOWER`).
    StaleBrokerEpoch,
}

/// Whether a record is acknowledged by enough replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckState {
    /// Not yet.
    Waiting,
    /// Committed, with enough replicas in sync.
    Done,
    /// Committed, but fewer replicas are in sync than `min.insync.replicas` by now.
    NotEnoughReplicas,
}

/// What an answer to AlterPartition led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterOutcome {
    /// The answer belongs to a proposal that metadata has overtaken.
    Ignored,
    /// The new ISR holds.
    Committed {
        /// The high watermark, if it moved.
        high_watermark: Option<i64>,
    },
    /// The old ISR holds.
    Withdrawn,
    /// Stays pending until metadata settles it.
    AwaitMetadata,
    /// To be sent again.
    Retry(IsrProposal),
}

impl LeaderState {
    /// A replica that has just been elected.
    pub fn elected(
        local_id: i32,
        metadata: &PartitionMetadata,
        log: LocalLog,
        now_ms: i64,
    ) -> Self {
        let mut leader = LeaderState {
            local_id,
            epoch: metadata.leader_epoch,
            partition_epoch: metadata.partition_epoch,
            epoch_start_offset: log.end_offset,
            log_end_offset: log.end_offset,
            durable_offset: log.durable_offset,
            high_watermark: log.high_watermark,
            min_insync_replicas: log.min_insync_replicas,
            lag_max_ms: log.lag_max_ms,
            replicas: Vec::new(),
            adding: Vec::new(),
            removing: Vec::new(),
            isr: IsrState::committed(&metadata.isr),
            followers: Vec::new(),
            last_proposal: 0,
        };
        leader.assign(metadata, now_ms);
        leader.advance_high_watermark(now_ms);
        leader
    }

    /// Takes over newer metadata under which this broker still leads. Returns the high watermark
    /// if it moved. A proposal in flight is overtaken, unless the record is the one known.
    pub fn update(
        &mut self,
        metadata: &PartitionMetadata,
        log: LocalLog,
        now_ms: i64,
    ) -> Option<i64> {
        self.log_end_offset = self.log_end_offset.max(log.end_offset);
        self.durable_offset = log.durable_offset;
        self.min_insync_replicas = log.min_insync_replicas;
        self.assign(metadata, now_ms);
        if metadata.leader_epoch > self.epoch {
            self.epoch = metadata.leader_epoch;
            self.epoch_start_offset = self.log_end_offset;
            for follower in &mut self.followers {
                let in_sync = metadata.isr.contains(&follower.id());
                follower.renew(self.log_end_offset, in_sync, now_ms);
            }
        }
        self.partition_epoch = metadata.partition_epoch;
        self.advance_high_watermark(now_ms)
    }

    fn assign(&mut self, metadata: &PartitionMetadata, now_ms: i64) {
        self.replicas.clone_from(&metadata.replicas);
        self.adding.clone_from(&metadata.adding);
        self.removing.clone_from(&metadata.removing);
        // The same record again overtakes nothing: the controller may already have committed the
        // proposal in flight, and its replica must go on counting until that is known.
        if metadata.partition_epoch > self.partition_epoch {
            self.isr = IsrState::committed(&metadata.isr);
        }
        self.followers
            .retain(|follower| metadata.replicas.contains(&follower.id()));
        for &id in &metadata.replicas {
            if id != self.local_id && self.follower(id).is_none() {
                let in_sync = metadata.isr.contains(&id);
                self.followers
                    .push(ReplicaProgress::new(id, in_sync, now_ms));
            }
        }
    }

    /// Notes that the log now ends at `end_offset`; returns the high watermark if it moved.
    pub fn appended(&mut self, end_offset: i64, now_ms: i64) -> Option<i64> {
        self.log_end_offset = self.log_end_offset.max(end_offset);
        self.advance_high_watermark(now_ms)
    }

    /// Notes how far the log is on disk, or, with none, that it need not be; returns the high
    /// watermark if it moved.
    pub fn synced(&mut self, durable_offset: Option<i64>, now_ms: i64) -> Option<i64> {
        self.durable_offset = durable_offset;
        self.advance_high_watermark(now_ms)
    }

    /// The brokers that hold the partition, this one among them.
    pub fn replicas(&self) -> &[i32] {
        &self.replicas
    }

    /// The end of what the leader itself contributes to what is committed.
    fn own_end_offset(&self) -> i64 {
        self.durable_offset.map_or(self.log_end_offset, |durable| {
            durable.min(self.log_end_offset)
        })
    }

    /// Notes a follower's fetch.
    pub fn follower_fetched(
        &mut self,
        fetch: FollowerFetch,
    ) -> Result<FollowerFetchEffects, FollowerRefused> {
        let follower = self
            .followers
            .iter_mut()
            .find(|follower| follower.id() == fetch.replica)
            .ok_or(FollowerRefused::NotAReplica)?;
        let end_before = follower.log_end_offset();
        follower
            .fetched(
                fetch.offset,
                fetch.log_start_offset,
                fetch.broker_epoch,
                fetch.leader_end_offset,
                fetch.now_ms,
            )
            .map_err(|_| FollowerRefused::StaleBrokerEpoch)?;
        let moved = follower.log_end_offset() != end_before;
        let proposal = self.propose_expansion(fetch.replica);
        let high_watermark = if moved {
            self.advance_high_watermark(fetch.now_ms)
        } else {
            None
        };
        Ok(FollowerFetchEffects {
            high_watermark,
            proposal,
        })
    }

    /// A replica joins the ISR once it holds everything committed *and* has reached the start of
    /// this leader's epoch: committed records may lie between this leader's high watermark and
    /// that point, and a replica without them must not become leader.
    fn propose_expansion(&mut self, id: i32) -> Option<IsrProposal> {
        if self.isr.is_in_flight() || self.isr.members().contains(&id) {
            return None;
        }
        let follower = self.follower(id)?;
        let end = follower.log_end_offset();
        let in_sync = end >= self.high_watermark && end >= self.epoch_start_offset;
        if !in_sync || !follower.may_join_isr() {
            return None;
        }
        Some(self.propose(IsrChange::Expand(id)))
    }

    /// Proposes to drop the replicas that have not been caught up for
    /// `replica.lag.time.max.ms`. To be called about every half of that time.
    pub fn check_lag(&mut self, now_ms: i64) -> Option<IsrProposal> {
        if self.isr.is_in_flight() {
            return None;
        }
        let lagging: Vec<i32> = self
            .isr
            .members()
            .iter()
            .copied()
            .filter(|&id| {
                id != self.local_id
                    && self.follower(id).is_none_or(|follower| {
                        !follower.is_caught_up(self.log_end_offset, now_ms, self.lag_max_ms)
                    })
            })
            .collect();
        (!lagging.is_empty()).then(|| self.propose(IsrChange::Shrink(lagging)))
    }

    fn propose(&mut self, change: IsrChange) -> IsrProposal {
        self.last_proposal += 1;
        let isr = self.isr.propose(change, self.last_proposal);
        self.proposal(isr)
    }

    fn proposal(&self, isr: Vec<i32>) -> IsrProposal {
        IsrProposal {
            id: self.last_proposal,
            leader_epoch: self.epoch,
            partition_epoch: self.partition_epoch,
            isr: isr
                .into_iter()
                .map(|id| IsrMember {
                    id,
                    broker_epoch: self.follower(id).map_or(-1, ReplicaProgress::broker_epoch),
                })
                .collect(),
        }
    }

    /// Takes the controller's answer to proposal `id`: the ISR as committed, or why not.
    pub fn alter_partition_answered(
        &mut self,
        id: u64,
        answer: Result<&PartitionMetadata, AlterPartitionError>,
        now_ms: i64,
    ) -> AlterOutcome {
        if self.isr.pending_id() != Some(id) {
            return AlterOutcome::Ignored;
        }
        match answer {
            Ok(committed) => {
                let stale = committed.leader_epoch != self.epoch
                    || committed.partition_epoch < self.partition_epoch;
                if stale {
                    return AlterOutcome::Ignored;
                }
                self.isr = IsrState::committed(&committed.isr);
                self.partition_epoch = committed.partition_epoch;
                AlterOutcome::Committed {
                    high_watermark: self.advance_high_watermark(now_ms),
                }
            }
            Err(AlterPartitionError::Refused) => {
                self.isr.withdraw();
                AlterOutcome::Withdrawn
            }
            Err(AlterPartitionError::AwaitMetadata) => AlterOutcome::AwaitMetadata,
            Err(AlterPartitionError::Retry) => match self.isr.proposed() {
                Some(isr) => AlterOutcome::Retry(self.proposal(isr)),
                None => AlterOutcome::Ignored,
            },
        }
    }

    /// Moves the high watermark to the smallest end offset among the leader, the maximal ISR and
    /// those about to join it, unless too few are in sync (KIP-966).
    ///
    /// Waiting for replicas that are caught up but not yet in the ISR keeps the high watermark
    /// from running away from them when the ISR is the leader alone.
    fn advance_high_watermark(&mut self, now_ms: i64) -> Option<i64> {
        if self.is_under_min_isr() {
            return None;
        }
        let mut committed = self.own_end_offset();
        for follower in &self.followers {
            let counts = || {
                self.isr.maximal_contains(follower.id())
                    || (follower.may_join_isr()
                        && follower.is_caught_up(self.log_end_offset, now_ms, self.lag_max_ms))
            };
            if follower.log_end_offset() < committed && counts() {
                committed = follower.log_end_offset();
            }
        }
        (committed > self.high_watermark).then(|| {
            self.high_watermark = committed;
            committed
        })
    }

    /// Whether an append with `acks=all` may start.
    pub fn has_enough_replicas(&self) -> bool {
        !self.is_under_min_isr()
    }

    /// Whether all records below `required_offset` are acknowledged.
    pub fn ack_state(&self, required_offset: i64) -> AckState {
        if self.high_watermark < required_offset {
            AckState::Waiting
        } else if self.effective_min_isr() <= self.isr.maximal_len() {
            AckState::Done
        } else {
            AckState::NotEnoughReplicas
        }
    }

    /// The smallest log start offset among the leader (`local_log_start_offset`) and its live
    /// followers: what DeleteRecords waits for.
    pub fn low_watermark(&self, local_log_start_offset: i64) -> i64 {
        self.followers
            .iter()
            .filter(|follower| follower.liveness().is_alive())
            .map(ReplicaProgress::log_start_offset)
            .fold(local_log_start_offset, i64::min)
    }

    /// Takes over what the metadata says of broker `id`.
    pub fn set_liveness(&mut self, id: i32, liveness: BrokerLiveness) {
        if let Some(follower) = self.followers.iter_mut().find(|f| f.id() == id) {
            follower.set_liveness(liveness);
        }
    }

    /// Takes over a changed `min.insync.replicas`; returns the high watermark if it moved.
    pub fn set_min_insync_replicas(&mut self, count: i32, now_ms: i64) -> Option<i64> {
        self.min_insync_replicas = count;
        self.advance_high_watermark(now_ms)
    }

    /// `min.insync.replicas`, but never more than there are replicas.
    fn effective_min_isr(&self) -> usize {
        usize::try_from(self.min_insync_replicas)
            .unwrap_or(0)
            .min(self.followers.len() + 1)
    }

    /// Whether fewer replicas are in sync than `min.insync.replicas` asks for.
    pub fn is_under_min_isr(&self) -> bool {
        self.isr.members().len() < self.effective_min_isr()
    }

    /// Whether exactly as many replicas are in sync as `min.insync.replicas` asks for.
    pub fn is_at_min_isr(&self) -> bool {
        self.isr.members().len() == self.effective_min_isr()
    }

    /// Whether fewer replicas are in sync than are assigned; those being added don't count.
    pub fn is_under_replicated(&self) -> bool {
        let assigned = self
            .replicas
            .iter()
            .filter(|id| !self.adding.contains(id))
            .count();
        self.isr.members().len() < assigned
    }

    /// Whether a reassignment is under way.
    pub fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// Whether a reassignment adds replica `id`.
    pub fn is_adding(&self, id: i32) -> bool {
        self.adding.contains(&id)
    }

    /// What is known of follower `id`.
    pub fn follower(&self, id: i32) -> Option<&ReplicaProgress> {
        self.followers.iter().find(|follower| follower.id() == id)
    }

    /// The followers.
    pub fn followers(&self) -> &[ReplicaProgress] {
        &self.followers
    }

    /// The in-sync replicas.
    pub fn isr(&self) -> &IsrState {
        &self.isr
    }

    /// This broker.
    pub fn local_id(&self) -> i32 {
        self.local_id
    }

    /// The leader epoch.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The partition epoch.
    pub fn partition_epoch(&self) -> i32 {
        self.partition_epoch
    }

    /// Where the log ended when this epoch began.
    pub fn epoch_start_offset(&self) -> i64 {
        self.epoch_start_offset
    }

    /// Offset of the next record.
    pub fn log_end_offset(&self) -> i64 {
        self.log_end_offset
    }

    /// The offset below which records are committed.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }
}
