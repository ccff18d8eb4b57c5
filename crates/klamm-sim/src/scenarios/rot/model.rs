//! What was written, and which of it was hit since.

use std::collections::BTreeSet;

/// A batch as it was in the log when its append was acknowledged.
#[derive(Clone, Debug)]
pub struct Written {
    /// First offset.
    pub base: i64,
    /// The offset after the last.
    pub next: i64,
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// Offset and timestamp of its records.
    pub records: Vec<(i64, i64)>,
    /// Whether it belongs to a transaction.
    pub transactional: bool,
}

/// What the log must hold.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Batches in order.
    pub batches: Vec<Written>,
    /// The offset that the next record gets.
    pub end: i64,
    /// Aborted transactions: producer, first offset, offset of the marker.
    pub aborted: Vec<(i64, i64, i64)>,
    /// Base offsets of batches of which a bit was flipped.
    pub hit: BTreeSet<i64>,
    /// Everything below was on the disk when the log last said so there.
    pub vouched_to: i64,
}

impl Model {
    /// The offset after the last batch.
    pub fn last(&self) -> i64 {
        self.batches.last().map_or(0, |batch| batch.next)
    }

    /// Takes over a log that ends at `end`. Where that is damaged nobody knows the last offset of
    /// the last batch, and one may be left out.
    ///
    /// # Errors
    /// What the end should be.
    pub fn adopt_end(&mut self, end: i64) -> Result<(), i64> {
        let damaged = self
            .batches
            .last()
            .is_some_and(|last| self.hit.contains(&last.base));
        let right = end == self.end || end == self.last() || damaged && end == self.last() + 1;
        self.end = end;
        if right { Ok(()) } else { Err(self.last()) }
    }

    /// Forgets what a crash took: batches from `end` on, and what nobody vouched for within
    /// `holes`, of which the log told.
    pub fn lose(&mut self, end: i64, holes: &[std::ops::Range<i64>]) {
        self.batches.retain(|batch| batch.next <= end);
        self.aborted.retain(|&(.., marker)| marker < end);
        for batch in &self.batches {
            if batch.next > self.vouched_to && holes.iter().any(|hole| hole.contains(&batch.base)) {
                self.hit.insert(batch.base);
            }
        }
    }
}
