use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::OffsetCommitKey;

use super::store::{CommittedOffset, OffsetStore};

/// Offsets that open transactions committed, by producer. They take effect with the marker that
/// commits the transaction.
#[derive(Debug, Default)]
pub struct PendingOffsets {
    by_producer: BTreeMap<i64, BTreeMap<(ByteStr, ByteStr, i32), CommittedOffset>>,
    producers_by_group: BTreeMap<ByteStr, BTreeSet<i64>>,
}

impl PendingOffsets {
    /// Notes an offset of an open transaction.
    pub fn put(&mut self, producer_id: i64, key: &OffsetCommitKey, offset: CommittedOffset) {
        let group_id = key.group.detached();
        self.by_producer.entry(producer_id).or_default().insert(
            (group_id.clone(), key.topic.detached(), key.partition),
            offset,
        );
        self.producers_by_group
            .entry(group_id)
            .or_default()
            .insert(producer_id);
    }

    /// A deleted offset takes those of open transactions along.
    pub fn remove(&mut self, key: &OffsetCommitKey) {
        let place = (key.group.clone(), key.topic.clone(), key.partition);
        for producer_id in self
            .producers_by_group
            .get(&key.group)
            .into_iter()
            .flatten()
        {
            if let Some(offsets) = self.by_producer.get_mut(producer_id) {
                offsets.remove(&place);
            }
        }
    }

    /// Ends a transaction. What it commits goes to `store`, unless a later plain commit is there.
    pub fn end(&mut self, producer_id: i64, committed: bool, store: &mut OffsetStore) {
        let offsets = self.by_producer.remove(&producer_id).unwrap_or_default();
        self.producers_by_group.retain(|_, producers| {
            producers.remove(&producer_id);
            !producers.is_empty()
        });
        if !committed {
            return;
        }
        for ((group, topic, partition), offset) in offsets {
            let existing = store.get(&group, &topic, partition);
            if existing.is_some_and(|existing| existing.record_offset > offset.record_offset) {
                continue;
            }
            let key = OffsetCommitKey {
                group,
                topic,
                partition,
            };
            store.set(&key, Some(offset));
        }
    }

    /// Whether an open transaction committed an offset for this partition.
    pub fn has_offset(&self, group_id: &str, topic: &ByteStr, partition: i32) -> bool {
        let Some((group, producers)) = self.producers_by_group.get_key_value(group_id) else {
            return false;
        };
        let place = (group.clone(), topic.clone(), partition);
        producers.iter().any(|producer_id| {
            self.by_producer
                .get(producer_id)
                .is_some_and(|offsets| offsets.contains_key(&place))
        })
    }

    /// Whether a transaction with offsets of this group is open.
    pub fn has_group(&self, group_id: &str) -> bool {
        self.producers_by_group.contains_key(group_id)
    }

    /// The partitions of a group that open transactions committed offsets for.
    pub fn partitions_of(&self, group_id: &str) -> BTreeSet<(ByteStr, i32)> {
        self.producers_by_group
            .get(group_id)
            .into_iter()
            .flatten()
            .filter_map(|producer_id| self.by_producer.get(producer_id))
            .flat_map(|offsets| offsets.keys())
            .filter(|(group, _, _)| *group == *group_id)
            .map(|(_, topic, partition)| (topic.clone(), *partition))
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
}
