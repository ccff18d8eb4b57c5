use crate::batch::{BatchMeta, NO_TIMESTAMP, add_sequence};

/// Batches of a producer that are remembered, so that a retry of any request a client may have in
/// flight is recognised.
pub(crate) const BATCHES_KEPT: usize = 5;
const NO_EPOCH: i16 = -1;
const NO_SEQUENCE: i32 = -1;

/// One batch of a producer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BatchNote {
    pub(crate) last_sequence: i32,
    pub(crate) last_offset: i64,
    pub(crate) offset_delta: i32,
    pub(crate) timestamp: i64,
}

impl BatchNote {
    pub(crate) fn first_sequence(&self) -> i32 {
        add_sequence(self.last_sequence, -self.offset_delta)
    }

    pub(crate) fn first_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }
}

/// One producer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProducerEntry {
    pub(crate) epoch: i16,
    /// Epoch of the coordinator that wrote the last marker.
    pub(crate) coordinator_epoch: i32,
    pub(crate) last_timestamp: i64,
    /// Where the open transaction begins.
    pub(crate) txn_first_offset: Option<i64>,
    /// The last batches of this epoch, oldest first; the first `len` are in use.
    batches: [BatchNote; BATCHES_KEPT],
    len: u8,
}

impl ProducerEntry {
    /// A producer of which nothing is known.
    pub(crate) fn unknown() -> ProducerEntry {
        ProducerEntry {
            epoch: NO_EPOCH,
            coordinator_epoch: -1,
            last_timestamp: NO_TIMESTAMP,
            txn_first_offset: None,
            batches: [BatchNote::default(); BATCHES_KEPT],
            len: 0,
        }
    }

    pub(crate) fn has_epoch(&self) -> bool {
        self.epoch != NO_EPOCH
    }

    pub(crate) fn batches(&self) -> &[BatchNote] {
        &self.batches[..usize::from(self.len)]
    }

    pub(crate) fn last_batch(&self) -> Option<&BatchNote> {
        self.batches().last()
    }

    pub(crate) fn last_sequence(&self) -> i32 {
        self.last_batch()
            .map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    pub(crate) fn last_offset(&self) -> i64 {
        self.last_batch().map_or(-1, |batch| batch.last_offset)
    }

    pub(crate) fn push(&mut self, batch: BatchNote) {
        if usize::from(self.len) == BATCHES_KEPT {
            self.batches.rotate_left(1);
            self.batches[BATCHES_KEPT - 1] = batch;
        } else {
            self.batches[usize::from(self.len)] = batch;
            self.len += 1;
        }
    }

    /// Enters an epoch; batches of another one no longer count.
    pub(crate) fn enter_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.len = 0;
            self.epoch = epoch;
        }
    }

    pub(crate) fn clear_batches(&mut self) {
        self.len = 0;
    }

    /// Takes over what later batches changed.
    pub(crate) fn merge(&mut self, newer: ProducerEntry) {
        self.enter_epoch(newer.epoch);
        for batch in newer.batches() {
            self.push(*batch);
        }
        self.coordinator_epoch = newer.coordinator_epoch;
        self.txn_first_offset = newer.txn_first_offset;
        self.last_timestamp = newer.last_timestamp;
    }

    /// The remembered batch with the sequence numbers of this one: it is being retried.
    pub(crate) fn duplicate_of(&self, batch: &BatchMeta) -> Option<BatchNote> {
        if batch.producer_epoch != self.epoch {
            return None;
        }
        self.batches()
            .iter()
            .find(|known| {
                known.first_sequence() == batch.base_sequence
                    && known.last_sequence == batch.last_sequence()
            })
            .copied()
    }

    pub(crate) fn is_expired(&self, now_ms: i64, expiration_ms: i64) -> bool {
        self.txn_first_offset.is_none()
            && now_ms.saturating_sub(self.last_timestamp) >= expiration_ms
    }
}
