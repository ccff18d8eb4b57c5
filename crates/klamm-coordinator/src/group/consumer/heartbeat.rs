//! ConsumerGroupHeartbeat (key 68), versions 0-1: joining and staying.

use klamm_protocol::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use klamm_protocol::messages::consumer_group_heartbeat_response::{
    Assignment, ConsumerGroupHeartbeatResponse, TopicPartitions as AssignedPartitions,
};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use super::Refusal;
use super::checks::{check_epoch, check_instance, check_released, unknown_instance};
use super::group::ConsumerGroup;
use super::member::{ConsumerMember, JOIN_EPOCH, LEAVE_EPOCH, OwnedPartitions, STATIC_LEAVE_EPOCH};
use super::timers::ConsumerTimer;
use super::work::Work;
use crate::group::RequestContext;
use crate::group::record::GroupRecord;
use crate::group::shard::{Group, GroupEffects, GroupResponse, GroupShard};
use crate::runtime::{Now, ReplyToken};

impl GroupShard {
    /// Handles a heartbeat whose form was checked.
    pub(in crate::group) fn consumer_heartbeat(
        &mut self,
        context: &RequestContext,
        request: &ConsumerGroupHeartbeatRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let handled = match request.member_epoch {
            LEAVE_EPOCH | STATIC_LEAVE_EPOCH => self.consumer_leave(request, now, &mut out),
            _ => self.consumer_beat(context, request, now, &mut out),
        };
        let response = match handled {
            Ok(response) => response,
            Err(refusal) => {
                // What was to be written for the request is not, replies to others stand.
                out.records.clear();
                out.completion = None;
                heartbeat_error(refusal)
            }
        };
        out.deferred = Some((token, GroupResponse::ConsumerHeartbeat(Box::new(response))));
        out
    }

    fn consumer_beat(
        &mut self,
        context: &RequestContext,
        request: &ConsumerGroupHeartbeatRequest,
        now: Now,
        out: &mut GroupEffects,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        let is_joining = request.member_epoch == JOIN_EPOCH;
        let group_id = request.group_id.detached();
        let new_id = match request.member_id.is_empty() {
            true => self.new_consumer_member_id(),
            false => request.member_id.detached(),
        };
        let upgraded = self.consumer_group_for(&group_id, is_joining, now, out)?;
        let result = self.with_consumer_group(&group_id, upgraded.as_ref(), now, |work| {
            work.beat(context, request, &new_id, upgraded.is_some())
        });
        let (result, records) = result;
        out.records.extend(records);
        result
    }

    pub(super) fn new_consumer_member_id(&self) -> ByteStr {
        loop {
            if let Some(id) = Uuid::from_random(self.rng.next_16_bytes()) {
                return id.to_string().into();
            }
        }
    }

    /// Runs something on a group: the one of this name, or `other` instead. Returns the records
    /// that it made, and notes in the group when its topics were looked at.
    pub(in crate::group) fn with_consumer_group<T>(
        &mut self,
        group_id: &ByteStr,
        other: Option<&ConsumerGroup>,
        now: Now,
        run: impl FnOnce(&mut Work<'_>) -> T,
    ) -> (T, Vec<GroupRecord>) {
        let nobody;
        let group = match (other, self.groups.get(group_id)) {
            (Some(other), _) => other,
            (None, Some(Group::Consumer(present))) => present,
            (None, _) => {
                nobody = ConsumerGroup::new(group_id.clone());
                &nobody
            }
        };
        let mut work = Work {
            group,
            topics: self.cluster.topics(),
            hashes: &mut self.topic_hashes,
            config: &self.config,
            settings: self.cluster.consumer_settings(group_id),
            timers: &mut self.timers,
            metrics: &self.metrics,
            now,
            records: Vec::new(),
            refreshed: None,
        };
        let result = run(&mut work);
        let (records, refreshed) = (work.records, work.refreshed);
        if let (Some(refreshed), Some(Group::Consumer(present))) =
            (refreshed, self.groups.get_mut(group_id))
            && other.is_none()
        {
            present.refresh = Some(refreshed);
        }
        (result, records)
    }
}

impl Work<'_> {
    /// One heartbeat of a member that joins or stays, or makes a consumer group of a classic one.
    fn beat(
        &mut self,
        context: &RequestContext,
        request: &ConsumerGroupHeartbeatRequest,
        member_id: &ByteStr,
        upgrades: bool,
    ) -> Result<ConsumerGroupHeartbeatResponse, Refusal> {
        self.check_size(&request.member_id)?;
        let owned = request.topic_partitions.as_deref();
        let member = self.member_for(request, member_id)?;
        let updated = updated_member(&member, context, request);
        let names_changed = self.note_member(&member, &updated);
        let regexes = self.update_regexes(&member, &updated)?;
        // The classic group may have been about to give out what nobody has. A static member that
        // takes its former self's place changes nothing else, and Kafka's group stays like that.
        let bump = upgrades || names_changed || regexes.is_resolved();
        let mut epoch = self.group.epoch();
        let mut is_homogeneous = self
            .group
            .subscriptions
            .is_homogeneous(self.group.member_count());
        if bump
            || self
                .group
                .needs_refresh(self.now.wall_ms, self.topics.version())
        {
            (epoch, is_homogeneous) = self.update_metadata(bump, &member, &updated);
        }
        let target = self.update_target(epoch, &member, &updated, is_homogeneous);
        let changed = names_changed || regexes.is_updated();
        let updated = self.reconcile(updated, target, changed, owned)?;
        let session = ConsumerTimer::Session(updated.id.clone());
        self.schedule(session, self.settings.session_timeout_ms);

        // A client that says all gets all: it may have lost an answer, or its memory.
        let is_full = request.rebalance_timeout_ms != -1
            && (request.subscribed_topic_names.is_some()
                || request.subscribed_topic_regex.is_some())
            && owned.is_some();
        let tells =
            request.member_epoch == JOIN_EPOCH || is_full || member.assigned != updated.assigned;
        Ok(ConsumerGroupHeartbeatResponse {
            member_id: Some(updated.id.clone()),
            member_epoch: updated.epoch,
            heartbeat_interval_ms: self.settings.heartbeat_interval_ms,
            assignment: tells.then(|| assignment(&updated.assigned)),
            ..ConsumerGroupHeartbeatResponse::default()
        })
    }

    pub(super) fn check_size(&self, member_id: &str) -> Result<(), Refusal> {
        let max = self.config.consumer_max_size;
        if self.group.member_count() < max || self.group.member(member_id).is_some() {
            return Ok(());
        }
        Err(Refusal::new(
            ErrorCode::GroupMaxSizeReached,
            format!("The consumer group has reached its maximum capacity of {max} members."),
        ))
    }

    /// The member that a heartbeat is of, as it is before; a new one if it joins.
    fn member_for(
        &mut self,
        request: &ConsumerGroupHeartbeatRequest,
        member_id: &ByteStr,
    ) -> Result<ConsumerMember, Refusal> {
        let epoch = request.member_epoch;
        let is_joining = epoch == JOIN_EPOCH;
        let owned = request.topic_partitions.as_deref();
        let Some(instance_id) = &request.instance_id else {
            let member = match self.group.known_member(member_id) {
                Ok(member) => (**member).clone(),
                Err(_) if is_joining => ConsumerMember::new(member_id.clone()),
                Err(refusal) => return Err(refusal),
            };
            check_epoch(&member, epoch, owned)?;
            return Ok(member);
        };
        let owner = self.group.static_member(instance_id).cloned();
        if is_joining {
            return match owner {
                None => Ok(match self.group.member(member_id) {
                    Some(member) => (**member).clone(),
                    None => ConsumerMember::new(member_id.clone()),
                }),
                Some(owner) => {
                    if !owner.uses_classic_protocol() {
                        check_released(&owner, member_id, instance_id)?;
                    }
                    Ok(self.replace_member(&owner, member_id))
                }
            };
        }
        let owner = owner.ok_or_else(|| unknown_instance(instance_id))?;
        check_instance(&owner, member_id, instance_id)?;
        check_epoch(&owner, epoch, owned)?;
        Ok((*owner).clone())
    }

    /// Puts a static member that came back in the place of its former self.
    pub(super) fn replace_member(
        &mut self,
        former: &ConsumerMember,
        member_id: &ByteStr,
    ) -> ConsumerMember {
        let member = ConsumerMember {
            id: member_id.clone(),
            epoch: JOIN_EPOCH,
            previous_epoch: 0,
            ..former.clone()
        };
        let target = self.group.target(&former.id).cloned().unwrap_or_default();
        self.records.extend(self.record().removal(&former.id));
        self.records.push(self.record().member(&member));
        self.records.push(self.record().target(member_id, &target));
        self.records.push(self.record().current(&member));
        member
    }

    /// Writes what a member says of itself if it is new. Tells whether it subscribes to other
    /// topics by name.
    pub(super) fn note_member(
        &mut self,
        member: &ConsumerMember,
        updated: &ConsumerMember,
    ) -> bool {
        if updated == member {
            return false;
        }
        self.records.push(self.record().member(updated));
        updated.subscribed_topic_names != member.subscribed_topic_names
    }
}

/// The member with what a heartbeat says; what it does not say stays as it was.
fn updated_member(
    member: &ConsumerMember,
    context: &RequestContext,
    request: &ConsumerGroupHeartbeatRequest,
) -> ConsumerMember {
    let mut updated = member.clone();
    let detached = |text: &Option<ByteStr>| text.as_ref().map(ByteStr::detached);
    updated.instance_id = detached(&request.instance_id).or(updated.instance_id);
    updated.rack_id = detached(&request.rack_id).or(updated.rack_id);
    updated.server_assignor = detached(&request.server_assignor).or(updated.server_assignor);
    if request.rebalance_timeout_ms != -1 {
        updated.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    if let Some(names) = &request.subscribed_topic_names {
        updated.subscribed_topic_names = names.iter().map(ByteStr::detached).collect();
    }
    if let Some(regex) = &request.subscribed_topic_regex {
        updated.subscribed_topic_regex = Some(regex.detached());
    }
    updated.client_id = context.client_id.detached();
    updated.client_host = context.client_host.detached();
    updated.classic = None;
    updated
}

fn assignment(assigned: &OwnedPartitions) -> Assignment {
    let topics = assigned
        .iter()
        .map(|(topic_id, partitions)| AssignedPartitions {
            topic_id: *topic_id,
            partitions: partitions.keys().copied().collect(),
            ..AssignedPartitions::default()
        });
    Assignment {
        topic_partitions: topics.collect(),
        ..Assignment::default()
    }
}

/// A heartbeat's answer that refuses.
pub(in crate::group) fn heartbeat_error(refusal: Refusal) -> ConsumerGroupHeartbeatResponse {
    ConsumerGroupHeartbeatResponse {
        error_code: refusal.error.into(),
        error_message: Some(refusal.message.into()),
        ..ConsumerGroupHeartbeatResponse::default()
    }
}
