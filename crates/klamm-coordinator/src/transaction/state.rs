//! One transactional id: its state and the transitions that Kafka knows.
//!
//! | from | request | to |
//! |---|---|---|
//! | none, `Empty`, `Complete*` | InitProducerId | `Empty`, next epoch |
//! | `Empty`, `Ongoing`, `Complete*` | partitions are added | `Ongoing` |
//! | `Ongoing` | EndTxn, a timeout, an InitProducerId | `PrepareCommit`, `PrepareAbort` |
//! | `Empty`, `Complete*` | EndTxn(abort) of version 2 | `PrepareAbort` |
//! | `Prepare*` | all markers are written | `Complete*` |
//! | `Empty`, `Complete*` | long unused | none |

use std::collections::BTreeSet;

use klamm_protocol::ErrorCode;

use super::{EPOCH_BUMP_VERSION, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, TransactionPartition};

/// The state of a transactional id, as Kafka names and numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionState {
    /// No transaction yet.
    Empty,
    /// A transaction is open.
    Ongoing,
    /// Decided to commit; markers are being written.
    PrepareCommit,
    /// Decided to abort; markers are being written.
    PrepareAbort,
    /// The last transaction was committed.
    CompleteCommit,
    /// The last transaction was aborted.
    CompleteAbort,
    /// Being removed. Never written.
    Dead,
    /// A producer is being fenced. Never written.
    PrepareEpochFence,
}

impl TransactionState {
    const ALL: [TransactionState; 8] = [
        TransactionState::Empty,
        TransactionState::Ongoing,
        TransactionState::PrepareCommit,
        TransactionState::PrepareAbort,
        TransactionState::CompleteCommit,
        TransactionState::CompleteAbort,
        TransactionState::Dead,
        TransactionState::PrepareEpochFence,
    ];

    /// The number in records.
    pub fn id(self) -> i8 {
        self as i8
    }

    /// The state of a number, if it is one that is written.
    pub fn from_id(id: i8) -> Option<TransactionState> {
        let written = &Self::ALL[..6];
        written.iter().copied().find(|state| state.id() == id)
    }

    /// The name in answers and filters.
    pub fn name(self) -> &'static str {
        match self {
            TransactionState::Empty => "Empty",
            TransactionState::Ongoing => "Ongoing",
            TransactionState::PrepareCommit => "PrepareCommit",
            TransactionState::PrepareAbort => "PrepareAbort",
            TransactionState::CompleteCommit => "CompleteCommit",
            TransactionState::CompleteAbort => "CompleteAbort",
            TransactionState::Dead => "Dead",
            TransactionState::PrepareEpochFence => "PrepareEpochFence",
        }
    }

    /// The state of a name.
    pub fn from_name(name: &str) -> Option<TransactionState> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }

    /// Whether the end is decided and markers are being written.
    pub fn is_prepared(self) -> bool {
        matches!(
            self,
            TransactionState::PrepareCommit | TransactionState::PrepareAbort
        )
    }

    /// Whether the id may be forgotten in this state.
    pub fn may_expire(self) -> bool {
        matches!(
            self,
            TransactionState::Empty
                | TransactionState::CompleteCommit
                | TransactionState::CompleteAbort
        )
    }
}

/// What a transactional id is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Id of the producer.
    pub producer_id: i64,
    /// Id before the last transition; a retry may still carry it.
    pub previous_producer_id: i64,
    /// Id that the producer gets when the transaction is complete, -1 if it keeps its own.
    pub next_producer_id: i64,
    /// Epoch of the producer, -1 before it has one.
    pub producer_epoch: i16,
    /// Epoch before the last bump, for producers that did not hear of it. Not kept in records.
    pub last_producer_epoch: i16,
    /// How long a transaction may stay open, in milliseconds.
    pub timeout_ms: i32,
    /// The state.
    pub state: TransactionState,
    /// The partitions that the transaction covers.
    pub partitions: BTreeSet<TransactionPartition>,
    /// Wall time at which the transaction began, -1 before the first.
    pub start_ms: i64,
    /// Wall time of the last transition.
    pub last_update_ms: i64,
    /// The `transaction.version` that the client showed last.
    pub client_version: i16,
}

/// How a transaction is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndRequest {
    /// Id of the producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Commit or abort.
    pub committed: bool,
    /// The `transaction.version` of the client.
    pub version: i16,
}

/// Whether no further transaction can be had with an epoch.
fn is_exhausted(epoch: i16) -> bool {
    epoch >= i16::MAX - 1
}

impl Transaction {
    /// A new id, before its producer has an epoch.
    pub fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Transaction {
        Transaction {
            producer_id,
            previous_producer_id: NO_PRODUCER_ID,
            next_producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            last_producer_epoch: NO_PRODUCER_EPOCH,
            timeout_ms,
            state: TransactionState::Empty,
            partitions: BTreeSet::new(),
            start_ms: -1,
            last_update_ms: now_ms,
            client_version: 0,
        }
    }

    /// Whether the epochs of this producer id are used up.
    pub fn is_epoch_exhausted(&self) -> bool {
        is_exhausted(self.producer_epoch)
    }

    /// Whether the transaction has been open for too long. Those of two-phase commits, which have
    /// no timeout, never are.
    pub fn is_timed_out(&self, now_ms: i64) -> bool {
        self.state == TransactionState::Ongoing
            && self.timeout_ms != i32::MAX
            && self.start_ms.saturating_add(self.timeout_ms.into()) < now_ms
    }

    /// Whether the id was unused for too long.
    pub fn is_expired(&self, now_ms: i64, expiration_ms: i64) -> bool {
        self.state.may_expire() && self.last_update_ms <= now_ms.saturating_sub(expiration_ms)
    }

    /// The state after any transition, but for what the transition changes.
    fn successor(&self, state: TransactionState, now_ms: i64) -> Transaction {
        Transaction {
            previous_producer_id: self.producer_id,
            state,
            last_update_ms: now_ms,
            ..self.clone()
        }
    }

    /// Whether a producer that says it has this id and epoch may be given the next epoch
    /// (KIP-360).
    pub fn knows_producer(&self, (producer_id, epoch): (i64, i16)) -> bool {
        self.producer_epoch == NO_PRODUCER_EPOCH
            || producer_id == self.producer_id
            || (producer_id == self.previous_producer_id && is_exhausted(epoch))
    }

    /// Whether the next epoch must be one of another producer id.
    pub fn must_rotate(&self, expected_epoch: Option<i16>) -> bool {
        self.is_epoch_exhausted() && expected_epoch.is_none_or(|epoch| epoch == self.producer_epoch)
    }

    /// Gives the producer its next epoch; one that did not hear of its last bump gets that again.
    pub fn next_epoch(
        &self,
        timeout_ms: i32,
        expected_epoch: Option<i16>,
        now_ms: i64,
    ) -> Result<Transaction, ErrorCode> {
        if self.is_epoch_exhausted() {
            return Err(ErrorCode::UnknownServerError);
        }
        let bumped = self.producer_epoch + 1;
        let (producer_epoch, last_producer_epoch) = match expected_epoch {
            None => (bumped, NO_PRODUCER_EPOCH),
            Some(epoch)
                if self.producer_epoch == NO_PRODUCER_EPOCH || epoch == self.producer_epoch =>
            {
                (bumped, self.producer_epoch)
            }
            Some(epoch) if epoch == self.last_producer_epoch => {
                (self.producer_epoch, self.last_producer_epoch)
            }
            Some(_) => return Err(ErrorCode::ProducerFenced),
        };
        Ok(Transaction {
            producer_epoch,
            last_producer_epoch,
            timeout_ms,
            partitions: BTreeSet::new(),
            start_ms: -1,
            ..self.successor(TransactionState::Empty, now_ms)
        })
    }

    /// Gives the producer a new id and epoch 0. `keep_last` remembers the epoch it had.
    pub fn rotated(
        &self,
        producer_id: i64,
        timeout_ms: i32,
        keep_last: bool,
        now_ms: i64,
    ) -> Transaction {
        let last_producer_epoch = if keep_last {
            self.producer_epoch
        } else {
            NO_PRODUCER_EPOCH
        };
        Transaction {
            producer_id,
            producer_epoch: 0,
            last_producer_epoch,
            timeout_ms,
            partitions: BTreeSet::new(),
            start_ms: -1,
            ..self.successor(TransactionState::Empty, now_ms)
        }
    }

    /// Opens the transaction if it is not, and adds partitions to it.
    pub fn with_partitions(
        &self,
        partitions: &BTreeSet<TransactionPartition>,
        version: i16,
        now_ms: i64,
    ) -> Transaction {
        let mut next = self.successor(TransactionState::Ongoing, now_ms);
        next.partitions.extend(partitions.iter().cloned());
        if self.state.may_expire() {
            next.start_ms = now_ms;
        }
        next.client_version = version;
        next
    }

    /// Decides how the transaction ends. From version 2 on that bumps the epoch, and
    /// `next_producer_id` is what the producer goes on with if there is no epoch left.
    pub fn prepared(
        &self,
        committed: bool,
        version: i16,
        next_producer_id: i64,
        now_ms: i64,
    ) -> Transaction {
        let state = if committed {
            TransactionState::PrepareCommit
        } else {
            TransactionState::PrepareAbort
        };
        let mut next = self.successor(state, now_ms);
        if version >= EPOCH_BUMP_VERSION {
            next.producer_epoch = self.producer_epoch.saturating_add(1);
            next.last_producer_epoch = self.producer_epoch;
        }
        if self.state != TransactionState::Ongoing {
            // There is no transaction: the client aborts to get an epoch of its own.
            next.start_ms = now_ms;
        }
        next.next_producer_id = next_producer_id;
        next.client_version = version;
        next
    }

    /// Aborts in place of the producer, which is fenced by that: it must not be able to go on with
    /// the epoch it has. Before version 2 nothing but this bumps the epoch.
    pub fn fenced(&self, version: i16, next_producer_id: i64, now_ms: i64) -> Transaction {
        let mut next = self.prepared(false, version, next_producer_id, now_ms);
        if version < EPOCH_BUMP_VERSION {
            next.producer_epoch = self.producer_epoch.saturating_add(1);
            next.last_producer_epoch = NO_PRODUCER_EPOCH;
            next.next_producer_id = NO_PRODUCER_ID;
            next.client_version = 0;
        }
        next
    }

    /// Closes a transaction whose markers are written.
    pub fn completed(&self, now_ms: i64) -> Transaction {
        let state = if self.state == TransactionState::PrepareCommit {
            TransactionState::CompleteCommit
        } else {
            TransactionState::CompleteAbort
        };
        let mut next = self.successor(state, now_ms);
        if self.client_version >= EPOCH_BUMP_VERSION && self.next_producer_id != NO_PRODUCER_ID {
            next.producer_id = self.next_producer_id;
            next.producer_epoch = 0;
        }
        next.next_producer_id = NO_PRODUCER_ID;
        next.partitions = BTreeSet::new();
        next
    }

    /// What is to be done about an EndTxn.
    pub fn end(&self, request: &EndRequest) -> Result<EndStep, ErrorCode> {
        if request.version >= EPOCH_BUMP_VERSION {
            self.end_with_bump(request)
        } else {
            self.end_without_bump(request)
        }
    }

    fn end_without_bump(&self, request: &EndRequest) -> Result<EndStep, ErrorCode> {
        if self.producer_id != request.producer_id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if self.producer_epoch != request.producer_epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        match (self.state, request.committed) {
            (TransactionState::Ongoing, _) => Ok(EndStep::Prepare),
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false) => {
                Ok(EndStep::Repeated)
            }
            (state, _) if state.is_prepared() => Err(ErrorCode::ConcurrentTransactions),
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    /// With an epoch for each transaction, a retry shows in its epoch, and the present epoch in a
    /// `Complete*` state speaks of the next transaction.
    fn end_with_bump(&self, request: &EndRequest) -> Result<EndStep, ErrorCode> {
        let epoch = request.producer_epoch;
        // An end without a bump leaves nobody with the epoch before: who has it was replaced.
        let bumped = self.client_version >= EPOCH_BUMP_VERSION;
        let after_overflow = bumped
            && self.previous_producer_id == request.producer_id
            && epoch == i16::MAX - 1
            && self.producer_epoch == 0;
        let after_bump = bumped && i32::from(self.producer_epoch) == i32::from(epoch) + 1;
        let is_prepared = self.state.is_prepared();
        // The producer was told its next id when the end was decided.
        let goes_on = is_prepared && self.next_producer_id == request.producer_id && epoch == 0;
        if self.producer_id != request.producer_id && !after_overflow && !goes_on {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        // Before any look at the epoch: a producer whose commit is decided may abort the next
        // transaction, still empty, with its new epoch, and would be fenced by itself
        // (KAFKA-18464).
        if is_prepared {
            return Err(ErrorCode::ConcurrentTransactions);
        }
        let is_current = epoch == self.producer_epoch;
        let is_retry = after_bump || after_overflow;
        let is_valid = match self.state {
            TransactionState::CompleteCommit | TransactionState::CompleteAbort => {
                is_retry || is_current
            }
            _ => is_current,
        };
        if !is_valid {
            return Err(ErrorCode::ProducerFenced);
        }
        match (self.state, request.committed) {
            (TransactionState::Ongoing, _) => Ok(EndStep::Prepare),
            (TransactionState::CompleteCommit, true) | (TransactionState::CompleteAbort, false)
                if is_retry =>
            {
                Ok(EndStep::Repeated)
            }
            (TransactionState::CompleteCommit | TransactionState::CompleteAbort, false)
                if !is_retry =>
            {
                Ok(EndStep::Prepare)
            }
            (TransactionState::Empty, false) => Ok(EndStep::Prepare),
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }
}

/// What follows from an EndTxn that is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndStep {
    /// The decision is to be written.
    Prepare,
    /// The transaction ended like this already.
    Repeated,
}
