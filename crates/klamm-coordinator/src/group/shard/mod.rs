//! The group coordinator's state over one partition of `__consumer_offsets`, and the way from a
//! request to the code that answers it.
//!
//! `messages` names what goes in and out, `membership` holds the requests about members, `replay`
//! what records do; offsets are in the folder of that name beside this one.

mod membership;
mod messages;
mod replay;
mod shares;
mod streams;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use klamm_env::Rng;
use klamm_protocol::messages::delete_groups_response::DeletableGroupResult;
use klamm_protocol::messages::describe_groups_response::DescribedGroup;
use klamm_protocol::{ByteStr, ErrorCode};

use super::GroupCoordinatorConfig;
use super::classic::{ClassicGroup, Machine};
use super::cluster::{Cluster, FixedCluster};
use super::consumer::{ConsumerGroup, TopicHashes};
use super::describe;
use super::offsets::{OffsetStore, PendingOffsets};
use super::record::GroupRecord;
use crate::metrics::{CountedShard, GroupCounts, GroupMetrics};
use crate::runtime::{Effects, Now, RecordOrigin, ReplyToken, Shard, Timers, WriteOutcome};

pub use messages::{
    Group, GroupCompletion, GroupCreation, GroupRequest, GroupResponse, GroupTimer, GroupUndo,
};

/// How often groups are counted for the metrics.
const COUNT_EVERY_MS: i64 = 10_000;

/// What a group shard wants done.
pub type GroupEffects = Effects<GroupShard>;

/// All groups and offsets of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct GroupShard {
    pub(in crate::group) config: Arc<GroupCoordinatorConfig>,
    pub(in crate::group) rng: Arc<dyn Rng>,
    pub(in crate::group) cluster: Arc<dyn Cluster>,
    pub(in crate::group) topic_hashes: TopicHashes,
    pub(in crate::group) metrics: Arc<GroupMetrics>,
    pub(in crate::group) groups: BTreeMap<ByteStr, Group>,
    pub(in crate::group) offsets: OffsetStore,
    pub(in crate::group) pending: PendingOffsets,
    pub(in crate::group) timers: Timers<GroupTimer>,
    /// Classic groups that were made of consumer groups by records that failed, and that somebody
    /// joined meanwhile: until they are told.
    pub(in crate::group) orphans: Vec<ClassicGroup>,
    counted: CountedShard,
}

impl GroupShard {
    /// A shard without groups, in a cluster without topics. `rng` makes member ids.
    pub fn new(
        config: Arc<GroupCoordinatorConfig>,
        rng: Arc<dyn Rng>,
        metrics: Arc<GroupMetrics>,
    ) -> Self {
        GroupShard {
            counted: CountedShard::new(metrics.clone()),
            config,
            rng,
            cluster: Arc::new(FixedCluster::default()),
            topic_hashes: TopicHashes::default(),
            metrics,
            groups: BTreeMap::new(),
            offsets: OffsetStore::default(),
            pending: PendingOffsets::default(),
            timers: Timers::default(),
            orphans: Vec::new(),
        }
    }

    /// The shard in this cluster.
    pub fn in_cluster(mut self, cluster: Arc<dyn Cluster>) -> Self {
        self.cluster = cluster;
        self
    }

    /// A consumer group by its name.
    pub fn consumer_group(&self, group_id: &str) -> Option<&ConsumerGroup> {
        match self.groups.get(group_id) {
            Some(Group::Consumer(group)) => Some(group),
            _ => None,
        }
    }

    /// A classic group by its name.
    pub fn classic_group(&self, group_id: &str) -> Option<&ClassicGroup> {
        match self.groups.get(group_id) {
            Some(Group::Classic(group)) => Some(group),
            _ => None,
        }
    }

    /// Names of all groups, in order.
    pub fn group_ids(&self) -> impl Iterator<Item = &ByteStr> {
        self.groups.keys()
    }

    /// The offsets.
    pub fn offsets(&self) -> &OffsetStore {
        &self.offsets
    }

    /// The machine that moves a classic group, if there is one of this name.
    pub(in crate::group) fn classic<'a>(
        &'a mut self,
        group_id: &str,
        now: Now,
        out: &'a mut GroupEffects,
    ) -> Option<Machine<'a>> {
        match self.groups.get_mut(group_id) {
            Some(Group::Classic(group)) => Some(Machine {
                group,
                timers: &mut self.timers,
                config: &self.config,
                rng: &*self.rng,
                metrics: &self.metrics,
                now,
                out,
            }),
            _ => None,
        }
    }

    /// The machine that moves a classic group which is not of this shard any more.
    pub(in crate::group) fn machine_for<'a>(
        &'a mut self,
        group: &'a mut ClassicGroup,
        now: Now,
        out: &'a mut GroupEffects,
    ) -> Machine<'a> {
        Machine {
            group,
            timers: &mut self.timers,
            config: &self.config,
            rng: &*self.rng,
            metrics: &self.metrics,
            now,
            out,
        }
    }

    fn delete_groups(&mut self, group_ids: &[ByteStr], token: ReplyToken) -> GroupEffects {
        let mut out = GroupEffects::default();
        let mut results = Vec::with_capacity(group_ids.len());
        for group_id in group_ids {
            let error = match self.groups.get(group_id) {
                None => ErrorCode::GroupIdNotFound,
                Some(group) if !group.is_empty() => ErrorCode::NonEmptyGroup,
                Some(group) => {
                    out.records.extend(self.offset_tombstones(group_id));
                    out.records.extend(group.tombstones(group_id));
                    ErrorCode::None
                }
            };
            results.push(DeletableGroupResult {
                group_id: group_id.clone(),
                error_code: error.into(),
                ..DeletableGroupResult::default()
            });
        }
        out.deferred = Some((token, GroupResponse::DeleteGroups(results)));
        out
    }

    fn describe_groups(&self, group_ids: &[ByteStr], api_version: i16) -> Vec<DescribedGroup> {
        group_ids
            .iter()
            .map(|group_id| match self.groups.get(group_id) {
                Some(Group::Classic(group)) => group.describe(),
                other => describe::not_classic(group_id, other.is_some(), api_version),
            })
            .collect()
    }
}

impl Shard for GroupShard {
    type Request = GroupRequest;
    type Response = GroupResponse;
    type Record = GroupRecord;
    type Undo = GroupUndo;
    type Completion = GroupCompletion;
    type Action = Infallible;

    fn handle(&mut self, request: GroupRequest, token: ReplyToken, now: Now) -> GroupEffects {
        let answer = |response| {
            let mut out = GroupEffects::default();
            out.reply(token, response);
            out
        };
        match request {
            GroupRequest::JoinGroup(context, request) => {
                self.join_group(&context, &request, token, now)
            }
            GroupRequest::SyncGroup(request) => self.sync_group(&request, token, now),
            GroupRequest::Heartbeat(request) => self.heartbeat(&request, token, now),
            GroupRequest::LeaveGroup(group_id, members) => {
                self.leave_group(&group_id, &members, token, now)
            }
            GroupRequest::ConsumerHeartbeat(context, request) => {
                self.consumer_heartbeat(&context, &request, token, now)
            }
            // The answer waits for what it shows to be committed.
            GroupRequest::DescribeConsumerGroups(group_ids) => GroupEffects {
                deferred: Some((
                    token,
                    GroupResponse::DescribeConsumerGroups(
                        self.describe_consumer_groups(&group_ids),
                    ),
                )),
                ..GroupEffects::default()
            },
            GroupRequest::OffsetCommit(context, request) => {
                self.offset_commit(&context, &request, token, now)
            }
            GroupRequest::TxnOffsetCommit(request, guard) => {
                self.txn_offset_commit(&request, guard, token, now)
            }
            GroupRequest::OffsetFetch(request, require_stable) => {
                self.offset_fetch(&request, require_stable, token)
            }
            GroupRequest::OffsetDelete(request) => self.offset_delete(&request, token),
            GroupRequest::DeleteGroups(group_ids) => self.delete_groups(&group_ids, token),
            GroupRequest::DescribeGroups(group_ids, api_version) => answer(
                GroupResponse::DescribeGroups(self.describe_groups(&group_ids, api_version)),
            ),
            GroupRequest::ListGroups(request) => answer(GroupResponse::ListGroups(describe::list(
                self.groups.values(),
                &request,
            ))),
            GroupRequest::TopicsDeleted(topics) => self.topics_deleted(&topics, token),
            GroupRequest::StreamsHeartbeat(context, request) => {
                self.streams_heartbeat(&context, &request, token, now)
            }
            // The answer waits for what it shows to be committed.
            GroupRequest::DescribeStreamsGroups(group_ids) => GroupEffects {
                deferred: Some((
                    token,
                    GroupResponse::DescribeStreamsGroups(self.describe_streams_groups(&group_ids)),
                )),
                ..GroupEffects::default()
            },
            request => self.handle_share(request, token, now),
        }
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        self.timers.next_deadline_ms()
    }

    fn tick(&mut self, now: Now) -> Option<GroupEffects> {
        match self.timers.pop_due(now.monotonic_ms)? {
            GroupTimer::Classic(group_id, timer) => {
                let mut out = GroupEffects::default();
                if let Some(mut machine) = self.classic(&group_id, now, &mut out) {
                    machine.timer_fired(timer);
                }
                Some(out)
            }
            GroupTimer::Consumer(group_id, timer) => {
                Some(self.consumer_timer_fired(&group_id, &timer, now))
            }
            GroupTimer::Streams(group_id, timer) => {
                Some(self.streams_timer_fired(&group_id, &timer, now))
            }
            GroupTimer::ShareSession(group_id, member_id) => {
                Some(self.share_session_over(&group_id, &member_id))
            }
            GroupTimer::Counting => {
                self.count(now);
                Some(GroupEffects::default())
            }
            GroupTimer::Expiration => {
                self.schedule_expiration(now);
                Some(self.expire(now))
            }
        }
    }

    fn loaded(&mut self, now: Now) -> Vec<GroupEffects> {
        self.schedule_expiration(now);
        self.count(now);
        let group_ids: Vec<ByteStr> = self.groups.keys().cloned().collect();
        let mut all = Vec::new();
        for group_id in group_ids {
            let mut out = GroupEffects::default();
            if let Some(mut machine) = self.classic(&group_id, now, &mut out) {
                machine.loaded();
            }
            if !out.is_empty() {
                all.push(out);
            }
            self.consumer_loaded(&group_id, now);
            self.share_loaded(&group_id, now);
            self.streams_loaded(&group_id, now);
        }
        all
    }

    fn replay(&mut self, origin: RecordOrigin, record: &GroupRecord, now: Now) -> GroupUndo {
        match record {
            GroupRecord::OffsetCommit { key, value } => {
                self.replay_offset(origin, key, value.as_ref(), now)
            }
            GroupRecord::GroupMetadata { group_id, value } => {
                let group = value.as_ref().map(|value| {
                    let group = ClassicGroup::from_record(group_id.detached(), value);
                    Group::Classic(Box::new(group))
                });
                self.set_group(group_id, group)
            }
            GroupRecord::Consumer(record) => self.replay_consumer(record),
            GroupRecord::Share(record) => self.replay_share(record, now),
            GroupRecord::Streams(record) => self.replay_streams(record),
            GroupRecord::Unknown { kind, .. } => {
                tracing::debug!(kind, "passed over a record of an unknown type");
                GroupUndo::Nothing
            }
        }
    }

    fn replay_committed(&mut self, origin: RecordOrigin, record: &GroupRecord, now: Now) {
        match record {
            GroupRecord::OffsetCommit { key, value } => {
                self.load_offset(origin, key, value.as_ref(), now);
            }
            GroupRecord::GroupMetadata { .. }
            | GroupRecord::Consumer(_)
            | GroupRecord::Share(_)
            | GroupRecord::Streams(_)
            | GroupRecord::Unknown { .. } => {
                self.replay(origin, record, now);
            }
        }
    }

    fn replay_marker(&mut self, producer_id: i64, committed: bool) -> Vec<GroupUndo> {
        let changes = self.pending.end(producer_id, committed, &mut self.offsets);
        let undos = changes
            .into_iter()
            .map(|undo| GroupUndo::Offset(undo, None));
        undos.collect()
    }

    fn undo(&mut self, undo: GroupUndo) {
        match undo {
            GroupUndo::Offset(undo, made) => {
                self.offsets.undo(undo);
                if let Some(group_id) = made
                    && !self.is_in_use(&group_id)
                {
                    self.groups.remove(&group_id);
                }
            }
            GroupUndo::Deletion(undo, pending) => {
                self.offsets.undo(undo);
                if let Some(pending) = pending {
                    self.pending.undo(pending);
                }
            }
            GroupUndo::Pending(undo, made) => {
                let group_id = undo.key().group.clone();
                self.pending.undo(undo);
                if made && !self.is_in_use(&group_id) {
                    self.groups.remove(&group_id);
                }
            }
            // Somebody joined a group of that name since: they hold on to theirs.
            GroupUndo::Group(group_id, _) if self.is_in_use(&group_id) => {}
            GroupUndo::Group(group_id, Some(previous)) => {
                self.groups.insert(group_id, previous);
            }
            GroupUndo::Group(group_id, None) => {
                self.groups.remove(&group_id);
            }
            GroupUndo::TakenOver(group_id, previous) => {
                let made = self.groups.remove(&group_id);
                if let Some(Group::Classic(made)) = made {
                    self.orphans.push(*made);
                }
                if let Some(previous) = previous {
                    self.groups.insert(group_id, previous);
                }
            }
            GroupUndo::Consumer(group_id, undo) => {
                if let Some(Group::Consumer(group)) = self.groups.get_mut(&group_id) {
                    group.undo(undo);
                }
            }
            GroupUndo::Share(group_id, undo) => {
                if let Some(Group::Share(group)) = self.groups.get_mut(&group_id) {
                    group.undo(undo);
                }
            }
            GroupUndo::Streams(group_id, undo) => {
                if let Some(Group::Streams(group)) = self.groups.get_mut(&group_id) {
                    group.undo(undo);
                }
            }
            GroupUndo::Nothing => {}
        }
    }

    fn commit(&mut self, undo: GroupUndo) {
        if let GroupUndo::Offset(undo, _) | GroupUndo::Deletion(undo, _) = undo {
            self.offsets.commit(&undo);
        }
    }

    fn complete(
        &mut self,
        completion: GroupCompletion,
        outcome: WriteOutcome,
        now: Now,
    ) -> GroupEffects {
        match completion {
            GroupCompletion::Created(creation) => self.creation_written(*creation, outcome, now),
            GroupCompletion::Classic(group_id, completion) => {
                let mut out = GroupEffects::default();
                if let Some(mut machine) = self.classic(&group_id, now, &mut out) {
                    machine.written(completion, outcome);
                }
                out
            }
            GroupCompletion::Fenced(group_id, timers) => {
                self.fence_written(&group_id, timers, outcome, now);
                GroupEffects::default()
            }
            GroupCompletion::Downgraded(group_id, completion) => {
                self.downgrade_written(&group_id, completion, outcome, now)
            }
            GroupCompletion::ShareFenced(group_id, member_id) => {
                self.share_fence_written(group_id, member_id, outcome, now);
                GroupEffects::default()
            }
            GroupCompletion::StreamsFenced(group_id, member_id) => {
                self.streams_fence_written(group_id, member_id, outcome, now);
                GroupEffects::default()
            }
        }
    }
}

impl GroupShard {
    /// Whether the group has members or has given out ids.
    fn is_in_use(&self, group_id: &str) -> bool {
        self.classic_group(group_id).is_some_and(|group| {
            group.member_count() > 0 || group.pending_members().next().is_some()
        })
    }

    /// Tells the metrics what there is, and will do so again.
    fn count(&mut self, now: Now) {
        let mut counts = GroupCounts {
            offsets: self.offsets.len(),
            ..GroupCounts::default()
        };
        for group in self.groups.values() {
            *counts.groups.entry(group.protocol_and_state()).or_default() += 1;
        }
        self.counted.set(counts);
        let deadline_ms = now.after_ms(COUNT_EVERY_MS);
        self.timers.schedule(GroupTimer::Counting, deadline_ms);
    }

    fn schedule_expiration(&mut self, now: Now) {
        let deadline_ms = now.after_ms(self.config.offsets_retention_check_interval_ms);
        self.timers.schedule(GroupTimer::Expiration, deadline_ms);
    }
}
