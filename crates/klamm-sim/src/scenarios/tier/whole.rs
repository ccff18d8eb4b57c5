//! **Whole.** Every offset from the start of a log to its end reads exactly as it was written: from
//! the local disk at or above the local start, from the remote tier below.
//!
//! - The local log says of an offset below its start that the tier has it, and the tier does.
//! - What the log counts as uploaded can be read from the tier.
//! - The first record at or after a timestamp is found wherever it lies.
//!
//! Source: KIP-405. Known false positives: none.

use klamm_env::FileExt as _;
use klamm_log::tier::RemoteLog;
use klamm_log::{Log, LogError};

use super::super::Violation;
use crate::SimRng;

/// A batch as it was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// First offset.
    pub base: i64,
    /// The offset after the last.
    pub next: i64,
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// The timestamps of its records.
    pub timestamps: Vec<i64>,
}

fn violation(detail: String) -> Violation {
    Violation::new("whole", detail)
}

/// Reads a batch from the local disk.
fn local(log: &Log, batch: &Written) -> Result<Vec<u8>, LogError> {
    let read = log.read(batch.base.max(log.log_start_offset()), 1, i64::MAX, true)?;
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

/// Reads every batch. Those below `given_up` were deleted: if a crash brings the former start of the
/// log back, the epochs by which the tier would find them are gone.
pub fn check(
    log: &Log,
    remote: &RemoteLog,
    batches: &[Written],
    given_up: i64,
) -> Result<(), Violation> {
    let (start, local_start) = (log.log_start_offset(), log.local_log_start_offset());
    let first = batches
        .first()
        .map_or(log.log_end_offset(), |batch| batch.base);
    if start < first {
        return Err(violation(format!(
            "it begins at {start}, the first record is {first}"
        )));
    }
    let end = batches.last().map_or(start, |batch| batch.next);
    if log.log_end_offset() != end {
        let said = log.log_end_offset();
        return Err(violation(format!("it ends at {said} and not at {end}")));
    }
    for batch in batches.iter().filter(|batch| batch.next > start) {
        let at = format!("the batch {}..{}", batch.base, batch.next);
        let offset = batch.base.max(start);
        if batch.next <= local_start {
            if !matches!(local(log, batch), Err(LogError::OffsetTiered { .. })) {
                return Err(violation(format!("{at} is not said to be in the tier")));
            }
        } else {
            let bytes = local(log, batch);
            let bytes = bytes.map_err(|error| violation(format!("{at}: {error}")))?;
            if bytes != batch.bytes {
                return Err(violation(format!("{at} reads differently")));
            }
        }
        let tiered = batch.next <= local_start || batch.next <= log.highest_tiered_offset() + 1;
        if tiered && batch.base >= given_up {
            let read = remote.read(offset, 1);
            let read = read.map_err(|error| violation(format!("{at} in the tier: {error}")))?;
            if read.is_none_or(|read| read.bytes != batch.bytes) {
                return Err(violation(format!(
                    "{at} is not in the tier as it was written"
                )));
            }
        }
    }
    Ok(())
}

/// Looks offsets up by timestamps.
pub fn check_times(
    log: &Log,
    remote: &RemoteLog,
    batches: &[Written],
    rng: &SimRng,
) -> Result<(), Violation> {
    let start = log.log_start_offset();
    let records = || {
        let of = |batch: &Written| (batch.base..).zip(batch.timestamps.clone());
        let all = batches.iter().flat_map(of);
        all.filter(move |&(offset, _)| offset >= start)
    };
    let some: Vec<i64> = records().map(|(_, timestamp)| timestamp).collect();
    for _ in 0..4 {
        let Some(&time) = rng.pick(&some) else {
            return Ok(());
        };
        let time = time + rng.range(-1, 2);
        let wanted = records().find(|&(_, timestamp)| timestamp >= time);
        let found = remote.offset_for_timestamp(time);
        let found = found.map_err(|error| violation(format!("time {time}: {error}")))?;
        let found = found.map(|found| (found.offset, found.timestamp));
        if found != wanted {
            return Err(violation(format!(
                "time {time} is {found:?} and not {wanted:?}"
            )));
        }
    }
    Ok(())
}
