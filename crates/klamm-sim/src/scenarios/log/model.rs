//! What the log must hold.

use std::collections::BTreeMap;

/// A batch as the log should give it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelBatch {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Values of its records; each is unique in a run.
    pub values: Vec<Vec<u8>>,
    /// Producer and first sequence number, if the producer is idempotent.
    pub sequence: Option<(i64, i32)>,
}

impl ModelBatch {
    /// The offset after its last record.
    pub fn next_offset(&self) -> i64 {
        self.base_offset + self.values.len() as i64
    }
}

/// The history of a log as its user saw it.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Batches that were acknowledged, in order, gap-free.
    pub batches: Vec<ModelBatch>,
    /// Everything below is on the disk for certain: a flush said so.
    pub flushed_to: i64,
    /// First offset that may be read.
    pub start: i64,
    /// Batches that were tried and not acknowledged, by the offset they would have had. A crash
    /// may bring one back: its writer knows nothing of its fate.
    pub attempted: BTreeMap<i64, Vec<ModelBatch>>,
}

impl Model {
    /// The offset that the next record gets.
    pub fn end(&self) -> i64 {
        let last = self.batches.last().map_or(0, ModelBatch::next_offset);
        last.max(self.start)
    }

    /// Forgets batches that reach `offset`.
    pub fn truncate_to(&mut self, offset: i64) {
        self.batches.retain(|batch| batch.next_offset() <= offset);
        self.flushed_to = self.flushed_to.min(self.end());
    }

    /// Takes over what a recovered log holds, once it was found to be right: what a crash took
    /// is gone.
    pub fn adopt(&mut self, batches: Vec<ModelBatch>, start: i64) {
        self.batches = batches;
        self.start = start;
        self.attempted.clear();
        self.flushed_to = self.flushed_to.min(self.end());
    }
}
