//! From a committed decision over the markers to the closed transaction.

use klamm_protocol::{ByteStr, ErrorCode};

use super::messages::{TransactionAction, TransactionCompletion, TransactionResponse};
use super::{TransactionEffects, TransactionShard, reply};
use crate::runtime::{Now, ReplyToken, TransactionEnd};
use crate::transaction::markers::{MarkerVerdict, verdict};
use crate::transaction::state::TransactionState;
use crate::transaction::{TransactionMarkers, TransactionPartition};

impl TransactionShard {
    /// A state of the id is committed, or was when the shard was loaded: does what it calls for.
    pub(super) fn settled(&mut self, id: &ByteStr, now: Now) -> TransactionEffects {
        let Some(entry) = self.ids.get(id) else {
            return TransactionEffects::default();
        };
        let prepared = entry
            .committed
            .as_ref()
            .filter(|transaction| transaction.state.is_prepared());
        let Some(transaction) = prepared.filter(|_| !entry.is_busy()) else {
            return self.resume_waiting(id, now);
        };
        if entry.unmarked.is_empty() {
            return self.complete_if_marked(id, now);
        }
        let markers = TransactionMarkers {
            end: TransactionEnd {
                producer_id: transaction.producer_id,
                producer_epoch: transaction.producer_epoch,
                committed: transaction.state == TransactionState::PrepareCommit,
                coordinator_epoch: -1,
                transaction_version: transaction.client_version,
            },
            partitions: entry.unmarked.iter().cloned().collect(),
        };
        let mut out = TransactionEffects::default();
        out.actions.push(TransactionAction::WriteMarkers {
            transactional_id: id.clone(),
            markers,
        });
        out
    }

    /// Takes the outcomes of markers, and closes the transaction with the last one.
    pub(super) fn markers_written(
        &mut self,
        id: &ByteStr,
        (producer_id, producer_epoch): (i64, i16),
        outcomes: Vec<(TransactionPartition, ErrorCode)>,
        token: ReplyToken,
        now: Now,
    ) -> TransactionEffects {
        let Some(entry) = self.ids.get_mut(id) else {
            return reply(token, TransactionResponse::Done);
        };
        let is_current = entry.committed.as_ref().is_some_and(|transaction| {
            transaction.state.is_prepared()
                && transaction.producer_id == producer_id
                && transaction.producer_epoch == producer_epoch
        });
        if !is_current || entry.is_busy() {
            return reply(token, TransactionResponse::Done);
        }
        for (partition, outcome) in outcomes {
            match verdict(outcome) {
                MarkerVerdict::Done => {
                    entry.unmarked.remove(&partition);
                }
                MarkerVerdict::Retry => {
                    let (topic, number) = &partition;
                    tracing::info!(%id, %topic, number, error = %outcome, "a marker is not written yet");
                }
                MarkerVerdict::GiveUp => {
                    let (topic, number) = &partition;
                    tracing::warn!(
                        %id, %topic, number, error = %outcome,
                        "a marker was refused: another coordinator decides about this producer"
                    );
                    return reply(token, TransactionResponse::Done);
                }
            }
        }
        if !entry.unmarked.is_empty() {
            let remaining = entry.unmarked.iter().cloned().collect();
            return reply(token, TransactionResponse::Remaining(remaining));
        }
        let mut out = self.complete_if_marked(id, now);
        out.reply(token, TransactionResponse::Done);
        out
    }

    /// Closes a transaction that needs no more markers.
    pub(super) fn complete_if_marked(&mut self, id: &ByteStr, now: Now) -> TransactionEffects {
        let mut out = TransactionEffects::default();
        let Some(entry) = self.ids.get(id) else {
            return out;
        };
        let Some(transaction) = &entry.committed else {
            return out;
        };
        if entry.is_busy() || !transaction.state.is_prepared() || !entry.unmarked.is_empty() {
            return out;
        }
        let completed = transaction.completed(now.wall_ms);
        out.records.push(self.record(id, Some(completed)));
        out.completion = Some(TransactionCompletion::Completed(id.clone()));
        out
    }
}
