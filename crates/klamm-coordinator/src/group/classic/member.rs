use bytes::Bytes;
use klamm_protocol::ByteStr;
use klamm_protocol::messages::describe_groups_response::DescribedGroupMember;
use klamm_protocol::messages::join_group_request::JoinGroupRequestProtocol;

use crate::runtime::ReplyToken;

/// One way of assigning work that a member understands, and what it has to say for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberProtocol {
    /// Name of the assignment strategy.
    pub name: ByteStr,
    /// The member's words to the leader, opaque here but for the topics of consumers.
    pub metadata: Bytes,
}

impl MemberProtocol {
    /// Copies what a request says, so that the request's frame is not kept alive.
    pub fn list(protocols: &[JoinGroupRequestProtocol]) -> Vec<MemberProtocol> {
        protocols
            .iter()
            .map(|protocol| MemberProtocol {
                name: protocol.name.detached(),
                metadata: Bytes::copy_from_slice(&protocol.metadata),
            })
            .collect()
    }
}

/// A member of a classic group.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The id that the coordinator gave.
    pub id: ByteStr,
    /// The id that the user gave, for static members.
    pub instance_id: Option<ByteStr>,
    /// Client id of the last JoinGroup.
    pub client_id: ByteStr,
    /// Address of the last JoinGroup, as Java writes it.
    pub client_host: ByteStr,
    /// How long a rebalance waits for this member, in milliseconds.
    pub rebalance_timeout_ms: i32,
    /// How long the member may be silent, in milliseconds.
    pub session_timeout_ms: i32,
    /// What the member supports, the favourite first.
    pub protocols: Vec<MemberProtocol>,
    /// What the leader assigned in this generation; empty before that.
    pub assignment: Bytes,
    /// The JoinGroup that waits for the generation to form.
    pub(super) awaiting_join: Option<ReplyToken>,
    /// The SyncGroup that waits for the assignment.
    pub(super) awaiting_sync: Option<ReplyToken>,
    /// Whether the member has not yet seen a generation: it is then timed out even while it waits.
    pub is_new: bool,
}

impl Member {
    /// Whether a JoinGroup of this member is parked.
    pub fn is_awaiting_join(&self) -> bool {
        self.awaiting_join.is_some()
    }

    /// Whether a SyncGroup of this member is parked.
    pub fn is_awaiting_sync(&self) -> bool {
        self.awaiting_sync.is_some()
    }

    /// Whether the member counts as alive without a heartbeat: one that waits for an answer
    /// cannot send any.
    pub fn has_satisfied_heartbeat(&self) -> bool {
        !self.is_new && (self.is_awaiting_join() || self.is_awaiting_sync())
    }

    /// What the member says for a protocol; none if it does not support it.
    pub fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols
            .iter()
            .find(|candidate| candidate.name == *protocol)
            .map(|candidate| &candidate.metadata)
    }

    /// Whether a JoinGroup repeats what the member said before, order included.
    pub fn matches(&self, protocols: &[JoinGroupRequestProtocol]) -> bool {
        self.protocols.len() == protocols.len()
            && self
                .protocols
                .iter()
                .zip(protocols)
                .all(|(ours, theirs)| ours.name == theirs.name && ours.metadata == theirs.metadata)
    }

    /// The entry of DescribeGroups, with metadata if a protocol is chosen.
    pub fn describe(&self, protocol: Option<&str>) -> DescribedGroupMember {
        DescribedGroupMember {
            member_id: self.id.clone(),
            group_instance_id: self.instance_id.clone(),
            client_id: self.client_id.clone(),
            client_host: self.client_host.clone(),
            member_metadata: protocol
                .and_then(|protocol| self.metadata(protocol))
                .cloned()
                .unwrap_or_default(),
            member_assignment: self.assignment.clone(),
            ..DescribedGroupMember::default()
        }
    }
}
