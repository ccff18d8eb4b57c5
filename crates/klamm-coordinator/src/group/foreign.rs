//! Groups of the newer protocols, as far as a coordinator must know them that does not serve them.
//!
//! A data directory that Kafka wrote may hold streams groups. Their records are kept in view, so that requests of the classic protocol get the right refusal, offsets keep
//! working, and an empty group can be deleted with every record it has.

use std::collections::BTreeSet;

use bytes::Bytes;
use klamm_protocol::ByteStr;
use klamm_protocol::messages::list_groups_response::ListedGroup;

/// A group protocol other than the classic one and that of consumer groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForeignProtocol {
    /// Streams groups, KIP-1071.
    Streams,
}

impl ForeignProtocol {
    /// The name on the wire, of the group type and of the protocol type alike.
    pub fn name(self) -> &'static str {
        match self {
            ForeignProtocol::Streams => "streams",
        }
    }
}

/// The key of a record of such a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignKey {
    /// The record type.
    pub kind: i16,
    /// The group, if the type is known.
    pub group_id: Option<ByteStr>,
    /// The member, in records that make someone a member.
    pub member_id: Option<ByteStr>,
    /// The whole key.
    pub bytes: Bytes,
}

impl ForeignKey {
    /// The protocol that the record type belongs to; none if the type is not known.
    pub fn protocol(&self) -> Option<ForeignProtocol> {
        match self.kind {
            17..=23 => Some(ForeignProtocol::Streams),
            _ => None,
        }
    }

    /// Whether the record makes someone a member (`...MemberMetadata`).
    pub fn is_member_metadata(&self) -> bool {
        self.kind == 19
    }
}

/// A group of a protocol that is not served here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignGroup {
    id: ByteStr,
    protocol: ForeignProtocol,
    members: BTreeSet<ByteStr>,
    keys: BTreeSet<Bytes>,
}

impl ForeignGroup {
    /// A group without members or records.
    pub fn new(id: ByteStr, protocol: ForeignProtocol) -> Self {
        ForeignGroup {
            id,
            protocol,
            members: BTreeSet::new(),
            keys: BTreeSet::new(),
        }
    }

    /// The protocol.
    pub fn protocol(&self) -> ForeignProtocol {
        self.protocol
    }

    /// Whether the group has no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether a classic member may take the name over.
    pub fn may_become_classic(&self) -> bool {
        self.is_empty()
    }

    /// Whether the group has no records left.
    pub fn is_gone(&self) -> bool {
        self.keys.is_empty()
    }

    /// The state on the wire. Between Empty and Stable the newer protocols know more states,
    /// which only their own coordinator can tell.
    pub fn state_name(&self) -> &'static str {
        if self.is_empty() { "Empty" } else { "Stable" }
    }

    /// Takes note of a record.
    pub fn replay(&mut self, key: &ForeignKey, present: bool) {
        if present {
            self.keys.insert(Bytes::copy_from_slice(&key.bytes));
        } else {
            self.keys.remove(&key.bytes);
        }
        if let Some(member_id) = &key.member_id {
            if present {
                self.members.insert(member_id.detached());
            } else {
                self.members.remove(member_id);
            }
        }
    }

    /// The keys of all records, to delete the group. Members' records go before the group's, as
    /// higher types come first.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.keys.iter().rev()
    }

    /// The entry of ListGroups.
    pub fn listed(&self) -> ListedGroup {
        ListedGroup {
            group_id: self.id.clone(),
            protocol_type: self.protocol.name().into(),
            group_state: self.state_name().into(),
            group_type: self.protocol.name().into(),
            ..ListedGroup::default()
        }
    }
}
