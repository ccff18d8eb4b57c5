//! The data of a share group and what can be asked of it. It changes by records alone (`replay`),
//! but for the time at which its metadata is looked at again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_protocol::{ByteStr, ErrorCode};

use super::member::ShareMember;
use super::states::ShareStates;
use crate::group::consumer::{MetadataRefresh, Partitions, Refusal};

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
    pub(super) members: BTreeMap<ByteStr, Arc<ShareMember>>,
    pub(super) targets: BTreeMap<ByteStr, Arc<Partitions>>,
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

    /// Whether a member subscribes to the topic.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        let mut members = self.members();
        members.any(|member| member.subscribed_topic_names.contains(topic))
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
        let present = self.members().filter(|member| {
            other.is_none_or(|other| other.id != member.id) && leaving != Some(&member.id)
        });
        let names = present.flat_map(|member| &member.subscribed_topic_names);
        names
            .chain(
                other
                    .into_iter()
                    .flat_map(|other| &other.subscribed_topic_names),
            )
            .cloned()
            .collect()
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
        let subscribed = self.subscribed(None, None);
        states.initialized.iter().any(|(topic_id, topic)| {
            subscribed.contains(&topic.name)
                && topic.partitions.iter().any(|partition| {
                    !self.targets.values().any(|target| {
                        let assigned = target.get(topic_id);
                        assigned.is_some_and(|assigned| assigned.contains(partition))
                    })
                })
        })
    }
}
