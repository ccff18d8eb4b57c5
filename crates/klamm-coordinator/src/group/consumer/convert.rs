//! Groups that change their protocol: an empty one simply, one with members while they go on
//! working (`group.consumer.migration.policy`).
//!
//! Up: the first member that comes with the consumer protocol turns a classic group of consumers
//! into a consumer group; the others are served as members of the classic protocol from then on.
//! Down: when the last member with the consumer protocol goes, what is left becomes a classic
//! group again. Either way the new group's records follow the old one's tombstones in one batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use klamm_protocol::consumer_protocol::consumer_protocol_assignment::TopicPartition;
use klamm_protocol::consumer_protocol::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
use klamm_protocol::group_records::consumer_group_member_metadata_value::{
    ClassicMemberMetadata, ClassicProtocol,
};
use klamm_protocol::record_frame::encode_versioned;
use klamm_protocol::{ByteStr, Decoder, ErrorCode, Message};

use super::Refusal;
use super::group::ConsumerGroup;
use super::leave::{tombstones, tombstones_renamed};
use super::member::{ConsumerMember, OwnedPartitions, Partitions};
use super::metadata_hash::TopicHashes;
use super::record::RecordsOf;
use super::timers::ConsumerTimer;
use crate::group::classic::{ClassicGroup, Member, MemberProtocol};
use crate::group::cluster::TopicsView;
use crate::group::errors;
use crate::group::record::GroupRecord;
use crate::group::shard::{Group, GroupCompletion, GroupEffects, GroupShard, GroupTimer};
use crate::runtime::{Now, WriteOutcome};

/// What is left to do when a consumer group that became a classic one is committed.
#[derive(Debug)]
pub struct DowngradeCompletion {
    /// Whether the members must rejoin: nobody assigned to them what is free now.
    pub rebalance: bool,
    /// What to set anew if the group stays what it was.
    pub(super) timers: Vec<(ConsumerTimer, i32)>,
}

impl GroupShard {
    /// Makes sure that a heartbeat finds a consumer group: if a classic one has the name and
    /// somebody joins, the group that takes its place is returned, and its records are in `out`.
    pub(super) fn consumer_group_for(
        &mut self,
        group_id: &ByteStr,
        is_joining: bool,
        now: Now,
        out: &mut GroupEffects,
    ) -> Result<Option<ConsumerGroup>, Refusal> {
        match self.groups.get(group_id) {
            Some(Group::Consumer(_)) => Ok(None),
            None if is_joining => Ok(None),
            None => Err(Refusal::new(
                ErrorCode::GroupIdNotFound,
                format!("Consumer group {group_id} not found."),
            )),
            Some(Group::Classic(classic)) if is_joining && classic.is_empty() => {
                out.records.push(classic_tombstone(group_id));
                Ok(Some(ConsumerGroup::new(group_id.clone())))
            }
            Some(Group::Classic(_)) if is_joining => self.upgrade(group_id, now, out).map(Some),
            Some(_) => Err(self.no_consumer_group(group_id)),
        }
    }

    pub(super) fn no_consumer_group(&self, group_id: &str) -> Refusal {
        let message = if self.groups.contains_key(group_id) {
            format!("Group {group_id} is not a consumer group.")
        } else {
            format!("Group {group_id} not found.")
        };
        Refusal::new(ErrorCode::GroupIdNotFound, message)
    }

    fn upgrade(
        &mut self,
        group_id: &ByteStr,
        now: Now,
        out: &mut GroupEffects,
    ) -> Result<ConsumerGroup, Refusal> {
        let Some(classic) = self.classic_group(group_id) else {
            return Err(self.no_consumer_group(group_id));
        };
        self.check_upgrade(classic)?;
        let topics = self.cluster.topics();
        let group = from_classic(classic, &*topics)?;
        let group = with_hash(group, &mut self.topic_hashes, &*topics);
        if let Some(mut machine) = self.classic(group_id, now, out) {
            machine.refuse_all(ErrorCode::RebalanceInProgress);
        }
        out.records.push(classic_tombstone(group_id));
        out.records.extend(creation(&group));
        for member in group.members() {
            if let Some(classic) = &member.classic {
                let session = ConsumerTimer::Session(member.id.clone());
                let deadline_ms = now.after_ms(i64::from(classic.session_timeout_ms));
                let timer = GroupTimer::Consumer(group_id.clone(), session);
                self.timers.schedule(timer, deadline_ms);
            }
        }
        tracing::info!(group = %group_id, "a classic group becomes a consumer group");
        Ok(group)
    }

    fn check_upgrade(&self, classic: &ClassicGroup) -> Result<(), Refusal> {
        let why = if !self.config.consumer_migration_policy.may_upgrade() {
            "online upgrade is disabled"
        } else if !classic.uses_consumer_protocol() {
            "the group does not use the consumer embedded protocol"
        } else if classic.member_count() > self.config.consumer_max_size {
            "the group size exceeds the consumer group maximum size"
        } else {
            return Ok(());
        };
        Err(cannot_upgrade(classic.id(), "because ", why))
    }

    /// Whether the group is to become a classic one once these members are gone.
    pub(super) fn may_downgrade_without(
        &self,
        group_id: &str,
        leaving: &BTreeSet<ByteStr>,
    ) -> bool {
        let Some(group) = self.consumer_group(group_id) else {
            return false;
        };
        let leaving_classic = leaving
            .iter()
            .filter_map(|id| group.member(id))
            .filter(|member| member.uses_classic_protocol())
            .count();
        let left = group.member_count().saturating_sub(leaving.len());
        left > 0
            && group.classic_member_count() - leaving_classic == left
            && self.may_downgrade_to(left)
    }

    /// Whether the group is to become a classic one once this static member speaks the classic
    /// protocol.
    pub(super) fn may_downgrade_with(
        &self,
        group: &ConsumerGroup,
        former: &ConsumerMember,
    ) -> bool {
        !former.uses_classic_protocol()
            && group.classic_member_count() + 1 == group.member_count()
            && self.may_downgrade_to(group.member_count())
    }

    fn may_downgrade_to(&self, member_count: usize) -> bool {
        self.config.consumer_migration_policy.may_downgrade()
            && member_count <= self.config.max_size
    }

    pub(super) fn downgrade_without(
        &self,
        group_id: &ByteStr,
        leaving: &BTreeSet<ByteStr>,
        timers: Vec<(ConsumerTimer, i32)>,
        now: Now,
        out: &mut GroupEffects,
    ) {
        let Some(group) = self.consumer_group(group_id) else {
            return;
        };
        let staying = group
            .members()
            .filter(|member| !leaving.contains(&member.id));
        let staying = staying.map(|member| (&**member, &member.id)).collect();
        out.records.extend(tombstones(group));
        let completion = DowngradeCompletion {
            rebalance: true,
            timers,
        };
        self.to_classic(group, staying, completion, now, out);
    }

    /// Writes the group as a classic one, `joining` in the place of its former self.
    pub(super) fn downgrade_with(
        &self,
        group: &ConsumerGroup,
        former: &ConsumerMember,
        joining: &ConsumerMember,
        rebalance: bool,
        now: Now,
        out: &mut GroupEffects,
    ) {
        let mut staying: Vec<(&ConsumerMember, &ByteStr)> = group
            .members()
            .filter(|member| member.id != former.id)
            .map(|member| (&**member, &member.id))
            .collect();
        staying.push((joining, &former.id));
        let renamed = Some((&former.id, &joining.id));
        out.records.extend(tombstones_renamed(group, renamed));
        let completion = DowngradeCompletion {
            rebalance,
            timers: Vec::new(),
        };
        self.to_classic(group, staying, completion, now, out);
    }

    /// `members` come with the ids under which the target knows them.
    fn to_classic(
        &self,
        group: &ConsumerGroup,
        members: Vec<(&ConsumerMember, &ByteStr)>,
        completion: DowngradeCompletion,
        now: Now,
        out: &mut GroupEffects,
    ) {
        let topics = self.cluster.topics();
        let classic_members = members.iter().map(|(member, _)| classic_member(member));
        let mut classic = ClassicGroup::stable(
            group.id().clone(),
            group.epoch(),
            classic_members.collect(),
            now.wall_ms,
        );
        for (member, target_id) in members {
            let target = group.target(target_id).cloned().unwrap_or_default();
            // Before they rejoin, members have what they have, should another coordinator load this.
            let assigned = match completion.rebalance {
                true => member.assigned_partitions(),
                false => (*target).clone(),
            };
            let version = classic.subscription_version(&member.id);
            classic.assign(&member.id, assignment_bytes(&assigned, version, &*topics));
        }
        out.records.push(GroupRecord::GroupMetadata {
            group_id: group.id().clone(),
            value: Some(classic.record()),
        });
        out.completion = Some(GroupCompletion::Downgraded(group.id().clone(), completion));
        tracing::info!(group = %group.id(), "a consumer group becomes a classic group");
    }

    /// The fate of the records that made a classic group of a consumer group is known.
    pub(in crate::group) fn downgrade_written(
        &mut self,
        group_id: &ByteStr,
        completion: DowngradeCompletion,
        outcome: WriteOutcome,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        if let WriteOutcome::Failed(error) = outcome {
            // The group is what it was before. Whoever joined the classic one waits for nothing.
            let error = errors::client_error(error);
            for mut orphan in std::mem::take(&mut self.orphans) {
                let mut machine = self.machine_for(&mut orphan, now, &mut out);
                machine.refuse_all(error);
            }
            self.fence_written(group_id, completion.timers, outcome, now);
            return out;
        }
        if let Some(mut machine) = self.classic(group_id, now, &mut out) {
            machine.taken_over(completion.rebalance);
        }
        out
    }
}

fn cannot_upgrade(group_id: &str, because: &str, why: &str) -> Refusal {
    let message =
        format!("Cannot upgrade classic group {group_id} to consumer group {because}{why}.");
    Refusal::new(ErrorCode::GroupIdNotFound, message)
}

fn classic_tombstone(group_id: &ByteStr) -> GroupRecord {
    GroupRecord::GroupMetadata {
        group_id: group_id.clone(),
        value: None,
    }
}

/// The consumer group that a classic group of consumers becomes, but for the hash of its topics.
fn from_classic(classic: &ClassicGroup, topics: &dyn TopicsView) -> Result<ConsumerGroup, Refusal> {
    let epoch = classic.generation();
    let mut group = ConsumerGroup::new(classic.id().clone());
    group.epoch = epoch;
    group.assignment_epoch = epoch;
    let protocol = classic.working_protocol().unwrap_or_default();
    for member in classic.members() {
        let malformed = || {
            let why = "the embedded consumer protocol is malformed";
            cannot_upgrade(classic.id(), "because ", why)
        };
        let subscription: ConsumerProtocolSubscription = member
            .metadata(&protocol)
            .and_then(decode_versioned)
            .ok_or_else(malformed)?;
        let mut assigned = Partitions::new();
        if !member.assignment.is_empty() {
            let assignment: ConsumerProtocolAssignment =
                decode_versioned(&member.assignment).ok_or_else(malformed)?;
            if assignment
                .user_data
                .as_ref()
                .is_some_and(|data| !data.is_empty())
            {
                let why = "an unsupported custom assignor is in use. Please refer to the \
                           documentation or switch to a default assignor before re-attempting \
                           the upgrade";
                return Err(cannot_upgrade(classic.id(), "because ", why));
            }
            for topic in assignment.assigned_partitions {
                if let Some(id) = topics.topic_id(&topic.topic) {
                    assigned.insert(id, topic.partitions.into_iter().collect());
                }
            }
        }
        let upgraded = upgraded_member(member, &subscription, &assigned, epoch);
        group.targets.insert(member.id.clone(), Arc::new(assigned));
        group.set_member(&member.id, Some(Arc::new(upgraded)));
    }
    Ok(group)
}

fn upgraded_member(
    member: &Member,
    subscription: &ConsumerProtocolSubscription,
    assigned: &Partitions,
    epoch: i32,
) -> ConsumerMember {
    let owned = assigned.iter().map(|(topic, partitions)| {
        let since: BTreeMap<i32, i32> = partitions.iter().map(|p| (*p, epoch)).collect();
        (*topic, since)
    });
    let rack_id = subscription
        .rack_id
        .as_ref()
        .filter(|rack| !rack.is_empty());
    ConsumerMember {
        epoch,
        previous_epoch: epoch,
        instance_id: member.instance_id.clone(),
        rack_id: rack_id.map(ByteStr::detached),
        rebalance_timeout_ms: member.rebalance_timeout_ms,
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        subscribed_topic_names: subscription.topics.iter().map(ByteStr::detached).collect(),
        assigned: owned.collect::<OwnedPartitions>(),
        classic: Some(ClassicMemberMetadata {
            session_timeout_ms: member.session_timeout_ms,
            supported_protocols: member.protocols.iter().map(classic_protocol).collect(),
            ..ClassicMemberMetadata::default()
        }),
        ..ConsumerMember::new(member.id.clone())
    }
}

fn classic_protocol(protocol: &MemberProtocol) -> ClassicProtocol {
    ClassicProtocol {
        name: protocol.name.clone(),
        metadata: protocol.metadata.clone(),
        ..ClassicProtocol::default()
    }
}

fn with_hash(
    mut group: ConsumerGroup,
    hashes: &mut TopicHashes,
    topics: &dyn TopicsView,
) -> ConsumerGroup {
    group.metadata_hash = hashes.group_hash(group.subscriptions.topics.keys(), topics);
    group
}

/// The records that make the group.
fn creation(group: &ConsumerGroup) -> Vec<GroupRecord> {
    let record = RecordsOf(group.id());
    let mut records = Vec::new();
    records.extend(group.members().map(|member| record.member(member)));
    records.push(record.epoch(group.epoch(), group.metadata_hash()));
    for (member_id, target) in &group.targets {
        records.push(record.target(member_id, target));
    }
    records.push(record.assignment(group.assignment_epoch, group.assignment_timestamp_ms));
    records.extend(group.members().map(|member| record.current(member)));
    records
}

fn classic_member(member: &ConsumerMember) -> Member {
    let protocols = member.classic_protocols();
    Member::known(
        member.id.clone(),
        member.instance_id.clone(),
        (member.client_id.clone(), member.client_host.clone()),
        member.rebalance_timeout_ms,
        member
            .classic
            .as_ref()
            .map_or(0, |classic| classic.session_timeout_ms),
        protocols
            .map(|(name, metadata)| MemberProtocol {
                name: name.clone(),
                metadata: metadata.clone(),
            })
            .collect(),
    )
}

/// What consumers tell each other, whatever its version: one that is newer than any known begins
/// with what is known. None if it cannot be read.
pub(super) fn decode_versioned<M: Message>(bytes: &Bytes) -> Option<M> {
    let mut decoder = Decoder::new(bytes.clone());
    let version = decoder.i16().ok()?;
    if version < M::VERSIONS.min {
        return None;
    }
    M::decode(&mut decoder, version.min(M::VERSIONS.max)).ok()
}

/// The version in front of what a consumer says.
pub(super) fn version_of(bytes: &Bytes) -> Option<i16> {
    Decoder::new(bytes.clone()).i16().ok()
}

/// An assignment as consumers of the classic protocol read it, in the version that the member
/// speaks.
pub(super) fn assignment_bytes(
    partitions: &Partitions,
    version: i16,
    topics: &dyn TopicsView,
) -> Bytes {
    let assigned = partitions.iter().filter_map(|(topic_id, partitions)| {
        Some(TopicPartition {
            topic: topics.topic_name(*topic_id)?,
            partitions: partitions.iter().copied().collect(),
        })
    });
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: assigned.collect(),
        user_data: None,
    };
    let versions = ConsumerProtocolAssignment::VERSIONS;
    let version = version.clamp(versions.min, versions.max);
    // Only lengths beyond 2 GiB cannot be written.
    encode_versioned(&assignment, version).unwrap_or_default()
}
