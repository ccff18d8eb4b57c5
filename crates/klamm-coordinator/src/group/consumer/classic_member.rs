//! JoinGroup, SyncGroup and Heartbeat of members that speak the classic protocol in a consumer
//! group. The generation is the member's epoch; nobody leads, the coordinator assigns.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::consumer_protocol::ConsumerProtocolSubscription;
use klamm_protocol::group_records::consumer_group_member_metadata_value::{
    ClassicMemberMetadata, ClassicProtocol,
};
use klamm_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use klamm_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use klamm_protocol::{ByteStr, ErrorCode};

use bytes::Bytes;

use super::checks::{check_instance, unknown_instance};
use super::convert::{assignment_bytes, decode_versioned, version_of};
use super::group::ConsumerGroup;
use super::member::{ConsumerMember, MemberState};
use super::policy::MigrationPolicy;
use super::timers::ConsumerTimer;
use super::work::Work;
use super::{PROTOCOL_TYPE, Refusal};
use crate::group::cluster::TopicsView;
use crate::group::shard::{GroupEffects, GroupResponse, GroupShard};
use crate::group::{RequestContext, classic};
use crate::runtime::{Now, ReplyToken};

/// The version of JoinGroup from which a dynamic member must come back with the id it is given.
const KNOWN_MEMBER_ID_FROM: i16 = 4;

/// What a JoinGroup came to.
struct Joined {
    member: ConsumerMember,
    /// The member whose place it takes, if that makes the group a classic one, and whether the
    /// members must rejoin then.
    downgrade: Option<(ConsumerMember, bool)>,
}

impl GroupShard {
    pub(in crate::group) fn consumer_join_classic(
        &mut self,
        context: &RequestContext,
        request: &JoinGroupRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let group_id = request.group_id.detached();
        let is_unknown = request.member_id.is_empty();
        let member_id = match is_unknown {
            true => self.new_consumer_member_id(),
            false => request.member_id.detached(),
        };
        let response = match self.join_classic(context, request, &member_id, now, &mut out) {
            Ok(response) => response,
            Err(refusal) => {
                out.records.clear();
                out.completion = None;
                let named = if refusal.error == ErrorCode::MemberIdRequired {
                    member_id
                } else {
                    request.member_id.clone()
                };
                tracing::debug!(group = %group_id, reason = refusal.message, "a join is refused");
                classic::join_error(&named, refusal.error)
            }
        };
        out.deferred = Some((token, GroupResponse::JoinGroup(Box::new(response))));
        out
    }

    fn join_classic(
        &mut self,
        context: &RequestContext,
        request: &JoinGroupRequest,
        member_id: &ByteStr,
        now: Now,
        out: &mut GroupEffects,
    ) -> Result<JoinGroupResponse, Refusal> {
        let group_id = request.group_id.detached();
        if self.config.consumer_migration_policy == MigrationPolicy::Disabled {
            let message = format!(
                "Cannot join the consumer group {group_id} with the classic protocol because the \
                 group migration is disabled."
            );
            return Err(Refusal::new(ErrorCode::InconsistentGroupProtocol, message));
        }
        let former = request
            .group_instance_id
            .as_ref()
            .and_then(|name| self.consumer_group(&group_id)?.static_member(name).cloned());
        let downgrades = match (self.consumer_group(&group_id), &former) {
            (Some(group), Some(former)) => self.may_downgrade_with(group, former),
            _ => false,
        };
        let (joined, records) = self.with_consumer_group(&group_id, None, now, |work| {
            work.join_classic(context, request, member_id, downgrades)
        });
        out.records.extend(records);
        let joined = joined?;
        if let (Some((former, rebalance)), Some(group)) =
            (&joined.downgrade, self.consumer_group(&group_id))
        {
            self.downgrade_with(group, former, &joined.member, *rebalance, now, out);
        }
        let protocol_name = joined.member.classic_protocols().next();
        Ok(JoinGroupResponse {
            generation_id: joined.member.epoch,
            protocol_type: Some(PROTOCOL_TYPE.into()),
            protocol_name: protocol_name.map(|(name, _)| name.clone()),
            member_id: member_id.clone(),
            ..JoinGroupResponse::default()
        })
    }

    pub(in crate::group) fn consumer_sync_classic(
        &mut self,
        request: &SyncGroupRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let group_id = request.group_id.detached();
        let (result, _) =
            self.with_consumer_group(&group_id, None, now, |work| work.sync_classic(request));
        let response = match result {
            Ok(response) => GroupResponse::SyncGroup(Box::new(response)),
            Err(refusal) => GroupResponse::Refused(refusal.error),
        };
        GroupEffects {
            deferred: Some((token, response)),
            ..GroupEffects::default()
        }
    }

    pub(in crate::group) fn consumer_heartbeat_classic(
        &mut self,
        request: &HeartbeatRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let group_id = request.group_id.detached();
        let (result, _) =
            self.with_consumer_group(&group_id, None, now, |work| work.beat_classic(request));
        let response = match result {
            Ok(()) => GroupResponse::Done,
            Err(refusal) => GroupResponse::Refused(refusal.error),
        };
        GroupEffects {
            deferred: Some((token, response)),
            ..GroupEffects::default()
        }
    }
}

impl Work<'_> {
    fn join_classic(
        &mut self,
        context: &RequestContext,
        request: &JoinGroupRequest,
        member_id: &ByteStr,
        downgrades: bool,
    ) -> Result<Joined, Refusal> {
        self.check_size(member_id)?;
        let names = request.protocols.iter().map(|protocol| &protocol.name);
        if !self.group.supports_classic(&request.protocol_type, names) {
            let message = format!("Member {member_id}'s protocols are not supported.");
            return Err(Refusal::new(ErrorCode::InconsistentGroupProtocol, message));
        }
        let is_unknown = request.member_id.is_empty();
        let is_dynamic = request.group_instance_id.is_none();
        if is_dynamic && is_unknown && context.api_version >= KNOWN_MEMBER_ID_FROM {
            let message = "The member must come back with its id.";
            return Err(Refusal::new(ErrorCode::MemberIdRequired, message));
        }
        let former = request
            .group_instance_id
            .as_ref()
            .and_then(|name| self.group.static_member(name).cloned());
        let member = self.joining_classic(request, member_id)?;
        let subscription: ConsumerProtocolSubscription = request
            .protocols
            .first()
            .and_then(|protocol| decode_versioned(&protocol.metadata))
            .ok_or_else(|| {
                let message = "Malformed embedded consumer protocol.";
                Refusal::new(ErrorCode::UnknownServerError, message)
            })?;
        let updated = updated_member(&member, context, request, &subscription);
        let names_changed = self.note_member(&member, &updated);
        let regexes = self.update_regexes(&member, &updated)?;
        let bump = names_changed || regexes.is_updated();
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
        let owned = owned_partitions(&subscription, &*self.topics);
        // What the target gives may still be with others, who would learn of the classic group only
        // by their next heartbeats. Kafka gives it away all the same.
        let is_free = |former: &Arc<ConsumerMember>| self.group.is_reconciled_but_for(&former.id);
        let rebalance = downgrades
            && (self.group.assignment_epoch() < epoch || !former.as_ref().is_some_and(is_free));
        let updated = if rebalance {
            updated
        } else {
            let target = if downgrades {
                (self.group.assignment_epoch(), self.last_target(&updated))
            } else {
                self.update_target(epoch, &member, &updated, is_homogeneous)
            };
            self.reconcile(updated, target, bump, Some(&owned))?
        };
        self.cancel(ConsumerTimer::Join(member_id.clone()));
        if !downgrades {
            let session = ConsumerTimer::Session(member_id.clone());
            self.schedule(session, request.session_timeout_ms);
            let sync = ConsumerTimer::Sync(member_id.clone());
            self.schedule(sync, request.rebalance_timeout_ms);
        }
        let former = former.filter(|_| downgrades);
        Ok(Joined {
            member: updated,
            downgrade: former.map(|former| ((*former).clone(), rebalance)),
        })
    }

    fn joining_classic(
        &mut self,
        request: &JoinGroupRequest,
        member_id: &ByteStr,
    ) -> Result<ConsumerMember, Refusal> {
        let known = |group: &ConsumerGroup| match group.member(member_id) {
            Some(member) => (**member).clone(),
            None => ConsumerMember::new(member_id.clone()),
        };
        let Some(instance_id) = &request.group_instance_id else {
            return Ok(known(self.group));
        };
        match self.group.static_member(instance_id).cloned() {
            None if request.member_id.is_empty() => Ok(known(self.group)),
            None => Err(unknown_instance(instance_id)),
            Some(owner) if request.member_id.is_empty() => {
                Ok(self.replace_member(&owner, member_id))
            }
            Some(owner) => {
                check_instance(&owner, member_id, instance_id)?;
                Ok((*owner).clone())
            }
        }
    }

    fn sync_classic(&mut self, request: &SyncGroupRequest) -> Result<SyncGroupResponse, Refusal> {
        let instance_id = request.group_instance_id.as_ref();
        let member = self.classic_member(&request.member_id, instance_id, request.generation_id)?;
        let Some((own_protocol, metadata)) = member.classic_protocols().next() else {
            let message = "The member has no protocol.";
            return Err(Refusal::new(ErrorCode::InconsistentGroupProtocol, message));
        };
        let differs = |theirs: &Option<ByteStr>, ours: &str| {
            theirs.as_ref().is_some_and(|theirs| *theirs != *ours)
        };
        if differs(&request.protocol_type, PROTOCOL_TYPE)
            || differs(&request.protocol_name, own_protocol)
        {
            let message = "The protocol is not the one of the join.";
            return Err(Refusal::new(ErrorCode::InconsistentGroupProtocol, message));
        }
        if self.group.assignment_epoch() > member.epoch
            && member.state != MemberState::UnrevokedPartitions
        {
            let join = ConsumerTimer::Join(member.id.clone());
            self.schedule_if_absent(join, member.rebalance_timeout_ms);
            let message = "There is a new assignment: rejoin.";
            return Err(Refusal::new(ErrorCode::RebalanceInProgress, message));
        }
        self.cancel(ConsumerTimer::Sync(member.id.clone()));
        self.renew_classic_session(&member);
        let assigned = member.assigned_partitions();
        let version = version_of(metadata).unwrap_or(0);
        Ok(SyncGroupResponse {
            protocol_type: request.protocol_type.clone(),
            protocol_name: request.protocol_name.clone(),
            assignment: assignment_bytes(&assigned, version, &*self.topics),
            ..SyncGroupResponse::default()
        })
    }

    fn beat_classic(&mut self, request: &HeartbeatRequest) -> Result<(), Refusal> {
        let instance_id = request.group_instance_id.as_ref();
        let member = self.classic_member(&request.member_id, instance_id, request.generation_id)?;
        self.renew_classic_session(&member);
        let must_rejoin = member.epoch < self.group.assignment_epoch()
            || member.state == MemberState::UnrevokedPartitions
            || (member.state == MemberState::UnreleasedPartitions
                && !self.group.waits_for_unreleased(&member));
        if !must_rejoin {
            return Ok(());
        }
        let join = ConsumerTimer::Join(member.id.clone());
        self.schedule_if_absent(join, member.rebalance_timeout_ms);
        let message = "There is something to give up, or to get: rejoin.";
        Err(Refusal::new(ErrorCode::RebalanceInProgress, message))
    }

    fn renew_classic_session(&mut self, member: &ConsumerMember) {
        if let Some(classic) = &member.classic {
            let session = ConsumerTimer::Session(member.id.clone());
            self.schedule(session, classic.session_timeout_ms);
        }
    }

    /// The member that a request of the classic protocol is of.
    fn classic_member(
        &self,
        member_id: &str,
        instance_id: Option<&ByteStr>,
        generation: i32,
    ) -> Result<ConsumerMember, Refusal> {
        let member = match instance_id {
            None => self.group.known_member(member_id)?,
            Some(instance_id) => {
                let member = self.group.static_member(instance_id);
                let member = member.ok_or_else(|| unknown_instance(instance_id))?;
                check_instance(member, member_id, instance_id)?;
                member
            }
        };
        if !member.uses_classic_protocol() {
            let message = format!("Member {} does not use the classic protocol.", member.id);
            return Err(Refusal::new(ErrorCode::UnknownMemberId, message));
        }
        if member.epoch != generation {
            let message = format!(
                "The request generation id {generation} is not equal to the member epoch {} of \
                 member {}.",
                member.epoch, member.id
            );
            return Err(Refusal::new(ErrorCode::IllegalGeneration, message));
        }
        Ok((**member).clone())
    }
}

fn updated_member(
    member: &ConsumerMember,
    context: &RequestContext,
    request: &JoinGroupRequest,
    subscription: &ConsumerProtocolSubscription,
) -> ConsumerMember {
    let mut updated = member.clone();
    let instance_id = request.group_instance_id.as_ref().map(ByteStr::detached);
    updated.instance_id = instance_id.or(updated.instance_id);
    let rack_id = subscription
        .rack_id
        .as_ref()
        .filter(|rack| !rack.is_empty());
    updated.rack_id = rack_id.map(ByteStr::detached).or(updated.rack_id);
    if request.rebalance_timeout_ms != -1 {
        updated.rebalance_timeout_ms = request.rebalance_timeout_ms;
    }
    updated.subscribed_topic_names = subscription.topics.iter().map(ByteStr::detached).collect();
    updated.subscribed_topic_regex = Some(ByteStr::default());
    updated.client_id = context.client_id.detached();
    updated.client_host = context.client_host.detached();
    let protocols = request.protocols.iter().map(|protocol| ClassicProtocol {
        name: protocol.name.detached(),
        metadata: Bytes::copy_from_slice(&protocol.metadata),
        ..ClassicProtocol::default()
    });
    updated.classic = Some(ClassicMemberMetadata {
        session_timeout_ms: request.session_timeout_ms,
        supported_protocols: protocols.collect(),
        ..ClassicMemberMetadata::default()
    });
    updated
}

fn owned_partitions(
    subscription: &ConsumerProtocolSubscription,
    topics: &dyn TopicsView,
) -> Vec<TopicPartitions> {
    let mut owned: BTreeMap<_, Vec<i32>> = BTreeMap::new();
    for topic in &subscription.owned_partitions {
        if let Some(id) = topics.topic_id(&topic.topic) {
            owned.entry(id).or_default().extend(&topic.partitions);
        }
    }
    let owned = owned
        .into_iter()
        .map(|(topic_id, partitions)| TopicPartitions {
            topic_id,
            partitions,
            ..TopicPartitions::default()
        });
    owned.collect()
}
