use klamm_records::control::EndTransactionMarker;

use crate::batch::BatchMeta;
use crate::error::LogError;
use crate::producer_state::verification::Verification;
use crate::producer_state::{AppendOrigin, BatchNote, ProducerEntry};

/// A transaction that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompletedTxn {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    /// Offset of the marker.
    pub(crate) last_offset: i64,
    pub(crate) aborted: bool,
}

/// What an append changes for one producer. Checked batch by batch before anything is written;
/// committed or dropped as a whole.
#[derive(Debug)]
pub(crate) struct PendingUpdate {
    producer_id: i64,
    origin: AppendOrigin,
    current_epoch: Option<i16>,
    current_last_sequence: i32,
    /// Nothing is known of the producer's batches.
    has_no_batches: bool,
    verification: Option<Verification>,
    updated: ProducerEntry,
    started: Vec<i64>,
}

impl PendingUpdate {
    pub(crate) fn new(
        producer_id: i64,
        current: Option<&ProducerEntry>,
        verification: Option<&Verification>,
        origin: AppendOrigin,
    ) -> PendingUpdate {
        let mut updated = current.cloned().unwrap_or_else(ProducerEntry::unknown);
        let current_last_sequence = updated.last_sequence();
        let has_no_batches = updated.last_batch().is_none();
        updated.clear_batches();
        PendingUpdate {
            producer_id,
            origin,
            current_epoch: updated.has_epoch().then_some(updated.epoch),
            current_last_sequence,
            has_no_batches,
            verification: verification.copied(),
            updated,
            started: Vec::new(),
        }
    }

    pub(crate) fn producer_id(&self) -> i64 {
        self.producer_id
    }

    pub(crate) fn into_parts(self) -> (i64, ProducerEntry, Vec<i64>) {
        (self.producer_id, self.updated, self.started)
    }

    /// Checks the next batch of the producer and notes its effect. Returns the transaction that
    /// it ends.
    pub(crate) fn add(
        &mut self,
        batch: &BatchMeta,
        marker: Option<EndTransactionMarker>,
    ) -> Result<Option<CompletedTxn>, LogError> {
        if !batch.is_control() {
            return self.add_data(batch).map(|()| None);
        }
        // A control batch without a record is what compaction leaves of a transaction.
        match marker {
            Some(marker) => self.add_marker(batch, marker),
            None => Ok(None),
        }
    }

    fn add_data(&mut self, batch: &BatchMeta) -> Result<(), LogError> {
        self.check_epoch(batch, 0)?;
        if self.origin.is_client() {
            self.check_sequence(batch)?;
        }
        self.updated.enter_epoch(batch.producer_epoch);
        self.updated.push(BatchNote {
            last_sequence: batch.last_sequence(),
            last_offset: batch.last_offset,
            offset_delta: (batch.last_offset - batch.base_offset) as i32,
            timestamp: batch.max_timestamp,
        });
        self.updated.last_timestamp = batch.max_timestamp;
        match (self.updated.txn_first_offset, batch.is_transactional()) {
            (Some(_), false) => Err(LogError::InvalidTxnState {
                producer_id: self.producer_id,
            }),
            (None, true) => {
                self.updated.txn_first_offset = Some(batch.base_offset);
                self.started.push(batch.base_offset);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn add_marker(
        &mut self,
        batch: &BatchMeta,
        marker: EndTransactionMarker,
    ) -> Result<Option<CompletedTxn>, LogError> {
        let version = match self.origin {
            AppendOrigin::TxnMarkers {
                transaction_version,
            } => transaction_version,
            _ => 0,
        };
        self.check_epoch(batch, version)?;
        let known = self.updated.coordinator_epoch;
        if known > marker.coordinator_epoch && self.origin != AppendOrigin::Replication {
            return Err(LogError::TransactionCoordinatorFenced {
                producer_id: self.producer_id,
                got: marker.coordinator_epoch,
                current: known,
            });
        }
        // A marker without data before it holds nothing back and needs no index entry.
        let completed = self
            .updated
            .txn_first_offset
            .map(|first_offset| CompletedTxn {
                producer_id: self.producer_id,
                first_offset,
                last_offset: batch.base_offset,
                aborted: !marker.committed,
            });
        self.updated.enter_epoch(batch.producer_epoch);
        self.updated.coordinator_epoch = marker.coordinator_epoch;
        self.updated.txn_first_offset = None;
        self.updated.last_timestamp = batch.max_timestamp;
        Ok(completed)
    }

    fn check_epoch(&self, batch: &BatchMeta, transaction_version: i16) -> Result<(), LogError> {
        let current = self.updated.epoch;
        let got = batch.producer_epoch;
        // From transaction version 2 on (KIP-890) each transaction ends with an epoch of its own.
        let bumped = transaction_version >= 2;
        let stale = if bumped {
            got <= current
        } else {
            got < current
        };
        if !stale || self.origin == AppendOrigin::Replication {
            return Ok(());
        }
        // The coordinator may write a marker again that is there already, and one with the last
        // possible epoch cannot be bumped.
        let repeated = bumped
            && got == current
            && (self.updated.txn_first_offset.is_none() || got == i16::MAX);
        if repeated {
            return Ok(());
        }
        Err(LogError::InvalidProducerEpoch {
            producer_id: self.producer_id,
            offset: batch.base_offset,
            got,
            current,
        })
    }

    fn check_sequence(&self, batch: &BatchMeta) -> Result<(), LogError> {
        let got = batch.base_sequence;
        let out_of_order = |last| {
            Err(LogError::OutOfOrderSequence {
                producer_id: self.producer_id,
                offset: batch.base_offset,
                got,
                last,
            })
        };
        if let Some(verification) = self.verification {
            // A producer whose epochs end with its transactions begins each at 0.
            if verification.bumps_epoch && got != 0 && self.has_no_batches {
                return out_of_order(-1);
            }
            if got > verification.lowest_sequence {
                return out_of_order(verification.lowest_sequence);
            }
        }
        if batch.producer_epoch != self.updated.epoch {
            // A new epoch begins at 0; of a producer that is unknown, perhaps because its records
            // were deleted, any sequence is taken.
            return if got != 0 && self.updated.has_epoch() {
                out_of_order(-1)
            } else {
                Ok(())
            };
        }
        let last = match self.updated.last_batch() {
            Some(batch) => batch.last_sequence,
            None if self.current_epoch == Some(batch.producer_epoch) => self.current_last_sequence,
            None => -1,
        };
        let follows = i64::from(got) == i64::from(last) + 1 || (got == 0 && last == i32::MAX);
        if follows || self.current_epoch.is_none() {
            Ok(())
        } else {
            out_of_order(last)
        }
    }
}
