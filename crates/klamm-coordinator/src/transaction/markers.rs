//! The seam to the partitions that transactions write to.

use klamm_protocol::ErrorCode;

use super::TransactionPartition;
use crate::runtime::{BoxFuture, TransactionEnd};

/// The markers that end one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionMarkers {
    /// What the markers say.
    pub end: TransactionEnd,
    /// Where they are to be written.
    pub partitions: Vec<TransactionPartition>,
}

/// Writes markers into partitions, wherever their leaders are.
pub trait MarkerWriter: Send + Sync + 'static {
    /// Writes the markers and waits until they are committed. The outcomes are in the order of
    /// the partitions and are those of WriteTxnMarkers. A partition that does not exist any more
    /// needs no marker, which counts as one that is written.
    fn write<'a>(&'a self, markers: &'a TransactionMarkers) -> BoxFuture<'a, Vec<ErrorCode>>;
}

/// What is to be done about a partition after its marker was written, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkerVerdict {
    /// Nothing more.
    Done,
    /// To be tried again.
    Retry,
    /// Somebody else decides about this producer's transactions by now.
    GiveUp,
}

/// Kafka's table of what a transaction coordinator makes of an outcome.
pub(super) fn verdict(outcome: ErrorCode) -> MarkerVerdict {
    match outcome {
        ErrorCode::None
        | ErrorCode::UnsupportedForMessageFormat
        | ErrorCode::UnsupportedVersion => MarkerVerdict::Done,
        ErrorCode::InvalidProducerEpoch | ErrorCode::TransactionCoordinatorFenced => {
            MarkerVerdict::GiveUp
        }
        _ => MarkerVerdict::Retry,
    }
}
