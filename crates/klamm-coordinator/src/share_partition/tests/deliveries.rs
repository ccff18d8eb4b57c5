//! One delivery at a time.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::read_share_group_state_response::StateBatch as ReadBatch;

use super::{ack, acquire, acquire_as, fresh, member, range, span};
use crate::share_partition::{
    AcknowledgeType, Acknowledgement, AcquireMode, BatchSpan, LoadError, RecordState, ShareLimits,
    SharePartition, StoredState, TransactionSpan, aborted_spans,
};

const LIMITS: ShareLimits = ShareLimits {
    delivery_count_max: 5,
    in_flight_max: 2_000,
    lock_duration_ms: 30_000,
    may_renew: true,
};

#[test]
fn what_is_accepted_moves_the_start_once_it_is_written() {
    let mut partition = fresh();
    let batches = [span(0, 4), span(5, 9)];
    assert_eq!(
        acquire(&mut partition, "a", &batches, 500, 0),
        [range(0, 9, 1)]
    );
    let acks = [ack(0, 9, AcknowledgeType::Accept)];
    let write = partition
        .acknowledge(&member("a"), &acks, &LIMITS, 0)
        .unwrap()
        .unwrap();
    assert_eq!((write.start_offset, write.delivery_complete_count), (0, 10));
    assert_eq!(write.batches.len(), 1);
    assert_eq!(write.batches[0].delivery_state, 2);
    assert_eq!(partition.start_offset(), 0);
    partition.written(write.ticket, true);
    assert_eq!(partition.start_offset(), 10);
    assert_eq!(partition.next_fetch_offset(), 10);
    assert_eq!(partition.delivery_complete_count(), 0);
    assert!(!partition.has_unsettled());
}

#[test]
fn what_cannot_be_written_is_still_the_members() {
    let mut partition = fresh();
    acquire(&mut partition, "a", &[span(0, 4)], 500, 0);
    let acks = [ack(0, 4, AcknowledgeType::Accept)];
    let write = partition
        .acknowledge(&member("a"), &acks, &LIMITS, 0)
        .unwrap()
        .unwrap();
    // Nobody gets at records whose fate is not known.
    let again = partition.acknowledge(&member("a"), &acks, &LIMITS, 0);
    assert_eq!(again, Err(ErrorCode::InvalidRecordState));
    assert_eq!(partition.expire(&LIMITS, 99_000), None);
    partition.written(write.ticket, false);
    assert_eq!(partition.record(0), Some((RecordState::Acquired, 1)));
    // The lock ran out meanwhile.
    let expired = partition.expire(&LIMITS, 99_000).unwrap();
    assert_eq!(expired.batches[0].delivery_state, 0);
    assert_eq!(partition.record(0), Some((RecordState::Available, 1)));
}

#[test]
fn released_and_overdue_records_come_again_until_the_limit() {
    let mut partition = fresh();
    let batches = [span(0, 0)];
    for delivery in 1..=5 {
        let now_ms = 40_000 * u64::try_from(delivery).unwrap();
        let acquired = acquire(&mut partition, "a", &batches, 500, now_ms);
        assert_eq!(acquired, [range(0, 0, delivery)]);
        assert_eq!(partition.next_deadline_ms(), Some(now_ms + 30_000));
        if delivery % 2 == 0 {
            let acks = [ack(0, 0, AcknowledgeType::Release)];
            let write = partition.acknowledge(&member("a"), &acks, &LIMITS, now_ms);
            partition.written(write.unwrap().unwrap().ticket, true);
        } else {
            assert_eq!(partition.expire(&LIMITS, now_ms + 29_999), None);
            assert!(partition.expire(&LIMITS, now_ms + 30_000).is_some());
        }
    }
    assert_eq!(partition.start_offset(), 1);
    assert_eq!(acquire(&mut partition, "a", &batches, 500, 0), []);
}

#[test]
fn a_rejected_record_never_comes_again() {
    let mut partition = fresh();
    acquire(&mut partition, "a", &[span(0, 2)], 500, 0);
    let acks = [Acknowledgement {
        first_offset: 0,
        last_offset: 2,
        types: vec![
            AcknowledgeType::Reject,
            AcknowledgeType::Release,
            AcknowledgeType::Gap,
        ],
    }];
    let write = partition.acknowledge(&member("a"), &acks, &LIMITS, 0);
    let write = write.unwrap().unwrap();
    let states: Vec<i8> = write.batches.iter().map(|b| b.delivery_state).collect();
    assert_eq!(states, [4, 0, 4]);
    partition.written(write.ticket, true);
    assert_eq!(partition.start_offset(), 1);
    assert_eq!(partition.next_fetch_offset(), 1);
    assert_eq!(
        acquire(&mut partition, "b", &[span(0, 2)], 500, 0),
        [range(1, 1, 2)]
    );
}

#[test]
fn only_the_owner_is_believed_and_one_wrong_word_spoils_all() {
    let mut partition = fresh();
    acquire(&mut partition, "a", &[span(0, 4)], 500, 0);
    acquire(&mut partition, "b", &[span(5, 9)], 500, 0);
    let spoilt = [
        ack(0, 4, AcknowledgeType::Accept),
        ack(5, 9, AcknowledgeType::Accept),
    ];
    let refused = partition.acknowledge(&member("a"), &spoilt, &LIMITS, 0);
    assert_eq!(refused, Err(ErrorCode::InvalidRecordState));
    assert_eq!(partition.record(0), Some((RecordState::Acquired, 1)));
    let beyond = [ack(5, 10, AcknowledgeType::Accept)];
    let refused = partition.acknowledge(&member("b"), &beyond, &LIMITS, 0);
    assert_eq!(refused, Err(ErrorCode::InvalidRequest));
}

#[test]
fn renewing_a_lock_gives_more_time_and_writes_nothing() {
    let mut partition = fresh();
    acquire(&mut partition, "a", &[span(0, 4)], 500, 0);
    let acks = [ack(0, 4, AcknowledgeType::Renew)];
    assert_eq!(
        partition.acknowledge(&member("a"), &acks, &LIMITS, 20_000),
        Ok(None)
    );
    assert_eq!(partition.next_deadline_ms(), Some(50_000));
    let strict = ShareLimits {
        may_renew: false,
        ..LIMITS
    };
    let refused = partition.acknowledge(&member("a"), &acks, &strict, 20_000);
    assert_eq!(refused, Err(ErrorCode::InvalidRecordState));
}

#[test]
fn what_a_session_had_as_it_ended_counts_as_delivered() {
    let mut partition = fresh();
    let strict = ShareLimits {
        delivery_count_max: 2,
        ..LIMITS
    };
    acquire(&mut partition, "a", &[span(0, 4)], 500, 0);
    let write = partition.release("a", &strict).unwrap();
    assert_eq!(write.batches[0].delivery_count, 1);
    partition.written(write.ticket, true);
    assert_eq!(
        acquire(&mut partition, "b", &[span(0, 4)], 500, 0),
        [range(0, 4, 2)]
    );
    assert_eq!(partition.release("a", &strict), None);
    // It was the last time that the limit allows.
    let write = partition.release("b", &strict).unwrap();
    partition.written(write.ticket, true);
    assert_eq!(partition.start_offset(), 5);
}

#[test]
fn a_batch_that_fails_is_handed_out_in_ever_smaller_parts() {
    let mut partition = fresh();
    let batches = [span(0, 7)];
    for (delivery, now_ms) in [(1, 0), (2, 100_000), (3, 200_000)] {
        let acquired = acquire(&mut partition, "a", &batches, 500, now_ms);
        assert_eq!(acquired, [range(0, 7, delivery)]);
        partition.expire(&LIMITS, now_ms + 30_000);
    }
    // Three failures: half of it, then the other half.
    assert_eq!(
        acquire(&mut partition, "a", &batches, 500, 300_000),
        [range(0, 3, 4)]
    );
    assert_eq!(
        acquire(&mut partition, "b", &batches, 500, 300_000),
        [range(4, 7, 4)]
    );
    partition.expire(&LIMITS, 330_000);
    // The last attempt: one by one.
    assert_eq!(
        acquire(&mut partition, "a", &batches, 500, 400_000),
        [range(0, 0, 5)]
    );
    assert_eq!(
        acquire(&mut partition, "a", &batches, 500, 400_000),
        [range(1, 1, 5)]
    );
}

#[test]
fn a_part_ends_where_it_ends_whatever_is_left_of_the_batch() {
    let mut partition = fresh();
    let batches = [span(0, 7)];
    for now_ms in [0, 100_000, 200_000] {
        acquire(&mut partition, "a", &batches, 500, now_ms);
        if now_ms == 200_000 {
            let acks = [ack(4, 4, AcknowledgeType::Accept)];
            let write = partition.acknowledge(&member("a"), &acks, &LIMITS, now_ms);
            partition.written(write.unwrap().unwrap().ticket, true);
        }
        partition.expire(&LIMITS, now_ms + 30_000);
    }
    // Half of the batch is all that is before the gap.
    let first = acquire(&mut partition, "a", &batches, 500, 300_000);
    assert_eq!(first, [range(0, 3, 4)]);
    assert_eq!(partition.record(5), Some((RecordState::Available, 3)));
    let second = acquire(&mut partition, "b", &batches, 500, 300_000);
    assert_eq!(second, [range(5, 7, 4)]);
}

#[test]
fn limits_are_of_batches_or_of_records() {
    let batches = [span(0, 4), span(5, 9), span(10, 14)];
    let mut partition = fresh();
    // A batch that was begun is handed out as a whole.
    assert_eq!(
        acquire(&mut partition, "a", &batches, 7, 0),
        [range(0, 9, 1)]
    );
    let mut partition = fresh();
    let strict = AcquireMode::RecordLimit;
    let acquired = acquire_as(&mut partition, "a", &batches, 7, strict, 0);
    assert_eq!(acquired, [range(0, 6, 1)]);
    let acquired = acquire_as(&mut partition, "b", &batches, 7, strict, 0);
    assert_eq!(acquired, [range(7, 13, 1)]);
}

#[test]
fn the_window_grows_no_further_than_it_may() {
    let limits = ShareLimits {
        in_flight_max: 10,
        ..LIMITS
    };
    let mut partition = fresh();
    let batches = [span(0, 9), span(10, 19)];
    assert_eq!(
        acquire(&mut partition, "a", &batches[..1], 500, 0),
        [range(0, 9, 1)]
    );
    assert!(!partition.can_acquire(&limits));
    let acks = [ack(5, 9, AcknowledgeType::Accept)];
    let write = partition.acknowledge(&member("a"), &acks, &limits, 0);
    partition.written(write.unwrap().unwrap().ticket, true);
    assert!(
        !partition.can_acquire(&limits),
        "the first record holds the window"
    );
    let acks = [ack(0, 0, AcknowledgeType::Release)];
    let write = partition.acknowledge(&member("a"), &acks, &limits, 0);
    partition.written(write.unwrap().unwrap().ticket, true);
    assert!(
        partition.can_acquire(&limits),
        "what came back may go out again"
    );
}

#[test]
fn records_that_are_not_in_the_log_hold_nothing_up() {
    let mut partition = fresh();
    // Compaction left a hole at the front and one in the middle.
    assert_eq!(
        acquire(&mut partition, "a", &[span(3, 4)], 500, 0),
        [range(3, 4, 1)]
    );
    assert_eq!(partition.start_offset(), 3);
    assert_eq!(
        acquire(&mut partition, "a", &[span(8, 9)], 500, 0),
        [range(8, 9, 1)]
    );
    let acks = [ack(3, 4, AcknowledgeType::Accept)];
    let write = partition.acknowledge(&member("a"), &acks, &LIMITS, 0);
    partition.written(write.unwrap().unwrap().ticket, true);
    assert_eq!(partition.start_offset(), 8);
    // What came back was removed from the log meanwhile.
    partition.expire(&LIMITS, 30_000);
    assert_eq!(partition.next_fetch_offset(), 8);
    assert_eq!(
        acquire(&mut partition, "b", &[span(10, 10)], 500, 40_000),
        [range(10, 10, 1)]
    );
    assert_eq!(partition.start_offset(), 10);
}

#[test]
fn the_log_loses_its_beginning() {
    let mut partition = fresh();
    acquire(&mut partition, "a", &[span(0, 9)], 500, 0);
    partition.log_start_moved(5);
    assert_eq!(partition.start_offset(), 5);
    // What is gone is not held against who speaks of it.
    let acks = [ack(0, 9, AcknowledgeType::Accept)];
    let write = partition.acknowledge(&member("a"), &acks, &LIMITS, 0);
    let write = write.unwrap().unwrap();
    assert_eq!(write.batches[0].first_offset, 5);
    partition.written(write.ticket, true);
    assert_eq!(partition.start_offset(), 10);
    partition.log_start_moved(20);
    assert_eq!(
        (partition.start_offset(), partition.next_fetch_offset()),
        (20, 20)
    );
}

fn stored(batches: &[(i64, i64, i8, i16)]) -> StoredState {
    let batches = batches.iter().map(|(first, last, state, count)| ReadBatch {
        first_offset: *first,
        last_offset: *last,
        delivery_state: *state,
        delivery_count: *count,
        ..ReadBatch::default()
    });
    StoredState {
        state_epoch: 3,
        start_offset: 10,
        batches: batches.collect(),
    }
}

#[test]
fn a_stored_state_is_taken_up_where_it_was() {
    let state = stored(&[(10, 11, 2, 1), (14, 15, 0, 2), (16, 16, 4, 5)]);
    let mut partition = SharePartition::load(&state, 99).unwrap();
    assert_eq!(partition.start_offset(), 12);
    assert_eq!(partition.window_end(), 17);
    let acquired = acquire(&mut partition, "a", &[span(10, 19)], 500, 0);
    let expected = [range(12, 13, 1), range(14, 15, 3), range(17, 19, 1)];
    assert_eq!(acquired, expected);
    assert_eq!(partition.state_epoch(), 3);

    let overlapping = stored(&[(10, 11, 2, 1), (11, 15, 0, 2)]);
    let refused = SharePartition::load(&overlapping, 0);
    assert_eq!(refused, Err(LoadError::Misplaced(11)));
    let refused = SharePartition::load(&stored(&[(10, 11, 9, 1)]), 0);
    assert_eq!(refused, Err(LoadError::UnknownState(9)));
}

#[test]
fn aborted_transactions_are_not_handed_out() {
    let batch = |base_offset, last_offset, producer_id| TransactionSpan {
        base_offset,
        last_offset,
        producer_id,
        is_transactional: producer_id >= 0,
        aborts: false,
        is_control: false,
    };
    let marker = |offset, producer_id, aborts| TransactionSpan {
        aborts,
        is_control: true,
        ..batch(offset, offset, producer_id)
    };
    let batches = [
        batch(0, 1, 7),
        batch(2, 3, -1),
        batch(4, 5, 8),
        marker(6, 7, true),
        batch(7, 8, 7),
        marker(9, 7, false),
        marker(10, 8, false),
    ];
    let spans = aborted_spans(batches, [(7, 0)]);
    let aborted: Vec<bool> = spans.iter().map(|span| span.is_aborted).collect();
    assert_eq!(aborted, [true, false, false, false, false, false, false]);
    let mut partition = fresh();
    let acquired = acquire(&mut partition, "a", &spans, 500, 0);
    assert_eq!(acquired, [range(2, 10, 1)]);
    assert_eq!(partition.start_offset(), 2);
    let all_aborted: Vec<BatchSpan> = aborted_spans([batch(11, 12, 9)], [(9, 11)]);
    assert_eq!(acquire(&mut partition, "a", &all_aborted, 500, 0), []);
    assert_eq!(partition.next_fetch_offset(), 13);
}
