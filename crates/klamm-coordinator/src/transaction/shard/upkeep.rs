//! What happens by itself: transactions that are open for too long are aborted, ids that nobody
//! uses are forgotten.

use klamm_protocol::ByteStr;

use super::messages::{TransactionAction, TransactionResponse, TransactionTimer};
use super::{TransactionEffects, TransactionShard, reply};
use crate::runtime::{Now, ReplyToken};
use crate::transaction::state::Transaction;
use crate::transaction::{EPOCH_BUMP_VERSION, NO_PRODUCER_ID};

impl TransactionShard {
    pub(super) fn schedule_upkeep(&mut self, now: Now) {
        for (timer, interval_ms) in [
            (
                TransactionTimer::AbortTimedOut,
                self.config.abort_interval_ms,
            ),
            (
                TransactionTimer::Expiration,
                self.config.expiration_interval_ms,
            ),
        ] {
            self.timers.schedule(timer, now.after_ms(interval_ms));
        }
    }

    /// The state of a transaction that is aborted in its producer's place; none if that takes a
    /// producer id to go on with.
    pub(super) fn fenced(
        &self,
        transaction: &Transaction,
        spare: Option<i64>,
        now: Now,
    ) -> Option<Transaction> {
        let version = self.version();
        let rotates = version >= EPOCH_BUMP_VERSION && transaction.is_epoch_exhausted();
        let next_producer_id = match spare {
            _ if !rotates => NO_PRODUCER_ID,
            Some(spare) => spare,
            None => return None,
        };
        Some(transaction.fenced(version, next_producer_id, now.wall_ms))
    }

    pub(super) fn abort_all_timed_out(&mut self, now: Now) -> TransactionEffects {
        let interval_ms = self.config.abort_interval_ms;
        self.timers
            .schedule(TransactionTimer::AbortTimedOut, now.after_ms(interval_ms));
        let mut out = TransactionEffects {
            atomic: false,
            ..TransactionEffects::default()
        };
        for (id, entry) in &self.ids {
            let Some(transaction) = entry.committed.as_ref().filter(|_| !entry.is_busy()) else {
                continue;
            };
            if !transaction.is_timed_out(now.wall_ms) {
                continue;
            }
            tracing::info!(%id, "aborting a transaction that was open for too long");
            match self.fenced(transaction, None, now) {
                Some(next) => out.records.push(self.record(id, Some(next))),
                None => out.actions.push(TransactionAction::AllocateProducerId {
                    transactional_id: id.clone(),
                }),
            }
        }
        out
    }

    /// The same for one transaction, with the producer id that it took.
    pub(super) fn abort_timed_out(
        &mut self,
        id: &ByteStr,
        spare: i64,
        token: ReplyToken,
        now: Now,
    ) -> TransactionEffects {
        let timed_out = self
            .idle(id)
            .ok()
            .filter(|transaction| transaction.is_timed_out(now.wall_ms));
        match timed_out.and_then(|transaction| self.fenced(transaction, Some(spare), now)) {
            Some(next) => self.write(id, next, token, TransactionResponse::Done),
            None => reply(token, TransactionResponse::Done),
        }
    }

    /// Tombstones for ids whose time is up.
    pub(super) fn expire(&mut self, now: Now) -> TransactionEffects {
        let interval_ms = self.config.expiration_interval_ms;
        self.timers
            .schedule(TransactionTimer::Expiration, now.after_ms(interval_ms));
        let mut out = TransactionEffects {
            atomic: false,
            ..TransactionEffects::default()
        };
        let expiration_ms = self.config.id_expiration_ms;
        for (id, entry) in &self.ids {
            let transaction = entry.committed.as_ref().filter(|_| !entry.is_busy());
            if transaction.is_some_and(|txn| txn.is_expired(now.wall_ms, expiration_ms)) {
                out.records.push(self.record(id, None));
            }
        }
        out
    }
}
