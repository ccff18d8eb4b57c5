use std::sync::Arc;

use klamm_protocol::metadata::broker_registration_change_record::BrokerRegistrationChangeRecord;
use klamm_protocol::metadata::{
    BeginTransactionRecord, ClearElrRecord, ConfigRecord, EndTransactionRecord, FeatureLevelRecord,
    MetadataRecord, NoOpRecord, PartitionChangeRecord, PartitionRecord, ProducerIdsRecord,
    RegisterBrokerRecord, RemoveTopicRecord, TopicRecord,
};
use klamm_records::Uuid;
use proptest::prelude::*;

use crate::*;

const AT: Provenance = Provenance {
    offset: 10,
    epoch: 2,
    timestamp_ms: 99,
};

fn id(n: u8) -> Uuid {
    Uuid::from_bytes([n; 16])
}

fn topic(name: &str, topic_id: Uuid) -> MetadataRecord {
    TopicRecord {
        name: name.into(),
        topic_id,
        ..Default::default()
    }
    .into()
}

fn partition(topic_id: Uuid, partition_id: i32, replicas: &[i32]) -> MetadataRecord {
    PartitionRecord {
        partition_id,
        topic_id,
        replicas: replicas.to_vec(),
        isr: replicas.to_vec(),
        leader: replicas[0],
        leader_epoch: 0,
        partition_epoch: 0,
        directories: replicas.iter().map(|&r| id(200 + r as u8)).collect(),
        ..Default::default()
    }
    .into()
}

fn config(resource_type: i8, resource: &str, name: &str, value: Option<&str>) -> MetadataRecord {
    ConfigRecord {
        resource_type,
        resource_name: resource.into(),
        name: name.into(),
        value: value.map(Into::into),
        ..Default::default()
    }
    .into()
}

fn metadata_version(feature_level: i16) -> MetadataRecord {
    let name = MetadataVersion::FEATURE_NAME.into();
    FeatureLevelRecord {
        name,
        feature_level,
        ..Default::default()
    }
    .into()
}

fn replayed(base: &Arc<MetadataImage>, records: &[MetadataRecord]) -> MetadataDelta {
    let mut delta = MetadataDelta::new(Arc::clone(base));
    records
        .iter()
        .for_each(|record| delta.replay(record).unwrap());
    delta
}

fn image_of(records: &[MetadataRecord]) -> Arc<MetadataImage> {
    replayed(&Arc::default(), records).finish(AT)
}

#[test]
fn a_delta_tells_what_changed_and_leaves_its_base_alone() {
    let base = image_of(&[
        topic("a", id(1)),
        partition(id(1), 0, &[1, 2]),
        topic("b", id(2)),
    ]);
    let change = PartitionChangeRecord {
        partition_id: 0,
        topic_id: id(1),
        isr: Some(vec![2]),
        leader: 2,
        ..Default::default()
    };
    let remove = RemoveTopicRecord {
        topic_id: id(2),
        ..Default::default()
    };
    let mut delta = replayed(&base, &[change.into(), remove.into(), topic("c", id(3))]);
    let image = delta.finish(AT);

    let changed = image.partition("a", 0).unwrap();
    assert_eq!(
        (
            changed.leader,
            changed.leader_epoch,
            changed.partition_epoch
        ),
        (2, 1, 1)
    );
    assert_eq!(changed.isr, [2]);
    assert_eq!(base.partition("a", 0).unwrap().leader, 1);
    assert!(image.topic("b").is_none() && base.topic("b").is_some());
    assert_eq!(delta.deleted_topics().keys().collect::<Vec<_>>(), [&id(2)]);
    assert!(!delta.changed_topics()[&id(1)].created);
    assert!(delta.changed_topics()[&id(3)].created);
    assert_eq!(
        (
            base.topics().partition_count(),
            image.topics().partition_count()
        ),
        (1, 1)
    );
}

#[test]
fn a_change_that_names_no_leader_keeps_the_leader_epoch() {
    let base = image_of(&[topic("a", id(1)), partition(id(1), 0, &[1, 2])]);
    let change = PartitionChangeRecord {
        partition_id: 0,
        topic_id: id(1),
        isr: Some(vec![1]),
        ..Default::default()
    };
    let image = replayed(&base, &[change.into()]).finish(AT);
    let partition = image.partition("a", 0).unwrap();
    assert_eq!((partition.leader_epoch, partition.partition_epoch), (0, 1));
}

#[test]
fn a_topic_takes_its_configs_along_when_it_goes() {
    let base = image_of(&[topic("a", id(1)), config(2, "a", "retention.ms", Some("5"))]);
    assert_eq!(
        base.config(&ConfigResource::topic("a"))["retention.ms"],
        "5"
    );
    let remove = RemoveTopicRecord {
        topic_id: id(1),
        ..Default::default()
    };
    let image = replayed(&base, &[remove.into(), topic("a", id(9))]).finish(AT);
    assert!(image.config(&ConfigResource::topic("a")).is_empty());
    assert_eq!(image.topic("a").unwrap().id(), id(9));
}

#[test]
fn a_config_without_value_is_removed() {
    let base = image_of(&[config(4, "", "a", Some("1")), config(4, "", "b", Some("2"))]);
    let image = replayed(&base, &[config(4, "", "a", None)]).finish(AT);
    assert_eq!(
        image
            .config(&ConfigResource::cluster())
            .keys()
            .collect::<Vec<_>>(),
        ["b"]
    );
}

#[test]
fn names_that_differ_in_dots_and_underscores_collide() {
    let base = image_of(&[topic("a.b", id(1)), topic("plain", id(2))]);
    assert_eq!(base.topics().colliding_with("a_b"), [Arc::from("a.b")]);
    assert!(base.topics().colliding_with("plain").is_empty());
    let remove = RemoveTopicRecord {
        topic_id: id(1),
        ..Default::default()
    };
    let image = replayed(&base, &[remove.into()]).finish(AT);
    assert!(image.topics().colliding_with("a_b").is_empty());
}

#[test]
fn brokers_are_fenced_and_cordoned_by_change_records() {
    let register = RegisterBrokerRecord {
        broker_id: 1,
        broker_epoch: 7,
        log_dirs: vec![id(9), id(3)],
        ..Default::default()
    };
    let change = |fenced, cordoned| BrokerRegistrationChangeRecord {
        broker_id: 1,
        broker_epoch: 7,
        fenced,
        cordoned_log_dirs: cordoned,
        ..Default::default()
    };
    let base = image_of(&[register.into()]);
    assert!(base.broker(1).unwrap().fenced, "a broker starts fenced");
    assert_eq!(base.cluster().alive_brokers().count(), 0);
    let image = replayed(&base, &[change(-1, Some(vec![id(3)])).into()]).finish(AT);
    let broker = image.broker(1).unwrap();
    assert!(broker.is_active() && !broker.is_cordoned());
    assert_eq!(broker.log_dirs, [id(3), id(9)]);
    assert_eq!(broker.default_dir(), Uuid::UNASSIGNED_DIR);
    assert!(broker.has_online_dir(id(9)) && !broker.has_online_dir(id(4)));
    assert!(!broker.has_online_dir(Uuid::LOST_DIR));
    let image = replayed(&image, &[change(0, Some(vec![id(3), id(9)])).into()]).finish(AT);
    assert!(image.broker(1).unwrap().is_cordoned());
}

#[test]
fn offline_replicas_are_those_of_dead_brokers_and_lost_directories() {
    let register = |broker_id, log_dirs: &[Uuid], fenced| -> MetadataRecord {
        let log_dirs = log_dirs.to_vec();
        RegisterBrokerRecord {
            broker_id,
            log_dirs,
            fenced,
            ..Default::default()
        }
        .into()
    };
    let image = image_of(&[
        register(1, &[id(201)], false),
        register(2, &[id(202)], true),
        register(3, &[id(3)], false),
        topic("a", id(1)),
        partition(id(1), 0, &[1, 2, 3, 4]),
    ]);
    assert_eq!(
        image.offline_replicas(image.partition("a", 0).unwrap()),
        [2, 3, 4]
    );
}

#[test]
fn clearing_eligible_leaders_starts_a_new_partition_epoch() {
    let change = PartitionChangeRecord {
        partition_id: 0,
        topic_id: id(1),
        isr: Some(vec![1]),
        eligible_leader_replicas: Some(vec![2]),
        ..Default::default()
    };
    let base = image_of(&[
        topic("a", id(1)),
        partition(id(1), 0, &[1, 2]),
        change.into(),
    ]);
    assert_eq!(base.partition("a", 0).unwrap().elr, [2]);
    let clear = ClearElrRecord {
        topic_name: "".into(),
        ..Default::default()
    };
    let image = replayed(&base, &[clear.into()]).finish(AT);
    let partition = image.partition("a", 0).unwrap();
    assert!(partition.elr.is_empty());
    assert_eq!(partition.partition_epoch, 2);
}

#[test]
fn refuses_records_that_do_not_fit() {
    let base = image_of(&[topic("a", id(1))]);
    let refused = |record: MetadataRecord| {
        MetadataDelta::new(Arc::clone(&base))
            .replay(&record)
            .unwrap_err()
    };
    assert!(matches!(
        refused(topic("a", id(2))),
        ReplayError::DuplicateTopic { .. }
    ));
    assert!(matches!(
        refused(partition(id(5), 0, &[1])),
        ReplayError::UnknownTopic { .. }
    ));
    let change = PartitionChangeRecord {
        partition_id: 3,
        topic_id: id(1),
        ..Default::default()
    };
    assert!(matches!(
        refused(change.into()),
        ReplayError::UnknownPartition { partition: 3, .. }
    ));
    assert!(matches!(
        refused(metadata_version(31)),
        ReplayError::MetadataVersion { level: 31 }
    ));
    let change = BrokerRegistrationChangeRecord {
        broker_id: 4,
        ..Default::default()
    };
    assert!(matches!(
        refused(change.into()),
        ReplayError::UnknownBroker { id: 4 }
    ));
    let mut odd = PartitionRecord {
        topic_id: id(1),
        replicas: vec![1, 2],
        directories: vec![id(1)],
        ..Default::default()
    };
    assert!(matches!(
        refused(odd.clone().into()),
        ReplayError::DirectoryCount { .. }
    ));
    odd.directories.clear();
    odd.leader_recovery_state = 7;
    assert!(matches!(
        refused(odd.into()),
        ReplayError::LeaderRecoveryState { value: 7 }
    ));
}

#[test]
fn refuses_producer_ids_that_go_back() {
    let ids = |next_producer_id| -> MetadataRecord {
        ProducerIdsRecord {
            next_producer_id,
            ..Default::default()
        }
        .into()
    };
    let base = image_of(&[ids(2000)]);
    assert_eq!(base.next_producer_id(), 2000);
    let error = MetadataDelta::new(base).replay(&ids(1000)).unwrap_err();
    assert_eq!(
        error,
        ReplayError::ProducerIds {
            current: 2000,
            next: 1000
        }
    );
}

#[test]
fn features_with_level_zero_are_off() {
    let level = |feature_level| -> MetadataRecord {
        let name = "group.version".into();
        FeatureLevelRecord {
            name,
            feature_level,
            ..Default::default()
        }
        .into()
    };
    let mut delta = replayed(&Arc::default(), &[metadata_version(30), level(1)]);
    delta.set_kraft_version(1);
    let image = delta.finish(AT);
    assert_eq!(image.features().level("group.version"), 1);
    assert_eq!(image.features().level("kraft.version"), 1);
    assert_eq!(image.features().finalized().len(), 3);
    let image = replayed(&image, &[level(0)]).finish(AT);
    assert_eq!(image.features().level("group.version"), 0);
    assert!(!image.features().finalized().contains_key("group.version"));
}

#[test]
fn a_filter_holds_back_what_is_undecided_and_drops_what_is_aborted() {
    use klamm_protocol::metadata::AbortTransactionRecord;
    let mut filter = TransactionFilter::default();
    let mut seen = Vec::new();
    let records: Vec<MetadataRecord> = vec![
        topic("before", id(1)),
        BeginTransactionRecord::default().into(),
        topic("aborted", id(2)),
        AbortTransactionRecord::default().into(),
        BeginTransactionRecord::default().into(),
        topic("ended", id(3)),
        NoOpRecord::default().into(),
        EndTransactionRecord::default().into(),
        BeginTransactionRecord::default().into(),
        topic("open", id(4)),
    ];
    for record in records {
        filter
            .push(record, &mut |record| {
                seen.push(record.name());
                Ok(())
            })
            .unwrap();
    }
    assert_eq!(seen, ["TopicRecord", "TopicRecord", "NoOpRecord"]);
    assert!(filter.is_open());
    let again = filter.push(BeginTransactionRecord::default().into(), &mut |_| Ok(()));
    assert!(matches!(again, Err(ReplayError::Transaction { .. })));
}

#[test]
fn a_listener_gets_everything_as_changed_at_first() {
    let image = image_of(&[
        topic("a", id(1)),
        partition(id(1), 0, &[1]),
        config(4, "", "x", Some("y")),
    ]);
    let delta = MetadataDelta::from_nothing(&image);
    assert_eq!(delta.image(), &*image);
    assert!(delta.base().topics().is_empty());
    assert!(delta.changed_topics()[&id(1)].partitions.contains(&0));
    assert!(delta.changed_configs().contains(&ConfigResource::cluster()));
}

#[test]
fn the_difference_of_two_images_names_all_that_changed() {
    let old = image_of(&[
        topic("a", id(1)),
        partition(id(1), 0, &[1]),
        partition(id(1), 1, &[1]),
        topic("gone", id(2)),
        topic("same", id(3)),
        config(4, "", "x", Some("y")),
    ]);
    let change = PartitionChangeRecord {
        partition_id: 1,
        topic_id: id(1),
        isr: Some(vec![]),
        ..Default::default()
    };
    let remove = RemoveTopicRecord {
        topic_id: id(2),
        ..Default::default()
    };
    let records = [
        change.into(),
        remove.into(),
        topic("new", id(4)),
        config(4, "", "x", None),
        RegisterBrokerRecord {
            broker_id: 5,
            ..Default::default()
        }
        .into(),
    ];
    let mut replayed = replayed(&old, &records);
    let new = replayed.finish(AT);
    let delta = MetadataDelta::between(&old, &new);
    assert_eq!(delta.image(), &*new);
    assert_eq!(delta.changed_topics(), replayed.changed_topics());
    assert_eq!(delta.deleted_topics(), replayed.deleted_topics());
    assert_eq!(delta.changed_configs(), replayed.changed_configs());
    assert_eq!(delta.changed_brokers(), replayed.changed_brokers());
    assert!(
        MetadataDelta::between(&new, &new)
            .changed_topics()
            .is_empty()
    );
}

/// Steps that always make a legal log.
#[derive(Clone, Debug)]
enum Step {
    Create(u8, u8),
    Remove(u8),
    Isr(u8, Vec<i32>),
    Config(u8, Option<u8>),
    Broker(u8, bool),
    Producers(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..20_u8, 1..5_u8).prop_map(|(t, p)| Step::Create(t, p)),
        (0..20_u8).prop_map(Step::Remove),
        (0..20_u8, prop::collection::vec(1..4, 0..3)).prop_map(|(t, isr)| Step::Isr(t, isr)),
        (0..20_u8, prop::option::of(any::<u8>())).prop_map(|(t, v)| Step::Config(t, v)),
        (0..5_u8, any::<bool>()).prop_map(|(b, fenced)| Step::Broker(b, fenced)),
        any::<u8>().prop_map(Step::Producers),
    ]
}

fn records_of(step: &Step, image: &MetadataImage, serial: u8) -> Vec<MetadataRecord> {
    let name = |t: &u8| format!("t.{t}");
    match step {
        Step::Create(t, partitions) if image.topic(&name(t)).is_none() => {
            let topic_id = Uuid::from_bytes([serial, *t, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let partitions =
                (0..i32::from(*partitions)).map(|p| partition(topic_id, p, &[1, 2, 3]));
            [topic(&name(t), topic_id)]
                .into_iter()
                .chain(partitions)
                .collect()
        }
        Step::Remove(t) => image
            .topic(&name(t))
            .map(|topic| {
                RemoveTopicRecord {
                    topic_id: topic.id(),
                    ..Default::default()
                }
                .into()
            })
            .into_iter()
            .collect(),
        Step::Isr(t, isr) => image
            .topic(&name(t))
            .map(|topic| {
                let leader = isr.first().copied().unwrap_or(NO_LEADER);
                PartitionChangeRecord {
                    partition_id: 0,
                    topic_id: topic.id(),
                    isr: Some(isr.clone()),
                    leader,
                    last_known_elr: Some(vec![2]),
                    ..Default::default()
                }
                .into()
            })
            .into_iter()
            .collect(),
        Step::Config(t, value) => {
            let value = value.map(|value| value.to_string());
            vec![config(2, &name(t), "retention.ms", value.as_deref())]
        }
        Step::Broker(b, fenced) => {
            let broker = RegisterBrokerRecord {
                broker_id: i32::from(*b),
                broker_epoch: i64::from(serial),
                fenced: *fenced,
                rack: fenced.then(|| "r".into()),
                log_dirs: vec![id(*b)],
                ..Default::default()
            };
            vec![broker.into()]
        }
        Step::Producers(n) => {
            let next_producer_id = image.next_producer_id() + i64::from(*n);
            vec![
                ProducerIdsRecord {
                    next_producer_id,
                    ..Default::default()
                }
                .into(),
            ]
        }
        Step::Create(..) => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// An image, written as records and replayed, is the same image; and one delta over all
    /// records makes what many small ones make.
    #[test]
    fn an_image_survives_its_records(steps in prop::collection::vec(step(), 0..60)) {
        let mut image = image_of(&[metadata_version(30)]);
        let mut log = vec![metadata_version(30)];
        for (serial, step) in steps.iter().enumerate() {
            let records = records_of(step, &image, serial as u8);
            image = replayed(&image, &records).finish(AT);
            log.extend(records);
        }
        prop_assert_eq!(&*image_of(&log), &*image);
        prop_assert_eq!(&*image_of(&image.to_records()), &*image);
        // The way over the wire format of each record changes nothing either.
        let version = image.metadata_version();
        let decoded: Vec<MetadataRecord> = image
            .to_records()
            .into_iter()
            .map(|record| {
                let value = record.encode_value(version.record_version(&record)).unwrap();
                MetadataRecord::decode_value(value).unwrap()
            })
            .collect();
        prop_assert_eq!(&*image_of(&decoded), &*image);
    }
}
