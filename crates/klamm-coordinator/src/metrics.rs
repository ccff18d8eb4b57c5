//! What the coordinators count. Whoever exports metrics reads the counters.

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// Members that were removed because they fell silent.
    pub members_expired: Counter,
}
