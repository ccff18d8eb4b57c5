//! The data of a classic group and what can be asked of it. What moves it from state to state is
//! in the files beside this one.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use klamm_protocol::consumer_protocol::ConsumerProtocolSubscription;
use klamm_protocol::group_records::GroupMetadataValue;
use klamm_protocol::group_records::group_metadata_value::MemberMetadata;
use klamm_protocol::messages::describe_groups_response::DescribedGroup;
use klamm_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use klamm_protocol::messages::join_group_response::JoinGroupResponseMember;
use klamm_protocol::messages::list_groups_response::ListedGroup;
use klamm_protocol::{ByteStr, Decoder, ErrorCode, Message};

use super::member::{Member, MemberProtocol};
use super::state::ClassicState;
use crate::group::java;
use crate::runtime::ReplyToken;

/// The protocol type of consumers, as opposed to Connect workers and others.
pub const CONSUMER_PROTOCOL_TYPE: &str = "consumer";

/// What the timer of a group's join phase is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinTimer {
    /// The first rebalance of an empty group: wait `delay_ms`, and up to `remaining_ms` more for
    /// as long as members keep coming.
    Initial { delay_ms: i32, remaining_ms: i32 },
    /// The rebalance timeout.
    Rebalance,
}

/// A classic group.
///
/// Invariants: the leader is a member, or there are no members; `supported_protocols` counts the
/// protocols of all members; `join_waiters` counts the parked JoinGroups; a pending member is not
/// a member.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassicGroup {
    pub(super) id: ByteStr,
    pub(super) state: ClassicState,
    pub(super) previous_state: Option<ClassicState>,
    /// Wall time of the last change of state; none in records of old Kafka versions.
    pub(super) state_timestamp_ms: Option<i64>,
    pub(super) protocol_type: Option<ByteStr>,
    pub(super) protocol_name: Option<ByteStr>,
    pub(super) generation: i32,
    pub(super) leader: Option<ByteStr>,
    members: BTreeMap<ByteStr, Member>,
    static_members: BTreeMap<ByteStr, ByteStr>,
    pending_join: BTreeSet<ByteStr>,
    pub(super) pending_sync: BTreeSet<ByteStr>,
    join_waiters: usize,
    supported_protocols: BTreeMap<ByteStr, usize>,
    /// Topics that some member subscribes to; none if that is unknown.
    subscribed_topics: Option<BTreeSet<ByteStr>>,
    /// Whether a member came while the first rebalance was being waited for.
    pub(super) new_member_added: bool,
    pub(super) join_timer: Option<JoinTimer>,
}

impl ClassicGroup {
    /// An empty group without a protocol type, as the first commit of a simple consumer or the
    /// first JoinGroup makes it.
    pub fn new(id: ByteStr, now_wall_ms: i64) -> Self {
        ClassicGroup {
            id,
            state: ClassicState::Empty,
            previous_state: None,
            state_timestamp_ms: Some(now_wall_ms),
            protocol_type: None,
            protocol_name: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_join: BTreeSet::new(),
            pending_sync: BTreeSet::new(),
            join_waiters: 0,
            supported_protocols: BTreeMap::new(),
            subscribed_topics: None,
            new_member_added: false,
            join_timer: None,
        }
    }

    /// The group that a record describes: stable if it has members, else empty.
    pub fn from_record(id: ByteStr, value: &GroupMetadataValue) -> Self {
        let mut group = ClassicGroup::new(id, -1);
        group.state_timestamp_ms =
            (value.current_state_timestamp != -1).then_some(value.current_state_timestamp);
        group.generation = value.generation;
        group.protocol_type =
            (!value.protocol_type.is_empty()).then(|| value.protocol_type.detached());
        group.protocol_name = value.protocol.as_ref().map(ByteStr::detached);
        for member in &value.members {
            group.add(member_from_record(member, value), None);
        }
        if !group.members.is_empty() {
            group.state = ClassicState::Stable;
        }
        // Adding the members made one of them lead; the record says which one really does.
        if let Some(leader) = &value.leader
            && group.members.contains_key(&**leader)
        {
            group.leader = Some(leader.detached());
        }
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    /// The record value of the group's present generation. `assignment` gives what each member
    /// gets.
    pub(super) fn to_record(&self, assignment: impl Fn(&Member) -> Bytes) -> GroupMetadataValue {
        let subscription = |member: &Member| {
            self.protocol_name
                .as_ref()
                .and_then(|name| member.metadata(name))
                .cloned()
                .unwrap_or_default()
        };
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol_name.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_timestamp_ms.unwrap_or(-1),
            members: self
                .members
                .values()
                .map(|member| MemberMetadata {
                    member_id: member.id.clone(),
                    group_instance_id: member.instance_id.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    rebalance_timeout: member.rebalance_timeout_ms,
                    session_timeout: member.session_timeout_ms,
                    subscription: subscription(member),
                    assignment: assignment(member),
                    ..MemberMetadata::default()
                })
                .collect(),
            ..GroupMetadataValue::default()
        }
    }

    /// The record value that makes a group known before it has a generation.
    pub(in crate::group) fn to_empty_record(&self) -> GroupMetadataValue {
        GroupMetadataValue {
            protocol: None,
            leader: None,
            current_state_timestamp: self.state_timestamp_ms.unwrap_or(-1),
            ..GroupMetadataValue::default()
        }
    }

    /// Name of the group.
    pub fn id(&self) -> &ByteStr {
        &self.id
    }

    /// State of the group.
    pub fn state(&self) -> ClassicState {
        self.state
    }

    /// The generation; 0 before the first.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Member id of the leader.
    pub fn leader(&self) -> Option<&ByteStr> {
        self.leader.as_ref()
    }

    /// The kind of clients, `consumer` for consumers; none for a group that only holds offsets.
    pub fn protocol_type(&self) -> Option<&ByteStr> {
        self.protocol_type.as_ref()
    }

    /// The strategy that was voted for.
    pub fn protocol_name(&self) -> Option<&ByteStr> {
        self.protocol_name.as_ref()
    }

    /// Wall time of the last change of state.
    pub fn state_timestamp_ms(&self) -> Option<i64> {
        self.state_timestamp_ms
    }

    /// The members, in the order of their ids.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Member> {
        self.members.values()
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether the group is in the state Empty.
    pub fn is_empty(&self) -> bool {
        self.state == ClassicState::Empty
    }

    /// A member by its id.
    pub fn member(&self, member_id: &str) -> Option<&Member> {
        self.members.get(member_id)
    }

    pub(super) fn member_mut(&mut self, member_id: &str) -> Option<&mut Member> {
        self.members.get_mut(member_id)
    }

    /// The member that a static member's name stands for.
    pub fn static_member_id(&self, instance_id: &str) -> Option<&ByteStr> {
        self.static_members.get(instance_id)
    }

    /// Whether `member_id` was handed out and has not joined yet.
    pub fn is_pending(&self, member_id: &str) -> bool {
        self.pending_join.contains(member_id)
    }

    /// Ids that were handed out and not used yet.
    pub fn pending_members(&self) -> impl Iterator<Item = &ByteStr> {
        self.pending_join.iter()
    }

    pub(super) fn add_pending(&mut self, member_id: ByteStr) {
        self.pending_join.insert(member_id);
    }

    /// Whether `member_id` leads.
    pub fn is_leader(&self, member_id: &str) -> bool {
        self.leader
            .as_ref()
            .is_some_and(|leader| *leader == *member_id)
    }

    /// How many members wait for the generation to form.
    pub fn join_waiters(&self) -> usize {
        self.join_waiters
    }

    /// Whether nobody is left to wait for.
    pub(super) fn has_all_members_joined(&self) -> bool {
        self.members.len() == self.join_waiters && self.pending_join.is_empty()
    }

    /// The longest time that a member wants a rebalance to wait for it; 0 without members.
    pub fn rebalance_timeout_ms(&self) -> i32 {
        self.members
            .values()
            .map(|member| member.rebalance_timeout_ms)
            .fold(0, i32::max)
    }

    pub(super) fn add(&mut self, mut member: Member, awaiting_join: Option<ReplyToken>) {
        if let Some(instance_id) = &member.instance_id {
            self.static_members
                .insert(instance_id.clone(), member.id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        member.awaiting_join = awaiting_join;
        self.join_waiters += usize::from(awaiting_join.is_some());
        count_protocols(&mut self.supported_protocols, &member.protocols);
        self.pending_join.remove(&member.id);
        self.members.insert(member.id.clone(), member);
    }

    /// Removes a member or a pending member. Another member leads if it led.
    pub(super) fn remove(&mut self, member_id: &str) -> Option<Member> {
        let removed = self.members.remove(member_id);
        if let Some(member) = &removed {
            discount_protocols(&mut self.supported_protocols, &member.protocols);
            self.join_waiters -= usize::from(member.is_awaiting_join());
            if let Some(instance_id) = &member.instance_id {
                self.static_members.remove(instance_id);
            }
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending_join.remove(member_id);
        self.pending_sync.remove(member_id);
        removed
    }

    /// Renames a static member; it keeps everything but the requests that wait for an answer,
    /// which are returned.
    pub(super) fn rename_static(
        &mut self,
        instance_id: &str,
        old_id: &str,
        new_id: ByteStr,
    ) -> (Option<ReplyToken>, Option<ReplyToken>) {
        let Some(mut member) = self.members.remove(old_id) else {
            return (None, None);
        };
        let join = member.awaiting_join.take();
        let sync = member.awaiting_sync.take();
        self.join_waiters -= usize::from(join.is_some());
        member.id = new_id.clone();
        member.is_new = false;
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        if let Some(name) = self.static_members.get_mut(instance_id) {
            *name = new_id.clone();
        }
        self.members.insert(new_id, member);
        (join, sync)
    }

    /// Takes over what a JoinGroup says of a member. Returns the JoinGroup that it replaces.
    pub(super) fn update_member(
        &mut self,
        member_id: &str,
        protocols: Vec<MemberProtocol>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
        awaiting_join: Option<ReplyToken>,
    ) -> Option<ReplyToken> {
        let member = self.members.get_mut(member_id)?;
        discount_protocols(&mut self.supported_protocols, &member.protocols);
        count_protocols(&mut self.supported_protocols, &protocols);
        member.protocols = protocols;
        member.rebalance_timeout_ms = rebalance_timeout_ms;
        member.session_timeout_ms = session_timeout_ms;
        let replaced = member.awaiting_join;
        member.awaiting_join = awaiting_join;
        self.join_waiters -= usize::from(replaced.is_some());
        self.join_waiters += usize::from(awaiting_join.is_some());
        replaced
    }

    /// Takes the parked JoinGroup of a member, to answer it.
    pub(super) fn take_join(&mut self, member_id: &str) -> Option<ReplyToken> {
        let token = self.members.get_mut(member_id)?.awaiting_join.take()?;
        self.join_waiters -= 1;
        Some(token)
    }

    /// Picks a leader among those who joined if the present one did not. False if none joined.
    pub(super) fn elect_joined_leader(&mut self) -> bool {
        let Some(leader) = &self.leader else {
            return false;
        };
        let present = self.members.get(leader);
        if present.is_some_and(Member::is_awaiting_join) {
            return true;
        }
        let joined = self
            .members
            .values()
            .find(|member| member.is_awaiting_join());
        match joined {
            Some(member) => {
                self.leader = Some(member.id.clone());
                true
            }
            None => false,
        }
    }

    pub(super) fn transition(&mut self, next: ClassicState, now_wall_ms: i64) {
        debug_assert!(
            self.state.may_become(next),
            "group {} cannot go from {} to {next}",
            self.id,
            self.state
        );
        self.previous_state = Some(self.state);
        self.state = next;
        self.state_timestamp_ms = Some(now_wall_ms);
    }

    /// Starts the next generation with those who are members now.
    pub(super) fn start_generation(&mut self, now_wall_ms: i64) {
        self.generation = self.generation.wrapping_add(1);
        self.protocol_name = self.select_protocol();
        self.subscribed_topics = self.compute_subscribed_topics();
        let next = if self.members.is_empty() {
            ClassicState::Empty
        } else {
            ClassicState::CompletingRebalance
        };
        self.transition(next, now_wall_ms);
        self.pending_sync.clear();
    }

    /// Whether someone with these protocols may join.
    pub(super) fn supports(
        &self,
        protocol_type: &str,
        protocols: &[JoinGroupRequestProtocol],
    ) -> bool {
        if self.state == ClassicState::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let same_type = self
            .protocol_type
            .as_ref()
            .is_some_and(|ours| *ours == *protocol_type);
        same_type
            && protocols.iter().any(|protocol| {
                let supporters = self.supported_protocols.get(&*protocol.name);
                supporters.copied().unwrap_or(0) == self.members.len()
            })
    }

    /// The protocol with the most votes, each member voting for its favourite among those that
    /// all support. None without members.
    pub(super) fn select_protocol(&self) -> Option<ByteStr> {
        let mut votes: BTreeMap<&ByteStr, usize> = BTreeMap::new();
        for member in self.members.values() {
            let favourite = member.protocols.iter().find(|protocol| {
                self.supported_protocols.get(&protocol.name) == Some(&self.members.len())
            });
            if let Some(protocol) = favourite {
                *votes.entry(&protocol.name).or_default() += 1;
            }
        }
        let winner = votes.into_iter().max_by_key(|(name, count)| {
            (*count, std::cmp::Reverse(java::small_hash_map_bucket(name)))
        });
        winner.map(|(name, _)| name.clone())
    }

    /// The member list that the leader assigns from.
    pub(super) fn member_list(&self) -> Vec<JoinGroupResponseMember> {
        let protocol = self.protocol_name.as_deref().unwrap_or("");
        self.members
            .values()
            .map(|member| JoinGroupResponseMember {
                member_id: member.id.clone(),
                group_instance_id: member.instance_id.clone(),
                metadata: member.metadata(protocol).cloned().unwrap_or_default(),
                ..JoinGroupResponseMember::default()
            })
            .collect()
    }

    /// Checks that a request comes from a member, and from the one that a static name stands for.
    pub fn validate_member(
        &self,
        member_id: &str,
        instance_id: Option<&ByteStr>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if *current != *member_id => {
                    return Err(ErrorCode::FencedInstanceId);
                }
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(ErrorCode::UnknownMemberId)
        }
    }

    /// Checks that an OffsetCommit comes from a member of this generation, or from outside while
    /// the group has none.
    pub fn validate_offset_commit(
        &self,
        member_id: &str,
        instance_id: Option<&ByteStr>,
        generation: i32,
    ) -> Result<(), ErrorCode> {
        if generation < 0 && self.state == ClassicState::Empty {
            return Ok(());
        }
        if generation >= 0 || !member_id.is_empty() || instance_id.is_some() {
            self.validate_member(member_id, instance_id)?;
            if generation != self.generation {
                return Err(ErrorCode::IllegalGeneration);
            }
        } else if self.state != ClassicState::Empty {
            return Err(ErrorCode::UnknownMemberId);
        }
        if self.state == ClassicState::CompletingRebalance {
            // The member knows the new generation but nobody its assignment: let it rejoin.
            return Err(ErrorCode::RebalanceInProgress);
        }
        Ok(())
    }

    /// Whether members are consumers, whose subscriptions can be read.
    pub fn uses_consumer_protocol(&self) -> bool {
        self.protocol_type
            .as_ref()
            .is_some_and(|kind| *kind == *CONSUMER_PROTOCOL_TYPE)
    }

    /// Whether a member subscribes to `topic`. Unknown subscriptions of consumers count as yes.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            None => self.uses_consumer_protocol(),
        }
    }

    /// Whether the subscriptions of all members are known.
    pub fn knows_subscriptions(&self) -> bool {
        self.subscribed_topics.is_some()
    }

    fn compute_subscribed_topics(&self) -> Option<BTreeSet<ByteStr>> {
        if !self.uses_consumer_protocol() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol_name.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(consumer_topics(member.metadata(protocol)?)?);
        }
        Some(topics)
    }

    /// The entry of DescribeGroups.
    pub fn describe(&self) -> DescribedGroup {
        let protocol = match self.state {
            ClassicState::Stable => self.protocol_name.clone(),
            _ => None,
        };
        DescribedGroup {
            group_id: self.id.clone(),
            group_state: self.state.name().into(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: self
                .members
                .values()
                .map(|member| member.describe(protocol.as_deref()))
                .collect(),
            protocol_data: protocol.unwrap_or_default(),
            ..DescribedGroup::default()
        }
    }

    /// The entry of ListGroups.
    pub fn listed(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.clone(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            group_state: self.state.name().into(),
            group_type: "classic".into(),
            ..ListedGroup::default()
        }
    }
}

fn member_from_record(member: &MemberMetadata, value: &GroupMetadataValue) -> Member {
    let rebalance_timeout_ms = match member.rebalance_timeout {
        -1 => member.session_timeout,
        timeout_ms => timeout_ms,
    };
    Member {
        id: member.member_id.detached(),
        instance_id: member.group_instance_id.as_ref().map(ByteStr::detached),
        client_id: member.client_id.detached(),
        client_host: member.client_host.detached(),
        rebalance_timeout_ms,
        session_timeout_ms: member.session_timeout,
        protocols: vec![MemberProtocol {
            name: value
                .protocol
                .as_ref()
                .map(ByteStr::detached)
                .unwrap_or_default(),
            metadata: Bytes::copy_from_slice(&member.subscription),
        }],
        assignment: Bytes::copy_from_slice(&member.assignment),
        awaiting_join: None,
        awaiting_sync: None,
        is_new: false,
    }
}

/// The topics of a consumer's subscription. Every version begins with version 0, which is all
/// that is read: a newer client's additions do not matter here. None if it cannot be read.
fn consumer_topics(metadata: &Bytes) -> Option<Vec<ByteStr>> {
    let mut decoder = Decoder::new(metadata.clone());
    let version = decoder.i16().ok()?;
    if version < 0 {
        return None;
    }
    let subscription = ConsumerProtocolSubscription::decode(&mut decoder, 0).ok()?;
    Some(subscription.topics.iter().map(ByteStr::detached).collect())
}

fn count_protocols(counts: &mut BTreeMap<ByteStr, usize>, protocols: &[MemberProtocol]) {
    for protocol in protocols {
        *counts.entry(protocol.name.clone()).or_default() += 1;
    }
}

fn discount_protocols(counts: &mut BTreeMap<ByteStr, usize>, protocols: &[MemberProtocol]) {
    for protocol in protocols {
        if let Some(count) = counts.get_mut(&protocol.name) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&protocol.name);
            }
        }
    }
}
