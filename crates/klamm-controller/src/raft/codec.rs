//! Entries, memberships and log ids as bytes. Big-endian, lengths in front.
//!
//! These bytes are persisted: a change of them needs a new [`FORMAT`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use klamm_metadata::MetadataVersion;
use klamm_protocol::metadata::MetadataRecord;
use klamm_records::Uuid;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;

use super::types::{
    Entry, LogId, Membership, NodeId, RecordGroup, StoredMembership, Voter, VoterEndpoint, log_id,
};

const FORMAT: u8 = 1;
const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;
/// A leader that makes itself known.
const LEADER: u8 = 3;

pub(super) fn corrupt(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the controller's log is damaged: {what}"),
    )
}

/// The value of the record that holds an entry. Its index is the record's offset.
pub(super) fn encode_entry(entry: &Entry) -> io::Result<Vec<u8>> {
    let mut out = vec![FORMAT];
    out.extend(entry.log_id.leader_id.to_be_bytes());
    match &entry.payload {
        EntryPayload::Blank => out.push(BLANK),
        EntryPayload::Normal(RecordGroup {
            leader: Some(leader),
            timestamp_ms,
            ..
        }) => {
            out.push(LEADER);
            out.extend(leader.to_be_bytes());
            out.extend(timestamp_ms.to_be_bytes());
        }
        EntryPayload::Normal(group) => {
            out.push(NORMAL);
            out.extend(group.version.level().to_be_bytes());
            out.extend(group.timestamp_ms.to_be_bytes());
            put_len(&mut out, group.records.len())?;
            for record in &*group.records {
                let version = group.version.record_version(record);
                let value = record.encode_value(version).map_err(io::Error::other)?;
                put_bytes(&mut out, &value)?;
            }
        }
        EntryPayload::Membership(membership) => {
            out.push(MEMBERSHIP);
            put_membership(&mut out, membership)?;
        }
    }
    Ok(out)
}

pub(super) fn decode_entry(index: u64, value: &[u8]) -> io::Result<Entry> {
    let mut reader = Reader(value);
    if reader.u8()? != FORMAT {
        return Err(corrupt("unknown format of an entry"));
    }
    let id = log_id(reader.u64()?, index);
    let payload = match reader.u8()? {
        BLANK => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(reader.group()?),
        LEADER => EntryPayload::Normal(RecordGroup::of_leader(reader.i32()?, reader.i64()?)),
        MEMBERSHIP => EntryPayload::Membership(reader.membership()?),
        _ => return Err(corrupt("unknown kind of entry")),
    };
    reader.end()?;
    Ok(Entry::new(id, payload))
}

/// Where a snapshot stands in both logs, and who the voters were.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SnapshotNote {
    /// `None` for a snapshot from before the first entry.
    pub(super) last: Option<LogId>,
    pub(super) membership: StoredMembership,
    /// Offset after the last record in the snapshot, and that record's epoch: its file name.
    pub(super) end_offset: i64,
    pub(super) epoch: i32,
}

pub(super) fn encode_note(note: &SnapshotNote) -> io::Result<Vec<u8>> {
    let mut out = vec![FORMAT];
    put_log_id(&mut out, note.last);
    put_log_id(&mut out, *note.membership.log_id());
    put_membership(&mut out, note.membership.membership())?;
    out.extend(note.end_offset.to_be_bytes());
    out.extend(note.epoch.to_be_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    Ok(out)
}

pub(super) fn decode_note(bytes: &[u8]) -> io::Result<SnapshotNote> {
    let Some((content, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(corrupt("the note on its snapshot is too short"));
    };
    if crc32fast::hash(content).to_be_bytes() != *crc {
        return Err(corrupt("the note on its snapshot has a wrong checksum"));
    }
    let mut reader = Reader(content);
    if reader.u8()? != FORMAT {
        return Err(corrupt("unknown format of the note on its snapshot"));
    }
    let last = reader.log_id()?;
    let at = reader.log_id()?;
    let membership = StoredMembership::new(at, reader.membership()?);
    let note = SnapshotNote {
        last,
        membership,
        end_offset: reader.i64()?,
        epoch: reader.i32()?,
    };
    reader.end()?;
    Ok(note)
}

pub(super) fn put_log_id(out: &mut Vec<u8>, id: Option<LogId>) {
    out.push(u8::from(id.is_some()));
    let (term, index) = id.map_or((0, 0), |id| (*id.leader_id, id.index));
    out.extend(term.to_be_bytes());
    out.extend(index.to_be_bytes());
}

pub(super) fn put_len(out: &mut Vec<u8>, len: usize) -> io::Result<()> {
    let len = u32::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    out.extend(len.to_be_bytes());
    Ok(())
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    put_len(out, bytes.len())?;
    out.extend(bytes);
    Ok(())
}

fn put_membership(out: &mut Vec<u8>, membership: &Membership) -> io::Result<()> {
    let configs = membership.get_joint_config();
    put_len(out, configs.len())?;
    for config in configs {
        put_len(out, config.len())?;
        config.iter().for_each(|id| out.extend(id.0.to_be_bytes()));
    }
    put_len(out, membership.nodes().count())?;
    for (id, voter) in membership.nodes() {
        out.extend(id.0.to_be_bytes());
        put_voter(out, voter)?;
    }
    Ok(())
}

pub(super) fn put_voter(out: &mut Vec<u8>, voter: &Voter) -> io::Result<()> {
    out.extend(voter.directory_id.as_bytes());
    put_len(out, voter.endpoints.len())?;
    for endpoint in &voter.endpoints {
        put_bytes(out, endpoint.name.as_bytes())?;
        put_bytes(out, endpoint.host.as_bytes())?;
        out.extend(endpoint.port.to_be_bytes());
    }
    Ok(())
}

/// Reads what the functions above wrote; never beyond the end, never allocating ahead of it.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let (head, rest) = self
            .0
            .split_first_chunk()
            .ok_or_else(|| corrupt("it ends early"))?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> io::Result<u8> {
        Ok(u8::from_be_bytes(self.take()?))
    }

    pub(super) fn i32(&mut self) -> io::Result<i32> {
        Ok(i32::from_be_bytes(self.take()?))
    }

    fn i64(&mut self) -> io::Result<i64> {
        Ok(i64::from_be_bytes(self.take()?))
    }

    pub(super) fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    pub(super) fn len(&mut self) -> io::Result<usize> {
        Ok(u32::from_be_bytes(self.take()?) as usize)
    }

    pub(super) fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let len = self.len()?;
        let (head, rest) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| corrupt("it ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn text(&mut self) -> io::Result<String> {
        let bytes = self.bytes()?.to_vec();
        String::from_utf8(bytes).map_err(|_| corrupt("text that is not UTF-8"))
    }

    pub(super) fn log_id(&mut self) -> io::Result<Option<LogId>> {
        let present = self.u8()? != 0;
        let (term, index) = (self.u64()?, self.u64()?);
        Ok(present.then(|| log_id(term, index)))
    }

    fn group(&mut self) -> io::Result<RecordGroup> {
        let level = i16::from_be_bytes(self.take()?);
        let version = MetadataVersion::from_level(level)
            .ok_or_else(|| corrupt("a metadata.version that is not supported"))?;
        let timestamp_ms = self.i64()?;
        let count = self.len()?;
        let mut records = Vec::new();
        for _ in 0..count {
            let value = Bytes::copy_from_slice(self.bytes()?);
            let record = MetadataRecord::decode_value(value)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            records.push(record);
        }
        Ok(RecordGroup {
            leader: None,
            records: records.into(),
            version,
            timestamp_ms,
        })
    }

    fn membership(&mut self) -> io::Result<Membership> {
        let mut configs = Vec::new();
        for _ in 0..self.len()? {
            let mut config = BTreeSet::new();
            for _ in 0..self.len()? {
                config.insert(NodeId(self.i32()?));
            }
            configs.push(config);
        }
        let mut nodes = BTreeMap::new();
        for _ in 0..self.len()? {
            let id = NodeId(self.i32()?);
            nodes.insert(id, self.voter()?);
        }
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Membership::default());
        }
        Membership::new(configs, nodes).map_err(|error| corrupt(&error.to_string()))
    }

    pub(super) fn voter(&mut self) -> io::Result<Voter> {
        let directory_id = self.uuid()?;
        let mut endpoints = Vec::new();
        for _ in 0..self.len()? {
            let (name, host) = (self.text()?, self.text()?);
            let port = u16::from_be_bytes(self.take()?);
            endpoints.push(VoterEndpoint { name, host, port });
        }
        Ok(Voter {
            directory_id,
            endpoints,
        })
    }

    pub(super) fn uuid(&mut self) -> io::Result<Uuid> {
        Ok(Uuid::from_bytes(self.take()?))
    }

    pub(super) fn end(&self) -> io::Result<()> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(corrupt("bytes behind its end"))
        }
    }
}

#[cfg(test)]
mod tests {
    use klamm_protocol::metadata::{NoOpRecord, TopicRecord};

    use super::*;

    fn membership() -> Membership {
        let voter = Voter {
            directory_id: Uuid::from_bytes([3; 16]),
            endpoints: vec![VoterEndpoint {
                name: "CONTROLLER".to_owned(),
                host: "localhost".to_owned(),
                port: 9093,
            }],
        };
        Membership::new(
            vec![BTreeSet::from([NodeId(1)])],
            BTreeMap::from([(NodeId(1), voter)]),
        )
        .unwrap()
    }

    fn entries() -> Vec<Entry> {
        let topic = TopicRecord {
            name: "a".into(),
            topic_id: Uuid::ONE,
            ..Default::default()
        };
        let group = RecordGroup {
            leader: None,
            records: vec![topic.into(), NoOpRecord::default().into()].into(),
            version: MetadataVersion::LATEST,
            timestamp_ms: 77,
        };
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(group),
            EntryPayload::Normal(RecordGroup::of_leader(3, 77)),
            EntryPayload::Membership(membership()),
        ];
        (0..)
            .zip(payloads)
            .map(|(index, payload)| Entry::new(log_id(4, index), payload))
            .collect()
    }

    #[test]
    fn entries_come_back_as_they_were() {
        for entry in entries() {
            let value = encode_entry(&entry).unwrap();
            assert_eq!(decode_entry(entry.log_id.index, &value).unwrap(), entry);
        }
    }

    #[test]
    fn refuses_every_entry_that_is_cut_short_or_too_long() {
        for entry in entries() {
            let mut value = encode_entry(&entry).unwrap();
            for len in 0..value.len() {
                assert!(decode_entry(entry.log_id.index, &value[..len]).is_err());
            }
            value.push(0);
            assert!(decode_entry(entry.log_id.index, &value).is_err());
        }
    }

    #[test]
    fn refuses_a_note_with_any_bit_flipped() {
        let note = SnapshotNote {
            last: Some(log_id(3, 9)),
            membership: StoredMembership::new(Some(log_id(1, 0)), membership()),
            end_offset: 40,
            epoch: 3,
        };
        let bytes = encode_note(&note).unwrap();
        assert_eq!(decode_note(&bytes).unwrap(), note);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_note(&flipped).is_err(), "bit {bit}");
        }
    }
}
