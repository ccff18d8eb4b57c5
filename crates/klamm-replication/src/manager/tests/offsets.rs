use std::pin::pin;

use super::*;

const QUERY: OffsetQuery = OffsetQuery {
    timestamp: LATEST_TIMESTAMP,
    current_leader_epoch: None,
    isolation: Some(ReadIsolation::Uncommitted),
    leader_only: true,
};

fn find(broker: &Broker, timestamp: i64) -> (i64, i64, i32) {
    let query = OffsetQuery { timestamp, ..QUERY };
    let answer = broker.manager.list_offset("t", 0, query).unwrap();
    (answer.timestamp, answer.offset, answer.leader_epoch)
}

#[test]
fn special_timestamps_of_an_empty_log() {
    let broker = Broker::with_topic();
    assert_eq!(find(&broker, LATEST_TIMESTAMP), (-1, 0, 3));
    assert_eq!(find(&broker, EARLIEST_TIMESTAMP), (-1, 0, 3));
    assert_eq!(find(&broker, EARLIEST_LOCAL_TIMESTAMP), (-1, 0, 3));
    for timestamp in [
        MAX_TIMESTAMP,
        LATEST_TIERED_TIMESTAMP,
        EARLIEST_PENDING_UPLOAD_TIMESTAMP,
        0,
    ] {
        assert_eq!(find(&broker, timestamp), (-1, -1, -1), "{timestamp}");
    }
}

#[test]
fn finds_records_by_time() {
    let broker = Broker::with_topic();
    broker.produce(&["a", "b", "c"]);
    broker.produce(&["d"]);
    assert_eq!(find(&broker, START_MS + 1), (START_MS + 1, 1, 3));
    assert_eq!(find(&broker, 5), (START_MS, 0, 3));
    assert_eq!(find(&broker, START_MS + 3), (-1, -1, -1));
    assert_eq!(find(&broker, MAX_TIMESTAMP), (START_MS + 2, 2, 3));
    assert_eq!(find(&broker, LATEST_TIMESTAMP), (-1, 4, 3));
}

#[test]
fn finds_only_what_the_asker_may_see() {
    let mut broker = Broker::new();
    broker.register(OTHER, 9);
    broker.create("t", &[partition(0, &[NODE, OTHER])]);
    broker.follow(0);
    broker.produce(&["a"]);
    broker.follow(1);
    broker.produce(&["b"]);
    assert_eq!(find(&broker, LATEST_TIMESTAMP).1, 1);
    let replica = OffsetQuery {
        isolation: None,
        ..QUERY
    };
    assert_eq!(
        broker.manager.list_offset("t", 0, replica).unwrap().offset,
        2
    );
    let stale = OffsetQuery {
        current_leader_epoch: Some(2),
        ..QUERY
    };
    let refused = broker.manager.list_offset("t", 0, stale);
    assert_eq!(refused, Err(ErrorCode::FencedLeaderEpoch));
}

#[test]
fn a_new_leader_does_not_answer_before_it_knows_what_is_committed() {
    let mut broker = Broker::new();
    broker.register(OTHER, 9);
    broker.create("t", &[partition(0, &[NODE, OTHER])]);
    broker.follow(0);
    broker.produce(&["a", "b"]);
    broker.follow(1);
    broker.change(
        "t",
        PartitionRecord {
            leader_epoch: 4,
            partition_epoch: 4,
            ..partition(0, &[NODE, OTHER])
        },
    );
    let query = |timestamp| {
        let query = OffsetQuery { timestamp, ..QUERY };
        broker
            .manager
            .list_offset("t", 0, query)
            .map(|found| found.offset)
    };
    assert_eq!(query(LATEST_TIMESTAMP), Err(ErrorCode::OffsetNotAvailable));
    assert_eq!(query(START_MS + 1), Err(ErrorCode::OffsetNotAvailable));
    assert_eq!(query(EARLIEST_TIMESTAMP), Ok(0));
    broker.follow(2);
    assert_eq!(query(LATEST_TIMESTAMP), Ok(2));
}

#[test]
fn versions_know_some_timestamps_only() {
    assert!(is_timestamp_supported(LATEST_TIMESTAMP, 1) && is_timestamp_supported(7, 1));
    for (timestamp, since) in [
        (MAX_TIMESTAMP, 7),
        (EARLIEST_LOCAL_TIMESTAMP, 8),
        (LATEST_TIERED_TIMESTAMP, 9),
        (EARLIEST_PENDING_UPLOAD_TIMESTAMP, 11),
    ] {
        assert!(is_timestamp_supported(timestamp, since));
        assert!(!is_timestamp_supported(timestamp, since - 1));
    }
    assert!(!is_timestamp_supported(-7, 11));
}

#[test]
fn epochs_end_where_the_next_one_starts() {
    let mut broker = Broker::with_topic();
    broker.produce(&["a", "b"]);
    broker.change(
        "t",
        PartitionRecord {
            leader_epoch: 6,
            partition_epoch: 6,
            ..partition(0, &[NODE])
        },
    );
    broker.produce(&["c"]);
    let end = |current, epoch| {
        broker
            .manager
            .offset_for_leader_epoch("t", 0, current, epoch)
    };
    assert_eq!(end(None, 3), Ok((3, 2)));
    assert_eq!(end(Some(6), 5), Ok((3, 2)));
    assert_eq!(end(None, 6), Ok((6, 3)));
    assert_eq!(end(None, 9), Ok((-1, -1)));
    assert_eq!(end(Some(7), 3), Err(ErrorCode::UnknownLeaderEpoch));
}

#[test]
fn deletes_records_up_to_an_offset_or_the_high_watermark() {
    let mut broker = Broker::with_topic();
    broker.create("__consumer_offsets", &[partition(0, &[NODE])]);
    broker.produce(&["a", "b", "c"]);
    let wishes = [
        ("t", 0, 1),
        ("unknown", 0, 1),
        ("__consumer_offsets", 0, 0),
        ("t", 0, 4),
        ("t", 0, -2),
    ];
    let answers = ready(broker.manager.delete_records(&wishes, 1_000));
    let answers: Vec<_> = answers.iter().map(|a| (a.error, a.low_watermark)).collect();
    assert_eq!(
        answers,
        [
            (ErrorCode::None, 1),
            (ErrorCode::UnknownTopicOrPartition, -1),
            (ErrorCode::InvalidTopicException, -1),
            (ErrorCode::OffsetOutOfRange, -1),
            (ErrorCode::OffsetOutOfRange, -1),
        ]
    );
    assert_eq!(find(&broker, EARLIEST_TIMESTAMP).1, 1);
    let all = ready(broker.manager.delete_records(&[("t", 0, -1)], 1_000));
    assert_eq!(all[0].low_watermark, 3);
    // Back is not possible, but no error either.
    let back = ready(broker.manager.delete_records(&[("t", 0, 1)], 1_000));
    assert_eq!((back[0].error, back[0].low_watermark), (ErrorCode::None, 3));
    assert_eq!(broker.offsets().log_start_offset, 3);
}

#[test]
fn a_compacted_topic_keeps_its_records() {
    let mut broker = Broker::new();
    broker.settings.log.delete = false;
    broker.settings.log.compact = true;
    broker.create("t", &[partition(0, &[NODE])]);
    let answers = ready(broker.manager.delete_records(&[("t", 0, -1)], 0));
    assert_eq!(answers[0].error, ErrorCode::PolicyViolation);
}

#[test]
fn deleting_records_wakes_fetches_that_are_out_of_range_now() {
    let mut broker = Broker::new();
    broker.register(OTHER, 9);
    broker.create("t", &[partition(0, &[NODE, OTHER])]);
    broker.follow(0);
    broker.produce(&["a", "b"]);
    broker.follow(2);
    let params = FetchParams {
        min_bytes: 10_000,
        ..CONSUMER
    };
    let wishes = [(t(), wish(0))];
    let mut fetch = pin!(broker.manager.fetch(&params, &wishes));
    assert!(poll(&mut fetch).is_pending());

    let records = [("t", 0, 2)];
    let mut delete = pin!(broker.manager.delete_records(&records, 1_000));
    assert!(
        poll(&mut delete).is_pending(),
        "the follower has them still"
    );
    let Poll::Ready(answers) = poll(&mut fetch) else {
        panic!("it still waits");
    };
    assert_eq!(answers[0].error, ErrorCode::OffsetOutOfRange);

    let follower = FetchParams {
        replica_id: OTHER,
        replica_epoch: 9,
        max_wait_ms: 0,
        isolation: Isolation::LogEnd,
        ..CONSUMER
    };
    let followed = FetchPartition {
        log_start_offset: 2,
        ..wish(2)
    };
    ready(broker.manager.fetch(&follower, &[(t(), followed)]));
    let Poll::Ready(answers) = poll(&mut delete) else {
        panic!("it still waits");
    };
    assert_eq!(
        (answers[0].error, answers[0].low_watermark),
        (ErrorCode::None, 2)
    );
}

#[test]
fn deleting_records_gives_up_on_a_follower_that_does_not_come() {
    let mut broker = Broker::new();
    broker.register(OTHER, 9);
    broker.create("t", &[partition(0, &[NODE, OTHER])]);
    broker.follow(0);
    broker.produce(&["a"]);
    broker.follow(1);
    let records = [("t", 0, 1)];
    let mut delete = pin!(broker.manager.delete_records(&records, 100));
    assert!(poll(&mut delete).is_pending());
    broker.sleep_ms(102);
    let Poll::Ready(answers) = poll(&mut delete) else {
        panic!("it still waits");
    };
    assert_eq!(answers[0].error, ErrorCode::RequestTimedOut);
    assert_eq!(answers[0].low_watermark, 0);
}
