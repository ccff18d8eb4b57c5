//! One member of a streams group, as its records tell of it.

use std::collections::BTreeMap;

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::streams_group_member_metadata_value::{Endpoint, KeyValue};
use klamm_protocol::group_records::{
    StreamsGroupCurrentMemberAssignmentValue as CurrentValue,
    StreamsGroupMemberMetadataValue as MemberValue,
};

use super::tasks::{self, OwnedTasks};

/// The epoch with which a member joins.
pub(super) const JOIN_EPOCH: i32 = 0;
/// The epoch with which a member leaves.
pub(super) const LEAVE_EPOCH: i32 = -1;
/// The epoch with which a static member leaves for a while.
pub(super) const STATIC_LEAVE_EPOCH: i32 = -2;

/// How far a member is on its way to the target assignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberState {
    /// It has what the target gives it.
    #[default]
    Stable,
    /// It has to give tasks up first.
    UnrevokedTasks,
    /// Others have to give up tasks that it waits for.
    UnreleasedTasks,
    /// A state that this version does not know.
    Unknown,
}

impl MemberState {
    fn from_code(code: i8) -> Self {
        match code {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedTasks,
            2 => MemberState::UnreleasedTasks,
            _ => MemberState::Unknown,
        }
    }

    fn code(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::UnrevokedTasks => 1,
            MemberState::UnreleasedTasks => 2,
            MemberState::Unknown => 127,
        }
    }
}

/// A member of a streams group: one thread of an application.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamsMember {
    /// Its id, which it made itself.
    pub id: ByteStr,
    /// Its name across restarts. Not served by Kafka 4.3 either; kept if a record has one.
    pub instance_id: Option<ByteStr>,
    /// Where it is.
    pub rack_id: Option<ByteStr>,
    /// What its client calls itself.
    pub client_id: ByteStr,
    /// Address of its client.
    pub client_host: ByteStr,
    /// How long it may take to give tasks up, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// The version of the topology that it runs.
    pub topology_epoch: i32,
    /// The process that it is a thread of: state is kept by process.
    pub process_id: ByteStr,
    /// Where its process answers interactive queries: host and port.
    pub user_endpoint: Option<(ByteStr, u16)>,
    /// Tags for rack aware standby tasks; passed on in descriptions.
    pub client_tags: BTreeMap<ByteStr, ByteStr>,
    /// The group epoch it has reached.
    pub epoch: i32,
    /// The one before.
    pub previous_epoch: i32,
    /// How far it is on its way.
    pub state: MemberState,
    /// What it has.
    pub assigned: OwnedTasks,
    /// What it has to give up and has not confirmed.
    pub pending_revocation: OwnedTasks,
}

impl StreamsMember {
    /// A member that has said nothing yet.
    pub fn new(id: ByteStr) -> Self {
        StreamsMember {
            id,
            instance_id: None,
            rack_id: None,
            client_id: ByteStr::default(),
            client_host: ByteStr::default(),
            rebalance_timeout_ms: -1,
            topology_epoch: -1,
            process_id: ByteStr::default(),
            user_endpoint: None,
            client_tags: BTreeMap::new(),
            epoch: 0,
            previous_epoch: 0,
            state: MemberState::Stable,
            assigned: OwnedTasks::default(),
            pending_revocation: OwnedTasks::default(),
        }
    }

    /// Whether it has all that the target of this epoch gives it.
    pub fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }

    /// The member in another epoch.
    pub(super) fn in_epoch(&self, epoch: i32) -> StreamsMember {
        StreamsMember {
            previous_epoch: self.epoch,
            epoch,
            ..self.clone()
        }
    }

    pub(super) fn metadata_value(&self) -> MemberValue {
        let endpoint = self.user_endpoint.as_ref().map(|(host, port)| Endpoint {
            host: host.clone(),
            port: *port,
            ..Endpoint::default()
        });
        let tags = self.client_tags.iter().map(|(key, value)| KeyValue {
            key: key.clone(),
            value: value.clone(),
            ..KeyValue::default()
        });
        MemberValue {
            instance_id: self.instance_id.clone(),
            rack_id: self.rack_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            topology_epoch: self.topology_epoch,
            process_id: self.process_id.clone(),
            user_endpoint: endpoint,
            client_tags: tags.collect(),
            ..MemberValue::default()
        }
    }

    pub(super) fn with_metadata(&self, value: &MemberValue) -> Self {
        let endpoint = value.user_endpoint.as_ref();
        let tags = value.client_tags.iter();
        StreamsMember {
            instance_id: value.instance_id.as_ref().map(ByteStr::detached),
            rack_id: value.rack_id.as_ref().map(ByteStr::detached),
            client_id: value.client_id.detached(),
            client_host: value.client_host.detached(),
            rebalance_timeout_ms: value.rebalance_timeout_ms,
            topology_epoch: value.topology_epoch,
            process_id: value.process_id.detached(),
            user_endpoint: endpoint.map(|e| (e.host.detached(), e.port)),
            client_tags: tags
                .map(|tag| (tag.key.detached(), tag.value.detached()))
                .collect(),
            ..self.clone()
        }
    }

    pub(super) fn assignment_value(&self) -> CurrentValue {
        let (assigned, pending) = (&self.assigned, &self.pending_revocation);
        CurrentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            state: self.state.code(),
            active_tasks: tasks::active_to_record(&assigned.active),
            standby_tasks: tasks::to_record(&assigned.standby),
            warmup_tasks: tasks::to_record(&assigned.warmup),
            active_tasks_pending_revocation: tasks::active_to_record(&pending.active),
            standby_tasks_pending_revocation: tasks::to_record(&pending.standby),
            warmup_tasks_pending_revocation: tasks::to_record(&pending.warmup),
            ..CurrentValue::default()
        }
    }

    /// The member with what a record says it has; with nothing, if the record deletes that.
    pub(super) fn with_assignment(&self, value: Option<&CurrentValue>) -> Self {
        let Some(value) = value else {
            return StreamsMember {
                epoch: LEAVE_EPOCH,
                previous_epoch: LEAVE_EPOCH,
                assigned: OwnedTasks::default(),
                pending_revocation: OwnedTasks::default(),
                ..self.clone()
            };
        };
        let epoch = value.member_epoch;
        StreamsMember {
            epoch,
            previous_epoch: value.previous_member_epoch,
            state: MemberState::from_code(value.state),
            assigned: OwnedTasks {
                active: tasks::active_of_record(&value.active_tasks, epoch),
                standby: tasks::tasks_of_record(&value.standby_tasks),
                warmup: tasks::tasks_of_record(&value.warmup_tasks),
            },
            pending_revocation: OwnedTasks {
                active: tasks::active_of_record(&value.active_tasks_pending_revocation, epoch),
                standby: tasks::tasks_of_record(&value.standby_tasks_pending_revocation),
                warmup: tasks::tasks_of_record(&value.warmup_tasks_pending_revocation),
            },
            ..self.clone()
        }
    }
}
