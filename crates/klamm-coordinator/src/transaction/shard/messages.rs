//! What goes into a transaction shard and what comes out.

use std::collections::BTreeSet;

use klamm_protocol::messages::describe_transactions_response::TransactionState as Described;
use klamm_protocol::messages::list_transactions_response::TransactionState as Listed;
use klamm_protocol::{ByteStr, ErrorCode};
use regex::Regex;

use crate::transaction::state::{EndRequest, TransactionState};
use crate::transaction::{TransactionMarkers, TransactionPartition};

/// A producer wants an id and epoch of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitProducerId {
    /// Who.
    pub transactional_id: ByteStr,
    /// How long its transactions may stay open, in milliseconds.
    pub timeout_ms: i32,
    /// The id and epoch that it has, if it has them.
    pub expected: Option<(i64, i16)>,
}

/// Which transactions are wanted.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Only those of these producers; all if empty.
    pub producer_ids: BTreeSet<i64>,
    /// Only those in these states, if any was named.
    pub states: Option<BTreeSet<TransactionState>>,
    /// Only those that began longer ago than this, in milliseconds; all if negative.
    pub duration_ms: i64,
    /// Only those whose ids match as a whole.
    pub pattern: Option<Regex>,
}

/// What a transaction shard is asked. Where a producer id may be needed, `spare` is one; a request
/// that lacks it is answered with [`TransactionResponse::NeedsProducerId`].
#[derive(Clone, Debug)]
pub enum TransactionRequest {
    /// Key 22.
    InitProducerId {
        /// The request.
        request: InitProducerId,
        /// A producer id that nobody has.
        spare: Option<i64>,
    },
    /// Keys 24 and 25: adds partitions to a transaction.
    AddPartitions {
        /// Whose.
        transactional_id: ByteStr,
        /// Id and epoch of the producer.
        producer: (i64, i16),
        /// What is added.
        partitions: BTreeSet<TransactionPartition>,
        /// The `transaction.version` of the client.
        version: i16,
        /// How long the request may wait for the transaction before it to end, in milliseconds.
        patience_ms: i64,
    },
    /// Key 24: whether partitions are part of a transaction.
    VerifyPartitions {
        /// Whose.
        transactional_id: ByteStr,
        /// Id and epoch of the producer.
        producer: (i64, i16),
        /// What is asked about.
        partitions: BTreeSet<TransactionPartition>,
    },
    /// Key 26.
    End {
        /// Whose.
        transactional_id: ByteStr,
        /// How.
        request: EndRequest,
        /// A producer id that nobody has.
        spare: Option<i64>,
    },
    /// Key 65, one id of it.
    Describe(ByteStr),
    /// Key 66.
    List(ListFilter),
    /// Markers were written, or not.
    MarkersWritten {
        /// Whose transaction they end.
        transactional_id: ByteStr,
        /// Id and epoch that the markers carry.
        producer: (i64, i16),
        /// What became of each.
        outcomes: Vec<(TransactionPartition, ErrorCode)>,
    },
    /// The producer id that [`TransactionAction::AllocateProducerId`] asked for.
    AbortTimedOut {
        /// Whose transaction.
        transactional_id: ByteStr,
        /// A producer id that nobody has.
        spare: i64,
    },
}

/// What a transaction shard answers.
#[derive(Clone, Debug, PartialEq)]
pub enum TransactionResponse {
    /// To an InitProducerId, or an EndTxn: id and epoch that the producer goes on with.
    Producer {
        /// The id.
        producer_id: i64,
        /// The epoch.
        producer_epoch: i16,
    },
    /// To a verification: each partition's verdict.
    Verified(Vec<(TransactionPartition, ErrorCode)>),
    /// To a Describe.
    Described(Box<Described>),
    /// To a List.
    Listed(Vec<Listed>),
    /// Markers that are still to be written.
    Remaining(Vec<TransactionPartition>),
    /// Done, nothing to say.
    Done,
    /// The request is refused.
    Refused(ErrorCode),
    /// To be asked again with a producer id to spare.
    NeedsProducerId,
}

/// A timer of the shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TransactionTimer {
    /// The next look at transactions that are open for too long.
    AbortTimedOut,
    /// The next look at ids that were not used for too long.
    Expiration,
    /// A transaction whose last record could not be written is to be closed.
    Complete(ByteStr),
    /// Requests that wait for a transaction to end have waited enough.
    Patience(ByteStr),
}

/// What waits for records to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionCompletion {
    /// The record that closes a transaction.
    Completed(ByteStr),
}

/// Takes a replayed record back, or confirms it: the id that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionUndo(pub(in crate::transaction) Option<ByteStr>);

/// What a transaction shard wants others to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionAction {
    /// To write markers and report with [`TransactionRequest::MarkersWritten`]. The coordinator's
    /// epoch in them is the driver's to fill in.
    WriteMarkers {
        /// Whose transaction ends.
        transactional_id: ByteStr,
        /// The markers.
        markers: TransactionMarkers,
    },
    /// To get a producer id and come back with [`TransactionRequest::AbortTimedOut`].
    AllocateProducerId {
        /// Whose transaction is to be aborted.
        transactional_id: ByteStr,
    },
}
