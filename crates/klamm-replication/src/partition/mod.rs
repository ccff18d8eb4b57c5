//! One partition's replication rules, as state machines without a log, a socket or a clock.
//!
//! A replica is [`LeaderState`] or [`FollowerState`]; which one, and in which epoch, is decided by
//! the controller's [`PartitionMetadata`] alone ([`Role::apply`]). Offsets, times and the answers
//! of the controller come in as arguments; what must happen next goes out as return values (a new
//! high watermark, an ISR change to propose, an offset to truncate to). The driver in
//! [`crate::manager`] owns the log and does what they say.
//!
//! - [`leader`]: log end offset, high watermark, `min.insync.replicas`, ISR proposals.
//! - [`replica`]: what a leader knows of one follower.
//! - [`isr`]: the committed ISR and the one change that may be in flight.
//! - [`follower`]: where to fetch from, what to truncate, how far the high watermark may move.
//!
//! Offsets count records from 0; an *end offset* is the offset of the next record. -1 stands for
//! "unknown" where Kafka's protocol uses it.

pub mod follower;
pub mod isr;
pub mod leader;
pub mod replica;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

pub use follower::{EpochEnd, FetchPosition, FollowerState, Truncation};
pub use isr::{AlterPartitionError, IsrChange, IsrMember, IsrProposal, IsrState};
pub use leader::{AckState, AlterOutcome, FollowerFetch, FollowerFetchEffects, LeaderState};
pub use replica::{BrokerLiveness, ReplicaProgress};

/// What the controller says of one partition: the fields of a `PartitionRecord` that replication
/// needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Brokers that hold a replica, preferred leader first.
    pub replicas: Vec<i32>,
    /// Brokers whose replica is in sync.
    pub isr: Vec<i32>,
    /// Replicas that a reassignment adds.
    pub adding: Vec<i32>,
    /// Replicas that a reassignment removes.
    pub removing: Vec<i32>,
    /// The leader, or -1 while there is none.
    pub leader: i32,
    /// Goes up with each election.
    pub leader_epoch: i32,
    /// Goes up with each change of the record.
    pub partition_epoch: i32,
}

/// What this broker is to a partition.
#[derive(Clone, Debug)]
pub enum Role {
    /// It orders the records.
    Leader(LeaderState),
    /// It copies them.
    Follower(FollowerState),
}

/// What the log of the replica tells a role that is about to change.
#[derive(Clone, Copy, Debug)]
pub struct LocalLog {
    /// Offset of the next record.
    pub end_offset: i64,
    /// Offset below which the local log is on disk, in a partition whose leader counts no more of
    /// its own log than that; none where the page cache is good enough.
    pub durable_offset: Option<i64>,
    /// The high watermark so far (from the checkpoint, or from the previous role).
    pub high_watermark: i64,
    /// The topic's `min.insync.replicas`.
    pub min_insync_replicas: i32,
    /// `replica.lag.time.max.ms`: how long a follower may go without having caught up.
    pub lag_max_ms: i64,
}

/// What [`Role::apply`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// The metadata is older than what is known: nothing changed.
    Stale,
    /// Same role and leader epoch; assignment or ISR may have changed.
    Unchanged,
    /// Now leader in a new leader epoch: the log must note that the epoch starts at its end offset.
    Elected {
        /// Whether it was not the leader before.
        newly: bool,
    },
    /// Now follower in a new leader epoch: fetching restarts, and whoever waits for an
    /// acknowledgement from this broker must be told that it no longer leads.
    Following {
        /// Whether it led until now.
        resigned: bool,
    },
}

impl Role {
    /// The role of a replica that just came to this broker, before any metadata was applied to it.
    pub fn unassigned(high_watermark: i64) -> Role {
        Role::Follower(FollowerState::new(high_watermark))
    }

    /// Takes on the role that `metadata` gives to broker `local`.
    ///
    /// Metadata whose partition epoch is behind is ignored; an equal one is applied, since an
    /// answer to AlterPartition may have brought the epoch before the metadata log did.
    pub fn apply(
        &mut self,
        local: i32,
        metadata: &PartitionMetadata,
        log: LocalLog,
        now_ms: i64,
    ) -> Transition {
        if metadata.partition_epoch < self.partition_epoch() {
            return Transition::Stale;
        }
        let new_epoch = metadata.leader_epoch > self.leader_epoch();
        match (&mut *self, metadata.leader == local) {
            (Role::Leader(leader), true) => {
                leader.update(metadata, log, now_ms);
                if new_epoch {
                    Transition::Elected { newly: false }
                } else {
                    Transition::Unchanged
                }
            }
            (Role::Follower(_), true) => {
                *self = Role::Leader(LeaderState::elected(local, metadata, log, now_ms));
                Transition::Elected { newly: true }
            }
            (Role::Leader(leader), false) => {
                let mut follower = FollowerState::new(leader.high_watermark());
                follower.update(metadata);
                *self = Role::Follower(follower);
                Transition::Following { resigned: true }
            }
            (Role::Follower(follower), false) => {
                follower.update(metadata);
                if new_epoch {
                    Transition::Following { resigned: false }
                } else {
                    Transition::Unchanged
                }
            }
        }
    }

    /// The leader epoch of this role, -1 before the first metadata.
    pub fn leader_epoch(&self) -> i32 {
        match self {
            Role::Leader(leader) => leader.epoch(),
            Role::Follower(follower) => follower.leader_epoch(),
        }
    }

    /// The partition epoch of this role, -1 before the first metadata.
    pub fn partition_epoch(&self) -> i32 {
        match self {
            Role::Leader(leader) => leader.partition_epoch(),
            Role::Follower(follower) => follower.partition_epoch(),
        }
    }

    /// The broker that leads, if there is one.
    pub fn leader_id(&self) -> Option<i32> {
        match self {
            Role::Leader(leader) => Some(leader.local_id()),
            Role::Follower(follower) => follower.leader_id(),
        }
    }

    /// The offset below which records are committed.
    pub fn high_watermark(&self) -> i64 {
        match self {
            Role::Leader(leader) => leader.high_watermark(),
            Role::Follower(follower) => follower.high_watermark(),
        }
    }

    /// The leader's state, if this broker leads.
    pub fn as_leader(&self) -> Option<&LeaderState> {
        match self {
            Role::Leader(leader) => Some(leader),
            Role::Follower(_) => None,
        }
    }

    /// The leader's state, if this broker leads.
    pub fn as_leader_mut(&mut self) -> Option<&mut LeaderState> {
        match self {
            Role::Leader(leader) => Some(leader),
            Role::Follower(_) => None,
        }
    }

    /// Compares the leader epoch that a client believes in with the one known here.
    pub fn check_epoch(&self, claimed: Option<i32>) -> Result<(), EpochMismatch> {
        match claimed {
            None => Ok(()),
            Some(epoch) if epoch < self.leader_epoch() => Err(EpochMismatch::Fenced),
            Some(epoch) if epoch > self.leader_epoch() => Err(EpochMismatch::Unknown),
            Some(_) => Ok(()),
        }
    }
}

/// Why a request's leader epoch is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochMismatch {
    /// It is behind (`FENCED_LEADER_EPOCH`): the client must refresh its metadata.
    Fenced,
    /// It is ahead (`UNKNOWN_LEADER_EPOCH`): this broker has yet to hear of it.
    Unknown,
}
