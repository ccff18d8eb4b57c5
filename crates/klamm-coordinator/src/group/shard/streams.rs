//! What records of streams groups do to the shard.

use super::GroupShard;
use super::messages::{Group, GroupTimer, GroupUndo};
use crate::group::streams::{StreamsGroup, StreamsRecord, StreamsTimer};

impl GroupShard {
    /// A record of a streams group; the first makes the group known. The topology goes last when a
    /// group is deleted, which then is not there any more.
    pub(super) fn replay_streams(&mut self, record: &StreamsRecord) -> GroupUndo {
        let group_id = record.group_id().detached();
        let is_tombstone = record.is_tombstone();
        if let Some(Group::Streams(group)) = self.groups.get_mut(&group_id) {
            if is_tombstone && matches!(record, StreamsRecord::Group(..)) {
                let previous = self.groups.remove(&group_id);
                let timer = GroupTimer::Streams(group_id.clone(), StreamsTimer::InitialRebalance);
                self.timers.cancel(timer);
                return GroupUndo::Group(group_id, previous);
            }
            return GroupUndo::Streams(group_id, group.replay(record));
        }
        if is_tombstone {
            return GroupUndo::Nothing;
        }
        let mut group = StreamsGroup::new(group_id.clone());
        group.replay(record);
        let group = Group::Streams(Box::new(group));
        let previous = self.groups.insert(group_id.clone(), group);
        GroupUndo::Group(group_id, previous)
    }
}
