//! From the first partition to the last marker.

use klamm_protocol::ErrorCode;

use super::bench::{Bench, FIRST, ID, NO_PRODUCER, Writes, topic_partitions};
use crate::transaction::{TransactionRequest, TransactionResponse, TransactionState};

/// A bench with a transaction in these partitions.
fn open(version: i16, partitions: &[i32]) -> (Bench, (i64, i16)) {
    let mut bench = Bench::new(version);
    let producer = bench.init(None).unwrap();
    bench.add(producer, partitions).unwrap();
    (bench, producer)
}

#[test]
fn a_commit_is_decided_then_marked_then_closed() {
    let (mut bench, producer) = open(2, &[0, 1]);
    assert_eq!(bench.state().state, TransactionState::Ongoing);
    let next = bench.end(producer, true).unwrap();
    assert_eq!(next, (FIRST, 1));
    assert_eq!(bench.state().state, TransactionState::PrepareCommit);
    assert_eq!(
        bench.add(next, &[2]),
        Err(ErrorCode::ConcurrentTransactions)
    );
    let (id, end, partitions) = bench.markers().unwrap();
    assert_eq!((end.committed, end.producer_epoch), (true, 1));
    assert_eq!(end.transaction_version, 2);
    // One partition cannot be written yet.
    let outcomes = vec![
        (partitions[0].clone(), ErrorCode::None),
        (partitions[1].clone(), ErrorCode::NotLeaderOrFollower),
    ];
    let remaining = TransactionResponse::Remaining(vec![partitions[1].clone()]);
    assert_eq!(bench.written(&id, &end, outcomes), remaining);
    assert_eq!(bench.state().state, TransactionState::PrepareCommit);
    let outcomes = vec![(partitions[1].clone(), ErrorCode::None)];
    assert_eq!(
        bench.written(&id, &end, outcomes),
        TransactionResponse::Done
    );
    assert_eq!(bench.state().state, TransactionState::CompleteCommit);
    assert!(bench.state().partitions.is_empty());
    bench.add(next, &[0]).unwrap();
    assert_eq!(bench.state().state, TransactionState::Ongoing);
}

#[test]
fn without_bumps_the_epoch_stays() {
    let (mut bench, producer) = open(0, &[0]);
    assert_eq!(bench.end(producer, false), Ok(NO_PRODUCER));
    bench.write_markers();
    assert_eq!(bench.state().state, TransactionState::CompleteAbort);
    // A retry is told the same, the other decision is refused.
    assert_eq!(bench.end(producer, false), Ok(NO_PRODUCER));
    assert_eq!(bench.end(producer, true), Err(ErrorCode::InvalidTxnState));
    bench.add(producer, &[1]).unwrap();
    assert_eq!(bench.end(producer, true), Ok(NO_PRODUCER));
    for committed in [true, false] {
        let early = bench.end(producer, committed);
        assert_eq!(early, Err(ErrorCode::ConcurrentTransactions));
    }
    bench.write_markers();
    assert_eq!(bench.end(producer, true), Ok(NO_PRODUCER));
    let fenced = bench.end((FIRST, 5), true);
    assert_eq!(fenced, Err(ErrorCode::ProducerFenced));
    let unmapped = bench.end((FIRST + 1, 0), true);
    assert_eq!(unmapped, Err(ErrorCode::InvalidProducerIdMapping));
}

/// Kafka's table of EndTxn with epoch bumps where no transaction is open.
#[test]
fn with_bumps_a_retry_shows_in_its_epoch() {
    let invalid = Err(ErrorCode::InvalidTxnState);
    let fenced = Err(ErrorCode::ProducerFenced);
    let bumped = |epoch| Ok((FIRST, epoch));
    // Committed last time or not; then what each of four requests gets.
    let cases = [
        (None, fenced, bumped(1), fenced, invalid),
        (Some(false), bumped(1), bumped(2), invalid, invalid),
        (Some(true), invalid, bumped(2), bumped(1), invalid),
    ];
    for (last, abort_again, abort, commit_again, commit) in cases {
        let asked = [
            (-1, false, abort_again),
            (0, false, abort),
            (-1, true, commit_again),
            (0, true, commit),
        ];
        for (difference, committed, expected) in asked {
            let mut bench = Bench::new(2);
            let mut producer = bench.init(None).unwrap();
            if let Some(last) = last {
                bench.add(producer, &[0]).unwrap();
                producer = bench.end(producer, last).unwrap();
                bench.write_markers();
            }
            let asking = (producer.0, producer.1 + difference);
            let case = (last, difference, committed);
            assert_eq!(bench.end(asking, committed), expected, "{case:?}");
        }
    }
}

/// An end without a bump leaves the epoch that its producer was given. Who has the one before it is
/// a producer that was replaced, not one that asks again, and must not be told the epoch of the
/// other one.
#[test]
fn who_was_replaced_by_a_producer_without_bumps_is_no_retry() {
    for (last, fenced) in [(true, true), (false, false), (true, false), (false, true)] {
        let mut bench = Bench::new(2);
        let zombie = bench.init(None).unwrap();
        let producer = bench.init(None).unwrap();
        bench.add_as(0, producer, &[0]).unwrap();
        bench.end_as(0, producer, last).unwrap();
        bench.write_markers();
        let refused = bench.end_as(2, zombie, fenced);
        assert_eq!(refused, Err(ErrorCode::ProducerFenced), "{last} {fenced}");
        // Nor after the next coordinator has read it.
        let mut bench = bench.reload();
        let refused = bench.end_as(2, zombie, fenced);
        assert_eq!(refused, Err(ErrorCode::ProducerFenced), "{last} {fenced}");
        assert_eq!(bench.end_as(0, producer, last), Ok(NO_PRODUCER));
    }
}

/// A producer that may go on, but whose last transaction has markers to be written yet, must not be
/// fenced by itself (KAFKA-18464).
#[test]
fn an_empty_transaction_waits_for_the_one_before_to_close() {
    let early = Err(ErrorCode::ConcurrentTransactions);
    for last in [true, false] {
        let (mut bench, producer) = open(2, &[0]);
        let next = bench.end(producer, last).unwrap();
        for committed in [true, false] {
            assert_eq!(bench.end(next, committed), early);
            assert_eq!(bench.end(producer, committed), early);
        }
        assert_eq!(bench.init(Some(next)), early);
        bench.write_markers();
        let aborted = bench.end(next, false);
        assert_eq!(aborted, Ok((FIRST, next.1 + 1)));
    }
}

#[test]
fn the_last_epoch_ends_with_another_producer_id() {
    let mut bench = Bench::new(2);
    let mut producer = bench.init(None).unwrap();
    // Aborting nothing bumps the epoch too.
    while producer.1 < i16::MAX - 1 {
        producer = bench.end(producer, false).unwrap();
    }
    bench.add(producer, &[0]).unwrap();
    let next = bench.end(producer, true).unwrap();
    assert_eq!(next, (FIRST + 1, 0));
    let (id, end, partitions) = bench.markers().unwrap();
    assert_eq!((end.producer_id, end.producer_epoch), (FIRST, i16::MAX));
    let mut bench = bench.reload();
    let again = bench.markers().unwrap();
    assert_eq!(again, (id.clone(), end, partitions.clone()));
    // The new id is good already, for all that must wait.
    let early = Err(ErrorCode::ConcurrentTransactions);
    assert_eq!(bench.end(next, false), early);
    assert_eq!(bench.init(Some(next)), early);
    let added = bench.add(next, &[0]);
    assert_eq!(added, Err(ErrorCode::ConcurrentTransactions));
    let outcomes = partitions.into_iter().map(|p| (p, ErrorCode::None));
    bench.written(&id, &end, outcomes.collect());
    assert_eq!(bench.state().state, TransactionState::CompleteCommit);
    assert_eq!(bench.end(producer, true), Ok(next));
    bench.add(next, &[0]).unwrap();
}

#[test]
fn a_decision_survives_the_coordinator() {
    for committed in [true, false] {
        let (mut bench, producer) = open(2, &[0, 1]);
        bench.end(producer, committed).unwrap();
        let asked = bench.markers().unwrap();
        let mut bench = bench.reload();
        assert_eq!(bench.markers().unwrap(), asked);
        // The markers of the old coordinator's are reported twice.
        let (id, end, partitions) = asked;
        let outcomes: Vec<_> = partitions
            .into_iter()
            .map(|p| (p, ErrorCode::None))
            .collect();
        bench.written(&id, &end, outcomes.clone());
        bench.written(&id, &end, outcomes);
        let closed = if committed {
            TransactionState::CompleteCommit
        } else {
            TransactionState::CompleteAbort
        };
        assert_eq!(bench.state().state, closed);
        assert_eq!(bench.reload().state().state, closed);
    }
}

#[test]
fn no_marker_is_written_for_a_decision_that_may_be_lost() {
    let (mut bench, producer) = open(2, &[0]);
    bench.writes = Writes::Hold;
    assert_eq!(bench.try_end(ID, 2, producer, true), None);
    assert!(bench.markers().is_none());
    bench.commit_held();
    assert!(bench.markers().is_some());
    let (mut bench, producer) = open(2, &[0]);
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    let lost = bench.end(producer, true);
    assert_eq!(lost, Err(ErrorCode::NotEnoughReplicas));
    assert!(bench.markers().is_none());
    bench.writes = Writes::Commit;
    assert_eq!(bench.end(producer, false), Ok((FIRST, 1)));
}

#[test]
fn a_transaction_that_cannot_be_closed_is_closed_later() {
    let (mut bench, producer) = open(2, &[0]);
    bench.end(producer, true).unwrap();
    bench.writes = Writes::Fail(ErrorCode::KafkaStorageError);
    bench.write_markers();
    assert_eq!(bench.state().state, TransactionState::PrepareCommit);
    bench.writes = Writes::Commit;
    bench.advance_ms(100);
    assert_eq!(bench.state().state, TransactionState::CompleteCommit);
}

#[test]
fn markers_that_another_coordinator_overtook_are_given_up() {
    let (mut bench, producer) = open(2, &[0]);
    bench.end(producer, true).unwrap();
    let (id, end, partitions) = bench.markers().unwrap();
    let outcomes = vec![(
        partitions[0].clone(),
        ErrorCode::TransactionCoordinatorFenced,
    )];
    assert_eq!(
        bench.written(&id, &end, outcomes),
        TransactionResponse::Done
    );
    assert_eq!(bench.state().state, TransactionState::PrepareCommit);
}

#[test]
fn the_next_transaction_waits_for_the_one_before_if_it_may() {
    let (mut bench, producer) = open(2, &[0]);
    let next = bench.end(producer, true).unwrap();
    let patient = bench.send_add(ID, next, &[1], 100);
    let impatient = bench.send_add(ID, next, &[1], 10);
    assert_eq!(bench.answer(patient), None);
    bench.advance_ms(10);
    let refused = Some(Err(ErrorCode::ConcurrentTransactions));
    assert_eq!(bench.answer(impatient), refused);
    assert_eq!(bench.answer(patient), None);
    bench.write_markers();
    assert_eq!(bench.answer(patient), Some(Ok(TransactionResponse::Done)));
    assert_eq!(bench.state().partitions, topic_partitions(&[1]));
    let closing = bench.end(next, true).unwrap();
    let late = bench.send_add(ID, closing, &[1], 100);
    bench.advance_ms(100);
    assert_eq!(bench.answer(late), refused);
}

#[test]
fn partitions_are_verified_one_by_one() {
    let (mut bench, producer) = open(2, &[0]);
    let verify = |bench: &mut Bench, producer| {
        let token = bench.send(TransactionRequest::VerifyPartitions {
            transactional_id: ID.into(),
            producer,
            partitions: topic_partitions(&[0, 1]),
        });
        bench.answer(token).unwrap()
    };
    let mut partitions = topic_partitions(&[0, 1]).into_iter();
    let verdicts = vec![
        (partitions.next().unwrap(), ErrorCode::None),
        (partitions.next().unwrap(), ErrorCode::TransactionAbortable),
    ];
    let verified = verify(&mut bench, producer);
    assert_eq!(verified, Ok(TransactionResponse::Verified(verdicts)));
    let fenced = verify(&mut bench, (FIRST, 9));
    assert_eq!(fenced, Err(ErrorCode::ProducerFenced));
    let unmapped = verify(&mut bench, (FIRST + 1, 0));
    assert_eq!(unmapped, Err(ErrorCode::InvalidProducerIdMapping));
    let next = bench.end(producer, true).unwrap();
    let closing = verify(&mut bench, next);
    assert_eq!(closing, Err(ErrorCode::ConcurrentTransactions));
}

/// A new coordinator may have read more than it knows to be committed, all of which the one before
/// may have told: it refuses nobody, and takes nobody in, by the part that it knows.
#[test]
fn partitions_are_not_verified_by_the_past() {
    let (mut bench, producer) = open(0, &[0]);
    bench.end(producer, true).unwrap();
    bench.write_markers();
    let next = bench.init(None).unwrap();
    bench.add(next, &[1]).unwrap();
    // The records: given, opened, decided, closed, given, opened.
    assert_eq!(bench.log.len(), 6);
    for known in 0..6 {
        let mut bench = bench.reload_to(known);
        for (producer, partition) in [(producer, 0), (next, 1), (next, 0)] {
            let early = Err(ErrorCode::ConcurrentTransactions);
            let verified = bench.verify(producer, partition);
            assert_eq!(verified, early, "{producer:?} by {known} records");
        }
        bench.commit_held();
        assert_eq!(bench.verify(next, 1), Ok(ErrorCode::None));
        let gone = bench.verify(producer, 0);
        assert_eq!(gone, Err(ErrorCode::ProducerFenced));
    }
}

/// What a producer adds while its transaction is open keeps it from nothing that it has already.
#[test]
fn partitions_are_verified_while_others_are_added() {
    let (mut bench, producer) = open(0, &[0]);
    bench.writes = Writes::Hold;
    bench.send_add(ID, producer, &[1], 0);
    assert_eq!(bench.verify(producer, 0), Ok(ErrorCode::None));
    let early = Err(ErrorCode::ConcurrentTransactions);
    assert_eq!(bench.verify(producer, 1), early);
    bench.commit_held();
    assert_eq!(bench.verify(producer, 1), Ok(ErrorCode::None));
}
