use std::collections::BTreeMap;

/// What is known of a producer that wants to write in a transaction which the transaction
/// coordinator is being asked about (KIP-890).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verification {
    /// Names this verification: an append that shows it was verified after it began.
    pub(crate) guard: u64,
    /// The lowest sequence number that the producer tried to write under its newest epoch: one
    /// above it must not come in first.
    pub(crate) lowest_sequence: i32,
    /// The newest epoch.
    pub(crate) epoch: i16,
    /// Whether the producer's epoch is bumped with each transaction.
    pub(crate) bumps_epoch: bool,
    began_ms: i64,
}

/// The verifications under way.
#[derive(Debug, Default)]
pub(crate) struct Verifications {
    by_producer: BTreeMap<i64, Verification>,
    last_guard: u64,
}

impl Verifications {
    pub(crate) fn get(&self, producer_id: i64) -> Option<&Verification> {
        self.by_producer.get(&producer_id)
    }

    /// Begins a verification, or joins the one under way. Returns its guard.
    pub(crate) fn begin(
        &mut self,
        producer_id: i64,
        epoch: i16,
        sequence: i32,
        bumps_epoch: bool,
        now_ms: i64,
    ) -> u64 {
        let last_guard = &mut self.last_guard;
        let entry = self.by_producer.entry(producer_id).or_insert_with(|| {
            *last_guard += 1;
            Verification {
                guard: *last_guard,
                lowest_sequence: sequence,
                epoch,
                bumps_epoch,
                began_ms: now_ms,
            }
        });
        if epoch > entry.epoch {
            entry.epoch = epoch;
            entry.lowest_sequence = sequence;
        } else if epoch == entry.epoch {
            entry.lowest_sequence = entry.lowest_sequence.min(sequence);
        }
        entry.guard
    }

    /// A transactional batch was appended. What was verified is used up by it, unless it is the
    /// marker of a transaction before the one that is being verified.
    pub(crate) fn appended(&mut self, producer_id: i64, epoch: i16, is_control: bool) {
        let is_for_next = self
            .get(producer_id)
            .is_some_and(|entry| entry.bumps_epoch && is_control && epoch == entry.epoch);
        if !is_for_next {
            self.by_producer.remove(&producer_id);
        }
    }

    /// Forgets what is older than that. Returns when the next is, if there is one.
    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) -> Option<i64> {
        self.by_producer
            .retain(|_, entry| now_ms.saturating_sub(entry.began_ms) < expiration_ms);
        let begun = self.by_producer.values().map(|entry| entry.began_ms);
        begun.min().map(|ms| ms.saturating_add(expiration_ms))
    }
}
