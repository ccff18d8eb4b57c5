//! What records do to the shard, and how it is taken back.

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::{OffsetCommitKey, OffsetCommitValue};

use super::messages::{Group, GroupUndo};
use super::{GroupEffects, GroupShard};
use crate::group::consumer::{ConsumerGroup, ConsumerRecord};
use crate::group::offsets::CommittedOffset;
use crate::runtime::{Now, RecordOrigin};

/// The producer id of batches that belong to no transaction.
const NO_PRODUCER: i64 = -1;

impl GroupShard {
    /// An offset was committed or deleted, plainly or in a transaction.
    pub(super) fn replay_offset(
        &mut self,
        origin: RecordOrigin,
        key: &OffsetCommitKey,
        value: Option<&OffsetCommitValue>,
        now: Now,
    ) -> GroupUndo {
        let Some(value) = value else {
            let pending = self.pending.remove(key);
            return GroupUndo::Deletion(self.offsets.set_in_flight(key, None), pending);
        };
        let offset = CommittedOffset::from_record(origin, value);
        let made = self.ensure_group(&key.group, now);
        if origin.producer_id != NO_PRODUCER {
            return GroupUndo::Pending(self.pending.put(origin.producer_id, key, offset), made);
        }
        let made = made.then(|| key.group.detached());
        GroupUndo::Offset(self.offsets.set_in_flight(key, Some(offset)), made)
    }

    /// The same for a record that is committed, without an undo for the many plain ones.
    pub(super) fn load_offset(
        &mut self,
        origin: RecordOrigin,
        key: &OffsetCommitKey,
        value: Option<&OffsetCommitValue>,
        now: Now,
    ) {
        let Some(value) = value else {
            self.pending.remove(key);
            self.offsets.set(key, None);
            return;
        };
        let offset = CommittedOffset::from_record(origin, value);
        self.ensure_group(&key.group, now);
        if origin.producer_id == NO_PRODUCER {
            self.offsets.set(key, Some(offset));
        } else {
            self.pending.put(origin.producer_id, key, offset);
        }
    }

    pub(super) fn set_group(&mut self, group_id: &ByteStr, group: Option<Group>) -> GroupUndo {
        let group_id = group_id.detached();
        let mut out = GroupEffects::default();
        // The timers of members stay for the case that the record fails; without their group they
        // do nothing.
        if let Some(mut machine) = self.classic(&group_id, Now::default(), &mut out)
            && machine.group.is_empty()
        {
            machine.cancel_all();
        }
        let has_members = matches!(&group, Some(Group::Classic(group)) if group.member_count() > 0);
        let previous = match group {
            Some(group) => self.groups.insert(group_id.clone(), group),
            None => self.groups.remove(&group_id),
        };
        if has_members {
            return GroupUndo::TakenOver(group_id, previous);
        }
        GroupUndo::Group(group_id, previous)
    }

    /// A record of a consumer group. One that makes the group known takes the place of a group
    /// that only holds offsets.
    pub(super) fn replay_consumer(&mut self, record: &ConsumerRecord) -> GroupUndo {
        let group_id = record.group_id().detached();
        let is_tombstone = record.is_tombstone();
        if let Some(Group::Consumer(group)) = self.groups.get_mut(&group_id) {
            if is_tombstone && matches!(record, ConsumerRecord::Group(..)) {
                let previous = self.groups.remove(&group_id);
                return GroupUndo::Group(group_id, previous);
            }
            return GroupUndo::Consumer(group_id, group.replay(record));
        }
        if is_tombstone {
            return GroupUndo::Nothing;
        }
        let mut group = ConsumerGroup::new(group_id.clone());
        group.replay(record);
        let group = Group::Consumer(Box::new(group));
        let previous = self.groups.insert(group_id.clone(), group);
        GroupUndo::Group(group_id, previous)
    }
}
