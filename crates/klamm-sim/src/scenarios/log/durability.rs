//! **Durability.** Every record below an offset that a flush vouched for is there after any crash,
//! with its content, unless it was truncated or deleted since.
//!
//! Source: `klamm_log`'s durability contract; Kafka's recovery point. Known false positives: none;
//! a failed sync vouches for nothing.

use super::super::Violation;
use super::model::Model;
use super::observed::Observed;

/// Checks the property.
pub fn check(model: &Model, observed: &Observed) -> Result<(), Violation> {
    let wanted = model.batches.iter().filter(|batch| {
        batch.next_offset() <= model.flushed_to && batch.next_offset() > model.start
    });
    for batch in wanted {
        let found = observed
            .batches
            .iter()
            .find(|found| found.base_offset == batch.base_offset);
        let values: Option<Vec<&[u8]>> = found
            .and_then(|found| found.records.as_ref().ok())
            .map(|records| records.iter().map(|(_, value)| &value[..]).collect());
        if values.is_none_or(|values| values != batch.values) {
            return Err(Violation::new(
                "durability",
                format!(
                    "the batch at {} was flushed (to {}) and is not there; the log holds {}..{}",
                    batch.base_offset, model.flushed_to, observed.start, observed.end
                ),
            ));
        }
    }
    Ok(())
}
