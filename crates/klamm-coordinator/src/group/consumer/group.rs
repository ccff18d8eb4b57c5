//! The data of a consumer group and what can be asked of it. It changes by records alone
//! (`replay`), but for the time at which its metadata is looked at again.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use super::Refusal;
use super::member::{ConsumerMember, MemberState, OwnedPartitions, Partitions};
use super::subscription::{ResolvedRegex, SubscriptionCounts};
use crate::group::java;
use crate::group::streams::{StreamsMember, Topology};

/// The epoch that a group and its assignment have before the first member joins.
const INITIAL_EPOCH: i32 = 1;

/// What a consumer group is doing, as ListGroups and ConsumerGroupDescribe call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumerGroupState {
    /// No members.
    Empty,
    /// A new target assignment is due.
    Assigning,
    /// Members are on their way to the target.
    Reconciling,
    /// Every member has what the target gives it.
    Stable,
}

impl ConsumerGroupState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            ConsumerGroupState::Empty => "Empty",
            ConsumerGroupState::Assigning => "Assigning",
            ConsumerGroupState::Reconciling => "Reconciling",
            ConsumerGroupState::Stable => "Stable",
        }
    }
}

/// Until when, and for which metadata, the hash of the group's topics was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::group) struct MetadataRefresh {
    pub deadline_ms: i64,
    pub epoch: i32,
    pub image_version: i64,
}

/// A group of the consumer protocol (KIP-848).
///
/// Invariants: the counts are those of the members; `held` counts for each partition the members
/// that have it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerGroup {
    pub(super) id: ByteStr,
    pub(super) epoch: i32,
    pub(super) metadata_hash: i64,
    pub(super) assignment_epoch: i32,
    pub(super) assignment_timestamp_ms: i64,
    members: BTreeMap<ByteStr, Arc<ConsumerMember>>,
    pub(super) targets: BTreeMap<ByteStr, Arc<Partitions>>,
    pub(super) regexes: BTreeMap<ByteStr, Arc<ResolvedRegex>>,
    static_members: BTreeMap<ByteStr, ByteStr>,
    pub(super) subscriptions: SubscriptionCounts,
    assignors: BTreeMap<ByteStr, usize>,
    classic_protocols: BTreeMap<ByteStr, usize>,
    classic_member_count: usize,
    held: BTreeMap<(Uuid, i32), usize>,
    /// Whether there is a record of a kind that Kafka wrote before 4.1, to be deleted.
    pub(super) has_partition_metadata: bool,
    pub(super) refresh: Option<MetadataRefresh>,
}

impl ConsumerGroup {
    /// A group without members.
    pub fn new(id: ByteStr) -> Self {
        ConsumerGroup {
            id,
            epoch: INITIAL_EPOCH,
            metadata_hash: 0,
            assignment_epoch: INITIAL_EPOCH,
            assignment_timestamp_ms: 0,
            members: BTreeMap::new(),
            targets: BTreeMap::new(),
            regexes: BTreeMap::new(),
            static_members: BTreeMap::new(),
            subscriptions: SubscriptionCounts::default(),
            assignors: BTreeMap::new(),
            classic_protocols: BTreeMap::new(),
            classic_member_count: 0,
            held: BTreeMap::new(),
            has_partition_metadata: false,
            refresh: None,
        }
    }

    /// Name of the group.
    pub fn id(&self) -> &ByteStr {
        &self.id
    }

    /// Grows with every change of members, subscriptions or topics.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The group epoch that the target assignment was made for.
    pub fn assignment_epoch(&self) -> i32 {
        self.assignment_epoch
    }

    /// Hash of the topics that members subscribe to.
    pub fn metadata_hash(&self) -> i64 {
        self.metadata_hash
    }

    /// The members, in the order of their ids.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Arc<ConsumerMember>> {
        self.members.values()
    }

    /// How many members there are.
    pub fn member_count(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A member by its id.
    pub fn member(&self, member_id: &str) -> Option<&Arc<ConsumerMember>> {
        self.members.get(member_id)
    }

    /// A member by its id, or the refusal of who asks in its name.
    pub(super) fn known_member(&self, member_id: &str) -> Result<&Arc<ConsumerMember>, Refusal> {
        self.member(member_id).ok_or_else(|| {
            Refusal::new(
                ErrorCode::UnknownMemberId,
                format!("Member {member_id} is not a member of group {}.", self.id),
            )
        })
    }

    /// The member that a static member's name stands for.
    pub fn static_member(&self, instance_id: &str) -> Option<&Arc<ConsumerMember>> {
        self.members.get(self.static_members.get(instance_id)?)
    }

    /// What the target assignment gives a member.
    pub fn target(&self, member_id: &str) -> Option<&Arc<Partitions>> {
        self.targets.get(member_id)
    }

    /// What a regular expression was found to match.
    pub fn resolved_regex(&self, regex: &str) -> Option<&Arc<ResolvedRegex>> {
        self.regexes.get(regex)
    }

    /// Whether a member subscribes to the topic, by name or by a regular expression.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscriptions.topics.contains_key(topic)
    }

    /// How many members speak the classic protocol.
    pub fn classic_member_count(&self) -> usize {
        self.classic_member_count
    }

    /// Whether anybody has the partition, to keep or to give up.
    pub fn is_held(&self, topic_id: Uuid, partition: i32) -> bool {
        self.held.contains_key(&(topic_id, partition))
    }

    /// What the group is doing.
    pub fn state(&self) -> ConsumerGroupState {
        if self.members.is_empty() {
            ConsumerGroupState::Empty
        } else if self.epoch > self.assignment_epoch {
            ConsumerGroupState::Assigning
        } else if self
            .members()
            .all(|m| m.is_reconciled_to(self.assignment_epoch))
        {
            ConsumerGroupState::Stable
        } else {
            ConsumerGroupState::Reconciling
        }
    }

    /// Whether all members but this one have what the target gives them, and nothing else.
    pub(super) fn is_reconciled_but_for(&self, member_id: &str) -> bool {
        let mut others = self.members().filter(|member| *member.id != *member_id);
        others.all(|member| member.is_reconciled_to(self.assignment_epoch))
    }

    /// Puts a member in, or takes it out, and keeps the counts right. Returns what was there.
    pub(super) fn set_member(
        &mut self,
        member_id: &ByteStr,
        member: Option<Arc<ConsumerMember>>,
    ) -> Option<Arc<ConsumerMember>> {
        let previous = match &member {
            Some(member) => self.members.insert(member.id.clone(), member.clone()),
            None => self.members.remove(member_id),
        };
        if let Some(previous) = &previous {
            self.discount(previous);
        }
        if let Some(member) = &member {
            self.count(member);
        }
        previous
    }

    fn count(&mut self, member: &ConsumerMember) {
        if let Some(instance_id) = &member.instance_id {
            self.static_members
                .insert(instance_id.clone(), member.id.clone());
        }
        self.subscriptions.add_member(member);
        if let Some(assignor) = &member.server_assignor {
            *self.assignors.entry(assignor.clone()).or_default() += 1;
        }
        self.classic_member_count += usize::from(member.uses_classic_protocol());
        for (protocol, _) in member.classic_protocols() {
            *self.classic_protocols.entry(protocol.clone()).or_default() += 1;
        }
        for partition in member.held() {
            *self.held.entry(partition).or_default() += 1;
        }
    }

    fn discount(&mut self, member: &ConsumerMember) {
        if let Some(instance_id) = &member.instance_id
            && self.static_members.get(instance_id) == Some(&member.id)
        {
            self.static_members.remove(instance_id);
        }
        self.subscriptions.remove_member(member);
        if let Some(assignor) = &member.server_assignor {
            decrement(&mut self.assignors, assignor);
        }
        self.classic_member_count -= usize::from(member.uses_classic_protocol());
        for (protocol, _) in member.classic_protocols() {
            decrement(&mut self.classic_protocols, protocol);
        }
        for partition in member.held() {
            decrement(&mut self.held, &partition);
        }
    }

    /// Sets what a regular expression matches, or forgets it. Returns what it matched before.
    pub(super) fn set_regex(
        &mut self,
        regex: &ByteStr,
        resolved: Option<Arc<ResolvedRegex>>,
    ) -> Option<Arc<ResolvedRegex>> {
        let previous = match &resolved {
            Some(resolved) => self.regexes.insert(regex.clone(), resolved.clone()),
            None => self.regexes.remove(regex),
        };
        if let Some(previous) = &previous {
            self.subscriptions.remove_resolved(previous);
        }
        if let Some(resolved) = &resolved {
            self.subscriptions.add_resolved(resolved);
        }
        previous
    }

    /// Whether the hash of the topics has to be computed again.
    pub(super) fn needs_refresh(&self, now_wall_ms: i64, image_version: i64) -> bool {
        self.refresh.is_none_or(|refresh| {
            now_wall_ms >= refresh.deadline_ms
                || self.epoch < refresh.epoch
                || refresh.image_version != image_version
        })
    }

    /// The assignor that most members ask for, once `old` has become `new`. Of two that are asked
    /// for alike, the one that Java's hash table gives first.
    pub(super) fn preferred_assignor(
        &self,
        change: Option<(&ConsumerMember, &ConsumerMember)>,
    ) -> Option<ByteStr> {
        let mut counts = self.assignors.clone();
        if let Some((old, new)) = change {
            if let Some(assignor) = &old.server_assignor {
                decrement(&mut counts, assignor);
            }
            if let Some(assignor) = &new.server_assignor {
                *counts.entry(assignor.clone()).or_default() += 1;
            }
        }
        let capacity = counts.len() * 4 / 3 + 1;
        let ordered = java::hash_map_order(counts.into_iter().collect(), capacity, |(name, _)| {
            java::string_hash(name)
        });
        let most = ordered.iter().map(|(_, count)| *count).max()?;
        let first = ordered.into_iter().find(|(_, count)| *count == most);
        first.map(|(name, _)| name)
    }

    /// Whether somebody with these classic protocols can work together with the members that
    /// speak the classic protocol.
    pub(super) fn supports_classic<'a>(
        &self,
        protocol_type: &str,
        mut protocols: impl Iterator<Item = &'a ByteStr>,
    ) -> bool {
        protocol_type == super::PROTOCOL_TYPE
            && protocols.any(|name| {
                let supporters = self.classic_protocols.get(name);
                supporters.copied().unwrap_or(0) == self.classic_member_count
            })
    }

    /// Whether the member waits for a partition that somebody else has not given up yet.
    pub(super) fn waits_for_unreleased(&self, member: &ConsumerMember) -> bool {
        let Some(target) = self.target(&member.id) else {
            return false;
        };
        member.state == MemberState::UnreleasedPartitions
            && target.iter().any(|(topic, partitions)| {
                partitions.iter().any(|partition| {
                    !has(&member.assigned, *topic, *partition) && self.is_held(*topic, *partition)
                })
            })
    }

    /// Checks that an OffsetCommit comes from a member, or from outside while there are none.
    /// Each partition is then held against the returned check.
    ///
    /// `is_transactional` is for TxnOffsetCommit, whose producer may not tell of any member.
    pub fn validate_offset_commit(
        &self,
        member_id: &str,
        instance_id: Option<&ByteStr>,
        epoch: i32,
        is_transactional: bool,
        api_version: i16,
    ) -> Result<CommitCheck, ErrorCode> {
        let from_outside = epoch == -1 && member_id.is_empty() && instance_id.is_none();
        if (epoch < 0 && self.is_empty()) || (is_transactional && from_outside) {
            return Ok(CommitCheck::Passed);
        }
        let member = self.member(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        let classic = member.uses_classic_protocol();
        if !is_transactional && !classic && api_version < COMMIT_KNOWS_EPOCHS_FROM {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if epoch == member.epoch {
            return Ok(CommitCheck::Passed);
        }
        if epoch > member.epoch {
            return Err(stale(classic));
        }
        Ok(CommitCheck::Older {
            member: member.clone(),
            epoch,
        })
    }

    /// Checks that an OffsetFetch that names a member comes from it in its present epoch.
    pub fn validate_offset_fetch(
        &self,
        member_id: Option<&str>,
        epoch: i32,
    ) -> Result<(), ErrorCode> {
        if member_id.is_none() && epoch < 0 {
            return Ok(());
        }
        let member = member_id.and_then(|id| self.member(id));
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        if epoch != member.epoch {
            return Err(stale(member.uses_classic_protocol()));
        }
        Ok(())
    }
}

/// From this version on, OffsetCommit can tell that an epoch is stale.
const COMMIT_KNOWS_EPOCHS_FROM: i16 = 9;

/// What remains to be checked of a commit, for each partition.
#[derive(Clone, Debug)]
pub enum CommitCheck {
    /// Nothing.
    Passed,
    /// The member commits in an epoch before its present one, which is all right for partitions
    /// that it has had since then (KIP-1251).
    Older {
        /// Who commits.
        member: Arc<ConsumerMember>,
        /// The epoch of the request.
        epoch: i32,
    },
    /// The same of a streams group's member: for tasks that it has had since then.
    OlderTasks {
        /// Which task reads which topic.
        topology: Arc<Topology>,
        /// Who commits.
        member: Arc<StreamsMember>,
        /// The epoch of the request.
        epoch: i32,
    },
}

impl CommitCheck {
    /// Checks one partition. A refusal is one of the whole request.
    pub fn check(&self, topic: &str, topic_id: Uuid, partition: i32) -> Result<(), ErrorCode> {
        let (since, epoch, refusal) = match self {
            CommitCheck::Passed => return Ok(()),
            CommitCheck::Older { member, epoch } => (
                member.assignment_epoch(topic_id, partition),
                *epoch,
                stale(member.uses_classic_protocol()),
            ),
            CommitCheck::OlderTasks {
                topology,
                member,
                epoch,
            } => {
                let part = topology.reader_of(topic);
                let since = part.and_then(|part| {
                    let assigned = member.assigned.active_since(part, partition);
                    assigned.or_else(|| member.pending_revocation.active_since(part, partition))
                });
                (since, *epoch, ErrorCode::StaleMemberEpoch)
            }
        };
        match since {
            Some(since) if epoch >= since => Ok(()),
            _ => Err(refusal),
        }
    }
}

fn stale(uses_classic_protocol: bool) -> ErrorCode {
    if uses_classic_protocol {
        ErrorCode::IllegalGeneration
    } else {
        ErrorCode::StaleMemberEpoch
    }
}

pub(super) fn has(owned: &OwnedPartitions, topic_id: Uuid, partition: i32) -> bool {
    owned
        .get(&topic_id)
        .is_some_and(|partitions| partitions.contains_key(&partition))
}

pub(in crate::group) fn decrement<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
