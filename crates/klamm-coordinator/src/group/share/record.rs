//! The records of share groups in `__consumer_offsets`, in Kafka's bytes.

use bytes::Bytes;
use klamm_protocol::group_records::{
    ShareGroupCurrentMemberAssignmentKey as CurrentKey,
    ShareGroupCurrentMemberAssignmentValue as CurrentValue,
    ShareGroupMemberMetadataKey as MemberKey, ShareGroupMemberMetadataValue as MemberValue,
    ShareGroupMetadataKey as GroupKey, ShareGroupMetadataValue as GroupValue,
    ShareGroupStatePartitionMetadataKey as StatesKey,
    ShareGroupStatePartitionMetadataValue as StatesValue,
    ShareGroupTargetAssignmentMemberKey as TargetKey,
    ShareGroupTargetAssignmentMemberValue as TargetValue,
    ShareGroupTargetAssignmentMetadataKey as AssignmentKey,
    ShareGroupTargetAssignmentMetadataValue as AssignmentValue,
    share_group_target_assignment_member_value::TopicPartition,
};
use klamm_protocol::record_frame::{decode_pair, encode_pair};
use klamm_protocol::{ByteStr, DecodeError, EncodeError, RecordKey};

use super::member::ShareMember;
use super::states::ShareStates;
use crate::group::consumer::Partitions;
use crate::group::record::GroupRecord;

/// The version of all values.
const VERSION: i16 = 0;

/// A record of a share group. One without a value deletes what its key names.
#[derive(Clone, Debug, PartialEq)]
pub enum ShareGroupRecord {
    /// A member and what it subscribes to (type 10).
    Member(MemberKey, Option<MemberValue>),
    /// The group's epoch and the hash of its topics (type 11).
    Group(GroupKey, Option<GroupValue>),
    /// The epoch of the target assignment (type 12).
    Assignment(AssignmentKey, Option<AssignmentValue>),
    /// What the target assignment gives a member (type 13).
    Target(TargetKey, Option<TargetValue>),
    /// What a member has (type 14).
    Current(CurrentKey, Option<CurrentValue>),
    /// Which partitions have share state (type 15).
    States(StatesKey, Option<StatesValue>),
}

impl ShareGroupRecord {
    /// Name of the group.
    pub fn group_id(&self) -> &ByteStr {
        match self {
            ShareGroupRecord::Member(key, _) => &key.group_id,
            ShareGroupRecord::Group(key, _) => &key.group_id,
            ShareGroupRecord::Assignment(key, _) => &key.group_id,
            ShareGroupRecord::Target(key, _) => &key.group_id,
            ShareGroupRecord::Current(key, _) => &key.group_id,
            ShareGroupRecord::States(key, _) => &key.group_id,
        }
    }

    /// Whether the record deletes what its key names.
    pub fn is_tombstone(&self) -> bool {
        match self {
            ShareGroupRecord::Member(_, value) => value.is_none(),
            ShareGroupRecord::Group(_, value) => value.is_none(),
            ShareGroupRecord::Assignment(_, value) => value.is_none(),
            ShareGroupRecord::Target(_, value) => value.is_none(),
            ShareGroupRecord::Current(_, value) => value.is_none(),
            ShareGroupRecord::States(_, value) => value.is_none(),
        }
    }

    /// The record type.
    pub fn kind(&self) -> i16 {
        match self {
            ShareGroupRecord::Member(..) => MemberKey::RECORD_TYPE,
            ShareGroupRecord::Group(..) => GroupKey::RECORD_TYPE,
            ShareGroupRecord::Assignment(..) => AssignmentKey::RECORD_TYPE,
            ShareGroupRecord::Target(..) => TargetKey::RECORD_TYPE,
            ShareGroupRecord::Current(..) => CurrentKey::RECORD_TYPE,
            ShareGroupRecord::States(..) => StatesKey::RECORD_TYPE,
        }
    }

    /// Key and value as bytes.
    pub(in crate::group) fn encode(&self) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        match self {
            ShareGroupRecord::Member(key, value) => encode_pair(key, value.as_ref(), VERSION),
            ShareGroupRecord::Group(key, value) => encode_pair(key, value.as_ref(), VERSION),
            ShareGroupRecord::Assignment(key, value) => encode_pair(key, value.as_ref(), VERSION),
            ShareGroupRecord::Target(key, value) => encode_pair(key, value.as_ref(), VERSION),
            ShareGroupRecord::Current(key, value) => encode_pair(key, value.as_ref(), VERSION),
            ShareGroupRecord::States(key, value) => encode_pair(key, value.as_ref(), VERSION),
        }
    }

    /// Reads a record; none if the type is not one of these.
    pub(in crate::group) fn decode(
        kind: i16,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Option<Result<ShareGroupRecord, DecodeError>> {
        Some(match kind {
            MemberKey::RECORD_TYPE => read(key, value, ShareGroupRecord::Member),
            GroupKey::RECORD_TYPE => read(key, value, ShareGroupRecord::Group),
            AssignmentKey::RECORD_TYPE => read(key, value, ShareGroupRecord::Assignment),
            TargetKey::RECORD_TYPE => read(key, value, ShareGroupRecord::Target),
            CurrentKey::RECORD_TYPE => read(key, value, ShareGroupRecord::Current),
            StatesKey::RECORD_TYPE => read(key, value, ShareGroupRecord::States),
            _ => return None,
        })
    }
}

fn read<K: RecordKey>(
    key: Bytes,
    value: Option<Bytes>,
    record: fn(K, Option<K::Value>) -> ShareGroupRecord,
) -> Result<ShareGroupRecord, DecodeError> {
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
        ShareGroupRecord::Group(GroupKey { group_id }, value).into()
    }

    pub(super) fn member(self, member: &ShareMember) -> GroupRecord {
        self.set_member(&member.id, Some(member.metadata_value()))
    }

    pub(super) fn set_member(self, member_id: &ByteStr, value: Option<MemberValue>) -> GroupRecord {
        let key = MemberKey {
            group_id: self.0.clone(),
            member_id: member_id.clone(),
        };
        ShareGroupRecord::Member(key, value).into()
    }

    pub(super) fn assignment(self, epoch: i32, timestamp_ms: i64) -> GroupRecord {
        let value = AssignmentValue {
            assignment_epoch: epoch,
            assignment_timestamp: timestamp_ms,
            ..AssignmentValue::default()
        };
        let group_id = self.0.clone();
        ShareGroupRecord::Assignment(AssignmentKey { group_id }, Some(value)).into()
    }

    pub(super) fn assignment_tombstone(self) -> GroupRecord {
        let group_id = self.0.clone();
        ShareGroupRecord::Assignment(AssignmentKey { group_id }, None).into()
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
        self.set_target(member_id, Some(value))
    }

    pub(super) fn set_target(self, member_id: &ByteStr, value: Option<TargetValue>) -> GroupRecord {
        let key = TargetKey {
            group_id: self.0.clone(),
            member_id: member_id.clone(),
        };
        ShareGroupRecord::Target(key, value).into()
    }

    pub(super) fn current(self, member: &ShareMember) -> GroupRecord {
        self.set_current(&member.id, Some(member.assignment_value()))
    }

    pub(super) fn set_current(
        self,
        member_id: &ByteStr,
        value: Option<CurrentValue>,
    ) -> GroupRecord {
        let key = CurrentKey {
            group_id: self.0.clone(),
            member_id: member_id.clone(),
        };
        ShareGroupRecord::Current(key, value).into()
    }

    pub(super) fn states(self, states: Option<&ShareStates>) -> GroupRecord {
        let group_id = self.0.clone();
        let value = states.map(ShareStates::to_record);
        ShareGroupRecord::States(StatesKey { group_id }, value).into()
    }
}

impl From<ShareGroupRecord> for GroupRecord {
    fn from(record: ShareGroupRecord) -> GroupRecord {
        GroupRecord::Share(Box::new(record))
    }
}
