//! What a log must answer, from the model alone, and whether it does.
//!
//! - **Reads.** A read at any offset begins with the batch that holds it, goes on without a gap,
//!   and gives as many bytes as the limits allow.
//! - **Times.** The first record at or after a time, and the record with the largest.
//! - **Epochs.** Which epoch an offset was written in, and where each ends (KIP-101, KIP-320).
//! - **Transactions.** A `read_committed` consumer that reads up to the last stable offset and
//!   skips what the list of aborted transactions tells it to sees the committed records and no
//!   others (KIP-98).
//!
//! Known false positives: none. An answer that Kafka leaves open is not asked for: epochs below
//! the largest offset that was ever deleted, of which a crash may bring records back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use klamm_log::LogError;

use super::batch::{Batch, Rec, parse};
use super::reference::Reference;
use super::subject::Subject;
use crate::SimRng;

/// Checks reads at a few offsets.
pub fn reads(log: &Subject, model: &Reference, rng: &SimRng) -> Result<(), String> {
    for _ in 0..5 {
        let offset = rng.range(model.start, model.end + 1);
        let max_bytes = rng.index(9000);
        let upper = if rng.one_in(2) {
            i64::MAX
        } else {
            rng.range(model.start, model.end + 1)
        };
        let min_one = rng.one_in(2);
        let told = |what: String| {
            format!(
                "a read at {offset} below {upper} of {max_bytes} bytes (one: {min_one}): {what}"
            )
        };
        let (bytes, _) = log
            .read(offset, max_bytes, upper, min_one)
            .map_err(|error| told(error.to_string()))?;
        let mut wanted = model
            .batches
            .iter()
            .filter(|batch| batch.next() > offset && batch.last < upper);
        let wanted: Vec<&Batch> = if offset < upper {
            wanted.by_ref().collect()
        } else {
            Vec::new()
        };
        let all: usize = wanted.iter().map(|batch| batch.size).sum();
        let first = wanted.first().map_or(0, |batch| batch.size);
        let room = if min_one {
            max_bytes.max(first)
        } else {
            max_bytes
        };
        if bytes.len() != all.min(room) {
            let (got, want) = (bytes.len(), all.min(room));
            return Err(told(format!("{got} bytes and not {want}")));
        }
        let (found, _) = parse(&bytes).map_err(told)?;
        if !found.iter().eq(wanted.into_iter().take(found.len())) {
            return Err(told(format!("gives {:?}", found.first())));
        }
    }
    for outside in [model.start - 1, model.end + 1] {
        if !matches!(
            log.read(outside, 1, i64::MAX, true),
            Err(LogError::OffsetOutOfRange { .. })
        ) {
            return Err(format!("a read at {outside} is not refused"));
        }
    }
    Ok(())
}

/// Checks offsets by time.
pub fn times(log: &Subject, model: &Reference, rng: &SimRng, now_ms: i64) -> Result<(), String> {
    let records = || model.live().flat_map(|batch| batch.records.iter());
    let epoch_of = |offset: i64| {
        let holder = model.batches.iter().find(|batch| batch.last >= offset);
        holder.map_or(-1, |batch| batch.epoch)
    };
    let some: Vec<i64> = records().map(|record| record.timestamp).collect();
    for _ in 0..4 {
        let time = match rng.pick(&some) {
            Some(&time) => time + rng.range(-1, 2),
            None => now_ms,
        };
        let wanted = records()
            .find(|record| record.timestamp >= time && record.offset >= model.start)
            .map(|record| (record.offset, record.timestamp, epoch_of(record.offset)));
        let found = log
            .offset_for_timestamp(time)
            .map_err(|error| format!("time {time}: {error}"))?
            .map(|found| (found.offset, found.timestamp, found.leader_epoch));
        if wanted != found {
            return Err(format!("time {time} is {found:?} and not {wanted:?}"));
        }
    }
    // Kafka looks at whole segments here, deleted records of the first one included.
    let first = log.segments().first().copied().unwrap_or(0);
    let left = || {
        let left = model.batches.iter().filter(|batch| batch.next() > first);
        left.flat_map(|batch| batch.records.iter())
    };
    if first < model.start && model.compacts {
        // What compaction, or a crash, has left of the deleted ones nobody knows.
        return Ok(());
    }
    let max = left().map(|record| record.timestamp).max();
    let wanted = max.and_then(|max| left().find(|record| record.timestamp == max));
    let found = log.max_timestamp_offset().map_err(|e| e.to_string())?;
    let found = found.map(|found| (found.offset, found.timestamp));
    if found.is_none() && left_by_compaction(model, first, max) {
        return Ok(());
    }
    if found != wanted.map(|record| (record.offset, record.timestamp)) {
        let wanted = wanted.map(|record| record.offset);
        return Err(format!(
            "the largest timestamp is at {wanted:?}, not {found:?}"
        ));
    }
    Ok(())
}

/// Whether compaction has left a batch without records that is younger than all records. The largest
/// timestamp is that batch's then, and no record has it: Kafka answers with none, too.
fn left_by_compaction(model: &Reference, first: i64, max: Option<i64>) -> bool {
    let mut left = model.batches.iter().filter(|batch| batch.next() > first);
    left.any(|batch| batch.records.is_empty() && Some(batch.max_timestamp) > max)
}

/// Checks leader epochs.
pub fn epochs(log: &Subject, model: &Reference) -> Result<(), String> {
    let floor = model.deleted_to.max(model.start);
    for batch in model.live().filter(|batch| batch.base >= floor) {
        let found = log.epoch_for_offset(batch.base);
        if found != Some(batch.epoch) {
            let (base, epoch) = (batch.base, batch.epoch);
            return Err(format!(
                "{base} was written in epoch {epoch}, not {found:?}"
            ));
        }
    }
    let epochs = model.epochs();
    let known: Vec<i32> = epochs.iter().map(|&(epoch, _)| epoch).collect();
    let Some(&latest) = known.last() else {
        return Ok(());
    };
    for epoch in 0..=latest + 1 {
        let found = log.epoch_end_offset(epoch);
        let Some(&(next, end)) = epochs.iter().find(|&&(later, _)| later > epoch) else {
            // Its records may all be deleted, and with them what is known of it.
            let all_gone = model
                .live()
                .all(|batch| batch.base < floor || batch.epoch < latest);
            let wanted = (epoch == latest).then_some((latest, model.end));
            let found = found.map(|found| (found.epoch, found.end_offset));
            if found != wanted && !all_gone {
                return Err(format!(
                    "epoch {epoch} ends at {found:?} and not at {wanted:?}"
                ));
            }
            continue;
        };
        if end <= floor {
            continue;
        }
        let holder = known.iter().rev().find(|&&known| known <= epoch);
        let found = found.map(|found| (found.epoch, found.end_offset));
        let wanted = [(holder.copied().unwrap_or(epoch), end), (epoch, end)];
        let maybe_unknown = Some((next, end)) == model.assigned && epochs.len() == 1;
        if !found.is_some_and(|found| wanted.contains(&found)) && !maybe_unknown {
            return Err(format!(
                "epoch {epoch} ends at {found:?} and not at {wanted:?}"
            ));
        }
    }
    Ok(())
}

/// What became of a transactional batch: by the base offset of the batch, whether it counts.
fn fates(model: &Reference) -> BTreeMap<i64, bool> {
    let mut open: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    let mut fates = BTreeMap::new();
    for batch in &model.batches {
        let Some(tag) = batch.tag else { continue };
        if let Some(marker) = batch.marker {
            for base in open.remove(&tag.id).unwrap_or_default() {
                fates.insert(base, marker.committed);
            }
        } else if batch.transactional {
            open.entry(tag.id).or_default().push(batch.base);
        }
    }
    fates
}

/// Checks the last stable offset and what a `read_committed` consumer sees below it.
pub fn transactions(log: &Subject, model: &Reference, rng: &SimRng) -> Result<(), String> {
    let open = model
        .producers
        .known
        .values()
        .filter_map(|producer| producer.txn);
    let wanted = open.min().unwrap_or(model.end).max(model.start);
    let stable = log.last_stable_offset(model.end);
    if stable != wanted {
        return Err(format!(
            "the last stable offset is {stable} and not {wanted}"
        ));
    }
    let fates = fates(model);
    for _ in 0..3 {
        let from = rng.range(model.start, model.end + 1);
        if from >= stable {
            continue;
        }
        let (bytes, upper) = log
            .read(from, 1 + rng.index(12_000), stable, true)
            .map_err(|error| format!("a read at {from}: {error}"))?;
        let (batches, _) = parse(&bytes)?;
        let aborted = log
            .aborted_transactions(from, upper)
            .map_err(|error| format!("aborted transactions from {from}: {error}"))?;
        let mut aborted: Vec<(i64, i64)> = aborted
            .iter()
            .map(|txn| (txn.first_offset, txn.producer_id))
            .collect();
        aborted.sort_unstable();
        let seen = consume(&batches, aborted.into());
        let counts = |batch: &&Batch| {
            batch.marker.is_none()
                && (!batch.transactional || fates.get(&batch.base) == Some(&true))
        };
        let wanted = batches.iter().filter(counts).flat_map(|b| b.records.iter());
        let wanted: Vec<&Rec> = wanted.collect();
        if seen != wanted {
            let offsets = |records: &[&Rec]| -> Vec<i64> {
                records.iter().map(|record| record.offset).collect()
            };
            return Err(format!(
                "from {from} on (to {upper}) {:?} are committed, a consumer sees {:?}",
                offsets(&wanted),
                offsets(&seen)
            ));
        }
    }
    Ok(())
}

/// What a consumer gives its user: the rules of Kafka's own.
fn consume(batches: &[Batch], mut aborted: VecDeque<(i64, i64)>) -> Vec<&Rec> {
    let mut skipping = BTreeSet::new();
    let mut seen = Vec::new();
    for batch in batches {
        while let Some(&(first, producer)) = aborted.front()
            && first <= batch.last
        {
            skipping.insert(producer);
            aborted.pop_front();
        }
        let producer = batch.tag.map_or(-1, |tag| tag.id);
        if let Some(marker) = batch.marker {
            if !marker.committed {
                skipping.remove(&producer);
            }
        } else if !(batch.transactional && skipping.contains(&producer)) {
            seen.extend(&batch.records);
        }
    }
    seen
}
