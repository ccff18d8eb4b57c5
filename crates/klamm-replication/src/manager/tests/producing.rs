use std::pin::pin;

use super::*;

#[test]
fn a_batch_is_appended_and_acknowledged() {
    let broker = Broker::with_topic();
    for acks in [-1, 0, 1] {
        let pending = broker.produce_acks(&["a", "b"], acks);
        assert!(pending.is_ready());
        let results = ready(pending.wait());
        assert_eq!(results[0].error, ErrorCode::None);
    }
    let result = broker.produce(&["c"]);
    assert_eq!(result.base_offset, 6);
    assert_eq!(result.log_append_time_ms, -1);
    assert_eq!(result.log_start_offset, 0);
    let offsets = broker.offsets();
    assert_eq!((offsets.high_watermark, offsets.log_end_offset), (7, 7));
}

#[test]
fn topics_can_be_named_by_id() {
    let broker = Broker::with_topic();
    let records = batch(&["a"], &BatchOptions::default());
    let prepare = |topic| {
        let prepared = broker.manager.prepare(topic, 0, records.clone(), CONTEXT);
        let pending = broker.manager.append_now(vec![prepared], 1, 0);
        ready(pending.wait())[0].error
    };
    assert_eq!(prepare(TopicRef::Id(id("t"))), ErrorCode::None);
    assert_eq!(prepare(TopicRef::Id(id("x"))), ErrorCode::UnknownTopicId);
}

#[test]
fn refuses_what_cannot_be_appended_here() {
    let mut broker = Broker::with_topic();
    broker.create(
        "elsewhere",
        &[PartitionRecord {
            leader: OTHER,
            ..partition(0, &[OTHER])
        }],
    );
    broker.create(
        "follower",
        &[PartitionRecord {
            leader: OTHER,
            ..partition(0, &[OTHER, NODE])
        }],
    );
    broker.create("__consumer_offsets", &[partition(0, &[NODE])]);
    let produce = |topic, index, acks| {
        let records = batch(&["a"], &BatchOptions::default());
        let topic = TopicRef::Name(topic);
        let prepared = broker.manager.prepare(topic, index, records, CONTEXT);
        let pending = broker.manager.append_now(vec![prepared], acks, 0);
        ready(pending.wait()).remove(0)
    };
    let unknown = produce("unknown", 0, 1);
    assert_eq!(
        unknown,
        ProduceResult::error(ErrorCode::UnknownTopicOrPartition)
    );
    assert_eq!(produce("t", 9, 1).error, ErrorCode::UnknownTopicOrPartition);
    for topic in ["elsewhere", "follower"] {
        let result = produce(topic, 0, 1);
        assert_eq!(result.error, ErrorCode::NotLeaderOrFollower);
        let hint = result.current_leader.unwrap();
        assert_eq!((hint.leader_id, hint.leader_epoch), (OTHER, 3));
    }
    let internal = produce("__consumer_offsets", 0, 1);
    assert_eq!(internal.error, ErrorCode::InvalidTopicException);
    assert_eq!(produce("t", 0, 2).error, ErrorCode::InvalidRequiredAcks);
    assert_eq!(broker.offsets().log_end_offset, 0);
}

#[test]
fn refuses_damaged_records_and_keeps_the_good_ones_of_the_request() {
    let mut broker = Broker::with_topic();
    broker.create("u", &[partition(0, &[NODE])]);
    let good = batch(&["a"], &BatchOptions::default());
    let mut damaged = good.to_vec();
    damaged[65] ^= 1;
    let prepare = |topic, records| {
        let topic = TopicRef::Name(topic);
        broker.manager.prepare(topic, 0, records, CONTEXT)
    };
    let request = vec![prepare("t", damaged.into()), prepare("u", good)];
    let results = ready(broker.manager.append_now(request, -1, 0).wait());
    assert_eq!(results[0].error, ErrorCode::CorruptMessage);
    assert_eq!(results[0].base_offset, -1);
    assert_eq!(results[1].error, ErrorCode::None);
}

#[test]
fn records_without_key_are_named_one_by_one() {
    let mut broker = Broker::new();
    broker.settings.rules.compacted = true;
    broker.create("t", &[partition(0, &[NODE])]);
    let result = broker.produce(&["a", "b"]);
    assert_eq!(result.error, ErrorCode::InvalidRecord);
    assert_eq!(result.record_errors.len(), 2);
    assert_eq!(result.record_errors[1].0, 1);
    assert!(result.error_message.is_some());
    assert_eq!(result.log_start_offset, 0);
}

#[test]
fn a_repeated_batch_gets_its_first_offset_again() {
    let broker = Broker::with_topic();
    let options = BatchOptions {
        producer_id: 5,
        producer_epoch: 0,
        base_sequence: 0,
        ..BatchOptions::default()
    };
    let first = ready(broker.append(batch(&["a"], &options), -1).wait());
    broker.produce(&["b"]);
    let again = ready(broker.append(batch(&["a"], &options), -1).wait());
    assert_eq!(again[0].error, ErrorCode::None);
    assert_eq!(again[0].base_offset, first[0].base_offset);
    // As in Kafka, a repeated batch is answered with its own timestamp here.
    assert_eq!(again[0].log_append_time_ms, START_MS);
    assert_eq!(broker.offsets().log_end_offset, 2);
    let gap = BatchOptions {
        base_sequence: 7,
        ..options
    };
    let result = ready(broker.append(batch(&["c"], &gap), -1).wait()).remove(0);
    assert_eq!(result.error, ErrorCode::OutOfOrderSequenceNumber);
    let producers = broker.manager.active_producers("t", 0).unwrap();
    assert_eq!(producers.len(), 1);
    assert_eq!(producers[0].producer_id, 5);
}

/// Topic `t` with a follower in sync on another broker.
fn replicated() -> Broker {
    let mut broker = Broker::new();
    broker.register(OTHER, 9);
    broker.settings.min_insync_replicas = 2;
    broker.create("t", &[partition(0, &[NODE, OTHER])]);
    broker.follow(0);
    broker
}

#[test]
fn acks_all_waits_for_the_follower() {
    let broker = replicated();
    let mut first = pin!(broker.produce_acks(&["a"], -1).wait());
    let mut second = pin!(broker.produce_acks(&["b"], -1).wait());
    assert!(poll(&mut first).is_pending() && poll(&mut second).is_pending());
    assert_eq!(broker.offsets().high_watermark, 0);
    // The leader alone acknowledges at once.
    assert_eq!(broker.produce(&["c"]).error, ErrorCode::None);

    assert_eq!(values(&broker.follow(0), 0), ["a", "b", "c"]);
    assert!(poll(&mut first).is_pending(), "fetched, not yet written");
    broker.follow(1);
    assert!(
        matches!(poll(&mut first), Poll::Ready(results) if results[0].error == ErrorCode::None)
    );
    assert!(poll(&mut second).is_pending());
    broker.follow(3);
    assert!(poll(&mut second).is_ready());
    assert_eq!(broker.offsets().high_watermark, 3);
}

#[test]
fn acks_all_gives_up_after_its_timeout() {
    let broker = replicated();
    let mut pending = pin!(broker.produce_acks(&["a"], -1).wait());
    assert!(poll(&mut pending).is_pending());
    broker.sleep_ms(999);
    assert!(poll(&mut pending).is_pending());
    broker.sleep_ms(3);
    let Poll::Ready(results) = poll(&mut pending) else {
        panic!("it still waits");
    };
    assert_eq!(results[0].error, ErrorCode::RequestTimedOut);
    assert_eq!(results[0].base_offset, 0);
    assert_eq!(broker.manager.expire(), None, "no deadline is left behind");
    // The record stays and is committed later.
    broker.follow(1);
    assert_eq!(broker.offsets().high_watermark, 1);
}

#[test]
fn acks_all_fails_when_leadership_is_lost() {
    let mut broker = replicated();
    let pending = broker.produce_acks(&["a"], -1);
    let mut pending = pin!(pending.wait());
    assert!(poll(&mut pending).is_pending());
    let changes = broker.change(
        "t",
        PartitionRecord {
            leader: OTHER,
            leader_epoch: 4,
            partition_epoch: 4,
            ..partition(0, &[NODE, OTHER])
        },
    );
    assert_eq!(changes.resigned, [(TopicPartition::new("t", 0), Some(4))]);
    let Poll::Ready(results) = poll(&mut pending) else {
        panic!("it still waits");
    };
    assert_eq!(results[0].error, ErrorCode::NotLeaderOrFollower);
}

#[test]
fn too_few_replicas_in_sync_refuse_before_and_after_the_append() {
    let mut broker = replicated();
    let pending = broker.produce_acks(&["a"], -1);
    let mut pending = pin!(pending.wait());
    assert!(poll(&mut pending).is_pending());
    // The follower has the record, but leaves the ISR before it tells.
    broker.change(
        "t",
        PartitionRecord {
            isr: vec![NODE],
            partition_epoch: 4,
            ..partition(0, &[NODE, OTHER])
        },
    );
    let refused = ready(broker.produce_acks(&["b"], -1).wait()).remove(0);
    assert_eq!(refused.error, ErrorCode::NotEnoughReplicas);
    assert_eq!(broker.produce(&["c"]).error, ErrorCode::None, "acks=1 may");
    assert!(
        poll(&mut pending).is_pending(),
        "nothing is committed below min.insync.replicas"
    );
    broker.settings.min_insync_replicas = 2;
    broker.change(
        "t",
        PartitionRecord {
            partition_epoch: 5,
            ..partition(0, &[NODE, OTHER])
        },
    );
    broker.follow(1);
    assert!(
        matches!(poll(&mut pending), Poll::Ready(results) if results[0].error == ErrorCode::None)
    );
}

#[test]
fn a_dropped_wait_leaves_nothing_behind() {
    let broker = replicated();
    drop(broker.produce_acks(&["a"], -1));
    assert_eq!(broker.manager.expire(), None);
    broker.follow(1);
    assert_eq!(broker.offsets().high_watermark, 1);
}

#[test]
fn a_lagging_follower_is_proposed_to_leave_and_to_come_back() {
    let broker = replicated();
    broker.produce(&["a"]);
    broker.sleep_ms(20_000);
    broker.manager.check_in_sync_replicas();
    assert!(lock(&broker.sink.0).is_empty());
    broker.sleep_ms(10_001);
    broker.manager.check_in_sync_replicas();
    let proposal = lock(&broker.sink.0).pop().unwrap();
    assert_eq!(proposal.isr.len(), 1);
    let name = TopicPartition::new("t", 0);
    let committed = PartitionMetadata {
        replicas: vec![NODE, OTHER],
        isr: vec![NODE],
        leader: NODE,
        leader_epoch: 3,
        partition_epoch: 4,
        ..PartitionMetadata::default()
    };
    broker
        .manager
        .alter_partition_answered(&name, proposal.id, Ok(&committed));
    let status = &broker.manager.replicas()[0];
    let leading = status.leading.unwrap();
    assert!(leading.under_min_isr && leading.under_replicated);

    broker.follow(1);
    let proposal = lock(&broker.sink.0).pop().unwrap();
    assert_eq!(proposal.isr.len(), 2);
    assert_eq!(proposal.partition_epoch, 4);
    let refused = Err(ErrorCode::IneligibleReplica);
    broker
        .manager
        .alter_partition_answered(&name, proposal.id, refused);
    assert!(lock(&broker.sink.0).is_empty());
}
