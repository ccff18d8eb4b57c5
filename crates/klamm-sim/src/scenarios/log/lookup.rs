//! **Lookup.** A read at any offset of the log begins with the batch that holds the offset, and
//! goes on without a gap; a read outside of the log is refused.
//!
//! Source: the contract of `Log::read`; it is the indexes that this puts to the test. Known false
//! positives: none.

use klamm_log::{Log, LogError};

use super::super::Violation;
use super::observed::{Observed, parse, read_bytes};
use crate::SimRng;

/// Checks the property at a few offsets that `rng` chooses.
pub fn check(log: &Log, observed: &Observed, rng: &SimRng) -> Result<(), Violation> {
    for _ in 0..6 {
        if observed.start < observed.end {
            let offset = rng.range(observed.start, observed.end);
            let max_bytes = 1 + rng.index(6000);
            check_at(log, observed, offset, max_bytes)?;
        }
    }
    for outside in [observed.start - 1, observed.end + 1] {
        if !matches!(
            read_bytes(log, outside, 1),
            Err(LogError::OffsetOutOfRange { .. })
        ) {
            return Err(Violation::new(
                "lookup",
                format!("a read at {outside} is not refused"),
            ));
        }
    }
    Ok(())
}

fn check_at(
    log: &Log,
    observed: &Observed,
    offset: i64,
    max_bytes: usize,
) -> Result<(), Violation> {
    let violation = |detail: String| Err(Violation::new("lookup", detail));
    let bytes = match read_bytes(log, offset, max_bytes) {
        Ok(bytes) => bytes,
        Err(error) => return violation(format!("a read at {offset} fails: {error}")),
    };
    let (found, _) = parse(&bytes);
    let at = observed
        .batches
        .iter()
        .position(|batch| batch.next_offset > offset);
    let expected = at.map_or(&[][..], |at| &observed.batches[at..]);
    if found.is_empty() || !expected.starts_with(&found) {
        return violation(format!(
            "a read of {max_bytes} bytes at {offset} gives {:?}, expected {:?}",
            found.first().map(|batch| batch.base_offset),
            expected.first().map(|batch| batch.base_offset)
        ));
    }
    Ok(())
}
