//! The `.snapshot` file: schema `ProducerSnapshot` version 1 of Kafka. A version (2 bytes), a
//! CRC-32C of all that follows (4), the number of producers (4), then 46 bytes for each.

use std::collections::BTreeMap;
use std::path::Path;

use klamm_env::{FileExt, Fs, FsExt, OpenMode};
use klamm_records::crc;

use crate::batch::{i16_at, i32_at, i64_at};
use crate::error::{FileProblem, IoContext, LogError};
use crate::producer_state::{BatchNote, ProducerEntry};

const VERSION: i16 = 1;
const CRC_POSITION: usize = 2;
const ENTRIES_POSITION: usize = 6;
const HEADER_LEN: usize = 10;
const ENTRY_LEN: usize = 46;

pub(crate) fn write(
    fs: &dyn Fs,
    path: &Path,
    producers: &BTreeMap<i64, ProducerEntry>,
) -> Result<(), LogError> {
    let file = fs.open(path, OpenMode::Truncate).at("create", path)?;
    file.write_all_at(&encode(producers), 0).at("write", path)
}

pub(crate) fn read(fs: &dyn Fs, path: &Path) -> Result<BTreeMap<i64, ProducerEntry>, LogError> {
    let bytes = fs.read(path).at("read", path)?;
    decode(&bytes).map_err(|problem| LogError::MalformedFile {
        file: path.to_owned(),
        problem,
    })
}

/// Bytes of the snapshot of so many producers.
pub(super) fn len(producers: &BTreeMap<i64, ProducerEntry>) -> usize {
    HEADER_LEN + producers.len() * ENTRY_LEN
}

pub(super) fn encode(producers: &BTreeMap<i64, ProducerEntry>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len(producers));
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(producers.len() as i32).to_be_bytes());
    for (producer_id, entry) in producers {
        let offset_delta = entry.last_batch().map_or(0, |batch| batch.offset_delta);
        bytes.extend_from_slice(&producer_id.to_be_bytes());
        bytes.extend_from_slice(&entry.epoch.to_be_bytes());
        bytes.extend_from_slice(&entry.last_sequence().to_be_bytes());
        bytes.extend_from_slice(&entry.last_offset().to_be_bytes());
        bytes.extend_from_slice(&offset_delta.to_be_bytes());
        bytes.extend_from_slice(&entry.last_timestamp.to_be_bytes());
        bytes.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
        bytes.extend_from_slice(&entry.txn_first_offset.unwrap_or(-1).to_be_bytes());
    }
    let checksum = crc::crc32c(&bytes[ENTRIES_POSITION..]);
    bytes[CRC_POSITION..ENTRIES_POSITION].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<BTreeMap<i64, ProducerEntry>, FileProblem> {
    if bytes.len() < HEADER_LEN {
        return Err(FileProblem::Size(bytes.len()));
    }
    let version = i16_at(bytes, 0);
    if version != VERSION {
        return Err(FileProblem::Version(i64::from(version)));
    }
    if i32_at(bytes, CRC_POSITION) as u32 != crc::crc32c(&bytes[ENTRIES_POSITION..]) {
        return Err(FileProblem::Checksum);
    }
    let body = &bytes[HEADER_LEN..];
    let found = body.len() / ENTRY_LEN;
    if !body.len().is_multiple_of(ENTRY_LEN) {
        return Err(FileProblem::Size(bytes.len()));
    }
    let expected = usize::try_from(i32_at(bytes, ENTRIES_POSITION)).unwrap_or(0);
    if expected != found {
        return Err(FileProblem::EntryCount { expected, found });
    }
    Ok(body.chunks_exact(ENTRY_LEN).map(decode_entry).collect())
}

fn decode_entry(bytes: &[u8]) -> (i64, ProducerEntry) {
    let mut entry = ProducerEntry::unknown();
    entry.epoch = i16_at(bytes, 8);
    let last_offset = i64_at(bytes, 14);
    let timestamp = i64_at(bytes, 26);
    if last_offset >= 0 {
        entry.push(BatchNote {
            last_sequence: i32_at(bytes, 10),
            last_offset,
            offset_delta: i32_at(bytes, 22),
            timestamp,
        });
    }
    entry.last_timestamp = timestamp;
    entry.coordinator_epoch = i32_at(bytes, 34);
    let first = i64_at(bytes, 38);
    entry.txn_first_offset = (first >= 0).then_some(first);
    (i64_at(bytes, 0), entry)
}
