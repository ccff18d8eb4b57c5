//! The group coordinator's state over one partition of `__consumer_offsets`, and the way from a
//! request to the code that answers it.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_env::Rng;
use klamm_protocol::group_records::{OffsetCommitKey, OffsetCommitValue};
use klamm_protocol::messages::delete_groups_response::DeletableGroupResult;
use klamm_protocol::messages::describe_groups_response::DescribedGroup;
use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::leave_group_response::MemberResponse;
use klamm_protocol::messages::list_groups_response::ListedGroup;
use klamm_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use klamm_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use klamm_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, ListGroupsRequest, OffsetCommitRequest,
    OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use klamm_protocol::{ByteStr, ErrorCode};

use super::classic::{ClassicCompletion, ClassicGroup, ClassicTimer, Machine};
use super::foreign::{ForeignGroup, ForeignKey};
use super::offsets::{CommittedOffset, DeletedTopic, OffsetStore, OffsetUndo, PendingOffsets};
use super::record::GroupRecord;
use super::{GroupCoordinatorConfig, RequestContext};
use crate::metrics::GroupMetrics;
use crate::runtime::{Effects, Now, RecordOrigin, ReplyToken, Shard, Timers, WriteOutcome};

/// The producer id of batches that belong to no transaction.
const NO_PRODUCER: i64 = -1;

/// What a group shard is asked.
#[derive(Debug)]
pub enum GroupRequest {
    /// Key 11.
    JoinGroup(RequestContext, Box<JoinGroupRequest>),
    /// Key 14.
    SyncGroup(Box<SyncGroupRequest>),
    /// Key 12.
    Heartbeat(Box<HeartbeatRequest>),
    /// Key 13, with the members of any version in one list.
    LeaveGroup(ByteStr, Vec<MemberIdentity>),
    /// Key 8, with the topics' names filled in.
    OffsetCommit(RequestContext, Box<OffsetCommitRequest>),
    /// Key 9, one group; with the topics' names filled in. The flag asks for stable offsets.
    OffsetFetch(Box<OffsetFetchRequestGroup>, bool),
    /// Key 47.
    OffsetDelete(Box<OffsetDeleteRequest>),
    /// Key 42, the groups of this partition.
    DeleteGroups(Vec<ByteStr>),
    /// Key 15, the groups of this partition, and the version of the request.
    DescribeGroups(Vec<ByteStr>, i16),
    /// Key 16.
    ListGroups(Arc<ListGroupsRequest>),
    /// Topics were deleted from the cluster.
    TopicsDeleted(Arc<[DeletedTopic]>),
}

/// What a group shard answers.
#[derive(Debug)]
pub enum GroupResponse {
    /// To a JoinGroup.
    JoinGroup(Box<JoinGroupResponse>),
    /// To a SyncGroup.
    SyncGroup(Box<SyncGroupResponse>),
    /// To a LeaveGroup.
    LeaveGroup(Vec<MemberResponse>),
    /// To an OffsetCommit.
    OffsetCommit(Box<OffsetCommitResponse>),
    /// To an OffsetFetch.
    OffsetFetch(Box<OffsetFetchResponseGroup>),
    /// To an OffsetDelete.
    OffsetDelete(Box<OffsetDeleteResponse>),
    /// To a DeleteGroups.
    DeleteGroups(Vec<DeletableGroupResult>),
    /// To a DescribeGroups.
    DescribeGroups(Vec<DescribedGroup>),
    /// To a ListGroups.
    ListGroups(Vec<ListedGroup>),
    /// Done, nothing to say.
    Done,
    /// The request as a whole is refused.
    Refused(ErrorCode),
}

/// A timer of the shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupTimer {
    /// One of a classic group's.
    Classic(ByteStr, ClassicTimer),
    /// The next look at expired offsets.
    Expiration,
}

/// What waits for records to be committed.
#[derive(Debug)]
pub enum GroupCompletion {
    /// The record that makes a new classic group known.
    Created(Box<GroupCreation>),
    /// A record of a classic group.
    Classic(ByteStr, ClassicCompletion),
}

/// The making of a group, and what to go back to if it fails.
#[derive(Debug)]
pub struct GroupCreation {
    group_id: ByteStr,
    /// The JoinGroup that made it.
    token: ReplyToken,
    /// The empty group of another protocol that had the name before.
    replaced: Option<ForeignGroup>,
}

/// Takes a replayed record back, or confirms it.
#[derive(Debug)]
pub enum GroupUndo {
    /// An offset, and whether its record made the group.
    Offset(OffsetUndo, Option<ByteStr>),
    /// A group was deleted or set.
    Group(ByteStr, Option<Group>),
    /// Nothing changed.
    Nothing,
}

/// A group of any protocol.
#[derive(Debug)]
pub enum Group {
    /// The classic protocol, and groups that only hold offsets.
    Classic(Box<ClassicGroup>),
    /// Another protocol, not served here.
    Foreign(Box<ForeignGroup>),
}

impl Group {
    pub(in crate::group) fn is_empty(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_empty(),
            Group::Foreign(group) => group.is_empty(),
        }
    }

    /// The records that delete the group, offsets aside.
    pub(in crate::group) fn tombstones(&self, group_id: &ByteStr) -> Vec<GroupRecord> {
        match self {
            Group::Classic(_) => vec![GroupRecord::GroupMetadata {
                group_id: group_id.clone(),
                value: None,
            }],
            Group::Foreign(group) => foreign_tombstones(group_id, group),
        }
    }
}

fn foreign_tombstones(group_id: &ByteStr, group: &ForeignGroup) -> Vec<GroupRecord> {
    group
        .keys()
        .map(|key| GroupRecord::Foreign {
            key: ForeignKey {
                kind: i16::from_be_bytes([
                    key.first().copied().unwrap_or(0),
                    key.get(1).copied().unwrap_or(0),
                ]),
                group_id: Some(group_id.clone()),
                member_id: None,
                bytes: key.clone(),
            },
            value: None,
        })
        .collect()
}

/// What a group shard wants done.
pub type GroupEffects = Effects<GroupShard>;

/// All groups and offsets of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct GroupShard {
    pub(in crate::group) config: Arc<GroupCoordinatorConfig>,
    rng: Arc<dyn Rng>,
    pub(in crate::group) metrics: Arc<GroupMetrics>,
    pub(in crate::group) groups: BTreeMap<ByteStr, Group>,
    pub(in crate::group) offsets: OffsetStore,
    pub(in crate::group) pending: PendingOffsets,
    pub(in crate::group) timers: Timers<GroupTimer>,
}

impl GroupShard {
    /// A shard without groups. `rng` makes member ids.
    pub fn new(
        config: Arc<GroupCoordinatorConfig>,
        rng: Arc<dyn Rng>,
        metrics: Arc<GroupMetrics>,
    ) -> Self {
        GroupShard {
            config,
            rng,
            metrics,
            groups: BTreeMap::new(),
            offsets: OffsetStore::default(),
            pending: PendingOffsets::default(),
            timers: Timers::default(),
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

    fn join_group(
        &mut self,
        context: &RequestContext,
        request: &JoinGroupRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let group_id = request.group_id.detached();
        let is_classic = self.classic_group(&group_id).is_some();
        if !is_classic {
            let replaceable = match self.groups.get(&group_id) {
                Some(Group::Foreign(group)) => group.may_become_classic(),
                _ => true,
            };
            let refusal = if !replaceable {
                Some(("", ErrorCode::InconsistentGroupProtocol))
            } else if !request.member_id.is_empty() {
                Some((&*request.member_id, ErrorCode::UnknownMemberId))
            } else {
                None
            };
            if let Some((member_id, error)) = refusal {
                let response = super::classic::join_error(member_id, error);
                out.reply(token, GroupResponse::JoinGroup(Box::new(response)));
                return out;
            }
        }
        let replaced = if is_classic {
            None
        } else {
            let group = ClassicGroup::new(group_id.clone(), now.wall_ms);
            let group = Group::Classic(Box::new(group));
            self.groups.insert(group_id.clone(), group)
        };
        if let Some(mut machine) = self.classic(&group_id, now, &mut out) {
            machine.join(context, request, token);
        }
        if !is_classic {
            self.write_creation(group_id, token, replaced, &mut out);
        }
        out
    }

    /// A new group is made known to the log at once, so that it is there after a restart even if
    /// its first rebalance never completes.
    fn write_creation(
        &self,
        group_id: ByteStr,
        token: ReplyToken,
        replaced: Option<Group>,
        out: &mut GroupEffects,
    ) {
        let replaced = match replaced {
            Some(Group::Foreign(group)) => {
                out.records.extend(foreign_tombstones(&group_id, &group));
                Some(*group)
            }
            _ => None,
        };
        let Some(group) = self.classic_group(&group_id) else {
            return;
        };
        out.records.push(GroupRecord::GroupMetadata {
            group_id: group_id.clone(),
            value: Some(group.to_empty_record()),
        });
        out.replay = false;
        out.completion = Some(GroupCompletion::Created(Box::new(GroupCreation {
            group_id,
            token,
            replaced,
        })));
    }

    fn creation_written(
        &mut self,
        creation: GroupCreation,
        outcome: WriteOutcome,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let Some(error) = outcome.error().map(super::errors::client_error) else {
            return out;
        };
        let response = super::classic::join_error("", error);
        out.reply(creation.token, GroupResponse::JoinGroup(Box::new(response)));
        if matches!(outcome, WriteOutcome::Failed(_)) {
            // The group never was. Whoever joined it meanwhile has to start over.
            if let Some(mut machine) = self.classic(&creation.group_id, now, &mut out) {
                machine.refuse_all(error);
                machine.cancel_all();
            }
            self.groups.remove(&creation.group_id);
            if let Some(replaced) = creation.replaced {
                let group = Group::Foreign(Box::new(replaced));
                self.groups.insert(creation.group_id, group);
            }
        }
        out
    }

    fn sync_group(
        &mut self,
        request: &SyncGroupRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        match self.classic(&request.group_id, now, &mut out) {
            Some(mut machine) => machine.sync(request, token),
            None => out.reply(token, GroupResponse::Refused(ErrorCode::UnknownMemberId)),
        }
        out
    }

    fn heartbeat(
        &mut self,
        request: &HeartbeatRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let result = match self.classic(&request.group_id, now, &mut out) {
            Some(mut machine) => machine.heartbeat(request),
            None => Err(ErrorCode::UnknownMemberId),
        };
        match result {
            Ok(()) => out.deferred = Some((token, GroupResponse::Done)),
            Err(error) => out.reply(token, GroupResponse::Refused(error)),
        }
        out
    }

    fn leave_group(
        &mut self,
        group_id: &str,
        members: &[MemberIdentity],
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        match self.classic(group_id, now, &mut out) {
            Some(mut machine) => {
                let responses = machine.leave(members);
                out.deferred = Some((token, GroupResponse::LeaveGroup(responses)));
            }
            None => out.reply(token, GroupResponse::Refused(ErrorCode::UnknownMemberId)),
        }
        out
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
                other => super::describe::not_classic(group_id, other.is_some(), api_version),
            })
            .collect()
    }

    /// Does all but the change of the offset itself, which is returned together with the name of
    /// the group if the record made one. None if the offset waits for its transaction.
    fn replay_offset(
        &mut self,
        origin: RecordOrigin,
        key: &OffsetCommitKey,
        value: Option<&OffsetCommitValue>,
        now: Now,
    ) -> Option<(Option<CommittedOffset>, Option<ByteStr>)> {
        let Some(value) = value else {
            self.pending.remove(key);
            return Some((None, None));
        };
        let offset = CommittedOffset::from_record(origin, value);
        let made = self.ensure_group(&key.group, now);
        if origin.producer_id != NO_PRODUCER {
            self.pending.put(origin.producer_id, key, offset);
            return None;
        }
        Some((Some(offset), made.then(|| key.group.detached())))
    }

    fn set_group(&mut self, group_id: &ByteStr, group: Option<Group>) -> GroupUndo {
        let group_id = group_id.detached();
        let mut out = GroupEffects::default();
        if let Some(mut machine) = self.classic(&group_id, Now::default(), &mut out) {
            machine.cancel_all();
        }
        let previous = match group {
            Some(group) => self.groups.insert(group_id.clone(), group),
            None => self.groups.remove(&group_id),
        };
        GroupUndo::Group(group_id, previous)
    }

    fn replay_foreign(&mut self, key: &ForeignKey, present: bool) -> GroupUndo {
        let (Some(group_id), Some(protocol)) = (&key.group_id, key.protocol()) else {
            tracing::debug!(kind = key.kind, "passed over a record of an unknown type");
            return GroupUndo::Nothing;
        };
        let (mut group, previous) = match self.groups.remove(group_id) {
            Some(Group::Foreign(group)) => (*group.clone(), Some(Group::Foreign(group))),
            // The classic group was converted: its tombstone comes before these records, but an
            // offset read in between may have made it known again.
            other => (ForeignGroup::new(group_id.detached(), protocol), other),
        };
        if !present && group.is_gone() {
            if let Some(previous) = previous {
                self.groups.insert(group_id.detached(), previous);
            }
            return GroupUndo::Nothing;
        }
        group.replay(key, present);
        if !group.is_gone() {
            self.groups
                .insert(group_id.detached(), Group::Foreign(Box::new(group)));
        }
        GroupUndo::Group(group_id.detached(), previous)
    }
}

impl Shard for GroupShard {
    type Request = GroupRequest;
    type Response = GroupResponse;
    type Record = GroupRecord;
    type Undo = GroupUndo;
    type Completion = GroupCompletion;

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
            GroupRequest::OffsetCommit(context, request) => {
                self.offset_commit(&context, &request, token, now)
            }
            GroupRequest::OffsetFetch(request, require_stable) => {
                self.offset_fetch(&request, require_stable, token)
            }
            GroupRequest::OffsetDelete(request) => self.offset_delete(&request, token),
            GroupRequest::DeleteGroups(group_ids) => self.delete_groups(&group_ids, token),
            GroupRequest::DescribeGroups(group_ids, api_version) => answer(
                GroupResponse::DescribeGroups(self.describe_groups(&group_ids, api_version)),
            ),
            GroupRequest::ListGroups(request) => answer(GroupResponse::ListGroups(
                super::describe::list(self.groups.values(), &request),
            )),
            GroupRequest::TopicsDeleted(topics) => self.topics_deleted(&topics, token),
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
            GroupTimer::Expiration => {
                self.schedule_expiration(now);
                Some(self.expire(now))
            }
        }
    }

    fn loaded(&mut self, now: Now) -> Vec<GroupEffects> {
        self.schedule_expiration(now);
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
        }
        all
    }

    fn replay(&mut self, origin: RecordOrigin, record: &GroupRecord, now: Now) -> GroupUndo {
        match record {
            GroupRecord::OffsetCommit { key, value } => {
                match self.replay_offset(origin, key, value.as_ref(), now) {
                    Some((offset, made)) => {
                        GroupUndo::Offset(self.offsets.set_in_flight(key, offset), made)
                    }
                    None => GroupUndo::Nothing,
                }
            }
            GroupRecord::GroupMetadata { group_id, value } => {
                let group = value.as_ref().map(|value| {
                    let group = ClassicGroup::from_record(group_id.detached(), value);
                    Group::Classic(Box::new(group))
                });
                self.set_group(group_id, group)
            }
            GroupRecord::Foreign { key, value } => self.replay_foreign(key, value.is_some()),
        }
    }

    fn replay_committed(&mut self, origin: RecordOrigin, record: &GroupRecord, now: Now) {
        match record {
            GroupRecord::OffsetCommit { key, value } => {
                if let Some((offset, _)) = self.replay_offset(origin, key, value.as_ref(), now) {
                    self.offsets.set(key, offset);
                }
            }
            _ => {
                self.replay(origin, record, now);
            }
        }
    }

    fn replay_marker(&mut self, producer_id: i64, committed: bool) {
        self.pending.end(producer_id, committed, &mut self.offsets);
    }

    fn undo(&mut self, undo: GroupUndo) {
        match undo {
            GroupUndo::Offset(undo, made) => {
                self.offsets.undo(undo);
                if let Some(group_id) = made {
                    self.groups.remove(&group_id);
                }
            }
            GroupUndo::Group(group_id, Some(previous)) => {
                self.groups.insert(group_id, previous);
            }
            GroupUndo::Group(group_id, None) => {
                self.groups.remove(&group_id);
            }
            GroupUndo::Nothing => {}
        }
    }

    fn commit(&mut self, undo: GroupUndo) {
        if let GroupUndo::Offset(undo, _) = undo {
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
        }
    }
}

impl GroupShard {
    fn schedule_expiration(&mut self, now: Now) {
        let deadline_ms = now.after_ms(self.config.offsets_retention_check_interval_ms);
        self.timers.schedule(GroupTimer::Expiration, deadline_ms);
    }
}
