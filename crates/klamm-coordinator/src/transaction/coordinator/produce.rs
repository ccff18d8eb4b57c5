//! What a broker asks before it lets a producer write in a transaction (KIP-890).

use std::collections::BTreeSet;

use klamm_protocol::{ByteStr, ErrorCode};

use super::{TransactionCoordinator, mismatch};
use crate::transaction::{TransactionPartition, TransactionRequest, TransactionResponse};

impl TransactionCoordinator {
    /// Adds partitions to a producer's transaction, opening it if need be. Waits up to
    /// `patience_ms` for the end of the transaction before; `CONCURRENT_TRANSACTIONS` after that.
    pub async fn add(
        &self,
        transactional_id: &ByteStr,
        producer: (i64, i16),
        partitions: BTreeSet<TransactionPartition>,
        version: i16,
        patience_ms: i64,
    ) -> ErrorCode {
        if transactional_id.is_empty() {
            return ErrorCode::InvalidRequest;
        }
        let request = TransactionRequest::AddPartitions {
            transactional_id: transactional_id.clone(),
            producer,
            partitions,
            version,
            patience_ms,
        };
        match self.submit(transactional_id, request).await {
            Ok(TransactionResponse::Done) => ErrorCode::None,
            Ok(other) => mismatch(&other),
            Err(error) => error,
        }
    }

    /// Whether partitions are part of a producer's transaction: `TRANSACTION_ABORTABLE` for those
    /// that are not.
    pub async fn verify(
        &self,
        transactional_id: &ByteStr,
        producer: (i64, i16),
        partitions: BTreeSet<TransactionPartition>,
    ) -> Result<Vec<(TransactionPartition, ErrorCode)>, ErrorCode> {
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        let request = TransactionRequest::VerifyPartitions {
            transactional_id: transactional_id.clone(),
            producer,
            partitions,
        };
        match self.submit(transactional_id, request).await? {
            TransactionResponse::Verified(verdicts) => Ok(verdicts),
            other => Err(mismatch(&other)),
        }
    }
}
