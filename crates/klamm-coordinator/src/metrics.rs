//! What the coordinators count. Whoever exports metrics reads the counters.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the runtime counts, over all partitions.
#[derive(Debug, Default)]
pub struct RuntimeMetrics {
    /// Batches appended.
    pub batches_appended: Counter,
    /// Records appended.
    pub records_appended: Counter,
    /// Batches that failed and were taken back.
    pub appends_failed: Counter,
    /// Answers that were not committed in time.
    pub writes_timed_out: Counter,
    /// Partitions loaded.
    pub partitions_loaded: Counter,
    /// Partitions that could not be loaded.
    pub loads_failed: Counter,
    /// Records read while loading.
    pub records_loaded: Counter,
    /// Panics of shards; each was loaded again.
    pub panics: Counter,
}

/// What the share coordinator counts.
#[derive(Debug, Default)]
pub struct ShareMetrics {
    /// `write-total`: writes of states, by partition.
    pub writes: Counter,
    /// How long they took in all, in microseconds.
    pub write_us: Counter,
    write_max_us: AtomicU64,
}

impl ShareMetrics {
    /// `write-latency-max`: how long a write took at most, in microseconds.
    pub fn write_max_us(&self) -> u64 {
        self.write_max_us.load(Ordering::Relaxed)
    }

    pub(crate) fn written(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.writes.increment();
        self.write_us.add(us);
        self.write_max_us.fetch_max(us, Ordering::Relaxed);
    }
}

/// What the group coordinator counts, under the names of Kafka's sensors.
#[derive(Debug, Default)]
pub struct GroupMetrics {
    /// `OffsetCommits`: offsets committed.
    pub offset_commits: Counter,
    /// `OffsetDeletions`: offsets deleted on request.
    pub offset_deletions: Counter,
    /// `OffsetExpired`: offsets that retention removed.
    pub offsets_expired: Counter,
    /// `CompletedRebalances`: generations that got their assignment.
    pub rebalances_completed: Counter,
    /// `ConsumerGroupRebalances`: new epochs of consumer groups.
    pub consumer_rebalances: Counter,
    /// `ShareGroupRebalances`: new epochs of share groups.
    pub share_rebalances: Counter,
    /// `StreamsGroupRebalances`: new epochs of streams groups.
    pub streams_rebalances: Counter,
    /// Members that were removed because they fell silent.
    pub members_expired: Counter,
    /// How many groups and offsets there are, by partition. See [`GroupMetrics::groups`].
    counts: Mutex<BTreeMap<u64, GroupCounts>>,
    shards: AtomicU64,
}

/// The protocols of groups, by their names in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupProtocol {
    /// Classic groups, and groups that only hold offsets.
    Classic,
    /// KIP-848.
    Consumer,
    /// KIP-932.
    Share,
    /// KIP-1071.
    Streams,
}

/// How many groups there are in which state, and how many offsets are committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupCounts {
    /// By protocol and by the state's name on the wire.
    pub groups: BTreeMap<(GroupProtocol, &'static str), usize>,
    /// Committed offsets, those of open transactions not included.
    pub offsets: usize,
}

impl GroupMetrics {
    /// How many groups there were on the partitions led here when they were last counted: when the
    /// partition was loaded, and every ten seconds since.
    pub fn groups(&self) -> GroupCounts {
        let mut sum = GroupCounts::default();
        for counts in self.counts().values() {
            for (kind, count) in &counts.groups {
                *sum.groups.entry(*kind).or_default() += count;
            }
            sum.offsets += counts.offsets;
        }
        sum
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<u64, GroupCounts>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of one partition in [`GroupMetrics::groups`]. It goes with the partition.
#[derive(Debug)]
pub(crate) struct CountedShard {
    metrics: Arc<GroupMetrics>,
    key: u64,
}

impl CountedShard {
    pub(crate) fn new(metrics: Arc<GroupMetrics>) -> Self {
        let key = metrics.shards.fetch_add(1, Ordering::Relaxed);
        CountedShard { metrics, key }
    }

    /// Tells what there is now.
    pub(crate) fn set(&self, counts: GroupCounts) {
        self.metrics.counts().insert(self.key, counts);
    }
}

impl Drop for CountedShard {
    fn drop(&mut self) {
        self.metrics.counts().remove(&self.key);
    }
}
