//! Logs as they lie on the brokers, read past all protocol.

use std::collections::BTreeMap;

use klamm_log::Log;
use klamm_metadata::MetadataImage;
use klamm_records::{Scratch, TopicPartition, batches};

use super::super::Violation;
use super::super::log::observed::read_bytes;
use super::history::Value;
use super::node::Broker;
use super::plan::Keeping;
use super::world::World;

/// A record in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its offset.
    pub offset: i64,
    /// The epoch it was appended in.
    pub epoch: i32,
    /// What it says.
    pub value: Value,
    /// Its timestamp, in milliseconds.
    pub at_ms: i64,
    /// Its key, if it has one.
    pub key: Option<u8>,
}

/// A replica's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The broker.
    pub broker: i32,
    /// The epoch of the broker's registration.
    pub broker_epoch: i64,
    /// The epoch in which it leads, if it does.
    pub leads_in: Option<i32>,
    /// The high watermark.
    pub high_watermark: i64,
    /// The offset that the log begins at.
    pub start: i64,
    /// The offset after the last record.
    pub end: i64,
    /// Bytes of all records.
    pub bytes: usize,
    /// All records, by offset; there are gaps only in logs that are compacted.
    pub entries: Vec<Entry>,
}

impl Replica {
    /// The record at an offset.
    pub fn entry(&self, offset: i64) -> Option<&Entry> {
        let at = self.entries.binary_search_by_key(&offset, |it| it.offset);
        self.entries.get(at.ok()?)
    }

    /// The records in a range of offsets.
    pub fn between(&self, start: i64, end: i64) -> &[Entry] {
        let at = |offset| self.entries.partition_point(|it| it.offset < offset);
        let (start, end) = (at(start), at(end));
        self.entries.get(start..end).unwrap_or(&[])
    }

    /// Whether a newer record of that key is there.
    pub fn supersedes(&self, key: Option<u8>, offset: i64) -> bool {
        let later = self.between(offset + 1, i64::MAX).iter();
        key.is_some() && later.rev().any(|entry| entry.key == key)
    }
}

/// All replicas of brokers that run, by partition and broker.
#[derive(Clone, Debug, Default)]
pub(super) struct View(pub BTreeMap<TopicPartition, BTreeMap<i32, Replica>>);

impl View {
    /// Reads all logs.
    pub(super) fn take(world: &World) -> Result<View, Violation> {
        let mut view = View::default();
        for (id, node) in &world.nodes {
            // Looking at a disk that is about to fail might be what fails.
            let Some(broker) = node.broker().filter(|_| !node.is_disturbed()) else {
                continue;
            };
            for partition in world.partitions() {
                let topic = world.topic(&partition.topic);
                let has_gaps = topic.is_some_and(|it| it.keeping == Keeping::Compacted);
                if let Some(replica) = replica(&broker, &partition, has_gaps)? {
                    view.0.entry(partition).or_default().insert(*id, replica);
                }
            }
        }
        Ok(view)
    }

    /// The replica that leads a partition in the controller's epoch.
    pub(super) fn leader(&self, world: &World, partition: &TopicPartition) -> Option<&Replica> {
        self.leader_by(&world.truth(), partition)
    }

    /// The same by an image.
    pub(super) fn leader_by(
        &self,
        image: &MetadataImage,
        partition: &TopicPartition,
    ) -> Option<&Replica> {
        let known = image.partition(&partition.topic, partition.partition)?;
        let replica = self.0.get(partition)?.get(&known.leader)?;
        (replica.leads_in == Some(known.leader_epoch)).then_some(replica)
    }
}

fn replica(
    broker: &Broker,
    partition: &TopicPartition,
    has_gaps: bool,
) -> Result<Option<Replica>, Violation> {
    let (topic, index) = (&*partition.topic, partition.partition);
    let Some(log) = broker.replicas.logs().get(partition) else {
        return Ok(None);
    };
    let Ok(offsets) = broker.replicas.offsets(topic, index) else {
        return Ok(None);
    };
    let (entries, bytes) = entries(&log, has_gaps).map_err(|error| {
        let detail = format!("{partition} at {}: {error}", broker.id);
        Violation::new("integrity", detail)
    })?;
    Ok(Some(Replica {
        broker: broker.id,
        broker_epoch: broker.epoch(),
        leads_in: broker.replicas.leader_epoch(topic, index),
        high_watermark: offsets.high_watermark,
        start: log.log_start_offset(),
        end: log.log_end_offset(),
        bytes,
        entries,
    }))
}

/// The records of a log, and how many bytes they are.
fn entries(log: &Log, has_gaps: bool) -> Result<(Vec<Entry>, usize), String> {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    let bytes = read_bytes(log, start, usize::MAX >> 1).map_err(|error| error.to_string())?;
    let mut entries = Vec::new();
    parse(&bytes, &mut |entry| entries.push(entry))?;
    entries.retain(|entry| entry.offset >= start);
    let dense = (start..)
        .zip(&entries)
        .all(|(at, entry)| entry.offset == at);
    let ordered = entries.is_sorted_by(|one, next| one.offset < next.offset);
    let whole = if has_gaps {
        ordered && entries.last().is_none_or(|entry| entry.offset < end)
    } else {
        dense && entries.len() as i64 == end - start
    };
    if !whole {
        return Err(format!(
            "{} records do not make {start}..{end}",
            entries.len()
        ));
    }
    Ok((entries, bytes.len()))
}

/// Takes records apart, up to the last whole batch. Returns the offset after it, none without a
/// batch.
pub(super) fn parse(bytes: &[u8], take: &mut dyn FnMut(Entry)) -> Result<Option<i64>, String> {
    let mut scratch = Scratch::new();
    let mut end = None;
    for batch in batches(bytes).map_while(Result::ok) {
        let epoch = batch.header().partition_leader_epoch;
        batch.verify_crc().map_err(|error| error.to_string())?;
        end = Some(batch.header().last_offset() + 1);
        let records = batch
            .records(&mut scratch)
            .map_err(|error| error.to_string())?;
        for record in records {
            let record = record.map_err(|error| error.to_string())?;
            let value = record.value.and_then(Value::decode);
            take(Entry {
                offset: record.offset,
                epoch,
                value: value.ok_or("a record that nobody sent")?,
                at_ms: record.timestamp,
                key: record.key.and_then(|key| key.first().copied()),
            });
        }
    }
    Ok(end)
}

impl Value {
    /// As the first bytes of a record.
    pub(super) fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.producer.to_be_bytes());
        bytes[8..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Value> {
        let (producer, rest) = bytes.split_first_chunk()?;
        let number = rest.first_chunk()?;
        Some(Value {
            producer: i64::from_be_bytes(*producer),
            number: i64::from_be_bytes(*number),
        })
    }
}
