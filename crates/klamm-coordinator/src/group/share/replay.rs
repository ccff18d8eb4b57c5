//! What records do to a share group, and how it is taken back.

use std::sync::Arc;

use klamm_protocol::ByteStr;

use super::group::ShareGroup;
use super::member::ShareMember;
use super::record::ShareGroupRecord;
use super::states::ShareStates;
use crate::group::consumer::Partitions;
use crate::runtime::Now;

/// The assignment epoch of a group that is about to go.
const NO_EPOCH: i32 = -1;

/// Takes one record back.
#[derive(Debug)]
pub enum ShareGroupUndo {
    /// A member as it was.
    Member(ByteStr, Option<Arc<ShareMember>>),
    /// A member's target as it was.
    Target(ByteStr, Option<Arc<Partitions>>),
    /// Group epoch and metadata hash.
    Group(i32, i64),
    /// Assignment epoch and timestamp.
    Assignment(i32, i64),
    /// Which partitions had share state.
    States(Option<Arc<ShareStates>>),
}

impl ShareGroup {
    /// Applies a record, other than the one that deletes the group.
    pub(in crate::group) fn replay(
        &mut self,
        record: &ShareGroupRecord,
        now: Now,
    ) -> ShareGroupUndo {
        match record {
            ShareGroupRecord::Group(_, value) => {
                let undo = ShareGroupUndo::Group(self.epoch, self.metadata_hash);
                if let Some(value) = value {
                    self.epoch = value.epoch;
                    self.metadata_hash = value.metadata_hash;
                }
                undo
            }
            ShareGroupRecord::Member(key, value) => {
                let changed = value.as_ref().map(|value| {
                    let member = self.member_or_new(&key.member_id);
                    Arc::new(member.with_metadata(value))
                });
                self.put_member(&key.member_id, changed)
            }
            ShareGroupRecord::Current(key, value) => {
                let present = match value {
                    Some(_) => Some(self.member_or_new(&key.member_id)),
                    None => self.member(&key.member_id).cloned(),
                };
                let changed =
                    present.map(|member| Arc::new(member.with_assignment(value.as_ref())));
                self.put_member(&key.member_id, changed)
            }
            ShareGroupRecord::Assignment(_, value) => {
                let undo =
                    ShareGroupUndo::Assignment(self.assignment_epoch, self.assignment_timestamp_ms);
                (self.assignment_epoch, self.assignment_timestamp_ms) = match value {
                    Some(value) => (value.assignment_epoch, value.assignment_timestamp),
                    None => (NO_EPOCH, 0),
                };
                undo
            }
            ShareGroupRecord::Target(key, value) => {
                let member_id = key.member_id.detached();
                let target = value.as_ref().map(|value| {
                    let topics = value.topic_partitions.iter();
                    let target: Partitions = topics
                        .map(|t| (t.topic_id, t.partitions.iter().copied().collect()))
                        .collect();
                    Arc::new(target)
                });
                let previous = self.set_target(&member_id, target);
                ShareGroupUndo::Target(member_id, previous)
            }
            ShareGroupRecord::States(_, value) => {
                let states = value
                    .as_ref()
                    .map(|value| Arc::new(ShareStates::from_record(value, now.wall_ms)));
                ShareGroupUndo::States(std::mem::replace(&mut self.states, states))
            }
        }
    }

    /// Takes a record back. Called in the reverse order of the replays.
    pub(in crate::group) fn undo(&mut self, undo: ShareGroupUndo) {
        match undo {
            ShareGroupUndo::Member(id, previous) => {
                self.set_member(&id, previous);
            }
            ShareGroupUndo::Target(id, previous) => {
                self.set_target(&id, previous);
            }
            ShareGroupUndo::Group(epoch, metadata_hash) => {
                self.epoch = epoch;
                self.metadata_hash = metadata_hash;
            }
            ShareGroupUndo::Assignment(epoch, timestamp_ms) => {
                self.assignment_epoch = epoch;
                self.assignment_timestamp_ms = timestamp_ms;
            }
            ShareGroupUndo::States(previous) => self.states = previous,
        }
    }

    fn member_or_new(&self, member_id: &ByteStr) -> Arc<ShareMember> {
        match self.member(member_id) {
            Some(member) => member.clone(),
            None => Arc::new(ShareMember::new(member_id.detached())),
        }
    }

    fn put_member(
        &mut self,
        member_id: &ByteStr,
        member: Option<Arc<ShareMember>>,
    ) -> ShareGroupUndo {
        let member_id = member_id.detached();
        let previous = self.set_member(&member_id, member);
        ShareGroupUndo::Member(member_id, previous)
    }
}
