//! Batches of state over each other.

use std::collections::BTreeMap;

/// What became of consecutive records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateBatch {
    /// The first record.
    pub first_offset: i64,
    /// The last.
    pub last_offset: i64,
    /// The delivery state's number.
    pub delivery_state: i8,
    /// How often they were delivered.
    pub delivery_count: i16,
}

/// Delivery count and state.
type Says = (i16, i8);

/// Where a batch begins (true) or has ended, and what it says.
type Bound = (bool, Says);

/// Puts `newer` over `older` and forgets what is below `start_offset`. Where batches meet, the
/// higher delivery count wins, then the higher state; neighbours that say the same become one. The
/// result is ordered and free of overlaps.
pub fn combine(older: &[StateBatch], newer: &[StateBatch], start_offset: i64) -> Vec<StateBatch> {
    // What is known at each offset at which something begins or ends.
    let mut bounds: BTreeMap<i64, Vec<Bound>> = BTreeMap::new();
    for batch in older.iter().chain(newer) {
        let first = batch.first_offset.max(start_offset);
        if first > batch.last_offset {
            continue;
        }
        let says = (batch.delivery_count, batch.delivery_state);
        bounds.entry(first).or_default().push((true, says));
        let behind = batch.last_offset.saturating_add(1);
        bounds.entry(behind).or_default().push((false, says));
    }
    let mut said: BTreeMap<Says, usize> = BTreeMap::new();
    let mut combined: Vec<StateBatch> = Vec::new();
    let mut from = start_offset;
    for (offset, changes) in bounds {
        if let Some(((delivery_count, delivery_state), _)) = said.last_key_value()
            && from < offset
        {
            let batch = StateBatch {
                first_offset: from,
                last_offset: offset - 1,
                delivery_state: *delivery_state,
                delivery_count: *delivery_count,
            };
            match combined.last_mut() {
                Some(last)
                    if last.last_offset + 1 == from
                        && last.delivery_state == batch.delivery_state
                        && last.delivery_count == batch.delivery_count =>
                {
                    last.last_offset = batch.last_offset;
                }
                _ => combined.push(batch),
            }
        }
        from = offset;
        for (begins, says) in changes {
            let count = said.entry(says).or_default();
            if begins {
                *count += 1;
            } else {
                *count -= 1;
                if *count == 0 {
                    said.remove(&says);
                }
            }
        }
    }
    combined
}
