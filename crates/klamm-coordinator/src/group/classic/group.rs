//! The data of a classic group and what can be asked of it. What moves it from state to state is
//! in the files beside this one.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ByteStr;

use super::member::{Member, MemberProtocol};
use super::state::ClassicState;
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
    pub(super) members: BTreeMap<ByteStr, Member>,
    pub(super) static_members: BTreeMap<ByteStr, ByteStr>,
    pending_join: BTreeSet<ByteStr>,
    pub(super) pending_sync: BTreeSet<ByteStr>,
    join_waiters: usize,
    pub(super) supported_protocols: BTreeMap<ByteStr, usize>,
    /// Topics that some member subscribes to; none if that is unknown.
    pub(super) subscribed_topics: Option<BTreeSet<ByteStr>>,
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
    pub fn member_count(&self) -> usize {
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
