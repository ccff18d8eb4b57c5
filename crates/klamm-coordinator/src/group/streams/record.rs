//! The records of streams groups in `__consumer_offsets`, in Kafka's bytes.

use bytes::Bytes;
use klamm_protocol::group_records::streams_group_metadata_value::LastAssignmentConfig;
use klamm_protocol::group_records::{
    StreamsGroupCurrentMemberAssignmentKey as CurrentKey,
    StreamsGroupCurrentMemberAssignmentValue as CurrentValue,
    StreamsGroupMemberMetadataKey as MemberKey, StreamsGroupMemberMetadataValue as MemberValue,
    StreamsGroupMetadataKey as GroupKey, StreamsGroupMetadataValue as GroupValue,
    StreamsGroupTargetAssignmentMemberKey as TargetKey,
    StreamsGroupTargetAssignmentMemberValue as TargetValue,
    StreamsGroupTargetAssignmentMetadataKey as AssignmentKey,
    StreamsGroupTargetAssignmentMetadataValue as AssignmentValue,
    StreamsGroupTopologyKey as TopologyKey, StreamsGroupTopologyValue as TopologyValue,
};
use klamm_protocol::record_frame::{decode_pair, encode_pair};
use klamm_protocol::{ByteStr, DecodeError, EncodeError, RecordKey};

use super::group::AssignmentConfigs;
use super::member::StreamsMember;
use super::tasks::{self, TaskSet};
use crate::group::record::GroupRecord;

/// The version of all values.
const VERSION: i16 = 0;

/// A record of a streams group. One without a value deletes what its key names.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamsRecord {
    /// The group's epoch and what it was made for (type 17).
    Group(GroupKey, Option<GroupValue>),
    /// A member (type 19).
    Member(MemberKey, Option<MemberValue>),
    /// The epoch of the target assignment (type 20).
    Assignment(AssignmentKey, Option<AssignmentValue>),
    /// What the target assignment gives a member (type 21).
    Target(TargetKey, Option<TargetValue>),
    /// What a member has (type 22).
    Current(CurrentKey, Option<CurrentValue>),
    /// The topology (type 23).
    Topology(TopologyKey, Option<TopologyValue>),
}

/// Runs the same on the key and the value of any record.
macro_rules! of_each {
    ($record:expr, $key:pat, $value:pat => $result:expr) => {
        match $record {
            StreamsRecord::Group($key, $value) => $result,
            StreamsRecord::Member($key, $value) => $result,
            StreamsRecord::Assignment($key, $value) => $result,
            StreamsRecord::Target($key, $value) => $result,
            StreamsRecord::Current($key, $value) => $result,
            StreamsRecord::Topology($key, $value) => $result,
        }
    };
}

impl StreamsRecord {
    /// Name of the group.
    pub fn group_id(&self) -> &ByteStr {
        of_each!(self, key, _ => &key.group_id)
    }

    /// Whether the record deletes what its key names.
    pub fn is_tombstone(&self) -> bool {
        of_each!(self, _, value => value.is_none())
    }

    /// The record type.
    pub fn kind(&self) -> i16 {
        match self {
            StreamsRecord::Group(..) => GroupKey::RECORD_TYPE,
            StreamsRecord::Member(..) => MemberKey::RECORD_TYPE,
            StreamsRecord::Assignment(..) => AssignmentKey::RECORD_TYPE,
            StreamsRecord::Target(..) => TargetKey::RECORD_TYPE,
            StreamsRecord::Current(..) => CurrentKey::RECORD_TYPE,
            StreamsRecord::Topology(..) => TopologyKey::RECORD_TYPE,
        }
    }

    /// Key and value as bytes.
    pub(in crate::group) fn encode(&self) -> Result<(Bytes, Option<Bytes>), EncodeError> {
        of_each!(self, key, value => encode_pair(key, value.as_ref(), VERSION))
    }

    /// Reads a record; none if the type is not one of these.
    pub(in crate::group) fn decode(
        kind: i16,
        key: Bytes,
        value: Option<Bytes>,
    ) -> Option<Result<StreamsRecord, DecodeError>> {
        Some(match kind {
            GroupKey::RECORD_TYPE => read(key, value, StreamsRecord::Group),
            MemberKey::RECORD_TYPE => read(key, value, StreamsRecord::Member),
            AssignmentKey::RECORD_TYPE => read(key, value, StreamsRecord::Assignment),
            TargetKey::RECORD_TYPE => read(key, value, StreamsRecord::Target),
            CurrentKey::RECORD_TYPE => read(key, value, StreamsRecord::Current),
            TopologyKey::RECORD_TYPE => read(key, value, StreamsRecord::Topology),
            _ => return None,
        })
    }
}

fn read<K: RecordKey>(
    key: Bytes,
    value: Option<Bytes>,
    record: fn(K, Option<K::Value>) -> StreamsRecord,
) -> Result<StreamsRecord, DecodeError> {
    decode_pair(key, value).map(|(key, value)| record(key, value))
}

/// Makes the records of one group.
#[derive(Clone, Copy)]
pub(super) struct RecordsOf<'a>(pub &'a ByteStr);

impl RecordsOf<'_> {
    pub(super) fn epoch(
        self,
        epoch: i32,
        metadata_hash: i64,
        validated_topology_epoch: i32,
        configs: &AssignmentConfigs,
    ) -> GroupRecord {
        let configs = configs.iter().map(|(key, value)| LastAssignmentConfig {
            key: key.clone(),
            value: value.clone(),
            ..LastAssignmentConfig::default()
        });
        self.group(Some(GroupValue {
            epoch,
            metadata_hash,
            validated_topology_epoch,
            last_assignment_configs: Some(configs.collect()),
            ..GroupValue::default()
        }))
    }

    pub(super) fn group(self, value: Option<GroupValue>) -> GroupRecord {
        let group_id = self.0.clone();
        StreamsRecord::Group(GroupKey { group_id }, value).into()
    }

    pub(super) fn topology(self, value: Option<TopologyValue>) -> GroupRecord {
        let group_id = self.0.clone();
        StreamsRecord::Topology(TopologyKey { group_id }, value).into()
    }

    pub(super) fn member(self, member: &StreamsMember) -> GroupRecord {
        self.set_member(&member.id, Some(member.metadata_value()))
    }

    pub(super) fn set_member(self, member_id: &ByteStr, value: Option<MemberValue>) -> GroupRecord {
        let key = MemberKey {
            group_id: self.0.clone(),
            member_id: member_id.clone(),
        };
        StreamsRecord::Member(key, value).into()
    }

    pub(super) fn assignment(self, epoch: i32, timestamp_ms: i64) -> GroupRecord {
        let value = AssignmentValue {
            assignment_epoch: epoch,
            assignment_timestamp: timestamp_ms,
            ..AssignmentValue::default()
        };
        let group_id = self.0.clone();
        StreamsRecord::Assignment(AssignmentKey { group_id }, Some(value)).into()
    }

    pub(super) fn assignment_tombstone(self) -> GroupRecord {
        let group_id = self.0.clone();
        StreamsRecord::Assignment(AssignmentKey { group_id }, None).into()
    }

    pub(super) fn target(self, member_id: &ByteStr, target: &TaskSet) -> GroupRecord {
        let value = TargetValue {
            active_tasks: tasks::to_target(&target.active),
            standby_tasks: tasks::to_target(&target.standby),
            warmup_tasks: tasks::to_target(&target.warmup),
            ..TargetValue::default()
        };
        self.set_target(member_id, Some(value))
    }

    pub(super) fn set_target(self, member_id: &ByteStr, value: Option<TargetValue>) -> GroupRecord {
        let key = TargetKey {
            group_id: self.0.clone(),
            member_id: member_id.clone(),
        };
        StreamsRecord::Target(key, value).into()
    }

    pub(super) fn current(self, member: &StreamsMember) -> GroupRecord {
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
        StreamsRecord::Current(key, value).into()
    }
}

impl From<StreamsRecord> for GroupRecord {
    fn from(record: StreamsRecord) -> GroupRecord {
        GroupRecord::Streams(Box::new(record))
    }
}
