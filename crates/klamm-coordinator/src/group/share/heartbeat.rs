//! ShareGroupHeartbeat (key 76): joining and staying.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_protocol::messages::share_group_heartbeat_request::ShareGroupHeartbeatRequest;
use klamm_protocol::messages::share_group_heartbeat_response::{
    Assignment, ShareGroupHeartbeatResponse, TopicPartitions,
};
use klamm_protocol::{ByteStr, ErrorCode};

use super::assignor::{self, Reader};
use super::group::ShareGroup;
use super::member::ShareMember;
use super::offsets::OffsetsToInitialize;
use super::record::RecordsOf;
use super::states::{TopicStates, Topics};
use crate::group::RequestContext;
use crate::group::cluster::{ShareGroupSettings, TopicsView, is_assignment_due};
use crate::group::consumer::{MetadataRefresh, Partitions, Refusal};
use crate::group::java;
use crate::group::record::GroupRecord;
use crate::group::shard::{Group, GroupEffects, GroupResponse, GroupShard, GroupTimer};
use crate::metrics::GroupMetrics;
use crate::runtime::{Now, ReplyToken};

/// The epoch with which a member joins.
pub(super) const JOIN_EPOCH: i32 = 0;
/// The epoch with which a member leaves.
pub(super) const LEAVE_EPOCH: i32 = -1;
/// How long the hash of a group's topics is good for, as long as nothing is known to have changed.
const REFRESH_MAX_MS: i64 = i32::MAX as i64;

/// Checks what a heartbeat says of itself.
pub(in crate::group) fn check_share_request(
    request: &ShareGroupHeartbeatRequest,
) -> Result<(), Refusal> {
    let invalid = |message: &str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    let is_blank = |text: &str| text.chars().all(|c| c <= ' ');
    if is_blank(&request.member_id) {
        return invalid("MemberId can't be empty.");
    }
    if is_blank(&request.group_id) {
        return invalid("GroupId can't be empty.");
    }
    if request.rack_id.as_ref().is_some_and(|id| is_blank(id)) {
        return invalid("RackId can't be empty.");
    }
    if request.member_epoch == JOIN_EPOCH {
        let names = request.subscribed_topic_names.as_ref();
        if names.is_none_or(Vec::is_empty) {
            return invalid("SubscribedTopicNames must be set in first request.");
        }
    } else if request.member_epoch < LEAVE_EPOCH {
        return invalid("MemberEpoch is invalid.");
    }
    Ok(())
}

/// A heartbeat's answer that refuses.
pub(in crate::group) fn share_heartbeat_error(refusal: Refusal) -> ShareGroupHeartbeatResponse {
    ShareGroupHeartbeatResponse {
        error_code: refusal.error.into(),
        error_message: Some(refusal.message.into()),
        ..ShareGroupHeartbeatResponse::default()
    }
}

impl GroupShard {
    /// Handles a heartbeat whose form was checked.
    pub(in crate::group) fn share_heartbeat(
        &mut self,
        context: &RequestContext,
        request: &ShareGroupHeartbeatRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let handled = match request.member_epoch {
            LEAVE_EPOCH => self
                .share_leave(request, &mut out)
                .map(|response| (response, None)),
            _ => self.share_beat(context, request, now, &mut out),
        };
        let (response, initialize) = handled.unwrap_or_else(|refusal| {
            out.records.clear();
            out.completion = None;
            (share_heartbeat_error(refusal), None)
        });
        let response = GroupResponse::ShareHeartbeat(Box::new(response), initialize);
        out.deferred = Some((token, response));
        out
    }

    fn share_beat(
        &mut self,
        context: &RequestContext,
        request: &ShareGroupHeartbeatRequest,
        now: Now,
        out: &mut GroupEffects,
    ) -> Result<(ShareGroupHeartbeatResponse, Option<OffsetsToInitialize>), Refusal> {
        let group_id = request.group_id.detached();
        let settings = self.cluster.share_settings(&group_id);
        let fresh;
        let group = match self.groups.get(&group_id) {
            Some(Group::Share(group)) => &**group,
            None if request.member_epoch == JOIN_EPOCH => {
                fresh = ShareGroup::new(group_id.clone());
                &fresh
            }
            None => {
                let message = format!("Share group {group_id} not found.");
                return Err(Refusal::new(ErrorCode::GroupIdNotFound, message));
            }
            Some(_) => return Err(self.no_share_group(&group_id)),
        };
        check_size(group, request, self.config.share_max_size)?;
        let topics = self.cluster.topics();
        let mut beat = Beat {
            group,
            topics: &*topics,
            settings,
            now,
            metrics: &self.metrics,
            records: Vec::new(),
        };
        let member = beat.member_for(request)?;
        let updated = updated_member(&member, context, request);
        let subscribed = group.subscribed(Some(&updated), None);
        let hash = || {
            let hashes = &mut self.topic_hashes;
            hashes.group_hash(subscribed.iter(), &*topics)
        };
        let (epoch, bumped, refreshed) = beat.update_epoch(&member, &updated, hash);
        let target = beat.update_target(epoch, &updated);
        let updated = beat.reconcile(updated, target, bumped);
        let initialize = beat.begin_initializing(epoch, &subscribed, self.config.share_retry_ms);
        out.records.append(&mut beat.records);

        let tells = request.member_epoch == JOIN_EPOCH
            || request.subscribed_topic_names.is_some()
            || member.assigned != updated.assigned;
        let response = ShareGroupHeartbeatResponse {
            member_id: Some(updated.id.clone()),
            member_epoch: updated.epoch,
            heartbeat_interval_ms: settings.heartbeat_interval_ms,
            assignment: tells.then(|| assignment(&updated.assigned)),
            ..ShareGroupHeartbeatResponse::default()
        };
        let session = GroupTimer::ShareSession(group_id.clone(), updated.id);
        let deadline_ms = now.after_ms(i64::from(settings.session_timeout_ms));
        self.timers.schedule(session, deadline_ms);
        if let (Some(refreshed), Some(Group::Share(group))) =
            (refreshed, self.groups.get_mut(&group_id))
        {
            group.refresh = Some(refreshed);
        }
        Ok((response, initialize))
    }

    pub(super) fn no_share_group(&self, group_id: &str) -> Refusal {
        let message = if self.groups.contains_key(group_id) {
            format!("Group {group_id} is not a share group.")
        } else {
            format!("Group {group_id} not found.")
        };
        Refusal::new(ErrorCode::GroupIdNotFound, message)
    }
}

fn check_size(
    group: &ShareGroup,
    request: &ShareGroupHeartbeatRequest,
    max: usize,
) -> Result<(), Refusal> {
    if group.members().len() < max || group.member(&request.member_id).is_some() {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::GroupMaxSizeReached,
        format!("The share group has reached its maximum capacity of {max} members."),
    ))
}

/// The member with what a heartbeat says; what it does not say stays as it was.
fn updated_member(
    member: &ShareMember,
    context: &RequestContext,
    request: &ShareGroupHeartbeatRequest,
) -> ShareMember {
    let mut updated = member.clone();
    let rack_id = request.rack_id.as_ref().map(ByteStr::detached);
    updated.rack_id = rack_id.or(updated.rack_id);
    if let Some(names) = &request.subscribed_topic_names {
        updated.subscribed_topic_names = names.iter().map(ByteStr::detached).collect();
    }
    updated.client_id = context.client_id.detached();
    updated.client_host = context.client_host.detached();
    updated
}

fn assignment(assigned: &Partitions) -> Assignment {
    let topics = assigned
        .iter()
        .map(|(topic_id, partitions)| TopicPartitions {
            topic_id: *topic_id,
            partitions: partitions.iter().copied().collect(),
            ..TopicPartitions::default()
        });
    Assignment {
        topic_partitions: topics.collect(),
        ..Assignment::default()
    }
}

/// A group together with what a heartbeat needs. Nothing of the group is changed here: what is to
/// be changed goes into `records`.
struct Beat<'a> {
    group: &'a ShareGroup,
    topics: &'a dyn TopicsView,
    settings: ShareGroupSettings,
    now: Now,
    metrics: &'a GroupMetrics,
    records: Vec<GroupRecord>,
}

impl<'a> Beat<'a> {
    fn record(&self) -> RecordsOf<'a> {
        RecordsOf(&self.group.id)
    }

    /// The member that a heartbeat is of, as it is before; a new one if it joins.
    fn member_for(&self, request: &ShareGroupHeartbeatRequest) -> Result<ShareMember, Refusal> {
        let epoch = request.member_epoch;
        let member = match self.group.known_member(&request.member_id) {
            Ok(member) => (**member).clone(),
            Err(_) if epoch == JOIN_EPOCH => ShareMember::new(request.member_id.detached()),
            Err(refusal) => return Err(refusal),
        };
        if epoch == JOIN_EPOCH || epoch == member.epoch || epoch == member.previous_epoch {
            return Ok(member);
        }
        let message = if epoch > member.epoch {
            format!(
                "The share group member has a greater member epoch ({epoch}) than the one known \
                 by the group coordinator ({}). The member must abandon all its partitions and \
                 rejoin.",
                member.epoch
            )
        } else {
            format!(
                "The share group member has a smaller member epoch ({epoch}) than the one known \
                 by the group coordinator ({}), and it does not match the previous member epoch \
                 ({}). The member must abandon all its partitions and rejoin.",
                member.epoch, member.previous_epoch
            )
        };
        Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
    }

    /// Writes what changed of the member, and a new group epoch if that, the topics or their share
    /// states call for one. Returns the epoch, whether it is new, and whether the topics were
    /// looked at.
    fn update_epoch(
        &mut self,
        member: &ShareMember,
        updated: &ShareMember,
        hash: impl FnOnce() -> i64,
    ) -> (i32, bool, Option<MetadataRefresh>) {
        if updated != member {
            self.records.push(self.record().member(updated));
        }
        let group = self.group;
        let is_assigned = group.assignment_epoch >= group.epoch;
        let mut bumped = updated.subscribed_topic_names != member.subscribed_topic_names
            || (is_assigned && group.has_unassigned_states());
        let version = self.topics.version();
        if !bumped && !group.needs_refresh(self.now.wall_ms, version) {
            return (group.epoch, false, None);
        }
        let hash = hash();
        bumped |= hash != group.metadata_hash;
        let mut epoch = group.epoch;
        if bumped {
            epoch = epoch.wrapping_add(1);
            self.records.push(self.record().epoch(epoch, hash));
            self.metrics.share_rebalances.increment();
        }
        let refreshed = MetadataRefresh {
            deadline_ms: self.now.wall_ms.saturating_add(REFRESH_MAX_MS),
            epoch,
            image_version: version,
        };
        (epoch, bumped, Some(refreshed))
    }

    /// Makes a target for `epoch` if there is none yet and the last one is old enough. Returns the
    /// epoch of the target and what it gives the member.
    fn update_target(&mut self, epoch: i32, updated: &ShareMember) -> (i32, Arc<Partitions>) {
        let group = self.group;
        if group.assignment_epoch >= epoch || !self.may_assign() {
            let target = group.target(&updated.id).cloned();
            return (group.assignment_epoch, target.unwrap_or_default());
        }
        let others = group.members().filter(|member| member.id != updated.id);
        let members: Vec<&ShareMember> = others.map(|member| &**member).chain([updated]).collect();
        let targets = assignor::assign(&self.readers(&members), &self.assignable());
        let ids: Vec<ByteStr> = members.iter().map(|member| member.id.clone()).collect();
        let ids = java::hash_map_order(ids, java::HASH_MAP_CAPACITY, |id| java::string_hash(id));
        for id in &ids {
            let Some(target) = targets.get(id) else {
                continue;
            };
            if group.target(id).is_none_or(|old| **old != *target) {
                self.records.push(self.record().target(id, target));
            }
        }
        self.records
            .push(self.record().assignment(epoch, self.now.wall_ms));
        let own = targets.get(&updated.id).cloned().unwrap_or_default();
        (epoch, Arc::new(own))
    }

    fn readers(&self, members: &[&ShareMember]) -> Vec<Reader> {
        let readers = members.iter().map(|member| {
            let names = member.subscribed_topic_names.iter();
            let target = self.group.target(&member.id);
            Reader {
                id: member.id.clone(),
                topics: names
                    .filter_map(|name| self.topics.topic_id(name))
                    .collect(),
                assigned: target.map(|target| (**target).clone()).unwrap_or_default(),
            }
        });
        readers.collect()
    }

    /// Partitions that have share state, of topics that exist.
    fn assignable(&self) -> Partitions {
        let states = self.group.states.iter();
        let initialized = states.flat_map(|states| &states.initialized);
        initialized
            .filter(|(id, _)| self.topics.topic_name(**id).is_some())
            .map(|(id, topic)| (*id, topic.partitions.clone()))
            .collect()
    }

    fn may_assign(&self) -> bool {
        let made_ms = self.group.assignment_timestamp_ms;
        is_assignment_due(made_ms, self.settings.assignment_interval_ms, self.now)
    }

    /// Gives a member what the target says.
    fn reconcile(
        &mut self,
        updated: ShareMember,
        (target_epoch, target): (i32, Arc<Partitions>),
        bumped: bool,
    ) -> ShareMember {
        if target_epoch == updated.epoch && !bumped {
            return updated;
        }
        let mut reconciled = updated.clone();
        reconciled.assigned = target
            .iter()
            .filter(|(id, _)| {
                let name = self.topics.topic_name(**id);
                name.is_some_and(|name| updated.subscribed_topic_names.contains(&name))
            })
            .map(|(id, partitions)| (*id, partitions.clone()))
            .collect();
        if target_epoch != updated.epoch {
            reconciled.previous_epoch = updated.epoch;
            reconciled.epoch = target_epoch;
        }
        if reconciled != updated {
            self.records.push(self.record().current(&reconciled));
        }
        reconciled
    }

    /// Notes which partitions need share state, and returns them to have it made.
    fn begin_initializing(
        &mut self,
        epoch: i32,
        subscribed: &BTreeSet<ByteStr>,
        retry_ms: i64,
    ) -> Option<OffsetsToInitialize> {
        let present = self.group.states.as_deref();
        let mut wanted = Topics::new();
        for name in subscribed {
            let id = self.topics.topic_id(name);
            let Some((id, count)) = id.zip(self.topics.partition_count(name)) else {
                continue;
            };
            let mut partitions: BTreeSet<i32> = (0..count).collect();
            if let Some(present) = present {
                // One that began in the future did so by the clock of another coordinator, which is
                // no reason to wait for that time.
                let initializing = present.initializing.get(&id).filter(|topic| {
                    (0..retry_ms).contains(&self.now.wall_ms.saturating_sub(topic.since_ms))
                });
                for topic in present.initialized.get(&id).into_iter().chain(initializing) {
                    partitions.retain(|partition| !topic.partitions.contains(partition));
                }
            }
            if !partitions.is_empty() {
                let topic = TopicStates {
                    name: name.clone(),
                    partitions,
                    since_ms: self.now.wall_ms,
                };
                wanted.insert(id, topic);
            }
        }
        if wanted.is_empty() {
            return None;
        }
        let mut states = present.cloned().unwrap_or_default();
        states.begin_initializing(&wanted);
        self.records.push(self.record().states(Some(&states)));
        let topics = wanted.into_iter().map(|(id, topic)| {
            let partitions = topic.partitions.iter().map(|p| (*p, -1));
            (id, (topic.name.clone(), partitions.collect()))
        });
        Some(OffsetsToInitialize {
            state_epoch: epoch,
            topics: topics.collect::<BTreeMap<_, _>>(),
        })
    }
}
