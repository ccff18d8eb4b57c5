//! What records do to a streams group, and how it is taken back.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::StreamsGroupMetadataValue;

use super::group::{AssignmentConfigs, StreamsGroup};
use super::member::StreamsMember;
use super::record::StreamsRecord;
use super::tasks::{TaskSet, tasks_of_target};
use super::topology::Topology;

/// The assignment epoch of a group that is about to go.
const NO_EPOCH: i32 = -1;

/// Takes one record back.
#[derive(Debug)]
pub enum StreamsUndo {
    /// A member as it was.
    Member(ByteStr, Option<Arc<StreamsMember>>),
    /// A member's target as it was.
    Target(ByteStr, Option<Arc<TaskSet>>),
    /// Group epoch, metadata hash, validated topology epoch and assignment configurations.
    Group(i32, i64, i32, BTreeMap<ByteStr, ByteStr>),
    /// Assignment epoch and timestamp.
    Assignment(i32, i64),
    /// The topology.
    Topology(Option<Arc<Topology>>),
}

impl StreamsGroup {
    /// Applies a record, other than the one that deletes the group.
    pub(in crate::group) fn replay(&mut self, record: &StreamsRecord) -> StreamsUndo {
        match record {
            StreamsRecord::Group(_, value) => self.replay_group(value.as_ref()),
            StreamsRecord::Member(key, value) => {
                let changed = value.as_ref().map(|value| {
                    let member = self.member_or_new(&key.member_id);
                    Arc::new(member.with_metadata(value))
                });
                self.put_member(&key.member_id, changed)
            }
            StreamsRecord::Current(key, value) => {
                let present = match value {
                    Some(_) => Some(self.member_or_new(&key.member_id)),
                    None => self.member(&key.member_id).cloned(),
                };
                let changed =
                    present.map(|member| Arc::new(member.with_assignment(value.as_ref())));
                self.put_member(&key.member_id, changed)
            }
            StreamsRecord::Assignment(_, value) => {
                let undo =
                    StreamsUndo::Assignment(self.assignment_epoch, self.assignment_timestamp_ms);
                (self.assignment_epoch, self.assignment_timestamp_ms) = match value {
                    Some(value) => (value.assignment_epoch, value.assignment_timestamp),
                    None => (NO_EPOCH, 0),
                };
                undo
            }
            StreamsRecord::Target(key, value) => {
                let member_id = key.member_id.detached();
                let previous = match value {
                    Some(value) => {
                        let target = TaskSet {
                            active: tasks_of_target(&value.active_tasks),
                            standby: tasks_of_target(&value.standby_tasks),
                            warmup: tasks_of_target(&value.warmup_tasks),
                        };
                        self.targets.insert(member_id.clone(), Arc::new(target))
                    }
                    None => self.targets.remove(&member_id),
                };
                StreamsUndo::Target(member_id, previous)
            }
            StreamsRecord::Topology(_, value) => {
                let topology = value.as_ref().map(Topology::from_record).map(Arc::new);
                StreamsUndo::Topology(std::mem::replace(&mut self.topology, topology))
            }
        }
    }

    fn replay_group(&mut self, value: Option<&StreamsGroupMetadataValue>) -> StreamsUndo {
        let undo = StreamsUndo::Group(
            self.epoch,
            self.metadata_hash,
            self.validated_topology_epoch,
            self.assignment_configs.clone(),
        );
        if let Some(value) = value {
            self.epoch = value.epoch;
            self.metadata_hash = value.metadata_hash;
            self.validated_topology_epoch = value.validated_topology_epoch;
            let configs = value.last_assignment_configs.iter().flatten();
            self.assignment_configs = configs
                .map(|config| (config.key.detached(), config.value.detached()))
                .collect::<AssignmentConfigs>();
        }
        undo
    }

    /// Takes a record back. Called in the reverse order of the replays.
    pub(in crate::group) fn undo(&mut self, undo: StreamsUndo) {
        match undo {
            StreamsUndo::Member(id, previous) => {
                self.set_member(&id, previous);
            }
            StreamsUndo::Target(id, Some(previous)) => {
                self.targets.insert(id, previous);
            }
            StreamsUndo::Target(id, None) => {
                self.targets.remove(&id);
            }
            StreamsUndo::Group(epoch, metadata_hash, validated, configs) => {
                self.epoch = epoch;
                self.metadata_hash = metadata_hash;
                self.validated_topology_epoch = validated;
                self.assignment_configs = configs;
            }
            StreamsUndo::Assignment(epoch, timestamp_ms) => {
                self.assignment_epoch = epoch;
                self.assignment_timestamp_ms = timestamp_ms;
            }
            StreamsUndo::Topology(previous) => self.topology = previous,
        }
    }

    fn member_or_new(&self, member_id: &ByteStr) -> Arc<StreamsMember> {
        match self.member(member_id) {
            Some(member) => member.clone(),
            None => Arc::new(StreamsMember::new(member_id.detached())),
        }
    }

    fn put_member(
        &mut self,
        member_id: &ByteStr,
        member: Option<Arc<StreamsMember>>,
    ) -> StreamsUndo {
        let member_id = member_id.detached();
        let previous = self.set_member(&member_id, member);
        StreamsUndo::Member(member_id, previous)
    }
}
