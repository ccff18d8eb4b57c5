//! What clients sent, were told and read; and who appended in which epoch.

use std::collections::{BTreeMap, BTreeSet};

use klamm_records::TopicPartition;

use super::super::Violation;
use super::offsets::Commits;
use super::view::{Entry, Replica};
use super::{leaders, reads};

/// Ids of producers that are started later are larger.
const FIRST_NEW: i64 = 1_000_000;

/// Names a record: its producer and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    /// The producer.
    pub producer: i64,
    /// Counts its records.
    pub number: i64,
}

/// A record that has to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The record.
    pub value: Value,
    /// Its timestamp, in milliseconds.
    pub at_ms: i64,
    /// Its key, if it has one.
    pub key: Option<u8>,
}

/// All that is remembered of a run.
#[derive(Debug, Default)]
pub struct History {
    /// The first property that did not hold.
    pub violation: Option<Violation>,
    /// Producers that never write a record twice.
    pub idempotent: BTreeSet<i64>,
    /// Records that were acknowledged by all in-sync replicas, by offset.
    pub acknowledged: BTreeMap<TopicPartition, BTreeMap<i64, Kept>>,
    /// Records that a consumer read, by offset.
    pub read: BTreeMap<TopicPartition, BTreeMap<i64, Kept>>,
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
    /// Producers that were started later.
    producers: i64,
    /// Records acknowledged so far.
    pub told: u64,
}

impl History {
    /// Notes that a property did not hold; the first one counts.
    pub fn fail(&mut self, violation: Violation) {
        self.violation.get_or_insert(violation);
    }

    /// A number for a producer that is started anew.
    pub fn new_producer(&mut self) -> i64 {
        self.producers += 1;
        FIRST_NEW + self.producers
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
    pub fn acknowledge(&mut self, partition: &TopicPartition, base_offset: i64, records: &[Kept]) {
        self.told += records.len() as u64;
        let of_partition = self.acknowledged.entry(partition.clone()).or_default();
        of_partition.extend((base_offset..).zip(records.iter().copied()));
    }

    /// A consumer read a record.
    pub fn read(&mut self, consumer: i64, partition: &TopicPartition, entry: &Entry) {
        let of_partition = self.read.entry(partition.clone()).or_default();
        let checked = reads::read(of_partition, consumer, partition, entry);
        self.check(checked);
    }

    /// What is no longer in the leader's log, and was found to have gone by rights, need not be
    /// there any more.
    pub fn forget_gone(&mut self, partition: &TopicPartition, leader: &Replica) {
        for records in [&mut self.acknowledged, &mut self.read] {
            if let Some(of_partition) = records.get_mut(partition) {
                of_partition.retain(|offset, _| leader.entry(*offset).is_some());
            }
        }
    }

    /// A topic is no more.
    pub fn forget_topic(&mut self, topic: &str) {
        for records in [&mut self.acknowledged, &mut self.read] {
            records.retain(|partition, _| *partition.topic != *topic);
        }
        self.leaders.retain(|(it, _), _| *it.topic != *topic);
        self.watermarks.retain(|(_, it, _), _| *it.topic != *topic);
        self.ends.retain(|(_, it), _| *it.topic != *topic);
        self.positions.retain(|(_, it), _| *it.topic != *topic);
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
