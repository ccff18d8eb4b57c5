use std::pin::pin;

use super::*;

fn fetch_t(broker: &Broker, params: FetchParams, offset: i64) -> FetchedPartition {
    let wishes = [(t(), wish(offset))];
    ready(broker.manager.fetch(&params, &wishes)).remove(0)
}

#[test]
fn returns_what_is_there() {
    let broker = Broker::with_topic();
    broker.produce(&["a", "b"]);
    broker.produce(&["c"]);
    let answer = fetch_t(&broker, CONSUMER, 1);
    assert_eq!(answer.error, ErrorCode::None);
    assert_eq!(values(&answer, 1), ["b", "c"], "from within a batch");
    assert_eq!((answer.high_watermark, answer.last_stable_offset), (3, 3));
    assert_eq!(answer.log_start_offset, 0);
    assert_eq!(answer.aborted, None);
    assert!(answer.records.is_resident());
    answer.records.prefetch(&mut [0; 7]).unwrap();
    // Files and positions only; the bytes are those on disk.
    assert_eq!(answer.records.parts().len(), 1);
}

#[test]
fn waits_for_min_bytes_and_is_woken_by_the_append_that_completes_them() {
    let broker = Broker::with_topic();
    let size = batch(&["a"], &BatchOptions::default()).len() as i32;
    let params = FetchParams {
        min_bytes: size + 1,
        ..CONSUMER
    };
    let wishes = [(t(), wish(0))];
    let mut fetch = pin!(broker.manager.fetch(&params, &wishes));
    assert!(poll(&mut fetch).is_pending());
    broker.produce(&["a"]);
    assert!(poll(&mut fetch).is_pending(), "one byte is missing");
    broker.produce(&["b"]);
    let Poll::Ready(answers) = poll(&mut fetch) else {
        panic!("it still waits");
    };
    assert_eq!(values(&answers[0], 0), ["a", "b"]);
    assert_eq!(broker.manager.expire(), None, "no deadline is left behind");
}

#[test]
fn what_is_there_already_counts_towards_min_bytes() {
    let broker = Broker::with_topic();
    broker.produce(&["a"]);
    let size = batch(&["a"], &BatchOptions::default()).len() as i32;
    let params = FetchParams {
        min_bytes: size + 1,
        ..CONSUMER
    };
    let wishes = [(t(), wish(0))];
    let mut fetch = pin!(broker.manager.fetch(&params, &wishes));
    assert!(poll(&mut fetch).is_pending());
    broker.produce(&["b"]);
    assert!(poll(&mut fetch).is_ready());
}

#[test]
fn answers_with_what_there_is_when_time_is_up() {
    let broker = Broker::with_topic();
    broker.produce(&["a"]);
    let params = FetchParams {
        min_bytes: 10_000,
        ..CONSUMER
    };
    let wishes = [(t(), wish(0))];
    let mut fetch = pin!(broker.manager.fetch(&params, &wishes));
    assert!(poll(&mut fetch).is_pending());
    broker.sleep_ms(499);
    assert!(poll(&mut fetch).is_pending());
    broker.sleep_ms(3);
    let Poll::Ready(answers) = poll(&mut fetch) else {
        panic!("it still waits");
    };
    assert_eq!(values(&answers[0], 0), ["a"]);
}

#[test]
fn does_not_wait_if_it_does_not_want_to() {
    let broker = Broker::with_topic();
    let no_wait = FetchParams {
        max_wait_ms: 0,
        ..CONSUMER
    };
    assert!(fetch_t(&broker, no_wait, 0).records.is_empty());
    let no_bytes = FetchParams {
        min_bytes: 0,
        ..CONSUMER
    };
    assert!(fetch_t(&broker, no_bytes, 0).records.is_empty());
    assert!(ready(broker.manager.fetch(&CONSUMER, &[])).is_empty());
}

#[test]
fn a_dropped_fetch_leaves_nothing_behind() {
    let broker = Broker::with_topic();
    {
        let wishes = [(t(), wish(0))];
        let mut fetch = pin!(broker.manager.fetch(&CONSUMER, &wishes));
        assert!(poll(&mut fetch).is_pending());
        assert!(broker.manager.expire().is_some());
    }
    assert_eq!(broker.manager.expire(), None);
    broker.produce(&["a"]);
}

#[test]
fn an_error_answers_at_once_but_an_unknown_topic_only_along_with_others() {
    let broker = Broker::with_topic();
    let unknown_id = TopicIdPartition {
        topic: None,
        topic_id: id("x"),
        partition: 0,
    };
    let unknown = [
        (TopicIdPartition::by_name("x", 0), wish(0)),
        (unknown_id, wish(0)),
    ];
    let answers = ready(broker.manager.fetch(&CONSUMER, &unknown));
    assert_eq!(answers[0].error, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(answers[1].error, ErrorCode::UnknownTopicId);

    let mixed = [unknown[0].clone(), (t(), wish(0))];
    let mut fetch = pin!(broker.manager.fetch(&CONSUMER, &mixed));
    assert!(poll(&mut fetch).is_pending());
    broker.sleep_ms(502);
    assert!(poll(&mut fetch).is_ready());

    let another = TopicIdPartition {
        topic_id: id("x"),
        ..t()
    };
    let failing = [(t(), wish(0)), (another, wish(0))];
    let answers = ready(broker.manager.fetch(&CONSUMER, &failing));
    assert_eq!(answers[1].error, ErrorCode::InconsistentTopicId);
    assert_eq!(answers[1].high_watermark, -1);
}

#[test]
fn offsets_out_of_range_are_errors_but_not_those_above_the_high_watermark() {
    let mut broker = Broker::new();
    broker.register(OTHER, 9);
    broker.create("t", &[partition(0, &[NODE, OTHER])]);
    broker.follow(0);
    broker.produce(&["a", "b"]);
    let no_wait = FetchParams {
        max_wait_ms: 0,
        ..CONSUMER
    };
    for offset in [0, 1, 2] {
        let answer = fetch_t(&broker, no_wait, offset);
        assert_eq!(answer.error, ErrorCode::None);
        assert!(answer.records.is_empty(), "not committed");
        assert_eq!(answer.high_watermark, 0);
    }
    for offset in [-1, 3] {
        let answer = fetch_t(&broker, CONSUMER, offset);
        assert_eq!(answer.error, ErrorCode::OffsetOutOfRange);
        assert_eq!((answer.high_watermark, answer.log_start_offset), (-1, -1));
    }
}

#[test]
fn a_consumer_is_woken_when_the_follower_commits() {
    let mut broker = Broker::new();
    broker.register(OTHER, 9);
    broker.create("t", &[partition(0, &[NODE, OTHER])]);
    broker.follow(0);
    let wishes = [(t(), wish(0))];
    let mut fetch = pin!(broker.manager.fetch(&CONSUMER, &wishes));
    assert!(poll(&mut fetch).is_pending());
    broker.produce(&["a"]);
    assert!(poll(&mut fetch).is_pending());
    broker.follow(1);
    let Poll::Ready(answers) = poll(&mut fetch) else {
        panic!("it still waits");
    };
    assert_eq!(values(&answers[0], 0), ["a"]);
}

#[test]
fn a_consumer_is_woken_when_records_from_before_a_restart_are_committed() {
    let mut broker = Broker::new();
    broker.register(OTHER, 9);
    broker.create("t", &[partition(0, &[NODE, OTHER])]);
    broker.follow(0);
    broker.produce(&["a"]);
    broker.produce(&["b"]);
    broker.follow(1);
    let broker = broker.restart();
    let wishes = [(t(), wish(1))];
    let mut fetch = pin!(broker.manager.fetch(&CONSUMER, &wishes));
    assert!(poll(&mut fetch).is_pending());
    broker.follow(2);
    let Poll::Ready(answers) = poll(&mut fetch) else {
        panic!("it still waits");
    };
    assert_eq!(values(&answers[0], 1), ["b"]);
}

#[test]
fn refuses_another_leader_epoch() {
    let broker = Broker::with_topic();
    let fetch = |epoch| {
        let wish = FetchPartition {
            current_leader_epoch: Some(epoch),
            ..wish(0)
        };
        let params = FetchParams {
            max_wait_ms: 0,
            ..CONSUMER
        };
        ready(broker.manager.fetch(&params, &[(t(), wish)])).remove(0)
    };
    assert_eq!(fetch(3).error, ErrorCode::None);
    assert_eq!(fetch(4).error, ErrorCode::UnknownLeaderEpoch);
    let fenced = fetch(2);
    assert_eq!(fenced.error, ErrorCode::FencedLeaderEpoch);
    assert_eq!(fenced.current_leader.unwrap().leader_epoch, 3);
}

#[test]
fn the_first_partition_returns_a_whole_batch_above_any_limit() {
    let mut broker = Broker::with_topic();
    broker.create("u", &[partition(0, &[NODE])]);
    let long = "x".repeat(1_000);
    broker.produce(&[&long]);
    let records = batch(&[&long], &BatchOptions::default());
    let size = records.len();
    let prepared = broker
        .manager
        .prepare(TopicRef::Name("u"), 0, records, CONTEXT);
    ready(broker.manager.append_now(vec![prepared], 1, 0).wait());

    let fetch = |max_bytes, partition_max| {
        let params = FetchParams {
            max_bytes,
            ..CONSUMER
        };
        let wish = FetchPartition {
            max_bytes: partition_max,
            ..wish(0)
        };
        let wishes = [(TopicIdPartition::by_name("u", 0), wish), (t(), wish)];
        let answers = ready(broker.manager.fetch(&params, &wishes));
        (answers[0].records.len(), answers[1].records.len())
    };
    assert_eq!(fetch(1, 1), (size, 0));
    assert_eq!(fetch(1 << 20, 1), (size, 0), "limits of the second hold");
    assert_eq!(
        fetch(2 * size as i32 - 1, 1 << 20),
        (size, 0),
        "no part of a first batch"
    );
    assert_eq!(fetch(2 * size as i32, 1 << 20), (size, size));
}

#[test]
fn a_later_batch_may_be_cut() {
    let broker = Broker::with_topic();
    let size = batch(&["a"], &BatchOptions::default()).len();
    broker.produce(&["a"]);
    broker.produce(&["b"]);
    let params = FetchParams {
        max_bytes: size as i32 + 10,
        ..CONSUMER
    };
    let answer = fetch_t(&broker, params, 0);
    assert_eq!(answer.records.len(), size + 10);
    assert_eq!(values(&answer, 0), ["a"]);
}

#[test]
fn read_committed_stops_at_an_open_transaction() {
    let broker = Broker::with_topic();
    let options = BatchOptions {
        producer_id: 5,
        producer_epoch: 0,
        base_sequence: 0,
        transactional: true,
        ..BatchOptions::default()
    };
    broker.produce(&["a"]);
    ready(broker.append(batch(&["t"], &options), 1).wait());
    broker.produce(&["b"]);
    let committed = FetchParams {
        isolation: Isolation::LastStable,
        ..CONSUMER
    };
    let answer = fetch_t(&broker, committed, 0);
    assert_eq!((answer.high_watermark, answer.last_stable_offset), (3, 1));
    assert_eq!(values(&answer, 0), ["a"]);
    assert_eq!(answer.aborted, Some(Vec::new()));
    assert_eq!(values(&fetch_t(&broker, CONSUMER, 0), 0), ["a", "t", "b"]);

    let wishes = [(t(), wish(1))];
    let mut fetch = pin!(broker.manager.fetch(&committed, &wishes));
    assert!(poll(&mut fetch).is_pending());
    let marker = klamm_records::control::EndTransactionMarker {
        committed: false,
        coordinator_epoch: 1,
    };
    let marker = marker.to_batch(5, 0, START_MS).unwrap();
    let marker = klamm_records::PreparedBatch::trusted(marker).unwrap();
    let origin = klamm_log::AppendOrigin::TxnMarkers {
        transaction_version: 0,
    };
    let appended = broker
        .manager
        .append_as_coordinator("t", 0, marker, 3, origin)
        .unwrap();
    assert_eq!((appended.base_offset, appended.end_offset), (3, 4));
    let Poll::Ready(mut answers) = poll(&mut fetch) else {
        panic!("it still waits");
    };
    let answer = answers.remove(0);
    assert_eq!(answer.last_stable_offset, 4);
    let aborted = answer.aborted.unwrap();
    assert_eq!(aborted.len(), 1);
    assert_eq!((aborted[0].producer_id, aborted[0].first_offset), (5, 1));
}

#[test]
fn a_fetch_notices_that_leadership_or_the_topic_is_gone() {
    let mut broker = Broker::with_topic();
    let manager = broker.manager.clone();
    let wishes = [(t(), wish(0))];
    let mut fetch = pin!(manager.fetch(&CONSUMER, &wishes));
    assert!(poll(&mut fetch).is_pending());
    broker.change(
        "t",
        PartitionRecord {
            leader: -1,
            leader_epoch: 4,
            partition_epoch: 4,
            ..partition(0, &[NODE])
        },
    );
    let Poll::Ready(answers) = poll(&mut fetch) else {
        panic!("it still waits");
    };
    assert_eq!(answers[0].error, ErrorCode::NotLeaderOrFollower);
    assert_eq!(answers[0].current_leader.unwrap().leader_id, -1);

    broker.create("u", &[partition(0, &[NODE])]);
    let wishes = [(TopicIdPartition::by_name("u", 0), wish(0))];
    let mut fetch = pin!(manager.fetch(&CONSUMER, &wishes));
    assert!(poll(&mut fetch).is_pending());
    broker.delete("u");
    let Poll::Ready(answers) = poll(&mut fetch) else {
        panic!("it still waits");
    };
    assert_eq!(answers[0].error, ErrorCode::UnknownTopicOrPartition);
}

#[test]
fn followers_are_told_where_the_logs_part() {
    let mut broker = Broker::new();
    broker.register(OTHER, 9);
    broker.create("t", &[partition(0, &[NODE, OTHER])]);
    broker.produce(&["a", "b"]);
    broker.change(
        "t",
        PartitionRecord {
            leader_epoch: 7,
            partition_epoch: 7,
            ..partition(0, &[NODE, OTHER])
        },
    );
    let params = FetchParams {
        replica_id: OTHER,
        replica_epoch: 9,
        isolation: Isolation::LogEnd,
        max_wait_ms: 0,
        ..CONSUMER
    };
    let fetch = |offset, last_fetched_epoch, params: &FetchParams| {
        let wish = FetchPartition {
            current_leader_epoch: Some(7),
            last_fetched_epoch: Some(last_fetched_epoch),
            log_start_offset: 0,
            ..wish(offset)
        };
        ready(broker.manager.fetch(params, &[(t(), wish)])).remove(0)
    };
    assert_eq!(fetch(5, 3, &params).diverging_epoch, Some((3, 2)));
    assert_eq!(fetch(5, 5, &params).diverging_epoch, Some((3, 2)));
    let answer = fetch(2, 3, &params);
    assert_eq!(
        (answer.error, answer.diverging_epoch),
        (ErrorCode::None, None)
    );
    let stranger = FetchParams {
        replica_id: 8,
        ..params
    };
    assert_eq!(fetch(2, 3, &stranger).error, ErrorCode::UnknownLeaderEpoch);
}

#[test]
fn a_fetch_passes_through_its_session() {
    let broker = Broker::with_topic();
    broker.produce(&["a"]);
    let rng = SplitMix64::new(3);
    let sessions = broker.manager.sessions();
    let run = |session_id, epoch, wishes: Vec<(TopicIdPartition, FetchPartition)>| {
        let request = crate::fetch_session::SessionRequest {
            session_id,
            epoch,
            uses_topic_ids: false,
            from_follower: false,
            partitions: wishes,
            forgotten: &[],
        };
        let context = sessions.begin(request, &|_| None, START_MS);
        let params = FetchParams {
            max_wait_ms: 0,
            ..CONSUMER
        };
        let answers = ready(broker.manager.fetch(&params, context.partitions()));
        let names = context.partitions().iter().map(|(name, _)| name.clone());
        let answers = names.zip(answers).collect();
        sessions.finish(context, answers, START_MS, &rng)
    };
    let full = run(0, 0, vec![(t(), wish(0))]);
    assert_eq!(full.partitions.len(), 1);
    assert_eq!(values(&full.partitions[0].1, 0), ["a"]);
    let quiet = run(full.session_id, 1, vec![(t(), wish(1))]);
    assert!(quiet.partitions.is_empty());
    broker.produce(&["b"]);
    let news = run(full.session_id, 2, Vec::new());
    assert_eq!(values(&news.partitions[0].1, 0), ["b"]);
}
