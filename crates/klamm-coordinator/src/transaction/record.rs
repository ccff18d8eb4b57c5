//! The records of `__transaction_state`, in Kafka's bytes.

use std::collections::BTreeMap;

use bytes::Bytes;
use klamm_protocol::record_frame::{encode_pair, record_type};
use klamm_protocol::transaction_records::transaction_log_value::PartitionsSchema;
use klamm_protocol::transaction_records::{
    TransactionLogKey, TransactionLogValue, TransactionRecord as LogRecord,
};
use klamm_protocol::{ByteStr, RecordKey};

use super::state::{Transaction, TransactionState};
use super::{NO_PRODUCER_EPOCH, TransactionPartition};
use crate::runtime::{CoordinatorRecord, EncodedRecord, RecordError};

/// The newest version of the value.
const VALUE_VERSION_MAX: i16 = 1;

/// A record of `__transaction_state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransactionRecord {
    /// The state of a transactional id.
    State {
        /// The id.
        transactional_id: ByteStr,
        /// Its state; none if the id was removed.
        transaction: Option<Box<Transaction>>,
        /// Version of the value: 1 if the cluster's `transaction.version` is above 0, else 0.
        version: i16,
    },
    /// A record of a later release, which is passed over.
    Unknown,
}

impl CoordinatorRecord for TransactionRecord {
    fn encode(&self) -> Result<EncodedRecord, RecordError> {
        let kind = TransactionLogKey::RECORD_TYPE;
        let TransactionRecord::State {
            transactional_id,
            transaction,
            version,
        } = self
        else {
            return Err(RecordError::MissingKey);
        };
        let key = TransactionLogKey {
            transactional_id: transactional_id.clone(),
        };
        let value = transaction.as_ref().map(|txn| to_value(txn, *version));
        let (key, value) = encode_pair(&key, value.as_ref(), *version)
            .map_err(|source| RecordError::Unwritable { kind, source })?;
        Ok(EncodedRecord { key, value })
    }

    fn decode(key: Option<Bytes>, value: Option<Bytes>) -> Result<Self, RecordError> {
        let key = key.ok_or(RecordError::MissingKey)?;
        let malformed = |kind| move |source| RecordError::Malformed { kind, source };
        let kind = record_type(&key).map_err(malformed(-1))?;
        let version = value.as_ref().map_or(0, |value| match value.as_ref() {
            [high, low, ..] => i16::from_be_bytes([*high, *low]),
            _ => 0,
        });
        if kind != TransactionLogKey::RECORD_TYPE || !(0..=VALUE_VERSION_MAX).contains(&version) {
            tracing::warn!(kind, version, "passed over a record of a later release");
            return Ok(TransactionRecord::Unknown);
        }
        let LogRecord::TransactionLog(key, value) =
            LogRecord::decode(key, value).map_err(malformed(kind))?;
        let transaction = match value {
            None => None,
            Some(value) => match from_value(&value) {
                Some(transaction) => Some(Box::new(transaction)),
                None => {
                    let state = value.transaction_status;
                    tracing::warn!(state, "passed over a transaction in an unknown state");
                    return Ok(TransactionRecord::Unknown);
                }
            },
        };
        Ok(TransactionRecord::State {
            transactional_id: key.transactional_id,
            transaction,
            version,
        })
    }
}

fn to_value(transaction: &Transaction, version: i16) -> TransactionLogValue {
    let is_empty = transaction.state == TransactionState::Empty;
    let mut value = TransactionLogValue {
        producer_id: transaction.producer_id,
        producer_epoch: transaction.producer_epoch,
        transaction_timeout_ms: transaction.timeout_ms,
        transaction_status: transaction.state.id(),
        transaction_partitions: (!is_empty).then(|| {
            by_topic(&transaction.partitions)
                .into_iter()
                .map(|(topic, partition_ids)| PartitionsSchema {
                    topic,
                    partition_ids,
                    ..PartitionsSchema::default()
                })
                .collect()
        }),
        transaction_last_update_timestamp_ms: transaction.last_update_ms,
        transaction_start_timestamp_ms: transaction.start_ms,
        ..TransactionLogValue::default()
    };
    if version >= 1 {
        value.previous_producer_id = transaction.previous_producer_id;
        value.next_producer_id = transaction.next_producer_id;
        value.client_transaction_version = transaction.client_version;
    }
    value
}

fn from_value(value: &TransactionLogValue) -> Option<Transaction> {
    let state = TransactionState::from_id(value.transaction_status)?;
    let partitions = value.transaction_partitions.iter().flatten();
    let partitions = partitions.flat_map(|topic| {
        let name = topic.topic.detached();
        topic
            .partition_ids
            .iter()
            .map(move |id| (name.clone(), *id))
    });
    Some(Transaction {
        producer_id: value.producer_id,
        previous_producer_id: value.previous_producer_id,
        next_producer_id: value.next_producer_id,
        producer_epoch: value.producer_epoch,
        last_producer_epoch: NO_PRODUCER_EPOCH,
        timeout_ms: value.transaction_timeout_ms,
        state,
        partitions: partitions.collect(),
        start_ms: value.transaction_start_timestamp_ms,
        last_update_ms: value.transaction_last_update_timestamp_ms,
        client_version: value.client_transaction_version,
    })
}

/// Partitions under their topics.
pub(super) fn by_topic<'a>(
    partitions: impl IntoIterator<Item = &'a TransactionPartition>,
) -> BTreeMap<ByteStr, Vec<i32>> {
    let mut topics: BTreeMap<ByteStr, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic.clone()).or_default().push(*partition);
    }
    topics
}
