use std::collections::{BTreeMap, VecDeque};

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::{OffsetCommitKey, OffsetCommitValue};
use klamm_records::Uuid;

use crate::runtime::RecordOrigin;

/// An offset that a group committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// Offset of the next record to consume.
    pub offset: i64,
    /// Leader epoch of the last record consumed, or -1.
    pub leader_epoch: i32,
    /// What the client wants to remember with it.
    pub metadata: ByteStr,
    /// Wall time of the commit, in milliseconds.
    pub commit_timestamp_ms: i64,
    /// Wall time at which the offset expires, if the client asked for a retention; else -1.
    pub expire_timestamp_ms: i64,
    /// The topic's id, or zero if the client did not know it.
    pub topic_id: Uuid,
    /// Where the record stands in the log: decides between a plain and a transactional commit.
    pub record_offset: i64,
}

impl CommittedOffset {
    /// What a record says. Copies the metadata, so that the log's buffer is not kept alive.
    pub fn from_record(origin: RecordOrigin, value: &OffsetCommitValue) -> Self {
        CommittedOffset {
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: if value.metadata.is_empty() {
                ByteStr::default()
            } else {
                value.metadata.detached()
            },
            commit_timestamp_ms: value.commit_timestamp,
            expire_timestamp_ms: value.expire_timestamp,
            topic_id: value.topic_id,
            record_offset: origin.offset,
        }
    }
}

pub(in crate::group) type Partitions = BTreeMap<i32, CommittedOffset>;
pub(in crate::group) type Topics = BTreeMap<ByteStr, Partitions>;

/// Takes one change of the store back, or confirms it.
#[derive(Debug)]
pub struct OffsetUndo {
    key: OffsetCommitKey,
    previous: Option<CommittedOffset>,
}

/// All committed offsets of a shard.
#[derive(Debug, Default)]
pub struct OffsetStore {
    groups: BTreeMap<ByteStr, Topics>,
    /// For partitions with changes in flight: what each change replaced, oldest first. The front
    /// is what is committed.
    in_flight: BTreeMap<ByteStr, InFlight>,
}

/// The changes in flight of one group, by topic and partition.
type InFlight = BTreeMap<(ByteStr, i32), VecDeque<Option<CommittedOffset>>>;

impl OffsetStore {
    /// The newest offset, committed or not.
    pub fn get(&self, group_id: &str, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.groups.get(group_id)?.get(topic)?.get(&partition)
    }

    /// The newest offset that is committed.
    pub fn get_committed(
        &self,
        group_id: &str,
        topic: &ByteStr,
        partition: i32,
    ) -> Option<&CommittedOffset> {
        let in_flight = self
            .in_flight
            .get(group_id)
            .and_then(|partitions| partitions.get(&(topic.clone(), partition)))
            .and_then(VecDeque::front);
        match in_flight {
            Some(before) => before.as_ref(),
            None => self.get(group_id, topic, partition),
        }
    }

    /// The newest offsets of a group, by topic and partition.
    pub(in crate::group) fn group(&self, group_id: &str) -> Option<&Topics> {
        self.groups.get(group_id)
    }

    /// The offsets of all groups.
    pub(super) fn groups(&self) -> &BTreeMap<ByteStr, Topics> {
        &self.groups
    }

    /// Every partition for which the group has or had an offset, in order.
    pub(super) fn partitions_of(&self, group_id: &str) -> BTreeMap<ByteStr, Vec<i32>> {
        let mut partitions: BTreeMap<ByteStr, Vec<i32>> = BTreeMap::new();
        for (topic, offsets) in self.groups.get(group_id).into_iter().flatten() {
            partitions.insert(topic.clone(), offsets.keys().copied().collect());
        }
        for (topic, partition) in self
            .in_flight
            .get(group_id)
            .into_iter()
            .flat_map(|p| p.keys())
        {
            let known = partitions.entry(topic.clone()).or_default();
            if let Err(place) = known.binary_search(partition) {
                known.insert(place, *partition);
            }
        }
        partitions
    }

    /// How many offsets there are.
    pub fn len(&self) -> usize {
        self.groups
            .values()
            .flat_map(BTreeMap::values)
            .map(BTreeMap::len)
            .sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Sets or, without an offset, removes. Returns what was there.
    pub fn set(
        &mut self,
        key: &OffsetCommitKey,
        offset: Option<CommittedOffset>,
    ) -> Option<CommittedOffset> {
        match offset {
            Some(offset) => self.put(key, offset),
            None => self.remove(key),
        }
    }

    /// The same as [`OffsetStore::set`] for a change that is in flight. The undo must go to
    /// [`OffsetStore::undo`] or [`OffsetStore::commit`].
    pub fn set_in_flight(
        &mut self,
        key: &OffsetCommitKey,
        offset: Option<CommittedOffset>,
    ) -> OffsetUndo {
        let previous = self.set(key, offset);
        self.in_flight
            .entry(key.group.clone())
            .or_default()
            .entry((key.topic.clone(), key.partition))
            .or_default()
            .push_back(previous.clone());
        OffsetUndo {
            key: key.clone(),
            previous,
        }
    }

    /// Takes the newest change of a partition back.
    pub fn undo(&mut self, undo: OffsetUndo) {
        self.settle(&undo.key, VecDeque::pop_back);
        self.set(&undo.key, undo.previous);
    }

    /// Confirms the oldest change of a partition.
    pub fn commit(&mut self, undo: &OffsetUndo) {
        self.settle(&undo.key, VecDeque::pop_front);
    }

    fn settle(
        &mut self,
        key: &OffsetCommitKey,
        take: impl FnOnce(&mut VecDeque<Option<CommittedOffset>>) -> Option<Option<CommittedOffset>>,
    ) {
        let Some(partitions) = self.in_flight.get_mut(&key.group) else {
            return;
        };
        let place = (key.topic.clone(), key.partition);
        if let Some(changes) = partitions.get_mut(&place) {
            take(changes);
            if changes.is_empty() {
                partitions.remove(&place);
            }
        }
        if partitions.is_empty() {
            self.in_flight.remove(&key.group);
        }
    }

    fn put(&mut self, key: &OffsetCommitKey, offset: CommittedOffset) -> Option<CommittedOffset> {
        // Names are copied once, when they first come; a record's key is a piece of a big buffer.
        if !self.groups.contains_key(&key.group) {
            self.groups.insert(key.group.detached(), Topics::new());
        }
        let topics = self.groups.get_mut(&key.group)?;
        if !topics.contains_key(&key.topic) {
            topics.insert(key.topic.detached(), Partitions::new());
        }
        topics.get_mut(&key.topic)?.insert(key.partition, offset)
    }

    fn remove(&mut self, key: &OffsetCommitKey) -> Option<CommittedOffset> {
        let topics = self.groups.get_mut(&key.group)?;
        let partitions = topics.get_mut(&key.topic)?;
        let removed = partitions.remove(&key.partition);
        if partitions.is_empty() {
            topics.remove(&key.topic);
        }
        if topics.is_empty() {
            self.groups.remove(&key.group);
        }
        removed
    }
}
