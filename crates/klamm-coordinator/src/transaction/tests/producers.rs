//! InitProducerId: new, resumed, fenced, recovered, out of epochs.

use klamm_protocol::ErrorCode;

use super::bench::{Bench, FIRST, ID, Writes};
use crate::transaction::{InitProducerId, TransactionRequest, TransactionState};

/// Bumps the epoch until it is `epoch`.
fn bump_to(bench: &mut Bench, epoch: i16) -> (i64, i16) {
    loop {
        let producer = bench.init(None).unwrap();
        if producer.1 == epoch {
            return producer;
        }
    }
}

#[test]
fn each_init_gives_the_next_epoch() {
    for version in [0, 1, 2] {
        let mut bench = Bench::new(version);
        assert_eq!(bench.init(None), Ok((FIRST, 0)));
        assert_eq!(bench.init(None), Ok((FIRST, 1)));
        let mut bench = bench.reload();
        assert_eq!(bench.init(None), Ok((FIRST, 2)));
        assert_eq!(bench.state().state, TransactionState::Empty);
    }
}

#[test]
fn an_open_transaction_is_aborted_before_its_producer_is_replaced() {
    for (version, epoch_of_markers) in [(0, 1), (2, 1)] {
        let mut bench = Bench::new(version);
        let old = bench.init(None).unwrap();
        bench.add(old, &[0]).unwrap();
        assert_eq!(bench.init(None), Err(ErrorCode::ConcurrentTransactions));
        assert_eq!(bench.state().state, TransactionState::PrepareAbort);
        // Whatever it asks waits for the end of what is being closed.
        let early = Err(ErrorCode::ConcurrentTransactions);
        assert_eq!(bench.add(old, &[1]), early);
        assert_eq!(bench.init(None), Err(ErrorCode::ConcurrentTransactions));
        let (id, end, partitions) = bench.markers().unwrap();
        assert_eq!((&*id, end.committed), (ID, false));
        assert_eq!(end.producer_epoch, epoch_of_markers);
        let outcomes = partitions.into_iter().map(|p| (p, ErrorCode::None));
        bench.written(&id, &end, outcomes.collect());
        assert_eq!(bench.state().state, TransactionState::CompleteAbort);
        assert_eq!(bench.init(None), Ok((FIRST, 2)));
        assert_eq!(bench.end(old, true), Err(ErrorCode::ProducerFenced));
    }
}

#[test]
fn a_producer_that_knows_its_epoch_goes_on() {
    let mut bench = Bench::new(2);
    let first = bench.init(None).unwrap();
    let second = bench.init(Some(first)).unwrap();
    assert_eq!(second, (FIRST, 1));
    // The answer got lost: the same again.
    assert_eq!(bench.init(Some(first)), Ok(second));
    let third = bench.init(Some(second)).unwrap();
    assert_eq!(third, (FIRST, 2));
    assert_eq!(bench.init(Some(first)), Err(ErrorCode::ProducerFenced));
    let stranger = (FIRST + 7, 2);
    assert_eq!(bench.init(Some(stranger)), Err(ErrorCode::ProducerFenced));
    // What a coordinator does not know any more it cannot give again.
    let mut bench = bench.reload();
    assert_eq!(bench.init(Some(second)), Err(ErrorCode::ProducerFenced));
    assert_eq!(bench.init(Some(third)), Ok((FIRST, 3)));
}

#[test]
fn an_id_that_was_forgotten_takes_a_producer_that_remembers() {
    let mut bench = Bench::new(2);
    assert_eq!(bench.init(Some((77, 5))), Ok((FIRST, 0)));
}

#[test]
fn used_up_epochs_lead_to_another_producer_id() {
    let mut bench = Bench::new(0);
    let last = bump_to(&mut bench, i16::MAX - 1);
    assert_eq!(last.0, FIRST);
    let next = bench.init(Some(last)).unwrap();
    assert_eq!(next, (FIRST + 1, 0));
    // A producer that did not hear of it may say its last id and epoch once more.
    assert_eq!(bench.init(Some(last)), Ok((FIRST + 1, 0)));
    assert_eq!(bench.state().previous_producer_id, FIRST + 1);
}

#[test]
fn nothing_is_answered_from_what_may_be_lost() {
    let mut bench = Bench::new(2);
    let producer = bench.init(None).unwrap();
    bench.writes = Writes::Hold;
    let init = |spare| TransactionRequest::InitProducerId {
        request: InitProducerId {
            transactional_id: ID.into(),
            timeout_ms: 60_000,
            expected: None,
        },
        spare,
    };
    let token = bench.send(init(None));
    assert_eq!(bench.answer(token), None);
    assert_eq!(bench.init(None), Err(ErrorCode::ConcurrentTransactions));
    assert_eq!(
        bench.add(producer, &[0]),
        Err(ErrorCode::ConcurrentTransactions)
    );
    assert_eq!(bench.state().producer_epoch, 0);
    bench.commit_held();
    assert!(bench.answer(token).is_some());
    assert_eq!(bench.state().producer_epoch, 1);
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    assert_eq!(bench.init(None), Err(ErrorCode::NotEnoughReplicas));
    assert_eq!(
        bench.init_id("new", None),
        Err(ErrorCode::NotEnoughReplicas)
    );
    assert_eq!(bench.state().producer_epoch, 1);
    assert_eq!(bench.shard.transactions().count(), 1);
    bench.writes = Writes::Commit;
    assert_eq!(bench.init(None), Ok((FIRST, 2)));
}
