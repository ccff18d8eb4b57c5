//! Timeouts, expiry, and the views.

use std::collections::BTreeSet;

use klamm_protocol::ErrorCode;
use regex::Regex;

use super::bench::{Bench, FIRST, ID, Writes};
use crate::transaction::{
    ListFilter, TransactionAction, TransactionRequest, TransactionResponse, TransactionState,
};

#[test]
fn a_transaction_that_stays_open_too_long_is_aborted() {
    for version in [0, 2] {
        let mut bench = Bench::new(version);
        let producer = bench.init(None).unwrap();
        bench.add(producer, &[0]).unwrap();
        bench.advance_ms(60_000);
        assert_eq!(bench.state().state, TransactionState::Ongoing);
        bench.advance_ms(10_000);
        assert_eq!(bench.state().state, TransactionState::PrepareAbort);
        assert_eq!(bench.state().producer_epoch, 1);
        bench.write_markers();
        assert_eq!(bench.state().state, TransactionState::CompleteAbort);
        let late = bench.end(producer, true);
        // With bumps this looks like a retry of another decision.
        let expected = if version < 2 {
            ErrorCode::ProducerFenced
        } else {
            ErrorCode::InvalidTxnState
        };
        assert_eq!(late, Err(expected));
        assert_eq!(
            bench.init(Some(producer)),
            if version < 2 {
                Err(ErrorCode::ProducerFenced)
            } else {
                Ok((FIRST, 1))
            }
        );
    }
}

#[test]
fn a_timeout_without_epochs_left_asks_for_a_producer_id() {
    let mut bench = Bench::new(2);
    let mut producer = bench.init(None).unwrap();
    while producer.1 < i16::MAX - 1 {
        producer = bench.end(producer, false).unwrap();
    }
    bench.add(producer, &[0]).unwrap();
    bench.advance_ms(70_001);
    assert_eq!(bench.state().state, TransactionState::Ongoing);
    let transactional_id = ID.into();
    assert_eq!(
        bench.actions.pop_front(),
        Some(TransactionAction::AllocateProducerId { transactional_id })
    );
    bench.send(TransactionRequest::AbortTimedOut {
        transactional_id: ID.into(),
        spare: 7,
    });
    assert_eq!(bench.state().state, TransactionState::PrepareAbort);
    bench.write_markers();
    assert_eq!(
        (bench.state().producer_id, bench.state().producer_epoch),
        (7, 0)
    );
}

#[test]
fn ids_that_nobody_uses_are_forgotten() {
    const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
    let mut bench = Bench::new(2);
    let producer = bench.init(None).unwrap();
    bench.init_id("open", None).unwrap();
    bench.advance_ms(WEEK_MS / 2);
    bench.end(producer, false).unwrap();
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    bench.advance_ms(WEEK_MS / 2 + 3_600_000);
    assert_eq!(bench.shard.transactions().count(), 2);
    bench.writes = Writes::Commit;
    bench.advance_ms(3_600_000);
    assert!(bench.shard.transaction("open").is_none());
    assert_eq!(bench.state().state, TransactionState::CompleteAbort);
    bench.advance_ms(WEEK_MS);
    assert_eq!(bench.shard.transactions().count(), 0);
    assert_eq!(bench.reload().shard.transactions().count(), 0);
}

fn listed(bench: &mut Bench, filter: ListFilter) -> Vec<String> {
    let token = bench.send(TransactionRequest::List(filter));
    match bench.answer(token).unwrap().unwrap() {
        TransactionResponse::Listed(listed) => listed
            .into_iter()
            .map(|listed| format!("{} {}", listed.transactional_id, listed.transaction_state))
            .collect(),
        other => panic!("no list but {other:?}"),
    }
}

#[test]
fn lists_are_filtered() {
    let mut bench = Bench::new(2);
    let producer = bench.init(None).unwrap();
    bench.add(producer, &[0]).unwrap();
    bench.init_id("other", None).unwrap();
    let all = ListFilter {
        duration_ms: -1,
        ..ListFilter::default()
    };
    assert_eq!(
        listed(&mut bench, all.clone()),
        ["id Ongoing", "other Empty"]
    );
    let producers = ListFilter {
        producer_ids: BTreeSet::from([FIRST]),
        ..all.clone()
    };
    assert_eq!(listed(&mut bench, producers), ["id Ongoing"]);
    let states = ListFilter {
        states: Some(BTreeSet::from([TransactionState::Empty])),
        ..all.clone()
    };
    assert_eq!(listed(&mut bench, states), ["other Empty"]);
    let none = ListFilter {
        states: Some(BTreeSet::new()),
        ..all.clone()
    };
    assert!(listed(&mut bench, none).is_empty());
    let pattern = ListFilter {
        pattern: Some(Regex::new("^(?:o.*)$").unwrap()),
        ..all.clone()
    };
    assert_eq!(listed(&mut bench, pattern), ["other Empty"]);
    bench.advance_ms(1_000);
    // Without a start an id counts as old, as in Kafka.
    for (duration_ms, expected) in [(999, 2), (1_000, 1)] {
        let old = ListFilter {
            duration_ms,
            ..all.clone()
        };
        assert_eq!(listed(&mut bench, old).len(), expected);
    }
}

#[test]
fn a_description_shows_what_is_left_to_mark() {
    let mut bench = Bench::new(2);
    let describe = |bench: &mut Bench| {
        let token = bench.send(TransactionRequest::Describe(ID.into()));
        bench.answer(token).unwrap()
    };
    assert_eq!(
        describe(&mut bench),
        Err(ErrorCode::TransactionalIdNotFound)
    );
    let producer = bench.init(None).unwrap();
    bench.add(producer, &[0, 1]).unwrap();
    bench.end(producer, true).unwrap();
    let (id, end, partitions) = bench.markers().unwrap();
    bench.written(
        &id,
        &end,
        vec![
            (partitions[0].clone(), ErrorCode::None),
            (partitions[1].clone(), ErrorCode::RequestTimedOut),
        ],
    );
    let Ok(TransactionResponse::Described(described)) = describe(&mut bench) else {
        panic!("not described");
    };
    assert_eq!(&*described.transaction_state, "PrepareCommit");
    assert_eq!(described.topics[0].partitions, [1]);
    assert_eq!(described.transaction_timeout_ms, 60_000);
}
