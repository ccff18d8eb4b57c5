//! **Prefix.** What a log holds is a prefix of what was acknowledged, batch by batch: nothing is
//! missing before something that is there, nothing truncated comes back, nothing was never
//! written. One batch more is allowed at the end: one whose append was not acknowledged.
//!
//! Source: a replicated log's users count on offsets meaning one thing. Known false positives:
//! none.

use super::super::Violation;
use super::model::{Model, ModelBatch};
use super::observed::{Observed, ObservedBatch};

/// Checks the property; gives the batches that the log holds now.
pub fn check(model: &Model, observed: &Observed) -> Result<Vec<ModelBatch>, Violation> {
    let mut expected = model
        .batches
        .iter()
        .filter(|batch| batch.next_offset() > observed.start);
    let mut held: Vec<ModelBatch> = model
        .batches
        .iter()
        .filter(|batch| batch.next_offset() <= observed.start)
        .cloned()
        .collect();
    let count = observed.batches.len();
    for (index, found) in observed.batches.iter().enumerate() {
        let expected = expected.next();
        if let Some(expected) = expected.filter(|expected| same(expected, found)) {
            held.push(expected.clone());
            continue;
        }
        let attempted = model.attempted.get(&found.base_offset);
        let attempted = attempted.and_then(|all| all.iter().find(|tried| same(tried, found)));
        match attempted {
            Some(attempted) if index + 1 == count => held.push(attempted.clone()),
            _ => return Err(wrong(found, expected)),
        }
    }
    let end = held.last().map_or(observed.start, ModelBatch::next_offset);
    if end.max(observed.start) != observed.end {
        return Err(Violation::new(
            "prefix",
            format!("the log says to end at {} and ends at {end}", observed.end),
        ));
    }
    Ok(held)
}

fn same(model: &ModelBatch, found: &ObservedBatch) -> bool {
    let Ok(records) = &found.records else {
        return false;
    };
    let values = records.iter().map(|(_, value)| &value[..]);
    model.base_offset == found.base_offset
        && model.next_offset() == found.next_offset
        && model.sequence == found.sequence
        && values.eq(model.values.iter().map(|value| &value[..]))
}

fn wrong(found: &ObservedBatch, expected: Option<&ModelBatch>) -> Violation {
    let expected = expected.map_or("nothing".to_owned(), |batch| {
        format!("{}..{}", batch.base_offset, batch.next_offset())
    });
    Violation::new(
        "prefix",
        format!(
            "found {}..{} ({}) where {expected} was expected",
            found.base_offset,
            found.next_offset,
            match &found.records {
                Ok(records) => format!("{} records", records.len()),
                Err(error) => error.clone(),
            }
        ),
    )
}
