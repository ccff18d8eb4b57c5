use super::*;

#[test]
fn elections_and_losses_are_reported() {
    let mut broker = Broker::new();
    let changes = broker.create(
        "t",
        &[
            partition(0, &[NODE]),
            PartitionRecord {
                leader: OTHER,
                ..partition(1, &[OTHER, NODE])
            },
        ],
    );
    let elected = |partition, leader_epoch| Elected {
        partition: TopicPartition::new("t", partition),
        topic_id: id("t"),
        leader_epoch,
    };
    assert_eq!(changes.elected, [elected(0, 3)]);
    assert!(changes.resigned.is_empty() && changes.failed.is_empty());
    let changes = broker.change(
        "t",
        PartitionRecord {
            leader_epoch: 4,
            partition_epoch: 4,
            ..partition(1, &[OTHER, NODE])
        },
    );
    assert_eq!(changes.elected, [elected(1, 4)]);
    assert_eq!(broker.manager.leader_epoch("t", 1), Some(4));

    let changes = broker.delete("t");
    assert_eq!(
        changes.resigned,
        [
            (TopicPartition::new("t", 0), None),
            (TopicPartition::new("t", 1), None),
        ]
    );
    assert_eq!(broker.manager.leader_epoch("t", 0), None);
    assert!(broker.manager.logs().logs().is_empty());
}

#[test]
fn many_partitions_are_made_at_once_and_reported_in_order() {
    let mut broker = Broker::new();
    let partitions: Vec<_> = (0..30).map(|index| partition(index, &[NODE])).collect();
    let changes = broker.create("t", &partitions);
    let elected: Vec<i32> = changes
        .elected
        .iter()
        .map(|e| e.partition.partition)
        .collect();
    assert_eq!(elected, (0..30).collect::<Vec<_>>());
    assert_eq!(broker.manager.replicas().len(), 30);
    assert_eq!(broker.manager.logs().logs().len(), 30);
}

#[test]
fn a_topic_made_again_under_its_name_is_another_one() {
    let mut broker = Broker::with_topic();
    broker.produce(&["old"]);
    let again = Uuid::from_bytes([9; 16]);
    let changes = broker.apply(vec![
        RemoveTopicRecord {
            topic_id: id("t"),
            ..RemoveTopicRecord::default()
        }
        .into(),
        TopicRecord {
            name: "t".into(),
            topic_id: again,
            ..TopicRecord::default()
        }
        .into(),
        PartitionRecord {
            topic_id: again,
            ..partition(0, &[NODE])
        }
        .into(),
    ]);
    assert_eq!(changes.elected[0].topic_id, again);
    assert_eq!(broker.offsets().log_end_offset, 0);
    let result = broker.produce(&["new"]);
    assert_eq!((result.error, result.base_offset), (ErrorCode::None, 0));
}

#[test]
fn records_and_high_watermark_survive_a_restart() {
    let mut broker = Broker::new();
    broker.register(OTHER, 9);
    broker.create("t", &[partition(0, &[NODE, OTHER])]);
    broker.follow(0);
    broker.produce(&["a", "b", "c"]);
    broker.follow(2);
    assert_eq!(broker.offsets().high_watermark, 2);
    let broker = broker.restart();
    let offsets = broker.offsets();
    assert_eq!((offsets.high_watermark, offsets.log_end_offset), (2, 3));
    // The follower may be behind, so the leader waits for it before it says that more is there.
    let params = FetchParams {
        max_wait_ms: 0,
        ..CONSUMER
    };
    let answer = ready(broker.manager.fetch(&params, &[(t(), wish(0))])).remove(0);
    assert_eq!(answer.high_watermark, 2);
    broker.follow(3);
    assert_eq!(broker.offsets().high_watermark, 3);
}

#[test]
fn a_topic_deleted_while_the_broker_was_down_does_not_come_back() {
    let mut broker = Broker::with_topic();
    broker.create("kept", &[partition(0, &[NODE])]);
    broker.produce(&["old"]);
    let mut delta = MetadataDelta::new(Arc::clone(&broker.image));
    let records: [MetadataRecord; 3] = [
        RemoveTopicRecord {
            topic_id: id("t"),
            ..RemoveTopicRecord::default()
        }
        .into(),
        TopicRecord {
            name: "u".into(),
            topic_id: id("u"),
            ..TopicRecord::default()
        }
        .into(),
        PartitionRecord {
            topic_id: id("u"),
            ..partition(0, &[NODE])
        }
        .into(),
    ];
    for record in &records {
        delta.replay(record).unwrap();
    }
    broker.image = delta.finish(broker.image.provenance());
    let broker = broker.restart();
    assert_eq!(
        broker.manager.set_stray_logs_aside().unwrap(),
        [TopicPartition::new("t", 0)]
    );
    assert_eq!(
        broker.manager.offsets("t", 0),
        Err(ErrorCode::UnknownTopicOrPartition)
    );
    assert!(broker.manager.offsets("kept", 0).is_ok());
    assert_eq!(broker.manager.logs().logs().len(), 2);
}

#[test]
fn a_topic_replaced_while_the_broker_was_down_starts_empty() {
    let mut broker = Broker::with_topic();
    broker.produce(&["old"]);
    let again = Uuid::from_bytes([9; 16]);
    let mut delta = MetadataDelta::new(Arc::default());
    let records: [MetadataRecord; 2] = [
        TopicRecord {
            name: "t".into(),
            topic_id: again,
            ..TopicRecord::default()
        }
        .into(),
        PartitionRecord {
            topic_id: again,
            ..partition(0, &[NODE])
        }
        .into(),
    ];
    for record in &records {
        delta.replay(record).unwrap();
    }
    broker.image = delta.finish(broker.image.provenance());
    let broker = broker.restart();
    assert_eq!(broker.offsets().log_end_offset, 0);
}

#[test]
fn coordinators_append_in_their_epoch_and_read_everything_back() {
    let mut broker = Broker::with_topic();
    let prepared = || {
        let batch = batch(&["x", "y"], &BatchOptions::default());
        klamm_records::PreparedBatch::trusted(batch).unwrap()
    };
    let origin = klamm_log::AppendOrigin::Coordinator;
    let append = |broker: &Broker, epoch| {
        let manager = &broker.manager;
        manager.append_as_coordinator("t", 0, prepared(), epoch, origin)
    };
    let watch = broker.manager.watch("t", 0).unwrap();
    let appended = append(&broker, 3).unwrap();
    assert_eq!((appended.base_offset, appended.end_offset), (0, 2));
    assert_eq!(append(&broker, 2), Err(ErrorCode::NotLeaderOrFollower));
    assert_eq!(append(&broker, 4), Err(ErrorCode::NotLeaderOrFollower));
    assert!(watch.has_changed().unwrap());
    assert_eq!(*watch.borrow(), 2);

    append(&broker, 3).unwrap();
    let first = broker.manager.load("t", 0, 0, 1).unwrap();
    assert_eq!((first.log_end_offset, first.high_watermark), (4, 4));
    let bytes = first.records.read().unwrap();
    let loaded: Vec<_> = batches(&bytes)
        .map(|batch| batch.unwrap().header().base_offset)
        .collect();
    assert_eq!(loaded, [0]);
    assert!(
        broker
            .manager
            .load("t", 0, 4, 1)
            .unwrap()
            .records
            .is_empty()
    );

    broker.change(
        "t",
        PartitionRecord {
            leader: OTHER,
            leader_epoch: 4,
            partition_epoch: 4,
            ..partition(0, &[NODE, OTHER])
        },
    );
    assert_eq!(append(&broker, 4), Err(ErrorCode::NotLeaderOrFollower));
}

#[test]
fn changed_configs_take_effect() {
    let mut broker = Broker::with_topic();
    broker.settings.rules.max_message_bytes = 100;
    broker.settings.log.max_message_bytes = 100;
    let record = klamm_protocol::metadata::ConfigRecord {
        resource_type: 2,
        resource_name: "t".into(),
        name: "max.message.bytes".into(),
        value: Some("100".into()),
        ..klamm_protocol::metadata::ConfigRecord::default()
    };
    assert_eq!(broker.produce(&[&"x".repeat(200)]).error, ErrorCode::None);
    broker.apply(vec![record.into()]);
    let result = broker.produce(&[&"x".repeat(200)]);
    assert_eq!(result.error, ErrorCode::MessageTooLarge);
}

#[test]
fn replicas_describe_themselves() {
    let mut broker = Broker::with_topic();
    broker.create(
        "u",
        &[PartitionRecord {
            leader: OTHER,
            ..partition(0, &[OTHER, NODE])
        }],
    );
    broker.produce(&["a"]);
    let replicas = broker.manager.replicas();
    let names: Vec<String> = replicas.iter().map(|r| r.partition.to_string()).collect();
    assert_eq!(names, ["t-0", "u-0"]);
    assert!(replicas[0].size_bytes > 0 && replicas[1].size_bytes == 0);
    assert_eq!(replicas[0].leading.unwrap().in_sync, 1);
    assert_eq!(
        (replicas[1].leader_id, replicas[1].leading),
        (Some(OTHER), None)
    );
    assert_eq!(broker.manager.offset_lag(&replicas[0].partition), Some(0));
    assert_eq!(broker.manager.offline_replica_count(), 0);
}

#[test]
fn replicas_of_a_failed_directory_are_offline() {
    let broker = Broker::with_topic();
    let directory = broker.manager.logs().directories()[0].id;
    broker.manager.logs().set_directory_offline(directory);
    broker.manager.tick();
    let log = broker.manager.logs().logs().remove(0);
    assert!(log.is_offline());
    let result = broker.produce(&["a"]);
    assert_eq!(result.error, ErrorCode::KafkaStorageError);
}
