//! What a transactional producer asks for.

use bytes::Bytes;
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_protocol::messages::{
    EndTxnRequest, FetchRequest, FetchResponse, InitProducerIdRequest, ProduceRequest,
};
use klamm_records::{BatchBuilder, BatchOptions};

use super::produce_request;

/// Everybody's transactional id.
pub const ID: &str = "id";

/// Id and epoch of a producer.
pub type Producer = (i64, i16);

/// A request for an id and an epoch, in the place of whoever had one.
pub fn init_request() -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: Some(ID.into()),
        // Longer than any test takes.
        transaction_timeout_ms: 600_000,
        producer_id: -1,
        producer_epoch: -1,
        ..InitProducerIdRequest::default()
    }
}

/// A request to write one record to partition 0 of a topic.
pub fn produce_one(topic: &str, producer: Producer, sequence: i32) -> ProduceRequest {
    ProduceRequest {
        transactional_id: Some(ID.into()),
        timeout_ms: 30_000,
        ..produce_request(topic, batch(producer, sequence), -1)
    }
}

/// A batch of one record. It is of now: retention would delete what is older than a week.
pub fn batch((producer_id, producer_epoch): Producer, base_sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id,
        producer_epoch,
        base_sequence,
        transactional: true,
        ..BatchOptions::default()
    });
    let now_ms = klamm_env::Env::os().clock.wall_ms();
    builder.append(now_ms, None, Some(b"v"), []).unwrap();
    builder.build().unwrap()
}

/// A request to end the transaction.
pub fn end_request(producer: Producer, committed: bool) -> EndTxnRequest {
    EndTxnRequest {
        transactional_id: ID.into(),
        producer_id: producer.0,
        producer_epoch: producer.1,
        committed,
        ..EndTxnRequest::default()
    }
}

/// The version of [`stable_request`] to ask in.
pub const FETCH: i16 = 11;

/// A request to read partition 0 of a topic with `read_committed`.
pub fn stable_request(topic: &str) -> FetchRequest {
    let partition = FetchPartition {
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    FetchRequest {
        isolation_level: 1,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![partition],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

/// How far one may read, and how many transactions were aborted.
pub fn stable(answer: &FetchResponse) -> (i64, usize) {
    let partition = &answer.responses[0].partitions[0];
    assert_eq!(partition.error_code, 0, "{answer:?}");
    let aborted = partition.aborted_transactions.as_ref();
    (partition.last_stable_offset, aborted.map_or(0, Vec::len))
}
