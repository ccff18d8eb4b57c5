//! The types that openraft is instantiated with.

use std::fmt;
use std::sync::Arc;

use klamm_metadata::MetadataVersion;
use klamm_protocol::metadata::MetadataRecord;
use klamm_records::Uuid;
use openraft::impls::leader_id_std;

openraft::declare_raft_types!(
    /// Terms become leader epochs of the metadata log, node ids are Kafka's.
    pub(crate) TypeConfig:
        D = RecordGroup,
        R = Applied,
        NodeId = NodeId,
        Node = Voter,
        LeaderId = leader_id_std::LeaderId<u64, NodeId>,
        AsyncRuntime = super::runtime::Runtime,
);

pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<NodeId, Voter>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot is answered with that was taken over.
pub(crate) type SnapshotTaken = openraft::raft::SnapshotResponse<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;

pub(crate) fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(term.into(), index)
}

/// A node's id, as Kafka numbers nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(crate) i32);

impl NodeId {
    /// Whoever gets the call; no node's id.
    pub(crate) const ANYBODY: NodeId = NodeId(-1);
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The leader epoch that a term is in the metadata log.
pub(crate) fn epoch_of(term: u64) -> i32 {
    i32::try_from(term).unwrap_or(i32::MAX)
}

/// Metadata records that are committed as one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RecordGroup {
    /// Set in the group by which a new leader makes itself known, and which has no records: terms
    /// do not tell whose they are.
    pub(crate) leader: Option<i32>,
    pub(crate) records: Arc<[MetadataRecord]>,
    /// Decides in which versions the records are written.
    pub(crate) version: MetadataVersion,
    /// When the leader made the group; each replica projects the same time.
    pub(crate) timestamp_ms: i64,
}

impl RecordGroup {
    /// What a leader writes first.
    pub(crate) fn of_leader(leader: i32, timestamp_ms: i64) -> Self {
        RecordGroup {
            leader: Some(leader),
            records: Arc::from([]),
            version: MetadataVersion::LATEST,
            timestamp_ms,
        }
    }
}

impl fmt::Display for RecordGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records", self.records.len())
    }
}

/// What came of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    /// Offset of the entry's last record in the metadata log; -1 if it has none.
    pub(crate) offset: i64,
}

/// A member of the quorum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Voter {
    /// Its metadata directory: a node that lost it is another voter (KIP-853).
    pub(crate) directory_id: Uuid,
    /// Where it listens for other controllers: listener, host and port.
    pub(crate) endpoints: Vec<VoterEndpoint>,
}

/// Where a controller listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VoterEndpoint {
    /// Name of the listener.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}
