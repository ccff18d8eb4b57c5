//! AddPartitionsToTxn (key 24) and AddOffsetsToTxn (key 25).

use std::collections::BTreeSet;

use klamm_protocol::{ByteStr, ErrorCode};

use super::messages::{TransactionResponse, TransactionTimer};
use super::{TransactionEffects, TransactionShard, refuse, reply};
use crate::runtime::{Now, ReplyToken};
use crate::transaction::TransactionPartition;
use crate::transaction::state::{Transaction, TransactionState};

/// A request to add partitions, which may wait for the transaction before it to end.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) token: ReplyToken,
    pub(super) producer: (i64, i16),
    pub(super) partitions: BTreeSet<TransactionPartition>,
    pub(super) version: i16,
    /// Until when it waits, in monotonic milliseconds.
    pub(super) deadline_ms: u64,
}

impl TransactionShard {
    pub(super) fn add_partitions(
        &mut self,
        id: &ByteStr,
        request: Waiting,
        now: Now,
    ) -> TransactionEffects {
        let verdict = self
            .idle(id)
            .and_then(|transaction| addition(transaction, &request, now));
        match verdict {
            Ok(Some(next)) => self.write(id, next, request.token, TransactionResponse::Done),
            Ok(None) => reply(request.token, TransactionResponse::Done),
            Err(ErrorCode::ConcurrentTransactions) if request.deadline_ms > now.monotonic_ms => {
                self.wait(id, request)
            }
            Err(error) => refuse(request.token, error),
        }
    }

    /// The client would only ask again: its request is kept until there is something new to say.
    fn wait(&mut self, id: &ByteStr, request: Waiting) -> TransactionEffects {
        let Some(entry) = self.ids.get_mut(id) else {
            return refuse(request.token, ErrorCode::InvalidProducerIdMapping);
        };
        entry.waiting.push(request);
        let deadlines = entry.waiting.iter().map(|waiting| waiting.deadline_ms);
        if let Some(deadline_ms) = deadlines.min() {
            let timer = TransactionTimer::Patience(id.detached());
            self.timers.schedule(timer, deadline_ms);
        }
        TransactionEffects::default()
    }

    /// Handles again what waits for an id. Each effect may make the id busy, so that the next one
    /// waits on.
    pub(super) fn resume_waiting(&mut self, id: &ByteStr, now: Now) -> TransactionEffects {
        let mut all = TransactionEffects::default();
        let Some(entry) = self.ids.get_mut(id) else {
            return all;
        };
        let mut waiting = std::mem::take(&mut entry.waiting).into_iter();
        for request in waiting.by_ref() {
            let out = self.add_partitions(id, request, now);
            all.replies.extend(out.replies);
            if !out.records.is_empty() {
                // The record is replayed only after this returns.
                all.records = out.records;
                all.deferred = out.deferred;
                break;
            }
        }
        if let Some(entry) = self.ids.get_mut(id) {
            entry.waiting.extend(waiting);
            if entry.waiting.is_empty() {
                self.timers.cancel(TransactionTimer::Patience(id.clone()));
            }
        }
        all
    }

    pub(super) fn verify_partitions(
        &self,
        id: &str,
        producer: (i64, i16),
        partitions: BTreeSet<TransactionPartition>,
        token: ReplyToken,
    ) -> TransactionEffects {
        let verdicts = match self.ids.get(id) {
            None => Err(ErrorCode::InvalidProducerIdMapping),
            Some(entry) => {
                let known = verdicts(entry.committed.as_ref(), producer, &partitions);
                // What is on its way may be lost, and may be long committed if the coordinator
                // before wrote it: only what holds by all of it is said. Who adds partitions goes
                // on with those that it has, and the append to the log has the last word.
                let settled = |next: &Option<Transaction>| {
                    is_verified(&verdicts(next.as_ref(), producer, &partitions))
                };
                let holds = is_verified(&known) && entry.to_come.iter().all(settled);
                if entry.is_busy() && !holds {
                    Err(ErrorCode::ConcurrentTransactions)
                } else {
                    known
                }
            }
        };
        match verdicts {
            Ok(verdicts) => reply(token, TransactionResponse::Verified(verdicts)),
            Err(error) => refuse(token, error),
        }
    }
}

/// What is said of each partition.
type Verdicts = Vec<(TransactionPartition, ErrorCode)>;

fn is_verified(verdicts: &Result<Verdicts, ErrorCode>) -> bool {
    let is_part = |(_, verdict): &(_, ErrorCode)| *verdict == ErrorCode::None;
    verdicts.as_ref().is_ok_and(|all| all.iter().all(is_part))
}

/// Which partitions are part of a producer's transaction in this state.
fn verdicts(
    transaction: Option<&Transaction>,
    (producer_id, producer_epoch): (i64, i16),
    partitions: &BTreeSet<TransactionPartition>,
) -> Result<Verdicts, ErrorCode> {
    let transaction = transaction
        .filter(|transaction| transaction.producer_id == producer_id)
        .ok_or(ErrorCode::InvalidProducerIdMapping)?;
    if transaction.producer_epoch != producer_epoch {
        return Err(ErrorCode::ProducerFenced);
    }
    if transaction.state.is_prepared() {
        return Err(ErrorCode::ConcurrentTransactions);
    }
    let verdicts = partitions.iter().map(|partition| {
        let error = if transaction.partitions.contains(partition) {
            ErrorCode::None
        } else {
            ErrorCode::TransactionAbortable
        };
        (partition.clone(), error)
    });
    Ok(verdicts.collect())
}

/// The state with the partitions added; none if they are part of it already.
fn addition(
    transaction: &Transaction,
    request: &Waiting,
    now: Now,
) -> Result<Option<Transaction>, ErrorCode> {
    // First of all: until the transaction before is closed, its id and epoch are not yet those the
    // producer was told to go on with.
    if transaction.state.is_prepared() {
        return Err(ErrorCode::ConcurrentTransactions);
    }
    let (producer_id, producer_epoch) = request.producer;
    if transaction.producer_id != producer_id {
        return Err(ErrorCode::InvalidProducerIdMapping);
    }
    if transaction.producer_epoch != producer_epoch {
        return Err(ErrorCode::ProducerFenced);
    }
    let partitions = &request.partitions;
    if transaction.state == TransactionState::Ongoing
        && transaction.partitions.is_superset(partitions)
    {
        return Ok(None);
    }
    Ok(Some(transaction.with_partitions(
        partitions,
        request.version,
        now.wall_ms,
    )))
}
