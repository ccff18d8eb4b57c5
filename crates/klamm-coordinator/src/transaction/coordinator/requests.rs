//! InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, EndTxn.

use std::collections::BTreeSet;

use klamm_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use klamm_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use klamm_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse, EndTxnRequest, EndTxnResponse, InitProducerIdRequest,
    InitProducerIdResponse,
};
use klamm_protocol::{ByteStr, ErrorCode, topic_name};

use super::{ProducerIdSource, TransactionCoordinator, mismatch};
use crate::group::TopicLookup;
use crate::transaction::{
    EPOCH_BUMP_VERSION, EndRequest, InitProducerId, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    TransactionPartition, TransactionRequest, TransactionResponse,
};

/// From these versions on, clients know `PRODUCER_FENCED`.
const INIT_FENCED_FROM: i16 = 4;
const ADD_PARTITIONS_FENCED_FROM: i16 = 2;
const ADD_OFFSETS_FENCED_FROM: i16 = 2;
const END_FENCED_FROM: i16 = 2;
/// From this version on, AddPartitionsToTxn comes from brokers and holds several transactions.
const ADD_PARTITIONS_BATCH_FROM: i16 = 4;
/// From this version on, EndTxn ends the epoch too (KIP-890).
const END_BUMPS_FROM: i16 = 5;

/// What older clients are told in place of `PRODUCER_FENCED`.
fn fenced_from(first: i16, version: i16, error: ErrorCode) -> ErrorCode {
    if error == ErrorCode::ProducerFenced && version < first {
        ErrorCode::InvalidProducerEpoch
    } else {
        error
    }
}

impl TransactionCoordinator {
    /// InitProducerId (key 22), versions 0-6, with or without a transactional id.
    pub async fn init_producer_id(
        &self,
        request: InitProducerIdRequest,
        version: i16,
        ids: &dyn ProducerIdSource,
    ) -> InitProducerIdResponse {
        match self.init(request, ids).await {
            Ok((producer_id, producer_epoch)) => InitProducerIdResponse {
                producer_id,
                producer_epoch,
                ..InitProducerIdResponse::default()
            },
            Err(error) => InitProducerIdResponse {
                error_code: fenced_from(INIT_FENCED_FROM, version, error).into(),
                producer_id: NO_PRODUCER_ID,
                producer_epoch: NO_PRODUCER_EPOCH,
                ..InitProducerIdResponse::default()
            },
        }
    }

    async fn init(
        &self,
        request: InitProducerIdRequest,
        ids: &dyn ProducerIdSource,
    ) -> Result<(i64, i16), ErrorCode> {
        let expected = match (request.producer_id, request.producer_epoch) {
            (NO_PRODUCER_ID, NO_PRODUCER_EPOCH) => None,
            (NO_PRODUCER_ID, _) | (_, NO_PRODUCER_EPOCH) => return Err(ErrorCode::InvalidRequest),
            producer => Some(producer),
        };
        let Some(transactional_id) = request.transactional_id else {
            // An idempotent producer that asks again is given a new id: nothing is kept of it
            // that could be continued.
            return Ok((ids.next().await?, 0));
        };
        if transactional_id.is_empty() {
            return Err(ErrorCode::InvalidRequest);
        }
        if request.enable2_pc && !self.config.two_phase_commit {
            return Err(ErrorCode::TransactionalIdAuthorizationFailed);
        }
        if request.keep_prepared_txn {
            return Err(ErrorCode::UnsupportedVersion);
        }
        let timeout_ms = request.transaction_timeout_ms;
        if !request.enable2_pc && !(1..=self.config.max_timeout_ms).contains(&timeout_ms) {
            return Err(ErrorCode::InvalidTransactionTimeout);
        }
        let init = InitProducerId {
            transactional_id: transactional_id.clone(),
            timeout_ms: if request.enable2_pc {
                i32::MAX
            } else {
                timeout_ms
            },
            expected,
        };
        let request = |spare| TransactionRequest::InitProducerId {
            request: init.clone(),
            spare,
        };
        match self.submit_with_id(&transactional_id, ids, request).await? {
            TransactionResponse::Producer {
                producer_id,
                producer_epoch,
            } => Ok((producer_id, producer_epoch)),
            other => Err(mismatch(&other)),
        }
    }

    /// AddPartitionsToTxn (key 24), versions 0-5. `patience_ms` is how long it may wait for the
    /// end of the transaction before.
    pub async fn add_partitions_to_txn(
        &self,
        mut request: AddPartitionsToTxnRequest,
        version: i16,
        patience_ms: i64,
        topics: &dyn TopicLookup,
    ) -> AddPartitionsToTxnResponse {
        let is_batch = version >= ADD_PARTITIONS_BATCH_FROM;
        if !is_batch {
            request.transactions = vec![AddPartitionsToTxnTransaction {
                transactional_id: request.v3_and_below_transactional_id,
                producer_id: request.v3_and_below_producer_id,
                producer_epoch: request.v3_and_below_producer_epoch,
                topics: request.v3_and_below_topics,
                ..AddPartitionsToTxnTransaction::default()
            }];
        }
        let mut results = Vec::with_capacity(request.transactions.len());
        for transaction in request.transactions {
            let result = self
                .add_one(transaction, version, patience_ms, topics)
                .await;
            results.push(result);
        }
        if is_batch {
            return AddPartitionsToTxnResponse {
                results_by_transaction: results,
                ..AddPartitionsToTxnResponse::default()
            };
        }
        let result = results.pop().unwrap_or_default();
        AddPartitionsToTxnResponse {
            results_by_topic_v3_and_below: result.topic_results,
            ..AddPartitionsToTxnResponse::default()
        }
    }

    async fn add_one(
        &self,
        transaction: AddPartitionsToTxnTransaction,
        version: i16,
        patience_ms: i64,
        topics: &dyn TopicLookup,
    ) -> AddPartitionsToTxnResult {
        let exists =
            |(topic, partition): &TransactionPartition| topics.has_partition(topic, *partition);
        let partitions = partitions_of(&transaction.topics);
        // One that does not exist keeps all of them out.
        if !partitions.iter().all(exists) {
            return result(&transaction, |partition| {
                if exists(partition) {
                    ErrorCode::OperationNotAttempted
                } else {
                    ErrorCode::UnknownTopicOrPartition
                }
            });
        }
        let producer = (transaction.producer_id, transaction.producer_epoch);
        let id = &transaction.transactional_id;
        if transaction.verify_only {
            let verdicts = self.verify(id, producer, partitions).await;
            return result(&transaction, |partition| match &verdicts {
                Ok(verdicts) => verdicts
                    .iter()
                    .find(|(verified, _)| verified == partition)
                    .map_or(ErrorCode::UnknownServerError, |(_, error)| *error),
                Err(error) => *error,
            });
        }
        let client_version = if version >= ADD_PARTITIONS_BATCH_FROM {
            EPOCH_BUMP_VERSION
        } else {
            0
        };
        let error = self
            .add(id, producer, partitions, client_version, patience_ms)
            .await;
        let error = fenced_from(ADD_PARTITIONS_FENCED_FROM, version, error);
        result(&transaction, |_| error)
    }

    /// AddOffsetsToTxn (key 25), versions 0-4. `offsets_partition` is the one of
    /// `__consumer_offsets` that keeps the group.
    pub async fn add_offsets_to_txn(
        &self,
        request: AddOffsetsToTxnRequest,
        version: i16,
        offsets_partition: i32,
        patience_ms: i64,
    ) -> AddOffsetsToTxnResponse {
        let partition = (
            ByteStr::from_static(topic_name::CONSUMER_OFFSETS),
            offsets_partition,
        );
        let error = self
            .add(
                &request.transactional_id,
                (request.producer_id, request.producer_epoch),
                BTreeSet::from([partition]),
                0,
                patience_ms,
            )
            .await;
        AddOffsetsToTxnResponse {
            error_code: fenced_from(ADD_OFFSETS_FENCED_FROM, version, error).into(),
            ..AddOffsetsToTxnResponse::default()
        }
    }

    /// EndTxn (key 26), versions 0-5. Answers when the decision is committed; the markers follow.
    pub async fn end_txn(
        &self,
        request: EndTxnRequest,
        version: i16,
        ids: &dyn ProducerIdSource,
    ) -> EndTxnResponse {
        let end = EndRequest {
            producer_id: request.producer_id,
            producer_epoch: request.producer_epoch,
            committed: request.committed,
            version: if version >= END_BUMPS_FROM {
                EPOCH_BUMP_VERSION
            } else {
                0
            },
        };
        let ended = if request.transactional_id.is_empty() {
            Err(ErrorCode::InvalidRequest)
        } else {
            let id = &request.transactional_id;
            let request = |spare| TransactionRequest::End {
                transactional_id: id.clone(),
                request: end,
                spare,
            };
            self.submit_with_id(id, ids, request).await
        };
        let (error, producer_id, producer_epoch) = match ended {
            Ok(TransactionResponse::Producer {
                producer_id,
                producer_epoch,
            }) => (ErrorCode::None, producer_id, producer_epoch),
            Ok(other) => (mismatch(&other), NO_PRODUCER_ID, NO_PRODUCER_EPOCH),
            Err(error) => {
                let error = fenced_from(END_FENCED_FROM, version, error);
                (error, NO_PRODUCER_ID, NO_PRODUCER_EPOCH)
            }
        };
        EndTxnResponse {
            error_code: error.into(),
            producer_id,
            producer_epoch,
            ..EndTxnResponse::default()
        }
    }
}

fn partitions_of(topics: &[AddPartitionsToTxnTopic]) -> BTreeSet<TransactionPartition> {
    let partitions = topics.iter().flat_map(|topic| {
        let partitions = topic.partitions.iter();
        partitions.map(|partition| (topic.name.clone(), *partition))
    });
    partitions.collect()
}

fn result(
    transaction: &AddPartitionsToTxnTransaction,
    verdict: impl Fn(&TransactionPartition) -> ErrorCode,
) -> AddPartitionsToTxnResult {
    let topic_result = |topic: &AddPartitionsToTxnTopic| AddPartitionsToTxnTopicResult {
        name: topic.name.clone(),
        results_by_partition: topic
            .partitions
            .iter()
            .map(|partition| AddPartitionsToTxnPartitionResult {
                partition_index: *partition,
                partition_error_code: verdict(&(topic.name.clone(), *partition)).into(),
                ..AddPartitionsToTxnPartitionResult::default()
            })
            .collect(),
        ..AddPartitionsToTxnTopicResult::default()
    };
    AddPartitionsToTxnResult {
        transactional_id: transaction.transactional_id.clone(),
        topic_results: transaction.topics.iter().map(topic_result).collect(),
        ..AddPartitionsToTxnResult::default()
    }
}
