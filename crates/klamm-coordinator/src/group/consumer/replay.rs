//! What records do to a consumer group, and how it is taken back.

use std::sync::Arc;

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::ConsumerGroupTargetAssignmentMemberValue as TargetValue;

use super::group::ConsumerGroup;
use super::member::{ConsumerMember, Partitions};
use super::record::ConsumerRecord;
use super::subscription::ResolvedRegex;

/// The assignment epoch of a group that is about to go.
const NO_EPOCH: i32 = -1;

/// Takes one record back.
#[derive(Debug)]
pub enum ConsumerUndo {
    /// A member as it was.
    Member(ByteStr, Option<Arc<ConsumerMember>>),
    /// A member's target as it was.
    Target(ByteStr, Option<Arc<Partitions>>),
    /// A regular expression as it was resolved.
    Regex(ByteStr, Option<Arc<ResolvedRegex>>),
    /// Group epoch and metadata hash.
    Group(i32, i64),
    /// Assignment epoch and timestamp.
    Assignment(i32, i64),
    /// Whether there was a record of Kafka before 4.1.
    PartitionMetadata(bool),
}

impl ConsumerGroup {
    /// Applies a record, other than the one that deletes the group.
    pub(in crate::group) fn replay(&mut self, record: &ConsumerRecord) -> ConsumerUndo {
        match record {
            ConsumerRecord::Group(_, value) => {
                let undo = ConsumerUndo::Group(self.epoch, self.metadata_hash);
                if let Some(value) = value {
                    self.epoch = value.epoch;
                    self.metadata_hash = value.metadata_hash;
                }
                undo
            }
            ConsumerRecord::PartitionMetadata(_, value) => {
                let undo = ConsumerUndo::PartitionMetadata(self.has_partition_metadata);
                self.has_partition_metadata = value.is_some();
                undo
            }
            ConsumerRecord::Member(key, value) => {
                let changed = value.as_ref().map(|value| {
                    let member = self.member_or_new(&key.member_id);
                    Arc::new(member.with_metadata(value))
                });
                self.put_member(&key.member_id, changed)
            }
            ConsumerRecord::Current(key, value) => {
                let changed = match value {
                    Some(value) => {
                        let member = self.member_or_new(&key.member_id);
                        Some(member.with_assignment(value))
                    }
                    None => self.member(&key.member_id).map(|m| m.without_assignment()),
                };
                self.put_member(&key.member_id, changed.map(Arc::new))
            }
            ConsumerRecord::Assignment(_, value) => {
                let undo =
                    ConsumerUndo::Assignment(self.assignment_epoch, self.assignment_timestamp_ms);
                (self.assignment_epoch, self.assignment_timestamp_ms) = match value {
                    Some(value) => (value.assignment_epoch, value.assignment_timestamp),
                    None => (NO_EPOCH, 0),
                };
                undo
            }
            ConsumerRecord::Target(key, value) => {
                let member_id = key.member_id.detached();
                let previous = match value {
                    Some(value) => {
                        let target = Arc::new(target_of(value));
                        self.targets.insert(member_id.clone(), target)
                    }
                    None => self.targets.remove(&member_id),
                };
                ConsumerUndo::Target(member_id, previous)
            }
            ConsumerRecord::Regex(key, value) => {
                let regex = key.regular_expression.detached();
                let resolved = value.as_ref().map(ResolvedRegex::from_record);
                let previous = self.set_regex(&regex, resolved.map(Arc::new));
                ConsumerUndo::Regex(regex, previous)
            }
        }
    }

    /// Takes a record back. Called in the reverse order of the replays.
    pub(in crate::group) fn undo(&mut self, undo: ConsumerUndo) {
        match undo {
            ConsumerUndo::Member(member_id, previous) => {
                self.set_member(&member_id, previous);
            }
            ConsumerUndo::Target(member_id, Some(previous)) => {
                self.targets.insert(member_id, previous);
            }
            ConsumerUndo::Target(member_id, None) => {
                self.targets.remove(&member_id);
            }
            ConsumerUndo::Regex(regex, previous) => {
                self.set_regex(&regex, previous);
            }
            ConsumerUndo::Group(epoch, metadata_hash) => {
                self.epoch = epoch;
                self.metadata_hash = metadata_hash;
            }
            ConsumerUndo::Assignment(epoch, timestamp_ms) => {
                self.assignment_epoch = epoch;
                self.assignment_timestamp_ms = timestamp_ms;
            }
            ConsumerUndo::PartitionMetadata(present) => self.has_partition_metadata = present,
        }
    }

    fn member_or_new(&self, member_id: &ByteStr) -> Arc<ConsumerMember> {
        match self.member(member_id) {
            Some(member) => member.clone(),
            None => Arc::new(ConsumerMember::new(member_id.detached())),
        }
    }

    fn put_member(
        &mut self,
        member_id: &ByteStr,
        member: Option<Arc<ConsumerMember>>,
    ) -> ConsumerUndo {
        let previous = self.set_member(member_id, member);
        ConsumerUndo::Member(member_id.detached(), previous)
    }
}

fn target_of(value: &TargetValue) -> Partitions {
    let topics = value.topic_partitions.iter();
    topics
        .map(|topic| (topic.topic_id, topic.partitions.iter().copied().collect()))
        .collect()
}
