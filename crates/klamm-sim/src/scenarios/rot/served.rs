//! **Served.** Bits that flip on the disk cost the batch that they are in, and nothing else:
//!
//! - a batch that was not hit is read back as it was written, whatever happened around it;
//! - of one that was hit a reader gets an error, or bytes of which it sees that they are not what
//!   it asked for: the checksum fails, the length is wrong, or the offset;
//! - an offset found by its timestamp is the right one, or there is an error, or records that were hit
//!   are passed over;
//! - so with the aborted transactions;
//! - no offset that the log once vouched for is missing at its end.
//!
//! Source: KIP-98's and Kafka's checksums, which consumers verify; what Kafka leaves to luck (a
//! length that leads astray, an index entry that is wrong, a recovery that cuts what was synced) is
//! held to the same here. Known false positives: the leader epoch of a batch is covered by nothing
//! and may be anything. Nor is the base offset, which only the batches around it could give away:
//! where they were hit, too, it is served in another's place or in a gap, as compaction leaves them,
//! and nothing could tell.

use std::ops::Range;

use klamm_env::FileExt as _;
use klamm_log::{Log, LogError};
use klamm_records::BatchView;

use super::super::Violation;
use super::model::{Model, Written};
use crate::SimRng;

/// Where a batch keeps its leader epoch.
const EPOCH: Range<usize> = 12..16;
/// Where a batch keeps its base offset.
const BASE_OFFSET: Range<usize> = 0..8;

fn violation(detail: String) -> Violation {
    Violation::new("served", detail)
}

/// The bytes that a read of one batch gives.
pub fn read(log: &Log, batch: &Written) -> Result<Vec<u8>, LogError> {
    let read = log.read(batch.base, batch.bytes.len(), i64::MAX, true)?;
    let mut bytes = Vec::with_capacity(read.len);
    for part in &read.parts {
        let from = bytes.len();
        bytes.resize(from + part.len, 0);
        part.file
            .read_exact_at(&mut bytes[from..], part.position)
            .map_err(|source| LogError::Io {
                operation: "read",
                path: log.dir(),
                source,
            })?;
    }
    Ok(bytes)
}

/// Whether whoever asked for a batch sees that this is not it.
fn is_seen_through(batch: &Written, bytes: &[u8]) -> bool {
    let Ok(view) = BatchView::parse(bytes) else {
        return true;
    };
    let header = view.header();
    header.base_offset != batch.base || header.size() > bytes.len() || view.verify_crc().is_err()
}

/// Whether the bytes are those of another batch that was hit, too, and has this one's base offset
/// by that.
fn is_misplaced(model: &Model, batch: &Written, bytes: &[u8]) -> bool {
    let hit = |other: &&Written| other.base != batch.base && model.hit.contains(&other.base);
    let mut others = model.batches.iter().filter(hit);
    let behind = BASE_OFFSET.end;
    others.any(|other| {
        let mut placed = other.bytes.clone();
        placed[BASE_OFFSET].copy_from_slice(&batch.bytes[BASE_OFFSET]);
        let end = placed.len().min(bytes.len());
        placed[..end] == bytes[..end] && end > behind
    })
}

/// Whether the two differ in their leader epoch at most.
fn same_but_epoch(batch: &Written, bytes: &[u8]) -> bool {
    bytes.len() == batch.bytes.len()
        && bytes[..EPOCH.start] == batch.bytes[..EPOCH.start]
        && bytes[EPOCH.end..] == batch.bytes[EPOCH.end..]
}

/// Reads every batch.
pub fn batches(log: &Log, model: &Model) -> Result<(), Violation> {
    for batch in &model.batches {
        let at = format!("the batch {}..{}", batch.base, batch.next);
        let was_hit = model.hit.contains(&batch.base);
        match read(log, batch) {
            Ok(bytes) if bytes == batch.bytes => {}
            Ok(_) if !was_hit => {
                return Err(violation(format!("{at} was not hit and reads differently")));
            }
            Ok(bytes) if is_seen_through(batch, &bytes) || same_but_epoch(batch, &bytes) => {}
            Ok(bytes) if is_misplaced(model, batch, &bytes) => {}
            Ok(_) => {
                return Err(violation(format!(
                    "{at} is served damaged as if it were good"
                )));
            }
            Err(LogError::Corrupt { .. }) if was_hit => {}
            Err(error) => return Err(violation(format!("{at} cannot be read: {error}"))),
        }
    }
    Ok(())
}

/// Whether a record is one of a batch that was hit and got another base offset by that: any between
/// the sound batches around it, which alone could tell.
fn is_displaced(model: &Model, (offset, timestamp): (i64, i64)) -> bool {
    let sound = |batch: &&Written| !model.hit.contains(&batch.base);
    model.batches.iter().enumerate().any(|(at, batch)| {
        if sound(&batch) {
            return false;
        }
        let before = model.batches[..at].iter().rev().find(sound);
        let behind = model.batches[at + 1..].iter().find(sound);
        let least = before.map_or(0, |before| before.next);
        let end = behind.map_or(i64::MAX, |behind| behind.base);
        let mut records = batch.records.iter();
        records.any(|&(own, time)| {
            let moved = offset - own;
            time == timestamp && batch.base + moved >= least && batch.next + moved <= end
        })
    })
}

/// Looks offsets up by timestamps.
pub fn timestamps(log: &Log, model: &Model, rng: &SimRng) -> Result<(), Violation> {
    let records = || model.batches.iter().flat_map(|batch| &batch.records);
    let some: Vec<i64> = records().map(|&(_, timestamp)| timestamp).collect();
    for _ in 0..4 {
        let Some(&time) = rng.pick(&some) else {
            return Ok(());
        };
        let time = time + rng.range(-1, 2);
        let wanted = records().find(|record| record.1 >= time).copied();
        // One that is damaged may be passed over.
        let sound = model
            .batches
            .iter()
            .filter(|batch| !model.hit.contains(&batch.base));
        let mut sound = sound.flat_map(|batch| &batch.records);
        let surely = sound.find(|record| record.1 >= time).copied();
        let may_be = |found: Option<(i64, i64)>| match found {
            None => surely.is_none(),
            Some(found) => {
                let all = model.batches.iter().flat_map(|batch| &batch.records);
                let real = all.into_iter().any(|record| *record == found);
                (real || is_displaced(model, found))
                    && found.1 >= time
                    && surely.is_none_or(|surely| found.0 <= surely.0)
            }
        };
        match log.offset_for_timestamp(time) {
            Ok(found) if may_be(found.map(|found| (found.offset, found.timestamp))) => {}
            Ok(found) => {
                let detail = format!("time {time} is {found:?} and not {wanted:?}");
                return Err(violation(detail));
            }
            Err(LogError::Corrupt { .. }) if !model.hit.is_empty() => {}
            Err(error) => return Err(violation(format!("time {time}: {error}"))),
        }
    }
    Ok(())
}

/// Compares the list of aborted transactions.
pub fn aborted(log: &Log, model: &Model) -> Result<(), Violation> {
    match log.aborted_transactions(0, model.end) {
        Ok(found) => {
            let found: Vec<(i64, i64, i64)> = found
                .iter()
                .map(|txn| (txn.producer_id, txn.first_offset, txn.last_offset))
                .collect();
            if found == model.aborted {
                return Ok(());
            }
            let wanted = &model.aborted;
            Err(violation(format!(
                "{found:?} were aborted and not {wanted:?}"
            )))
        }
        Err(error) if error.is_damage() => Ok(()),
        Err(error) => Err(violation(format!("aborted transactions: {error}"))),
    }
}
