//! The way of one member to the target assignment: revocation before assignment.
//!
//! ```text
//!   Stable ---- something to give up ----> UnrevokedPartitions
//!     |  ^                                        | the client says that it has it no more
//!     |  '--- others gave all up --.              v
//!     '--- others still hold some --> UnreleasedPartitions (in the epoch of the target)
//! ```
//!
//! A member gets to the epoch of the target only when it has nothing left to give up; partitions
//! that others still hold come one by one as they are given up. So no partition ever has two
//! owners. Pure: the member goes in, the member as it should be comes out.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use klamm_records::Uuid;

use super::Refusal;
use super::group::has;
use super::member::{ConsumerMember, MemberState, OwnedPartitions, Partitions};

/// What decides where a member goes.
pub(super) struct Reconciliation<'a> {
    /// The epoch of the target assignment.
    pub target_epoch: i32,
    /// What the target gives the member.
    pub target: &'a Partitions,
    /// Whether this request changed what the member subscribes to.
    pub subscription_changed: bool,
    /// What the client says it has; none if it does not say.
    pub owned: Option<&'a [TopicPartitions]>,
    /// Whether the member subscribes to a topic that exists, by its id.
    pub is_subscribed: &'a dyn Fn(Uuid) -> bool,
    /// Whether the member subscribes to any topic at all, there or not.
    pub has_subscriptions: bool,
    /// Whether anybody has a partition, to keep or to give up.
    pub is_held: &'a dyn Fn(Uuid, i32) -> bool,
}

impl Reconciliation<'_> {
    /// The member as it is after this.
    ///
    /// # Errors
    /// `FENCED_MEMBER_EPOCH` for a member in a state that this version does not know, until it
    /// comes back with nothing.
    pub(super) fn run(&self, member: &ConsumerMember) -> Result<ConsumerMember, Refusal> {
        match member.state {
            MemberState::Stable if member.epoch != self.target_epoch => {
                Ok(self.next_assignment(member, member.epoch))
            }
            MemberState::Stable => Ok(self.without_unsubscribed(member)),
            MemberState::UnrevokedPartitions if self.owns(&member.pending_revocation) => {
                Ok(self.without_unsubscribed(member))
            }
            MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => {
                Ok(self.next_assignment(member, member.epoch))
            }
            MemberState::Unknown if self.owned.is_some_and(<[_]>::is_empty) => {
                Ok(self.next_assignment(member, self.target_epoch))
            }
            MemberState::Unknown => Err(Refusal::new(
                ErrorCode::FencedMemberEpoch,
                "The consumer group member is in a unknown state. The member must abandon all its \
                 partitions and rejoin.",
            )),
        }
    }

    /// Whether the client may still have one of these. A client that does not say may.
    fn owns(&self, pending: &OwnedPartitions) -> bool {
        let Some(owned) = self.owned else {
            return true;
        };
        owned.iter().any(|topic| {
            let mut partitions = topic.partitions.iter();
            partitions.any(|partition| has(pending, topic.topic_id, *partition))
        })
    }

    /// Takes away at once what the member does not subscribe to any more, without waiting for a
    /// new target.
    fn without_unsubscribed(&self, member: &ConsumerMember) -> ConsumerMember {
        if !self.subscription_changed {
            return member.clone();
        }
        let is_kept = |topic: &Uuid| self.has_subscriptions && (self.is_subscribed)(*topic);
        let (assigned, dropped): (OwnedPartitions, OwnedPartitions) = member
            .assigned
            .clone()
            .into_iter()
            .partition(|(topic, _)| is_kept(topic));
        if dropped.is_empty() {
            return member.clone();
        }
        let mut pending_revocation = member.pending_revocation.clone();
        for (topic, partitions) in dropped {
            pending_revocation
                .entry(topic)
                .or_default()
                .extend(partitions);
        }
        let mut updated = member.in_epoch(member.epoch);
        updated.assigned = assigned;
        if self.owns(&pending_revocation) {
            updated.state = MemberState::UnrevokedPartitions;
            updated.pending_revocation = pending_revocation;
        }
        updated
    }

    fn next_assignment(&self, member: &ConsumerMember, epoch: i32) -> ConsumerMember {
        let mut assigned = OwnedPartitions::new();
        let mut revoked = OwnedPartitions::new();
        let mut new = Partitions::new();
        let mut waits = false;
        let topics: BTreeSet<Uuid> = self
            .target
            .keys()
            .chain(member.assigned.keys())
            .copied()
            .collect();
        let nothing = BTreeSet::new();
        let none = BTreeMap::new();
        for topic in topics {
            let wanted = match self.target.get(&topic) {
                Some(wanted) if (self.is_subscribed)(topic) => wanted,
                _ => &nothing,
            };
            let present = member.assigned.get(&topic).unwrap_or(&none);
            for (partition, since) in present {
                let place = if wanted.contains(partition) {
                    &mut assigned
                } else {
                    &mut revoked
                };
                place.entry(topic).or_default().insert(*partition, *since);
            }
            for partition in wanted.iter().filter(|p| !present.contains_key(p)) {
                let by_others = (self.is_held)(topic, *partition)
                    && !has(&member.pending_revocation, topic, *partition);
                if by_others {
                    waits = true;
                } else {
                    new.entry(topic).or_default().insert(*partition);
                }
            }
        }
        if !revoked.is_empty() && self.owns(&revoked) {
            return ConsumerMember {
                state: MemberState::UnrevokedPartitions,
                assigned,
                pending_revocation: revoked,
                ..member.in_epoch(epoch)
            };
        }
        for (topic, partitions) in new {
            let partitions = partitions.into_iter().map(|p| (p, self.target_epoch));
            assigned.entry(topic).or_default().extend(partitions);
        }
        ConsumerMember {
            state: if waits {
                MemberState::UnreleasedPartitions
            } else {
                MemberState::Stable
            },
            assigned,
            pending_revocation: OwnedPartitions::new(),
            ..member.in_epoch(self.target_epoch)
        }
    }
}
