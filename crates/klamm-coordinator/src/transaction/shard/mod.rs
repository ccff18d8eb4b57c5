//! The transaction coordinator's state over one partition of `__transaction_state`.
//!
//! Each transactional id has the state that is committed and, while a record of it is on its way,
//! the state to come. An id with a state to come is busy: requests that would change it are told
//! `CONCURRENT_TRANSACTIONS`, those that only look see what is committed; who verifies partitions is
//! told what holds by both. So nothing is ever answered from a state that may still be lost, and
//! nothing has to be taken back by hand.
//!
//! `producers` is InitProducerId, `partitions` what adds and verifies partitions, `end` EndTxn,
//! `completion` what follows from `Prepare*`, `upkeep` timeouts and expiry, `inspect` the views.

mod completion;
mod end;
mod inspect;
mod messages;
mod partitions;
mod producers;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI16, Ordering};

use klamm_protocol::{ByteStr, ErrorCode};

use super::TransactionPartition;
use super::config::TransactionCoordinatorConfig;
use super::record::TransactionRecord;
use super::state::Transaction;
use crate::runtime::{Effects, Now, RecordOrigin, ReplyToken, Shard, Timers, WriteOutcome};

pub use messages::{
    InitProducerId, ListFilter, TransactionAction, TransactionCompletion, TransactionRequest,
    TransactionResponse, TransactionTimer, TransactionUndo,
};
use partitions::Waiting;

/// What a transaction shard wants done.
pub type TransactionEffects = Effects<TransactionShard>;

/// One transactional id.
#[derive(Debug, Default)]
struct Entry {
    committed: Option<Transaction>,
    /// States to come, oldest first. More than one only while loading what another leader wrote.
    to_come: VecDeque<Option<Transaction>>,
    /// Partitions that still need their marker, from when the decision is committed.
    unmarked: BTreeSet<TransactionPartition>,
    /// Requests that wait for the transaction before theirs to end.
    waiting: Vec<Waiting>,
}

impl Entry {
    fn is_busy(&self) -> bool {
        !self.to_come.is_empty()
    }

    fn is_gone(&self) -> bool {
        self.committed.is_none() && self.to_come.is_empty() && self.waiting.is_empty()
    }
}

/// All transactional ids of one partition of `__transaction_state`.
#[derive(Debug)]
pub struct TransactionShard {
    config: Arc<TransactionCoordinatorConfig>,
    /// The cluster's `transaction.version`.
    version: Arc<AtomicI16>,
    ids: BTreeMap<ByteStr, Entry>,
    timers: Timers<TransactionTimer>,
    /// Ids whose state was committed and may call for something.
    settled: VecDeque<ByteStr>,
}

impl TransactionShard {
    /// A shard without ids. `version` is the level of the feature `transaction.version`, which may
    /// change.
    pub fn new(config: Arc<TransactionCoordinatorConfig>, version: Arc<AtomicI16>) -> Self {
        TransactionShard {
            config,
            version,
            ids: BTreeMap::new(),
            timers: Timers::default(),
            settled: VecDeque::new(),
        }
    }

    /// The committed state of an id.
    pub fn transaction(&self, transactional_id: &str) -> Option<&Transaction> {
        self.ids.get(transactional_id)?.committed.as_ref()
    }

    /// The ids with a committed state, in order.
    pub fn transactions(&self) -> impl Iterator<Item = (&ByteStr, &Transaction)> {
        self.ids
            .iter()
            .filter_map(|(id, entry)| Some((id, entry.committed.as_ref()?)))
    }

    fn version(&self) -> i16 {
        self.version.load(Ordering::Acquire)
    }

    /// The committed state of an id that is known and not busy.
    fn idle(&self, transactional_id: &str) -> Result<&Transaction, ErrorCode> {
        let entry = self.ids.get(transactional_id);
        let entry = entry.ok_or(ErrorCode::InvalidProducerIdMapping)?;
        if entry.is_busy() {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let committed = entry.committed.as_ref();
        committed.ok_or(ErrorCode::InvalidProducerIdMapping)
    }

    /// The record that takes an id to its next state.
    fn record(&self, transactional_id: &ByteStr, next: Option<Transaction>) -> TransactionRecord {
        TransactionRecord::State {
            transactional_id: transactional_id.detached(),
            transaction: next.map(Box::new),
            version: self.version().clamp(0, 1),
        }
    }

    /// Writes the next state of an id and answers once it is committed.
    fn write(
        &self,
        transactional_id: &ByteStr,
        next: Transaction,
        token: ReplyToken,
        response: TransactionResponse,
    ) -> TransactionEffects {
        let mut out = TransactionEffects::default();
        out.records.push(self.record(transactional_id, Some(next)));
        out.deferred = Some((token, response));
        out
    }

    /// A new state counts.
    fn commit_state(&mut self, transactional_id: &ByteStr, next: Option<Transaction>) {
        let entry = self.ids.entry(transactional_id.detached()).or_default();
        entry.unmarked = match &next {
            Some(next) if next.state.is_prepared() => next.partitions.clone(),
            _ => BTreeSet::new(),
        };
        entry.committed = next;
        if entry.is_gone() {
            self.ids.remove(transactional_id);
        }
    }
}

fn reply(token: ReplyToken, response: TransactionResponse) -> TransactionEffects {
    let mut out = TransactionEffects::default();
    out.reply(token, response);
    out
}

fn refuse(token: ReplyToken, error: ErrorCode) -> TransactionEffects {
    reply(token, TransactionResponse::Refused(error))
}

impl Shard for TransactionShard {
    type Request = TransactionRequest;
    type Response = TransactionResponse;
    type Record = TransactionRecord;
    type Undo = TransactionUndo;
    type Completion = TransactionCompletion;
    type Action = TransactionAction;

    fn handle(
        &mut self,
        request: TransactionRequest,
        token: ReplyToken,
        now: Now,
    ) -> TransactionEffects {
        match request {
            TransactionRequest::InitProducerId { request, spare } => {
                self.init_producer_id(&request, spare, token, now)
            }
            TransactionRequest::AddPartitions {
                transactional_id,
                producer,
                partitions,
                version,
                patience_ms,
            } => {
                let waiting = Waiting {
                    token,
                    producer,
                    partitions,
                    version,
                    deadline_ms: now.after_ms(patience_ms),
                };
                self.add_partitions(&transactional_id, waiting, now)
            }
            TransactionRequest::VerifyPartitions {
                transactional_id,
                producer,
                partitions,
            } => self.verify_partitions(&transactional_id, producer, partitions, token),
            TransactionRequest::End {
                transactional_id,
                request,
                spare,
            } => self.end(&transactional_id, &request, spare, token, now),
            TransactionRequest::Describe(transactional_id) => {
                self.describe(&transactional_id, token)
            }
            TransactionRequest::List(filter) => self.list(&filter, token, now),
            TransactionRequest::MarkersWritten {
                transactional_id,
                producer,
                outcomes,
            } => self.markers_written(&transactional_id, producer, outcomes, token, now),
            TransactionRequest::AbortTimedOut {
                transactional_id,
                spare,
            } => self.abort_timed_out(&transactional_id, spare, token, now),
        }
    }

    fn next_deadline_ms(&self) -> Option<u64> {
        if self.settled.is_empty() {
            self.timers.next_deadline_ms()
        } else {
            Some(0)
        }
    }

    fn tick(&mut self, now: Now) -> Option<TransactionEffects> {
        if let Some(transactional_id) = self.settled.pop_front() {
            return Some(self.settled(&transactional_id, now));
        }
        Some(match self.timers.pop_due(now.monotonic_ms)? {
            TransactionTimer::AbortTimedOut => self.abort_all_timed_out(now),
            TransactionTimer::Expiration => self.expire(now),
            TransactionTimer::Complete(transactional_id) => {
                self.complete_if_marked(&transactional_id, now)
            }
            TransactionTimer::Patience(transactional_id) => {
                self.resume_waiting(&transactional_id, now)
            }
        })
    }

    fn loaded(&mut self, now: Now) -> Vec<TransactionEffects> {
        self.schedule_upkeep(now);
        // What is not committed yet settles when it is.
        let decided = self.ids.iter().filter(|(_, entry)| {
            let committed = entry.committed.as_ref();
            !entry.is_busy() && committed.is_some_and(|txn| txn.state.is_prepared())
        });
        self.settled = decided.map(|(id, _)| id.clone()).collect();
        Vec::new()
    }

    fn replay(
        &mut self,
        _origin: RecordOrigin,
        record: &TransactionRecord,
        _now: Now,
    ) -> TransactionUndo {
        let TransactionRecord::State {
            transactional_id,
            transaction,
            ..
        } = record
        else {
            return TransactionUndo(None);
        };
        let id = transactional_id.detached();
        let entry = self.ids.entry(id.clone()).or_default();
        entry.to_come.push_back(transaction.as_deref().cloned());
        TransactionUndo(Some(id))
    }

    fn replay_committed(&mut self, _origin: RecordOrigin, record: &TransactionRecord, _now: Now) {
        if let TransactionRecord::State {
            transactional_id,
            transaction,
            ..
        } = record
        {
            self.commit_state(transactional_id, transaction.as_deref().cloned());
        }
    }

    /// Nobody writes transactions to this topic.
    fn replay_marker(&mut self, _producer_id: i64, _committed: bool) -> Vec<TransactionUndo> {
        Vec::new()
    }

    fn undo(&mut self, undo: TransactionUndo) {
        let Some(id) = undo.0 else { return };
        if let Some(entry) = self.ids.get_mut(&id) {
            entry.to_come.pop_back();
            if entry.is_gone() {
                self.ids.remove(&id);
                return;
            }
            // Who waits for a busy id may go on.
            if !entry.is_busy() && !entry.waiting.is_empty() {
                self.settled.push_back(id);
            }
        }
    }

    fn commit(&mut self, undo: TransactionUndo) {
        let Some(id) = undo.0 else { return };
        let Some(entry) = self.ids.get_mut(&id) else {
            return;
        };
        if let Some(next) = entry.to_come.pop_front() {
            let is_idle = entry.to_come.is_empty();
            self.commit_state(&id, next);
            if is_idle {
                self.settled.push_back(id);
            }
        }
    }

    fn complete(
        &mut self,
        completion: TransactionCompletion,
        outcome: WriteOutcome,
        now: Now,
    ) -> TransactionEffects {
        let TransactionCompletion::Completed(transactional_id) = completion;
        if let WriteOutcome::Failed(error) = outcome {
            tracing::info!(%transactional_id, %error, "a transaction is not closed yet");
            let retry_ms = i64::try_from(self.config.marker_retry_ms).unwrap_or(i64::MAX);
            let timer = TransactionTimer::Complete(transactional_id);
            self.timers.schedule(timer, now.after_ms(retry_ms));
        }
        TransactionEffects::default()
    }
}
