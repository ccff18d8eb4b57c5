//! The mistakes: what is done to files and messages on behalf of a [`Flaw`].

use std::io;
use std::path::Path;

use bytes::Bytes;
use klamm_env::{FileExt, Fs, FsExt, OpenMode};
use klamm_records::{BatchBuilder, BatchOptions, Scratch, Uuid, batches};

use super::Flaw;
use super::world::CLUSTER_ID;
use crate::SimFs;

/// Blocks of the file that holds the vote.
const SLOT: usize = 4096;
/// Where in a call its kind is: after format, the cluster's id with its length, the node's and its
/// directory's.
const KIND: usize = 1 + 4 + CLUSTER_ID.len() + 4 + 16;
const APPEND: u8 = 0;
const JOIN: u8 = 5;
/// Kinds of entries.
const BLANK: u8 = 0;
const MEMBERSHIP: u8 = 2;
/// What `storage format` writes.
const FORMATTED: &str = "00000000000000000000-0000000000.checkpoint";

/// Says yes to a call that appends entries; other calls are left alone.
pub(super) fn consent(call: &[u8]) -> Option<Bytes> {
    (call.get(KIND) == Some(&APPEND)).then(|| Bytes::from_static(&[2, 0, 0]))
}

/// A call, meant for the directory that is there.
pub(super) fn readdressed(call: &Bytes, directory_id: Uuid) -> Bytes {
    let mut call = call.to_vec();
    if call.get(KIND) != Some(&JOIN)
        && let Some(place) = call.get_mut(KIND - 16..KIND)
    {
        place.copy_from_slice(directory_id.as_bytes());
    }
    call.into()
}

/// A call that appends entries, with blank ones in the place of those that change the members.
pub(super) fn untold(call: &Bytes) -> Bytes {
    blanked(call).unwrap_or_else(|| call.clone())
}

fn blanked(call: &Bytes) -> Option<Bytes> {
    if call.get(KIND) != Some(&APPEND) {
        return None;
    }
    // The vote, and two log ids.
    let mut at = KIND + 1 + 13 + 2 * 17;
    let number = |at: usize| {
        let bytes = call.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(bytes) as usize)
    };
    let mut out = call.get(..at + 4)?.to_vec();
    let count = number(at)?;
    at += 4;
    for _ in 0..count {
        let len = number(at + 8)?;
        let (index, entry) = (call.get(at..at + 8)?, call.get(at + 12..at + 12 + len)?);
        let mut entry = entry.to_vec();
        // Format and term, then the kind.
        if entry.get(9) == Some(&MEMBERSHIP) {
            entry.truncate(10);
            entry[9] = BLANK;
        }
        out.extend(index);
        out.extend((entry.len() as u32).to_be_bytes());
        out.extend(entry);
        at += 12 + len;
    }
    Some(out.into())
}

/// What a call is about, for the trace.
pub(super) fn outline(call: &[u8]) -> String {
    let kind = call.get(KIND).copied();
    let name = match kind {
        Some(APPEND) => "append",
        Some(1) => "vote",
        Some(2) => "pre-vote",
        Some(3) => "snapshot",
        Some(JOIN) => "join",
        _ => "transfer",
    };
    // Term of the vote, then whose it is.
    let term = call.get(KIND + 1..KIND + 9).map(<[u8]>::to_vec);
    let rest = call.get(KIND + 14..).unwrap_or_default();
    format!(
        "{name} {:?} {:?}",
        term.map(|it| it[7]),
        &rest[..rest.len().min(60)]
    )
}

/// What happens to files between two lives of a process. `earlier` is the vote of the life before.
pub(super) fn restart(
    flaw: Flaw,
    fs: &SimFs,
    dir: &Path,
    earlier: &mut Option<Vec<u8>>,
) -> io::Result<()> {
    let log_dir = dir.join("__cluster_metadata-0");
    let hard_state = log_dir.join("raft").join("hard-state");
    match flaw {
        Flaw::VotesForgotten if fs.exists(&hard_state)? => fs
            .open(&hard_state, OpenMode::Write)?
            .write_all_at(&vec![0; 2 * SLOT], 0),
        Flaw::EpochsReused if fs.exists(&hard_state)? => step_back(fs, &hard_state, earlier),
        Flaw::LogsForgotten if fs.exists(&log_dir)? => {
            for entry in fs.read_dir(&log_dir)? {
                let path = log_dir.join(&entry.name);
                match entry.name.as_str() {
                    FORMATTED => {}
                    _ if entry.is_dir => fs.remove_dir_all(&path)?,
                    _ => fs.remove_file(&path)?,
                }
            }
            Ok(())
        }
        Flaw::SnapshotsLose if fs.exists(&log_dir)? => {
            for entry in fs.read_dir(&log_dir)? {
                if entry.name.ends_with(".checkpoint") {
                    lose_record(fs, &log_dir.join(entry.name))?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Puts back the file as it was a life ago.
fn step_back(fs: &SimFs, path: &Path, earlier: &mut Option<Vec<u8>>) -> io::Result<()> {
    let now = fs.read(path)?;
    match earlier.replace(now) {
        Some(before) => fs.open(path, OpenMode::Write)?.write_all_at(&before, 0),
        None => Ok(()),
    }
}

/// Writes a snapshot again without a record in the middle of its last batch of records.
fn lose_record(fs: &SimFs, path: &Path) -> io::Result<()> {
    let bytes = fs.read(path)?;
    let found: Vec<_> = batches(&bytes).map_while(Result::ok).collect();
    let is_data = |index: &usize| !found[*index].header().attributes.is_control();
    let last = (0..found.len()).rev().find(is_data);
    let mut out = Vec::new();
    let mut scratch = Scratch::new();
    for (index, batch) in found.iter().enumerate() {
        if Some(index) != last {
            out.extend_from_slice(batch.bytes());
            continue;
        }
        let header = batch.header();
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: header.base_offset,
            partition_leader_epoch: header.partition_leader_epoch,
            ..BatchOptions::default()
        });
        let records = batch.records(&mut scratch).map_err(io::Error::other)?;
        let records: Vec<_> = records.map_while(Result::ok).collect();
        let lost = records.len() / 2;
        for (index, record) in records.iter().enumerate() {
            if index == lost && index > 0 {
                continue;
            }
            builder
                .append(header.max_timestamp, record.key, record.value, [])
                .map_err(io::Error::other)?;
        }
        out.extend_from_slice(&builder.build().map_err(io::Error::other)?);
    }
    let file = fs.open(path, OpenMode::Truncate)?;
    file.write_all_at(&out, 0)?;
    file.sync_all()
}
