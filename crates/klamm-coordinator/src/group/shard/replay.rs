//! What records do to the shard, and how it is taken back.

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::{OffsetCommitKey, OffsetCommitValue};

use super::messages::{Group, GroupUndo};
use super::{GroupEffects, GroupShard};
use crate::group::foreign::{ForeignGroup, ForeignKey};
use crate::group::offsets::CommittedOffset;
use crate::runtime::{Now, RecordOrigin};

/// The producer id of batches that belong to no transaction.
const NO_PRODUCER: i64 = -1;

impl GroupShard {
    /// Does all but the change of the offset itself, which is returned together with the name of
    /// the group if the record made one. None if the offset waits for its transaction.
    pub(super) fn replay_offset(
        &mut self,
        origin: RecordOrigin,
        key: &OffsetCommitKey,
        value: Option<&OffsetCommitValue>,
        now: Now,
    ) -> Option<(Option<CommittedOffset>, Option<ByteStr>)> {
        let Some(value) = value else {
            self.pending.remove(key);
            return Some((None, None));
        };
        let offset = CommittedOffset::from_record(origin, value);
        let made = self.ensure_group(&key.group, now);
        if origin.producer_id != NO_PRODUCER {
            self.pending.put(origin.producer_id, key, offset);
            return None;
        }
        Some((Some(offset), made.then(|| key.group.detached())))
    }

    pub(super) fn set_group(&mut self, group_id: &ByteStr, group: Option<Group>) -> GroupUndo {
        let group_id = group_id.detached();
        let mut out = GroupEffects::default();
        if let Some(mut machine) = self.classic(&group_id, Now::default(), &mut out) {
            machine.cancel_all();
        }
        let previous = match group {
            Some(group) => self.groups.insert(group_id.clone(), group),
            None => self.groups.remove(&group_id),
        };
        GroupUndo::Group(group_id, previous)
    }

    /// A record of another protocol while serving, which is rare: the whole group is kept for
    /// the undo.
    pub(super) fn replay_foreign(&mut self, key: &ForeignKey, present: bool) -> GroupUndo {
        let Some(group_id) = key.group_id.as_ref().map(ByteStr::detached) else {
            return GroupUndo::Nothing;
        };
        let previous = match self.groups.get(&group_id) {
            Some(Group::Foreign(group)) => Some(Group::Foreign(group.clone())),
            _ => None,
        };
        self.apply_foreign(key, present);
        match previous {
            Some(previous) => GroupUndo::Group(group_id, Some(previous)),
            None => GroupUndo::Nothing,
        }
    }

    pub(super) fn apply_foreign(&mut self, key: &ForeignKey, present: bool) {
        let (Some(group_id), Some(protocol)) = (&key.group_id, key.protocol()) else {
            tracing::debug!(kind = key.kind, "passed over a record of an unknown type");
            return;
        };
        match self.groups.get_mut(group_id) {
            Some(Group::Foreign(group)) => {
                group.replay(key, present);
                if group.is_gone() {
                    self.groups.remove(group_id);
                }
            }
            // The end of a group whose name a classic one took over.
            _ if !present => {}
            // A classic group was converted. Its tombstone came first, but an offset in between
            // may have made it known again.
            _ => {
                let mut group = ForeignGroup::new(group_id.detached(), protocol);
                group.replay(key, present);
                let group = Group::Foreign(Box::new(group));
                self.groups.insert(group_id.detached(), group);
            }
        }
    }
}
