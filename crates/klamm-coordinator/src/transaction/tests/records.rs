//! Records as Kafka writes them.

use bytes::Bytes;
use klamm_records::{Scratch, batches};

use crate::runtime::{CoordinatorRecord, EncodedRecord, RecordError};
use crate::transaction::{Transaction, TransactionRecord, TransactionState};

/// A partition of `__transaction_state` that Kafka 4.3.1 wrote: a producer is fenced by another,
/// which then commits.
const KAFKA: &[u8] = include_bytes!("kafka-4.3.1.log");

fn records() -> Vec<EncodedRecord> {
    let mut scratch = Scratch::new();
    let mut all = Vec::new();
    for batch in batches(KAFKA) {
        for record in batch.unwrap().records(&mut scratch).unwrap() {
            let record = record.unwrap();
            all.push(EncodedRecord {
                key: Bytes::copy_from_slice(record.key.unwrap()),
                value: record.value.map(Bytes::copy_from_slice),
            });
        }
    }
    all
}

fn read(record: EncodedRecord) -> TransactionRecord {
    TransactionRecord::decode(Some(record.key), record.value).unwrap()
}

#[test]
fn what_kafka_wrote_is_written_the_same() {
    let mut states = Vec::new();
    for record in records() {
        let read = read(record.clone());
        assert_eq!(read.encode().unwrap(), record);
        let TransactionRecord::State {
            transactional_id,
            transaction: Some(transaction),
            version: 1,
        } = read
        else {
            panic!("not a state: {read:?}");
        };
        assert_eq!(&*transactional_id, "txn-fencing-id");
        states.push((transaction.state, transaction.producer_epoch));
    }
    let expected = [
        (TransactionState::Empty, 0),
        (TransactionState::Ongoing, 0),
        (TransactionState::PrepareAbort, 1),
        (TransactionState::CompleteAbort, 1),
        (TransactionState::Empty, 2),
        (TransactionState::Ongoing, 2),
        (TransactionState::PrepareCommit, 3),
        (TransactionState::CompleteCommit, 3),
    ];
    assert_eq!(states, expected);
}

/// Each state follows from the one before by the transition that Kafka made.
#[test]
fn transitions_give_kafkas_records() {
    let states: Vec<Transaction> = records()
        .into_iter()
        .map(|record| match read(record) {
            TransactionRecord::State {
                transaction: Some(transaction),
                ..
            } => *transaction,
            other => panic!("not a state: {other:?}"),
        })
        .collect();
    // Not kept in records.
    let stored = |transaction: Transaction| Transaction {
        last_producer_epoch: -1,
        ..transaction
    };
    let at = |n: usize| states[n].last_update_ms;
    let new = Transaction::new(states[0].producer_id, 60_000, at(0));
    let transitions = [
        new.next_epoch(60_000, None, at(0)).unwrap(),
        states[0].with_partitions(&states[1].partitions, 2, at(1)),
        states[1].fenced(2, -1, at(2)),
        states[2].completed(at(3)),
        states[3].next_epoch(60_000, None, at(4)).unwrap(),
        states[4].with_partitions(&states[5].partitions, 2, at(5)),
        states[5].prepared(true, 2, -1, at(6)),
        states[6].completed(at(7)),
    ];
    for (transition, state) in transitions.into_iter().zip(states) {
        assert_eq!(stored(transition), state);
    }
}

#[test]
fn old_clusters_write_the_old_version() {
    let mut transaction = Transaction::new(5, 1_000, 7);
    transaction.producer_epoch = 3;
    transaction.client_version = 2;
    let record = TransactionRecord::State {
        transactional_id: "x".into(),
        transaction: Some(Box::new(transaction.clone())),
        version: 0,
    };
    let encoded = record.encode().unwrap();
    assert_eq!(encoded.value.as_ref().unwrap()[..2], [0, 0]);
    let TransactionRecord::State {
        transaction: Some(read),
        ..
    } = read(encoded)
    else {
        panic!("not a state");
    };
    transaction.client_version = 0;
    assert_eq!(*read, transaction);
}

#[test]
fn records_of_later_releases_are_passed_over() {
    let key = |kind: i16| {
        let mut key = kind.to_be_bytes().to_vec();
        key.extend([0, 1, b'x']);
        Some(Bytes::from(key))
    };
    for (key, value) in [
        (key(1), None),
        (key(0), Some(Bytes::from_static(&[0, 2, 9]))),
    ] {
        let read = TransactionRecord::decode(key, value);
        assert_eq!(read, Ok(TransactionRecord::Unknown));
    }
    let cut = TransactionRecord::decode(key(0), Some(Bytes::from_static(&[0, 1, 9])));
    assert!(matches!(cut, Err(RecordError::Malformed { kind: 0, .. })));
    assert_eq!(
        TransactionRecord::decode(None, None),
        Err(RecordError::MissingKey)
    );
}
