//! How often something took how long.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds, and how Prometheus writes them in seconds. A long
/// poll takes half a second by default, so that is a bound.
pub(super) const BOUNDS: [(u64, &str); 13] = [
    (100, "0.0001"),
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (10_000_000, "10"),
];

/// Counts by bucket; each observation is in one bucket here, and cumulated only when written.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one.
    pub(super) fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS.partition_point(|(bound, _)| *bound < us);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// The cumulated counts, the last of them the number of all, and the sum in microseconds.
    pub(super) fn read(&self) -> ([u64; BOUNDS.len() + 1], u64) {
        let mut total = 0;
        let cumulated = std::array::from_fn(|at| {
            total += self.buckets[at].load(Ordering::Relaxed);
            total
        });
        (cumulated, self.sum_us.load(Ordering::Relaxed))
    }
}
