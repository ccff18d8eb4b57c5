//! What clients sent, were told and read; and who appended in which epoch.

use std::collections::{BTreeMap, BTreeSet};

use klamm_records::TopicPartition;

use super::super::Violation;
use super::offsets::Commits;
use super::{leaders, reads};

/// Names a record: its producer and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    /// The producer.
    pub producer: i64,
    /// Counts its records.
    pub number: i64,
}

/// All that is remembered of a run.
#[derive(Debug, Default)]
pub struct History {
    /// The first property that did not hold.
    pub violation: Option<Violation>,
    /// Producers that never write a record twice.
    pub idempotent: BTreeSet<i64>,
    /// Records that were acknowledged by all in-sync replicas, by offset.
    pub acknowledged: BTreeMap<TopicPartition, BTreeMap<i64, Value>>,
    /// Records that a consumer read, by offset.
    pub read: BTreeMap<TopicPartition, BTreeMap<i64, Value>>,
    /// Who appended in a leader epoch.
    pub leaders: BTreeMap<(TopicPartition, i32), i32>,
    /// The last high watermark that a consumer saw in an epoch.
    pub watermarks: BTreeMap<(i64, TopicPartition, i32), i64>,
    /// The last end of a partition that a consumer was told.
    pub ends: BTreeMap<(i64, TopicPartition), i64>,
    /// Where consumers are.
    pub positions: BTreeMap<(i64, TopicPartition), i64>,
    /// Producers whose last record has yet to be acknowledged.
    pub unfinished: BTreeSet<i64>,
    /// What groups committed.
    pub commits: Commits,
    /// Records sent so far.
    pub sent: u64,
}

impl History {
    /// Notes that a property did not hold; the first one counts.
    pub fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    pub(super) fn check(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.fail(violation);
        }
    }

    /// A broker appended as leader.
    pub fn appended(&mut self, partition: &TopicPartition, epoch: Option<i32>, broker: i32) {
        let checked = leaders::appended(&mut self.leaders, partition, epoch, broker);
        self.check(checked);
    }

    /// A producer was told that its records are safe, which begin at `base_offset`.
    pub fn acknowledge(&mut self, partition: &TopicPartition, base_offset: i64, values: &[Value]) {
        let of_partition = self.acknowledged.entry(partition.clone()).or_default();
        for (offset, value) in (base_offset..).zip(values) {
            of_partition.insert(offset, *value);
        }
    }

    /// A consumer read a record.
    pub fn read(&mut self, consumer: i64, partition: &TopicPartition, offset: i64, value: Value) {
        let of_partition = self.read.entry(partition.clone()).or_default();
        let checked = reads::read(of_partition, consumer, partition, offset, value);
        self.check(checked);
    }

    /// A consumer saw a high watermark.
    pub fn watermark(&mut self, consumer: i64, partition: &TopicPartition, epoch: i32, seen: i64) {
        let key = (consumer, partition.clone(), epoch);
        let checked = reads::forward("high watermark", &mut self.watermarks, key, seen);
        self.check(checked);
    }

    /// A consumer was told where a partition ends.
    pub fn end(&mut self, consumer: i64, partition: &TopicPartition, end: i64) {
        let key = (consumer, partition.clone());
        let checked = reads::forward("end of the log", &mut self.ends, key, end);
        self.check(checked);
    }
}
