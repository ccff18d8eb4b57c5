//! The numbers that handlers move.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::histogram::Histogram;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds to it; a negative number takes away.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is counted for one topic.
#[derive(Debug, Default)]
pub struct TopicStats {
    /// Records appended by producers.
    pub messages_in: Counter,
    /// Bytes of batches appended by producers.
    pub bytes_in: Counter,
    /// Bytes of batches read by consumers.
    pub bytes_out: Counter,
    /// Partitions in produce requests.
    pub produce_requests: Counter,
    /// Partitions in fetch requests of consumers.
    pub fetch_requests: Counter,
    /// Of these, produce requests that failed.
    pub failed_produce_requests: Counter,
    /// Of these, fetch requests that failed.
    pub failed_fetch_requests: Counter,
}

impl TopicStats {
    /// Adds another's numbers to these.
    pub(super) fn absorb(&self, other: &TopicStats) {
        for (into, from) in self.all().into_iter().zip(other.all()) {
            into.1.add(from.1.get());
        }
    }

    /// Every counter with the name Kafka gives it.
    pub(super) fn all(&self) -> [(&'static str, &Counter); 7] {
        [
            ("messagesin", &self.messages_in),
            ("bytesin", &self.bytes_in),
            ("bytesout", &self.bytes_out),
            ("totalproducerequests", &self.produce_requests),
            ("totalfetchrequests", &self.fetch_requests),
            ("failedproducerequests", &self.failed_produce_requests),
            ("failedfetchrequests", &self.failed_fetch_requests),
        ]
    }
}

/// The number of versions counted one by one; no request has more.
pub(super) const VERSIONS: usize = 24;

/// What is counted for one API key.
#[derive(Debug, Default)]
pub(super) struct ApiStats {
    /// Requests by version.
    pub(super) requests: [Counter; VERSIONS],
    /// Requests whose handling has begun and not ended.
    pub(super) in_flight: Gauge,
    /// From the request's being decoded to its response's being ready.
    pub(super) time: Histogram,
}

/// What is counted for the broker's connections.
#[derive(Debug, Default)]
pub(super) struct ConnectionStats {
    pub(super) open: Gauge,
    pub(super) opened: Counter,
    pub(super) closed: Counter,
}
