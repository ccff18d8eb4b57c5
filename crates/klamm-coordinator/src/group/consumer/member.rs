//! One member of a consumer group, as its records tell of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use klamm_protocol::ByteStr;
use klamm_protocol::group_records::consumer_group_current_member_assignment_value::TopicPartitions;
use klamm_protocol::group_records::consumer_group_member_metadata_value::ClassicMemberMetadata;
use klamm_protocol::group_records::{
    ConsumerGroupCurrentMemberAssignmentValue, ConsumerGroupMemberMetadataValue,
};
use klamm_records::Uuid;

/// Partitions by topic.
pub type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// Partitions by topic, each with the epoch in which the member got it.
pub type OwnedPartitions = BTreeMap<Uuid, BTreeMap<i32, i32>>;

/// The epoch with which a member joins.
pub const JOIN_EPOCH: i32 = 0;
/// The epoch with which a member leaves for good.
pub const LEAVE_EPOCH: i32 = -1;
/// The epoch with which a static member leaves for a while.
pub const STATIC_LEAVE_EPOCH: i32 = -2;

/// Where a member stands on its way to the target assignment (KIP-848).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberState {
    /// It has all that it was given in its epoch.
    #[default]
    Stable,
    /// It must give partitions up before it gets to the next epoch.
    UnrevokedPartitions,
    /// It is in the epoch of the target, and waits for partitions that others still hold.
    UnreleasedPartitions,
    /// A state that a later Kafka wrote.
    Unknown,
}

impl MemberState {
    /// The number in records.
    pub fn value(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::UnrevokedPartitions => 1,
            MemberState::UnreleasedPartitions => 2,
            MemberState::Unknown => 127,
        }
    }

    /// The state of a number in a record.
    pub fn from_value(value: i8) -> Self {
        match value {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Unknown,
        }
    }
}

/// A member of a consumer group.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerMember {
    /// Its id, made by the client from version 1 of the heartbeat on.
    pub id: ByteStr,
    /// The epoch it is in; see [`JOIN_EPOCH`] and its siblings for those that are none.
    pub epoch: i32,
    /// The epoch it was in before: a heartbeat with it may be one whose answer was lost.
    pub previous_epoch: i32,
    /// Where it stands.
    pub state: MemberState,
    /// The id that the user gave, for static members.
    pub instance_id: Option<ByteStr>,
    /// The client's rack. Kafka 4.3 keeps and shows it; its assignors do not look at it.
    pub rack_id: Option<ByteStr>,
    /// How long it may take to give partitions up, in milliseconds; -1 if it never said.
    pub rebalance_timeout_ms: i32,
    /// Client id of the last request.
    pub client_id: ByteStr,
    /// Address of the last request, as Java writes it.
    pub client_host: ByteStr,
    /// The topics it subscribes to by name.
    pub subscribed_topic_names: BTreeSet<ByteStr>,
    /// The regular expression it subscribes to; none and empty mean that there is none.
    pub subscribed_topic_regex: Option<ByteStr>,
    /// The assignor it asks for.
    pub server_assignor: Option<ByteStr>,
    /// What it has, or may take.
    pub assigned: OwnedPartitions,
    /// What it has and must give up.
    pub pending_revocation: OwnedPartitions,
    /// What it said as a member of the classic protocol, if it speaks that.
    pub classic: Option<ClassicMemberMetadata>,
}

impl ConsumerMember {
    /// A member that has not said anything yet.
    pub fn new(id: ByteStr) -> Self {
        ConsumerMember {
            id,
            epoch: JOIN_EPOCH,
            previous_epoch: -1,
            state: MemberState::Stable,
            instance_id: None,
            rack_id: None,
            rebalance_timeout_ms: -1,
            client_id: ByteStr::default(),
            client_host: ByteStr::default(),
            subscribed_topic_names: BTreeSet::new(),
            subscribed_topic_regex: Some(ByteStr::default()),
            server_assignor: None,
            assigned: OwnedPartitions::new(),
            pending_revocation: OwnedPartitions::new(),
            classic: None,
        }
    }

    /// The regular expression, if there is one.
    pub fn regex(&self) -> Option<&ByteStr> {
        let regex = self.subscribed_topic_regex.as_ref();
        regex.filter(|regex| !regex.is_empty())
    }

    /// Whether the member speaks the classic protocol.
    pub fn uses_classic_protocol(&self) -> bool {
        self.classic.is_some()
    }

    /// The classic protocols it supports, the favourite first.
    pub fn classic_protocols(&self) -> impl Iterator<Item = (&ByteStr, &Bytes)> {
        let protocols = self.classic.iter().flat_map(|c| &c.supported_protocols);
        protocols.map(|protocol| (&protocol.name, &protocol.metadata))
    }

    /// Whether the member has all of the assignment of `epoch`.
    pub fn is_reconciled_to(&self, epoch: i32) -> bool {
        self.state == MemberState::Stable && self.epoch == epoch
    }

    /// The same member in another epoch.
    pub fn in_epoch(&self, epoch: i32) -> Self {
        ConsumerMember {
            epoch,
            previous_epoch: self.epoch,
            ..self.clone()
        }
    }

    /// The epoch in which the member got the partition, if it has it, to keep or to give up.
    pub fn assignment_epoch(&self, topic_id: Uuid, partition: i32) -> Option<i32> {
        let of = |owned: &OwnedPartitions| owned.get(&topic_id)?.get(&partition).copied();
        of(&self.assigned).or_else(|| of(&self.pending_revocation))
    }

    /// The partitions it has to keep.
    pub fn assigned_partitions(&self) -> Partitions {
        let assigned = self.assigned.iter();
        assigned
            .map(|(topic, partitions)| (*topic, partitions.keys().copied().collect()))
            .collect()
    }

    /// Every partition it has, to keep or to give up.
    pub fn held(&self) -> impl Iterator<Item = (Uuid, i32)> {
        [&self.assigned, &self.pending_revocation]
            .into_iter()
            .flatten()
            .flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)))
    }

    /// The member with what a metadata record says.
    pub fn with_metadata(&self, value: &ConsumerGroupMemberMetadataValue) -> Self {
        let detached = |text: &Option<ByteStr>| text.as_ref().map(ByteStr::detached);
        ConsumerMember {
            instance_id: detached(&value.instance_id),
            rack_id: detached(&value.rack_id),
            rebalance_timeout_ms: value.rebalance_timeout_ms,
            client_id: value.client_id.detached(),
            client_host: value.client_host.detached(),
            subscribed_topic_names: value
                .subscribed_topic_names
                .iter()
                .map(ByteStr::detached)
                .collect(),
            subscribed_topic_regex: detached(&value.subscribed_topic_regex),
            server_assignor: detached(&value.server_assignor),
            classic: value.classic_member_metadata.as_ref().map(detach_classic),
            ..self.clone()
        }
    }

    /// The member with what a record of its current assignment says.
    pub fn with_assignment(&self, value: &ConsumerGroupCurrentMemberAssignmentValue) -> Self {
        let default_epoch = value.member_epoch.max(0);
        ConsumerMember {
            epoch: value.member_epoch,
            previous_epoch: value.previous_member_epoch,
            state: MemberState::from_value(value.state),
            assigned: owned(&value.assigned_partitions, default_epoch),
            pending_revocation: owned(&value.partitions_pending_revocation, default_epoch),
            ..self.clone()
        }
    }

    /// The member after the tombstone of its current assignment.
    pub fn without_assignment(&self) -> Self {
        ConsumerMember {
            epoch: LEAVE_EPOCH,
            previous_epoch: LEAVE_EPOCH,
            assigned: OwnedPartitions::new(),
            pending_revocation: OwnedPartitions::new(),
            ..self.clone()
        }
    }

    /// The value of its metadata record.
    pub fn metadata_value(&self) -> ConsumerGroupMemberMetadataValue {
        ConsumerGroupMemberMetadataValue {
            instance_id: self.instance_id.clone(),
            rack_id: self.rack_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            subscribed_topic_names: self.subscribed_topic_names.iter().cloned().collect(),
            subscribed_topic_regex: self.subscribed_topic_regex.clone(),
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            server_assignor: self.server_assignor.clone(),
            classic_member_metadata: self.classic.clone(),
            ..ConsumerGroupMemberMetadataValue::default()
        }
    }

    /// The value of the record of its current assignment.
    pub fn assignment_value(&self) -> ConsumerGroupCurrentMemberAssignmentValue {
        ConsumerGroupCurrentMemberAssignmentValue {
            member_epoch: self.epoch,
            previous_member_epoch: self.previous_epoch,
            state: self.state.value(),
            assigned_partitions: to_record(&self.assigned),
            partitions_pending_revocation: to_record(&self.pending_revocation),
            ..ConsumerGroupCurrentMemberAssignmentValue::default()
        }
    }
}

/// Copies, so that the request's frame or the log's buffer is not kept alive.
fn detach_classic(metadata: &ClassicMemberMetadata) -> ClassicMemberMetadata {
    let mut detached = metadata.clone();
    for protocol in &mut detached.supported_protocols {
        protocol.name = protocol.name.detached();
        protocol.metadata = Bytes::copy_from_slice(&protocol.metadata);
    }
    detached
}

/// Epochs of partitions are there since Kafka 4.3. Without them, or with another number of them
/// than of partitions, the member's own epoch counts.
fn owned(topics: &[TopicPartitions], default_epoch: i32) -> OwnedPartitions {
    let of_topic = |topic: &TopicPartitions| {
        let epochs = topic
            .assignment_epochs
            .as_ref()
            .filter(|epochs| epochs.len() == topic.partitions.len());
        let epoch = |at: usize| epochs.map_or(default_epoch, |epochs| epochs[at]);
        let partitions = topic.partitions.iter().enumerate();
        let partitions = partitions.map(|(at, partition)| (*partition, epoch(at)));
        (topic.topic_id, partitions.collect())
    };
    topics.iter().map(of_topic).collect()
}

fn to_record(owned: &OwnedPartitions) -> Vec<TopicPartitions> {
    let of_topic = |(topic_id, partitions): (&Uuid, &BTreeMap<i32, i32>)| TopicPartitions {
        topic_id: *topic_id,
        partitions: partitions.keys().copied().collect(),
        assignment_epochs: Some(partitions.values().copied().collect()),
        ..TopicPartitions::default()
    };
    owned.iter().map(of_topic).collect()
}
