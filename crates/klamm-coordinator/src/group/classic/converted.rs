//! Classic groups that consumer groups become, and what those ask of the ones they are made of.

use bytes::Bytes;
use klamm_protocol::group_records::GroupMetadataValue;
use klamm_protocol::{ByteStr, Decoder};

use super::group::{CONSUMER_PROTOCOL_TYPE, ClassicGroup};
use super::machine::Machine;
use super::member::{Member, MemberProtocol};
use super::state::ClassicState;

impl Member {
    /// A member that is in a generation already.
    pub(in crate::group) fn known(
        id: ByteStr,
        instance_id: Option<ByteStr>,
        (client_id, client_host): (ByteStr, ByteStr),
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
        protocols: Vec<MemberProtocol>,
    ) -> Self {
        Member {
            id,
            instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms,
            session_timeout_ms,
            protocols,
            assignment: Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
        }
    }
}

impl ClassicGroup {
    /// A stable group of consumers.
    pub(in crate::group) fn stable(
        id: ByteStr,
        generation: i32,
        members: Vec<Member>,
        now_wall_ms: i64,
    ) -> Self {
        let mut group = ClassicGroup::new(id, now_wall_ms);
        group.state = ClassicState::Stable;
        group.generation = generation;
        group.protocol_type = Some(CONSUMER_PROTOCOL_TYPE.into());
        for member in members {
            group.add(member, None);
        }
        group.protocol_name = group.select_protocol();
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    /// The version of what the member says to the leader; 0 if it says nothing.
    pub(in crate::group) fn subscription_version(&self, member_id: &str) -> i16 {
        let protocol = self.protocol_name.as_deref().unwrap_or_default();
        self.member(member_id)
            .and_then(|member| member.metadata(protocol))
            .and_then(|metadata| Decoder::new(metadata.clone()).i16().ok())
            .unwrap_or(0)
    }

    /// Sets what a member has.
    pub(in crate::group) fn assign(&mut self, member_id: &str, assignment: Bytes) {
        if let Some(member) = self.member_mut(member_id) {
            member.assignment = assignment;
        }
    }

    /// The value of the group's record.
    pub(in crate::group) fn record(&self) -> GroupMetadataValue {
        self.to_record(|member| member.assignment.clone())
    }

    /// The protocol that the members work by; before the first generation, the one that they
    /// would vote for.
    pub(in crate::group) fn working_protocol(&self) -> Option<ByteStr> {
        self.protocol_name
            .clone()
            .or_else(|| self.select_protocol())
    }
}

impl Machine<'_> {
    /// The group was a consumer group until now: its members' sessions start anew.
    pub(in crate::group) fn taken_over(&mut self, rebalance: bool) {
        let ids: Vec<ByteStr> = self
            .group
            .members()
            .map(|member| member.id.clone())
            .collect();
        for id in ids {
            self.renew_session(&id);
        }
        if rebalance && self.group.state == ClassicState::Stable {
            self.prepare_rebalance();
        }
    }
}
