//! The records of consumer groups in `__consumer_offsets` (types 3 to 8 and 16), in Kafka's bytes.

use bytes::Bytes;
use klamm_protocol::group_records::{
    ConsumerGroupCurrentMemberAssignmentKey as CurrentKey,
    ConsumerGroupCurrentMemberAssignmentValue as CurrentValue,
    ConsumerGroupMemberMetadataKey as MemberKey, ConsumerGroupMemberMetadataValue as MemberValue,
    ConsumerGroupMetadataKey as GroupKey, ConsumerGroupMetadataValue as GroupValue,
    ConsumerGroupPartitionMetadataKey as PartitionKey,
    ConsumerGroupPartitionMetadataValue as PartitionValue,
    ConsumerGroupRegularExpressionKey as RegexKey,
    ConsumerGroupRegularExpressionValue as RegexValue,
    ConsumerGroupTargetAssignmentMemberKey as TargetKey,
    ConsumerGroupTargetAssignmentMemberValue as TargetValue,
    ConsumerGroupTargetAssignmentMetadataKey as AssignmentKey,
    ConsumerGroupTargetAssignmentMetadataValue as AssignmentValue,
    consumer_group_target_assignment_member_value::TopicPartition,
};
use klamm_protocol::record_frame::{decode_pair, encode_pair};
use klamm_protocol::{ByteStr, DecodeError, EncodeError, RecordKey};

use super::member::{ConsumerMember, Partitions};
use super::subscription::ResolvedRegex;
use crate::group::record::GroupRecord;

/// The version of all keys and values.
const VERSION: i16 = 0;

/// A record of a consumer group. One without a value deletes what its key names.
#[derive(Clone, Debug, PartialEq)]
pub enum ConsumerRecord {
    /// The group's epoch and the hash of its topics (type 3).
    Group(GroupKey, Option<GroupValue>),
    /// The group's topics as Kafka before 4.1 kept them (type 4); only ever deleted.
    PartitionMetadata(PartitionKey, Option<PartitionValue>),
    /// A member and what it subscribes to (type 5).
    Member(MemberKey, Option<MemberValue>),
    /// The epoch of the target assignment (type 6).
    Assignment(AssignmentKey, Option<AssignmentValue>),
    /// What the target assignment gives a member (type 7).
    Target(TargetKey, Option<TargetValue>),
    /// What a member has (type 8).
    Current(CurrentKey, Option<CurrentValue>),
    /// What a regular expression matches (type 16).
    Regex(RegexKey, Option<RegexValue>),
}

impl ConsumerRecord {
    /// Name of the group.
    pub fn group_id(&self) -> &ByteStr {
        match self {
            ConsumerRecord::Group(key, _) => &key.group_id,
            ConsumerRecord::PartitionMetadata(key, _) => &key.group_id,
            ConsumerRecord::Member(key, _) => &key.group_id,
            ConsumerRecord::Assignment(key, _) => &key.group_id,
            ConsumerRecord::Target(key, _) => &key.group_id,
            ConsumerRecord::Current(key, _) => &key.group_id,
            ConsumerRecord::Regex(key, _) => &key.group_id,
        }
    }

    /// Whether the record deletes what its key names.
    pub fn is_tombstone(&self) -> bool {
        match self {
            ConsumerRecord::Group(_, value) => value.is_none(),
            ConsumerRecord::PartitionMetadata(_, value) => value.is_none(),
            ConsumerRecord::Member(_, value) => value.is_none(),
            ConsumerRecord::Assignment(_, value) => value.is_none(),
            ConsumerRecord::Target(_, value) => value.is_none(),
            ConsumerRecord::Current(_, value) => value.is_none(),
            ConsumerRecord::Regex(_, value) => value.is_none(),
        }
    }

    /// The record type.
    pub fn kind(&self) -> i16 {
        match self {
            ConsumerRecord::Group(..) => GroupKey::RECORD_TYPE,
            ConsumerRecord::PartitionMetadata(..) => PartitionKey::RECORD_TYPE,
            ConsumerRecord::Member(..) => MemberKey::RECORD_TYPE,
            ConsumerRecord::Assignment(..) => AssignmentKey::RECORD_TYPE,
            ConsumerRecord::Target(..) => TargetKey::RECORD_TYPE,
            ConsumerRecord::Current(..) => CurrentKey::RECORD_TYPE,
            ConsumerRecord::Regex(..) => RegexKey::RECORD_TYPE,
        }
    }

    /// Key and value as bytes.
    pub(in crate::group) fn encode(&self) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        match self {
            ConsumerRecord::Group(key, value) => encode_pair(key, value.as_ref(), VERSION),
            ConsumerRecord::PartitionMetadata(key, value) => {
                encode_pair(key, value.as_ref(), VERSION)
            }
            ConsumerRecord::Member(key, value) => encode_pair(key, value.as_ref(), VERSION),
            ConsumerRecord::Assignment(key, value) => encode_pair(key, value.as_ref(), VERSION),
            ConsumerRecord::Target(key, value) => encode_pair(key, value.as_ref(), VERSION),
            ConsumerRecord::Current(key, value) => encode_pair(key, value.as_ref(), VERSION),
            ConsumerRecord::Regex(key, value) => encode_pair(key, value.as_ref(), VERSION),
        }
    }

    /// Reads a record; none if the type is not one of these.
    pub(in crate::group) fn decode(
        kind: i16,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Option<Result<ConsumerRecord, DecodeError>> {
        Some(match kind {
            GroupKey::RECORD_TYPE => read(key, value, ConsumerRecord::Group),
            PartitionKey::RECORD_TYPE => read(key, value, ConsumerRecord::PartitionMetadata),
            MemberKey::RECORD_TYPE => read(key, value, ConsumerRecord::Member),
            AssignmentKey::RECORD_TYPE => read(key, value, ConsumerRecord::Assignment),
            TargetKey::RECORD_TYPE => read(key, value, ConsumerRecord::Target),
            CurrentKey::RECORD_TYPE => read(key, value, ConsumerRecord::Current),
            RegexKey::RECORD_TYPE => read(key, value, ConsumerRecord::Regex),
            _ => return None,
        })
    }
}

fn read<K: RecordKey>(
    key: Bytes,
    value: Option<Bytes>,
    record: fn(K, Option<K::Value>) -> ConsumerRecord,
) -> Result<ConsumerRecord, DecodeError> {
    decode_pair(key, value).map(|(key, value)| record(key, value))
}

/// Makes the records of one group.
#[derive(Clone, Copy)]
pub(super) struct RecordsOf<'a>(pub &'a ByteStr);

impl RecordsOf<'_> {
    pub(super) fn epoch(self, epoch: i32, metadata_hash: i64) -> GroupRecord {
        self.group(Some(GroupValue {
            epoch,
            metadata_hash,
            ..GroupValue::default()
        }))
    }

    pub(super) fn group(self, value: Option<GroupValue>) -> GroupRecord {
        let group_id = self.0.clone();
        ConsumerRecord::Group(GroupKey { group_id }, value).into()
    }

    pub(super) fn partition_metadata_tombstone(self) -> GroupRecord {
        let group_id = self.0.clone();
        ConsumerRecord::PartitionMetadata(PartitionKey { group_id }, None).into()
    }

    pub(super) fn member(self, member: &ConsumerMember) -> GroupRecord {
        let key = self.member_key(&member.id);
        ConsumerRecord::Member(key, Some(member.metadata_value())).into()
    }

    fn member_key(self, member_id: &ByteStr) -> MemberKey {
        MemberKey {
            group_id: self.0.clone(),
            member_id: member_id.clone(),
        }
    }

    pub(super) fn member_tombstone(self, member_id: &ByteStr) -> GroupRecord {
        ConsumerRecord::Member(self.member_key(member_id), None).into()
    }

    pub(super) fn assignment(self, epoch: i32, timestamp_ms: i64) -> GroupRecord {
        let value = AssignmentValue {
            assignment_epoch: epoch,
            assignment_timestamp: timestamp_ms,
            ..AssignmentValue::default()
        };
        let group_id = self.0.clone();
        ConsumerRecord::Assignment(AssignmentKey { group_id }, Some(value)).into()
    }

    pub(super) fn assignment_tombstone(self) -> GroupRecord {
        let group_id = self.0.clone();
        ConsumerRecord::Assignment(AssignmentKey { group_id }, None).into()
    }

    pub(super) fn target(self, member_id: &ByteStr, target: &Partitions) -> GroupRecord {
        let topic_partitions = target.iter().map(|(topic_id, partitions)| TopicPartition {
            topic_id: *topic_id,
            partitions: partitions.iter().copied().collect(),
            ..TopicPartition::default()
        });
        let value = TargetValue {
            topic_partitions: topic_partitions.collect(),
            ..TargetValue::default()
        };
        ConsumerRecord::Target(self.target_key(member_id), Some(value)).into()
    }

    fn target_key(self, member_id: &ByteStr) -> TargetKey {
        TargetKey {
            group_id: self.0.clone(),
            member_id: member_id.clone(),
        }
    }

    pub(super) fn target_tombstone(self, member_id: &ByteStr) -> GroupRecord {
        ConsumerRecord::Target(self.target_key(member_id), None).into()
    }

    pub(super) fn current(self, member: &ConsumerMember) -> GroupRecord {
        let key = self.current_key(&member.id);
        ConsumerRecord::Current(key, Some(member.assignment_value())).into()
    }

    fn current_key(self, member_id: &ByteStr) -> CurrentKey {
        CurrentKey {
            group_id: self.0.clone(),
            member_id: member_id.clone(),
        }
    }

    pub(super) fn current_tombstone(self, member_id: &ByteStr) -> GroupRecord {
        ConsumerRecord::Current(self.current_key(member_id), None).into()
    }

    pub(super) fn regex(self, regex: &ByteStr, resolved: &ResolvedRegex) -> GroupRecord {
        ConsumerRecord::Regex(self.regex_key(regex), Some(resolved.to_record())).into()
    }

    fn regex_key(self, regex: &ByteStr) -> RegexKey {
        RegexKey {
            group_id: self.0.clone(),
            regular_expression: regex.clone(),
        }
    }

    pub(super) fn regex_tombstone(self, regex: &ByteStr) -> GroupRecord {
        ConsumerRecord::Regex(self.regex_key(regex), None).into()
    }

    /// Deletes a member: what it has, what it was to get, and itself.
    pub(super) fn removal(self, member_id: &ByteStr) -> [GroupRecord; 3] {
        [
            self.current_tombstone(member_id),
            self.target_tombstone(member_id),
            self.member_tombstone(member_id),
        ]
    }
}

impl From<ConsumerRecord> for GroupRecord {
    fn from(record: ConsumerRecord) -> GroupRecord {
        GroupRecord::Consumer(Box::new(record))
    }
}
