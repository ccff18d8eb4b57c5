//! **Integrity.** Nothing damaged is served: each batch that a read gives has a checksum that
//! holds, records at consecutive offsets that match its header, and follows the one before it; a
//! read without a limit ends with a whole batch.
//!
//! Source: Kafka's recovery, which ends a log at the first damaged batch. Known false positives:
//! bit rot below the recovery point is not looked for at start, in Kafka neither.

use super::super::Violation;
use super::observed::Observed;

/// Checks the property.
pub fn check(observed: &Observed) -> Result<(), Violation> {
    let violation = |detail: String| Err(Violation::new("integrity", detail));
    let mut next = None;
    for batch in &observed.batches {
        let records = match &batch.records {
            Ok(records) => records,
            Err(error) => return violation(format!("the batch at {}: {error}", batch.base_offset)),
        };
        let offsets = records.iter().map(|(offset, _)| *offset);
        if !offsets.eq(batch.base_offset..batch.next_offset) {
            return violation(format!(
                "the batch at {} has other offsets",
                batch.base_offset
            ));
        }
        if next.is_some_and(|next| next != batch.base_offset) {
            return violation(format!("{} follows {next:?}", batch.base_offset));
        }
        next = Some(batch.next_offset);
    }
    if observed.trailing_bytes > 0 {
        return violation(format!(
            "{} bytes after the last batch",
            observed.trailing_bytes
        ));
    }
    Ok(())
}
