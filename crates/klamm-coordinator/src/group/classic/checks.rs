//! What a group tells of itself to decide a request: protocols, votes, membership, subscriptions.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use klamm_protocol::consumer_protocol::ConsumerProtocolSubscription;
use klamm_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use klamm_protocol::messages::join_group_response::JoinGroupResponseMember;
use klamm_protocol::{ByteStr, Decoder, ErrorCode, Message};

use super::group::{CONSUMER_PROTOCOL_TYPE, ClassicGroup};
use super::state::ClassicState;
use crate::group::java;

impl ClassicGroup {
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

    /// Whether offsets may be committed in a transaction: a producer may, but need not, say which
    /// member it acts for.
    pub fn validate_txn_offset_commit(
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

    pub(super) fn compute_subscribed_topics(&self) -> Option<BTreeSet<ByteStr>> {
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
