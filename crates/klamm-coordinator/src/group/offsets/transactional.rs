use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::OffsetCommitKey;

use super::store::{CommittedOffset, OffsetStore, OffsetUndo};

/// Group, topic and partition.
type Place = (ByteStr, ByteStr, i32);
/// Who has an open transaction with an offset for a partition, by topic and partition.
type Producers = BTreeMap<(ByteStr, i32), BTreeSet<i64>>;

/// Offsets that open transactions committed, by producer. They take effect with the marker that
/// commits the transaction.
#[derive(Debug, Default)]
pub struct PendingOffsets {
    by_producer: BTreeMap<i64, BTreeMap<Place, CommittedOffset>>,
    by_group: BTreeMap<ByteStr, Producers>,
}

/// Takes one change of the pending offsets of a partition back: what producers had there before.
#[derive(Debug)]
pub struct PendingUndo {
    key: OffsetCommitKey,
    previous: Vec<(i64, Option<CommittedOffset>)>,
}

impl PendingUndo {
    /// Group, topic and partition.
    pub fn key(&self) -> &OffsetCommitKey {
        &self.key
    }
}

impl PendingOffsets {
    /// Notes an offset of an open transaction.
    pub fn put(
        &mut self,
        producer_id: i64,
        key: &OffsetCommitKey,
        offset: CommittedOffset,
    ) -> PendingUndo {
        let previous = self.set(producer_id, key, Some(offset));
        PendingUndo {
            key: key.clone(),
            previous: vec![(producer_id, previous)],
        }
    }

    /// A deleted offset takes those of open transactions along. None if there are none.
    pub fn remove(&mut self, key: &OffsetCommitKey) -> Option<PendingUndo> {
        let producers = self
            .by_group
            .get(&key.group)?
            .get(&(key.topic.clone(), key.partition))?
            .clone();
        let previous = producers
            .into_iter()
            .map(|producer_id| (producer_id, self.set(producer_id, key, None)))
            .collect();
        Some(PendingUndo {
            key: key.clone(),
            previous,
        })
    }

    /// Takes a change back.
    pub fn undo(&mut self, undo: PendingUndo) {
        for (producer_id, previous) in undo.previous {
            self.set(producer_id, &undo.key, previous);
        }
    }

    /// Ends a transaction. What it commits goes to `store`, unless a later plain commit is there;
    /// the undos are to be confirmed when the marker is committed.
    pub fn end(
        &mut self,
        producer_id: i64,
        committed: bool,
        store: &mut OffsetStore,
    ) -> Vec<OffsetUndo> {
        let offsets = self.by_producer.remove(&producer_id).unwrap_or_default();
        let mut changes = Vec::new();
        for ((group, topic, partition), offset) in offsets {
            self.forget(producer_id, &group, &topic, partition);
            let existing = store.get(&group, &topic, partition);
            let is_later =
                existing.is_none_or(|existing| offset.record_offset > existing.record_offset);
            if committed && is_later {
                let key = OffsetCommitKey {
                    group,
                    topic,
                    partition,
                };
                changes.push(store.set_in_flight(&key, Some(offset)));
            }
        }
        changes
    }

    /// Whether an open transaction committed an offset for this partition.
    pub fn has_offset(&self, group_id: &str, topic: &ByteStr, partition: i32) -> bool {
        self.by_group
            .get(group_id)
            .is_some_and(|partitions| partitions.contains_key(&(topic.clone(), partition)))
    }

    /// Whether a transaction with offsets of this group is open.
    pub fn has_group(&self, group_id: &str) -> bool {
        self.by_group.contains_key(group_id)
    }

    /// The partitions of a group that open transactions committed offsets for.
    pub fn partitions_of(&self, group_id: &str) -> BTreeSet<(ByteStr, i32)> {
        self.by_group
            .get(group_id)
            .into_iter()
            .flat_map(|partitions| partitions.keys().cloned())
            .collect()
    }

    /// All partitions with such offsets: group, topic, partition, topic id.
    pub(super) fn all(&self) -> impl Iterator<Item = (&ByteStr, &ByteStr, i32, &CommittedOffset)> {
        self.by_producer.values().flat_map(|offsets| {
            offsets
                .iter()
                .map(|((group, topic, partition), offset)| (group, topic, *partition, offset))
        })
    }

    /// Sets or removes what a producer has for a partition; returns what was there.
    fn set(
        &mut self,
        producer_id: i64,
        key: &OffsetCommitKey,
        offset: Option<CommittedOffset>,
    ) -> Option<CommittedOffset> {
        let place = (key.group.detached(), key.topic.detached(), key.partition);
        if let Some(offset) = offset {
            self.by_group
                .entry(place.0.clone())
                .or_default()
                .entry((place.1.clone(), key.partition))
                .or_default()
                .insert(producer_id);
            let offsets = self.by_producer.entry(producer_id).or_default();
            return offsets.insert(place, offset);
        }
        let offsets = self.by_producer.get_mut(&producer_id)?;
        let previous = offsets.remove(&place);
        if offsets.is_empty() {
            self.by_producer.remove(&producer_id);
        }
        self.forget(producer_id, &key.group, &key.topic, key.partition);
        previous
    }

    fn forget(&mut self, producer_id: i64, group: &ByteStr, topic: &ByteStr, partition: i32) {
        let Some(partitions) = self.by_group.get_mut(group) else {
            return;
        };
        let place = (topic.clone(), partition);
        if let Some(producers) = partitions.get_mut(&place) {
            producers.remove(&producer_id);
            if producers.is_empty() {
                partitions.remove(&place);
            }
        }
        if partitions.is_empty() {
            self.by_group.remove(group);
        }
    }
}
