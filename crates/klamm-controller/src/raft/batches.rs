//! Record batches of the metadata log and of its snapshots, as Kafka writes and reads them.

use std::io;

use bytes::Bytes;
use klamm_metadata::{MetadataDelta, ReplayError, TransactionFilter};
use klamm_protocol::control_records::{
    KRaftVersionRecord, LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord,
    VotersRecord, leader_change_message, voters_record,
};
use klamm_protocol::metadata::MetadataRecord;
use klamm_protocol::{Decoder, Encoder, Message};
use klamm_records::control::ControlType;
use klamm_records::{BatchBuilder, BatchOptions, BatchView, Scratch};

use super::types::{Membership, NodeId, RecordGroup, Voter};
use super::voters::voters_of;

/// Where a batch goes, and what it is stamped with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) base_offset: i64,
    pub(super) epoch: i32,
    pub(super) timestamp_ms: i64,
}

impl Stamp {
    fn builder(self, control: bool) -> BatchBuilder {
        BatchBuilder::new(BatchOptions {
            base_offset: self.base_offset,
            partition_leader_epoch: self.epoch,
            control,
            ..BatchOptions::default()
        })
    }
}

/// A batch of metadata records.
pub(super) fn records(stamp: Stamp, group: &RecordGroup) -> io::Result<Bytes> {
    let mut builder = stamp.builder(false);
    for record in &*group.records {
        let version = group.version.record_version(record);
        let value = record.encode_value(version).map_err(io::Error::other)?;
        append(&mut builder, stamp, None, &value)?;
    }
    builder.build().map_err(io::Error::other)
}

/// The batch that tells of a new leader. In version 0, as Kafka 4.3 writes it: its tools read no
/// other.
pub(super) fn leader_change(stamp: Stamp, leader: i32, members: &Membership) -> io::Result<Bytes> {
    let voters: Vec<_> = voters_of(members)
        .into_keys()
        .map(|voter| leader_change_message::Voter {
            voter_id: voter.0,
            ..Default::default()
        })
        .collect();
    let message = LeaderChangeMessage {
        version: 0,
        leader_id: leader,
        // Raft counts votes but does not keep whose they were; with one voter it is that one's.
        granting_voters: voters
            .iter()
            .filter(|v| v.voter_id == leader)
            .cloned()
            .collect(),
        voters,
        ..LeaderChangeMessage::default()
    };
    control(stamp, &[(ControlType::LeaderChange, encode(&message, 0)?)])
}

/// The batch that tells of the voters, and the version of the protocol that keeps them in the log.
pub(super) fn voters(stamp: Stamp, members: &Membership) -> io::Result<Bytes> {
    control(stamp, &voter_records(members)?)
}

/// Records in the batch of [`voters`].
pub(super) const VOTER_RECORDS: i64 = 2;
/// The version of `kraft.version` that keeps voters in the log.
pub(super) const KRAFT_VERSION_LEVEL: i16 = 1;

fn voter_records(members: &Membership) -> io::Result<[(ControlType, Bytes); 2]> {
    let version = KRaftVersionRecord {
        k_raft_version: KRAFT_VERSION_LEVEL,
        ..KRaftVersionRecord::default()
    };
    let voter = |(id, voter): (&NodeId, &Voter)| voters_record::Voter {
        voter_id: id.0,
        voter_directory_id: voter.directory_id,
        endpoints: voter
            .endpoints
            .iter()
            .map(|endpoint| voters_record::Endpoint {
                name: endpoint.name.as_str().into(),
                host: endpoint.host.as_str().into(),
                port: endpoint.port,
                ..Default::default()
            })
            .collect(),
        k_raft_version_feature: voters_record::KRaftVersionFeature {
            min_supported_version: 0,
            max_supported_version: KRAFT_VERSION_LEVEL,
            ..Default::default()
        },
        ..Default::default()
    };
    let voters = VotersRecord {
        voters: voters_of(members).iter().map(voter).collect(),
        ..Default::default()
    };
    Ok([
        (ControlType::KraftVersion, encode(&version, 0)?),
        (ControlType::KraftVoters, encode(&voters, 0)?),
    ])
}

/// The batch at the start of a snapshot. `members` are the voters, if the log keeps them.
pub(super) fn snapshot_header(stamp: Stamp, members: Option<&Membership>) -> io::Result<Bytes> {
    let header = SnapshotHeaderRecord {
        last_contained_log_timestamp: stamp.timestamp_ms,
        ..SnapshotHeaderRecord::default()
    };
    let mut records = vec![(ControlType::SnapshotHeader, encode(&header, 0)?)];
    if let Some(members) = members {
        records.extend(voter_records(members)?);
    }
    control(stamp, &records)
}

/// The batch at the end of a snapshot.
pub(super) fn snapshot_footer(stamp: Stamp) -> io::Result<Bytes> {
    let footer = SnapshotFooterRecord::default();
    control(stamp, &[(ControlType::SnapshotFooter, encode(&footer, 0)?)])
}

fn control(stamp: Stamp, records: &[(ControlType, Bytes)]) -> io::Result<Bytes> {
    let mut builder = stamp.builder(true);
    for (control_type, value) in records {
        append(&mut builder, stamp, Some(&control_type.key()), value)?;
    }
    builder.build().map_err(io::Error::other)
}

fn append(
    builder: &mut BatchBuilder,
    stamp: Stamp,
    key: Option<&[u8]>,
    value: &[u8],
) -> io::Result<()> {
    builder
        .append(stamp.timestamp_ms, key, Some(value), [])
        .map_err(io::Error::other)
}

fn encode<M: Message>(message: &M, version: i16) -> io::Result<Bytes> {
    let mut encoder = Encoder::new();
    message
        .encode(&mut encoder, version)
        .map_err(io::Error::other)?;
    encoder.into_bytes().map_err(io::Error::other)
}

/// Replays batches of a metadata log or snapshot on a delta.
pub(super) struct Replayer<'a> {
    pub(super) delta: &'a mut MetadataDelta,
    filter: TransactionFilter,
    scratch: Scratch,
    /// Whether the end of a snapshot was seen.
    pub(super) footer_seen: bool,
    /// Leader epoch of the last batch.
    pub(super) epoch: i32,
    /// Largest timestamp of the last batch, or that in a snapshot's header.
    pub(super) timestamp_ms: i64,
    /// The last record of the voters.
    pub(super) voters: Option<VotersRecord>,
}

impl<'a> Replayer<'a> {
    pub(super) fn new(delta: &'a mut MetadataDelta) -> Self {
        Replayer::resume(delta, TransactionFilter::default())
    }

    /// Goes on with what an earlier replayer held back.
    pub(super) fn resume(delta: &'a mut MetadataDelta, filter: TransactionFilter) -> Self {
        Replayer {
            delta,
            filter,
            scratch: Scratch::new(),
            footer_seen: false,
            epoch: -1,
            timestamp_ms: -1,
            voters: None,
        }
    }

    /// What is held back as a transaction has not ended yet.
    pub(super) fn into_filter(self) -> TransactionFilter {
        self.filter
    }

    /// Replays one batch.
    pub(super) fn batch(&mut self, batch: &BatchView<'_>) -> io::Result<()> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        batch.verify_crc().map_err(invalid)?;
        self.epoch = batch.header().partition_leader_epoch;
        self.timestamp_ms = batch.header().max_timestamp;
        let is_control = batch.header().attributes.is_control();
        for record in batch.records(&mut self.scratch).map_err(invalid)? {
            let record = record.map_err(io::Error::other)?;
            let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
            if is_control {
                let key = record.key.unwrap_or_default();
                match ControlType::from_key(key).map_err(io::Error::other)? {
                    ControlType::SnapshotFooter => self.footer_seen = true,
                    ControlType::SnapshotHeader => {
                        let header = decode::<SnapshotHeaderRecord>(value)?;
                        self.timestamp_ms = header.last_contained_log_timestamp;
                    }
                    ControlType::KraftVersion => {
                        let version = decode::<KRaftVersionRecord>(value)?;
                        self.delta.set_kraft_version(version.k_raft_version);
                    }
                    ControlType::KraftVoters => self.voters = Some(decode(value)?),
                    _ => {}
                }
                continue;
            }
            let record = MetadataRecord::decode_value(value).map_err(io::Error::other)?;
            let delta = &mut *self.delta;
            self.filter
                .push(record, &mut |record| delta.replay(record))
                .map_err(|error: ReplayError| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        Ok(())
    }
}

fn decode<M: Message>(value: Bytes) -> io::Result<M> {
    M::decode(&mut Decoder::new(value), 0).map_err(io::Error::other)
}
