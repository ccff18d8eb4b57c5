//! What all requests and timers of a consumer group need, and the steps they share: looking at
//! the topics again, making a new target, and bringing a member nearer to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::ByteStr;
use klamm_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;

use super::Refusal;
use super::group::{ConsumerGroup, MetadataRefresh};
use super::member::{ConsumerMember, MemberState, Partitions};
use super::metadata_hash::TopicHashes;
use super::reconcile::Reconciliation;
use super::record::RecordsOf;
use super::subscription::SubscriptionCounts;
use super::target;
use super::timers::ConsumerTimer;
use crate::group::GroupCoordinatorConfig;
use crate::group::cluster::{ConsumerGroupSettings, TopicsView, is_assignment_due};
use crate::group::record::GroupRecord;
use crate::group::shard::GroupTimer;
use crate::metrics::GroupMetrics;
use crate::runtime::{Now, Timers};

/// How long the hash of a group's topics is good for, as long as nothing is known to have changed.
const REFRESH_MAX_MS: i64 = i32::MAX as i64;

/// A group together with what its transitions need. Nothing of the group is changed here: what is
/// to be changed goes into `records`.
pub(in crate::group) struct Work<'a> {
    pub group: &'a ConsumerGroup,
    pub topics: Arc<dyn TopicsView>,
    pub hashes: &'a mut TopicHashes,
    pub config: &'a GroupCoordinatorConfig,
    pub settings: ConsumerGroupSettings,
    pub timers: &'a mut Timers<GroupTimer>,
    pub metrics: &'a GroupMetrics,
    pub now: Now,
    pub records: Vec<GroupRecord>,
    /// Set when the topics were looked at: to be noted in the group.
    pub refreshed: Option<MetadataRefresh>,
}

impl<'a> Work<'a> {
    pub(super) fn record(&self) -> RecordsOf<'a> {
        RecordsOf(&self.group.id)
    }

    pub(super) fn schedule(&mut self, timer: ConsumerTimer, delay_ms: i32) {
        let key = GroupTimer::Consumer(self.group.id.clone(), timer);
        let deadline_ms = self.now.after_ms(i64::from(delay_ms));
        self.timers.schedule(key, deadline_ms);
    }

    /// Like `schedule`, unless the timer runs already.
    pub(super) fn schedule_if_absent(&mut self, timer: ConsumerTimer, delay_ms: i32) {
        if !self.is_scheduled(timer.clone()) {
            self.schedule(timer, delay_ms);
        }
    }

    pub(super) fn is_scheduled(&self, timer: ConsumerTimer) -> bool {
        let key = GroupTimer::Consumer(self.group.id.clone(), timer);
        self.timers.deadline_ms(&key).is_some()
    }

    pub(super) fn cancel(&mut self, timer: ConsumerTimer) {
        let key = GroupTimer::Consumer(self.group.id.clone(), timer);
        self.timers.cancel(key);
    }

    pub(super) fn cancel_all_of(&mut self, member_id: &ByteStr) {
        self.cancel(ConsumerTimer::Session(member_id.clone()));
        self.cancel(ConsumerTimer::Rebalance(member_id.clone()));
        self.cancel(ConsumerTimer::Join(member_id.clone()));
        self.cancel(ConsumerTimer::Sync(member_id.clone()));
    }

    /// What all members subscribe to once `old` has become `new`. Who just joins is nobody before,
    /// a static member that comes back its former self.
    fn subscriptions_after(
        &self,
        old: &ConsumerMember,
        new: &ConsumerMember,
    ) -> SubscriptionCounts {
        let mut counts = self.group.subscriptions.clone();
        counts.remove_member(old);
        counts.add_member(new);
        if let Some(regex) = old.regex()
            && counts.members_with(regex) == 0
            && let Some(resolved) = self.group.resolved_regex(regex)
        {
            counts.remove_resolved(resolved);
        }
        counts
    }

    /// Looks at the topics again, and makes a new group epoch if they changed or `bump` says so.
    /// Returns the epoch and whether all members subscribe to the same.
    pub(super) fn update_metadata(
        &mut self,
        bump: bool,
        old: &ConsumerMember,
        new: &ConsumerMember,
    ) -> (i32, bool) {
        let counts = self.subscriptions_after(old, new);
        let hash = self.hash_of(&counts);
        let is_new = self.group.member(&new.id).is_none()
            && new
                .instance_id
                .as_ref()
                .is_none_or(|name| self.group.static_member(name).is_none());
        let member_count = self.group.member_count() + usize::from(is_new);
        let mut epoch = self.group.epoch;
        if bump || hash != self.group.metadata_hash {
            epoch = epoch.wrapping_add(1);
            self.records.push(self.record().epoch(epoch, hash));
            self.metrics.consumer_rebalances.increment();
        }
        self.note_refresh(epoch);
        if self.group.has_partition_metadata {
            self.records
                .push(self.record().partition_metadata_tombstone());
        }
        (epoch, counts.is_homogeneous(member_count))
    }

    pub(super) fn hash_of(&mut self, counts: &SubscriptionCounts) -> i64 {
        self.hashes.group_hash(counts.topics.keys(), &*self.topics)
    }

    pub(super) fn note_refresh(&mut self, epoch: i32) {
        self.refreshed = Some(MetadataRefresh {
            deadline_ms: self.now.wall_ms.saturating_add(REFRESH_MAX_MS),
            epoch,
            image_version: self.topics.version(),
        });
    }

    /// Makes a target for `epoch` if there is none yet and the last one is old enough. Returns the
    /// epoch of the target and what it gives `new`.
    pub(super) fn update_target(
        &mut self,
        epoch: i32,
        old: &ConsumerMember,
        new: &ConsumerMember,
        is_homogeneous: bool,
    ) -> (i32, Arc<Partitions>) {
        if self.group.assignment_epoch >= epoch || !self.may_assign() {
            return (self.group.assignment_epoch, self.last_target(new));
        }
        let preferred = self.group.preferred_assignor(Some((old, new)));
        let assignor = preferred
            .and_then(|name| super::assignor::Assignor::from_name(&name))
            .unwrap_or_else(|| self.config.default_consumer_assignor());
        let targets = target::assign(self.group, &*self.topics, assignor, new, is_homogeneous);
        for (member_id, target) in &targets {
            if self
                .group
                .target(member_id)
                .is_none_or(|old| **old != *target)
            {
                self.records.push(self.record().target(member_id, target));
            }
        }
        self.records
            .push(self.record().assignment(epoch, self.now.wall_ms));
        let own = targets.into_iter().find(|(id, _)| *id == new.id);
        (epoch, Arc::new(own.map(|(_, own)| own).unwrap_or_default()))
    }

    fn may_assign(&self) -> bool {
        let made_ms = self.group.assignment_timestamp_ms;
        is_assignment_due(made_ms, self.settings.assignment_interval_ms, self.now)
    }

    /// What the last target gives the member, or the one it takes the place of.
    pub(super) fn last_target(&self, member: &ConsumerMember) -> Arc<Partitions> {
        let id = match &member.instance_id {
            None => Some(&member.id),
            Some(name) => self.group.static_member(name).map(|former| &former.id),
        };
        id.and_then(|id| self.group.target(id))
            .cloned()
            .unwrap_or_default()
    }

    /// Brings a member one step nearer to the target.
    pub(super) fn reconcile(
        &mut self,
        member: ConsumerMember,
        target: (i32, Arc<Partitions>),
        subscription_changed: bool,
        owned: Option<&[TopicPartitions]>,
    ) -> Result<ConsumerMember, Refusal> {
        let (target_epoch, target) = target;
        if !subscription_changed && member.is_reconciled_to(target_epoch) {
            return Ok(member);
        }
        let matched = member
            .regex()
            .and_then(|regex| self.group.resolved_regex(regex));
        let topics = &self.topics;
        let is_subscribed = |id| {
            topics.topic_name(id).is_some_and(|name| {
                member.subscribed_topic_names.contains(&name)
                    || matched.is_some_and(|matched| matched.topics.contains(&name))
            })
        };
        let has_subscriptions = !member.subscribed_topic_names.is_empty()
            || matched.is_some_and(|matched| !matched.topics.is_empty());
        let group = self.group;
        let updated = Reconciliation {
            target_epoch,
            target: &target,
            subscription_changed,
            owned,
            is_subscribed: &is_subscribed,
            has_subscriptions,
            is_held: &|topic, partition| group.is_held(topic, partition),
        }
        .run(&member)?;
        if updated != member {
            self.records.push(self.record().current(&updated));
            if !updated.uses_classic_protocol() {
                let timer = ConsumerTimer::Rebalance(updated.id.clone());
                if updated.state == MemberState::UnrevokedPartitions {
                    self.schedule(timer, updated.rebalance_timeout_ms);
                } else {
                    self.cancel(timer);
                }
            }
        }
        Ok(updated)
    }
}

/// Topics by id with their numbers of partitions, of all members' subscriptions.
pub(super) type PartitionCounts = BTreeMap<klamm_records::Uuid, i32>;
