//! The data of a share group and what can be asked of it. It changes by records alone (`replay`),
//! but for the time at which its metadata is looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use super::member::ShareMember;
use super::states::ShareStates;
use crate::group::consumer::{MetadataRefresh, Partitions, Refusal, decrement};

/// The epoch that a group and its assignment have before the first member joins.
const INITIAL_EPOCH: i32 = 1;

/// A share group.
#[derive(Clone, Debug, PartialEq)]
pub struct ShareGroup {
    pub(super) id: ByteStr,
    pub(super) epoch: i32,
    pub(super) metadata_hash: i64,
    pub(super) assignment_epoch: i32,
    pub(super) assignment_timestamp_ms: i64,
    members: BTreeMap<ByteStr, Arc<ShareMember>>,
    targets: BTreeMap<ByteStr, Arc<Partitions>>,
    /// How many members subscribe to each topic.
    subscriptions: BTreeMap<ByteStr, usize>,
    /// How many targets have each partition.
    assigned: BTreeMap<(Uuid, i32), usize>,
    pub(super) states: Option<Arc<ShareStates>>,
    pub(super) refresh: Option<MetadataRefresh>,
}

impl ShareGroup {
    /// A group without members.
    pub fn new(id: ByteStr) -> Self {
        ShareGroup {
            id,
            epoch: INITIAL_EPOCH,
            metadata_hash: 0,
            assignment_epoch: INITIAL_EPOCH,
            assignment_timestamp_ms: 0,
            members: BTreeMap::new(),
            targets: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            assigned: BTreeMap::new(),
            states: None,
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

    /// The members, in the order of their ids.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Arc<ShareMember>> {
        self.members.values()
    }

    /// A member by its id.
    pub fn member(&self, member_id: &str) -> Option<&Arc<ShareMember>> {
        self.members.get(member_id)
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Which partitions have share state.
    pub fn states(&self) -> Option<&Arc<ShareStates>> {
        self.states.as_ref()
    }

    /// What the target assignment gives a member.
    pub(super) fn target(&self, member_id: &str) -> Option<&Arc<Partitions>> {
        self.targets.get(member_id)
    }

    /// Whether a member subscribes to the topic.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscriptions.contains_key(topic)
    }

    /// The state on the wire.
    pub fn state_name(&self) -> &'static str {
        if self.is_empty() { "Empty" } else { "Stable" }
    }

    /// A member by its id, or the refusal of who asks in its name.
    pub(super) fn known_member(&self, member_id: &str) -> Result<&Arc<ShareMember>, Refusal> {
        self.member(member_id).ok_or_else(|| {
            Refusal::new(
                ErrorCode::UnknownMemberId,
                format!("Member {member_id} is not a member of group {}.", self.id),
            )
        })
    }

    /// What all members subscribe to; `other` in the place of its former self, and without those
    /// who leave.
    pub(super) fn subscribed(
        &self,
        other: Option<&ShareMember>,
        leaving: Option<&ByteStr>,
    ) -> BTreeSet<ByteStr> {
        let mut counts = self.subscriptions.clone();
        let former = other.map(|other| &other.id);
        for id in former.into_iter().chain(leaving) {
            for name in self
                .member(id)
                .iter()
                .flat_map(|m| &m.subscribed_topic_names)
            {
                decrement(&mut counts, name);
            }
        }
        let names = other.into_iter().flat_map(|m| &m.subscribed_topic_names);
        counts.into_keys().chain(names.cloned()).collect()
    }

    /// Puts a member in, or takes it out. Returns what was there.
    pub(super) fn set_member(
        &mut self,
        member_id: &ByteStr,
        member: Option<Arc<ShareMember>>,
    ) -> Option<Arc<ShareMember>> {
        for name in member.iter().flat_map(|m| &m.subscribed_topic_names) {
            *self.subscriptions.entry(name.clone()).or_default() += 1;
        }
        let previous = match member {
            Some(member) => self.members.insert(member_id.clone(), member),
            None => self.members.remove(member_id),
        };
        for name in previous.iter().flat_map(|m| &m.subscribed_topic_names) {
            decrement(&mut self.subscriptions, name);
        }
        previous
    }

    /// Sets what the target assignment gives a member, or forgets it. Returns what was there.
    pub(super) fn set_target(
        &mut self,
        member_id: &ByteStr,
        target: Option<Arc<Partitions>>,
    ) -> Option<Arc<Partitions>> {
        for place in target.iter().flat_map(|target| places(target)) {
            *self.assigned.entry(place).or_default() += 1;
        }
        let previous = match target {
            Some(target) => self.targets.insert(member_id.clone(), target),
            None => self.targets.remove(member_id),
        };
        for place in previous.iter().flat_map(|target| places(target)) {
            decrement(&mut self.assigned, &place);
        }
        previous
    }

    pub(super) fn needs_refresh(&self, now_wall_ms: i64, image_version: i64) -> bool {
        self.refresh.is_none_or(|refresh| {
            now_wall_ms >= refresh.deadline_ms
                || self.epoch < refresh.epoch
                || refresh.image_version != image_version
        })
    }

    /// Whether partitions got their state since the last target was made, and wait to be shared
    /// out.
    pub(super) fn has_unassigned_states(&self) -> bool {
        let Some(states) = &self.states else {
            return false;
        };
        states.initialized.iter().any(|(topic_id, topic)| {
            let is_assigned = |partition| self.assigned.contains_key(&(*topic_id, partition));
            self.subscriptions.contains_key(&topic.name)
                && !topic.partitions.iter().copied().all(is_assigned)
        })
    }
}

fn places(target: &Partitions) -> impl Iterator<Item = (Uuid, i32)> {
    let topics = target.iter();
    topics.flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
}
