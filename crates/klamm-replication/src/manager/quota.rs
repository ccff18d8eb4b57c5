//! How fast replicas that are behind may be copied (KIP-73): one bandwidth for what this broker
//! sends as a leader, one for what it fetches as a follower. Only partitions that an operator has
//! named are held to it, and none whose replica is in sync.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use super::metadata::TopicSettings;
use super::{ReplicaManager, lock};
use crate::throttle::Throttle;

/// The partitions of a topic whose replicas on this broker are held to a bandwidth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ThrottledPartitions {
    /// None of them.
    #[default]
    None,
    /// All of them.
    All,
    /// Those with these numbers.
    These(Vec<i32>),
}

impl ThrottledPartitions {
    fn contains(&self, partition: i32) -> bool {
        match self {
            ThrottledPartitions::None => false,
            ThrottledPartitions::All => true,
            ThrottledPartitions::These(partitions) => partitions.contains(&partition),
        }
    }
}

/// A bandwidth that several partitions share.
#[derive(Debug)]
pub(super) struct Quota {
    bytes_per_second: AtomicI64,
    throttle: Mutex<Throttle>,
}

impl Default for Quota {
    fn default() -> Self {
        Quota {
            bytes_per_second: AtomicI64::new(i64::MAX),
            throttle: Mutex::default(),
        }
    }
}

impl Quota {
    /// Whether nothing may be copied at `now`, a monotonic time.
    pub(super) fn is_exceeded(&self, now: Duration) -> bool {
        let rate = self.bytes_per_second.load(Ordering::Relaxed);
        lock(&self.throttle).check(rate, now).is_err()
    }

    pub(super) fn took(&self, bytes: u64) {
        lock(&self.throttle).took(bytes);
    }
}

/// The bandwidths of a broker.
#[derive(Debug, Default)]
pub(super) struct Quotas {
    pub(super) leader: Quota,
    pub(super) follower: Quota,
}

/// What one replica is held to.
#[derive(Debug, Default)]
pub(super) struct Throttled {
    leader: AtomicBool,
    follower: AtomicBool,
    /// Whether the log ended at or above the leader's high watermark after the last fetch.
    caught_up: AtomicBool,
}

impl Throttled {
    pub(super) fn configure(&self, partition: i32, settings: &TopicSettings) {
        let leader = settings.leader_throttled.contains(partition);
        self.leader.store(leader, Ordering::Relaxed);
        let follower = settings.follower_throttled.contains(partition);
        self.follower.store(follower, Ordering::Relaxed);
    }

    /// Whether followers are, unless they are in sync.
    pub(super) fn as_leader(&self) -> bool {
        self.leader.load(Ordering::Relaxed)
    }

    /// Whether this replica is while it follows and is not caught up.
    pub(super) fn as_follower(&self) -> bool {
        self.follower.load(Ordering::Relaxed)
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.caught_up.load(Ordering::Relaxed)
    }

    pub(super) fn set_caught_up(&self, caught_up: bool) {
        self.caught_up.store(caught_up, Ordering::Relaxed);
    }
}

impl ReplicaManager {
    /// Takes over `leader.replication.throttled.rate` and `follower.replication.throttled.rate`, in
    /// bytes per second; `i64::MAX` for none.
    pub fn set_replication_rates(&self, leader: i64, follower: i64) {
        let quotas = &self.0.quotas;
        let set = |quota: &Quota, rate| quota.bytes_per_second.store(rate, Ordering::Relaxed);
        set(&quotas.leader, leader);
        set(&quotas.follower, follower);
    }
}
