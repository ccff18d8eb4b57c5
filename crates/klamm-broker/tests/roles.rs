//! Controllers without brokers, and brokers that follow them.

mod common;

use std::path::Path;

use common::nodes::{CLUSTER_ID, Nodes, Roles, create, quorum_request, wait_for};
use klamm_controller::managers::features::SUPPORTED;
use klamm_controller::{MetadataLogOptions, MetadataReplica};
use klamm_env::Env;
use klamm_protocol::messages::broker_registration_request::{Feature, Listener};
use klamm_protocol::messages::{BrokerRegistrationRequest, MetadataRequest};
use klamm_records::Uuid;

/// Controllers 1 to 3, brokers 4 and 5.
const DEDICATED: [Roles; 5] = [
    Roles::Controller,
    Roles::Controller,
    Roles::Controller,
    Roles::Broker,
    Roles::Broker,
];

fn brokers_known_to(nodes: &Nodes, id: i32) -> Vec<i32> {
    let mut client = nodes.client(id);
    let metadata = nodes.block_on(client.ask(9, &MetadataRequest::default()));
    metadata.brokers.iter().map(|node| node.node_id).collect()
}

#[test]
fn brokers_follow_controllers_that_are_elsewhere() {
    let nodes = Nodes::start(&DEDICATED, &[]);
    for id in 4..=5 {
        let mut client = nodes.client(id);
        let name = format!("made-at-{id}");
        assert_eq!(nodes.block_on(create(&mut client, &name)), 0);
    }
    nodes.wait_for_images("both topics", |image| {
        image.topic("made-at-4").is_some() && image.topic("made-at-5").is_some()
    });
    wait_for("both brokers to know each other", || {
        (4..=5)
            .all(|id| brokers_known_to(&nodes, id) == [4, 5])
            .then_some(())
    });
    // What is produced to one of them is there: it has its replicas.
    let image = nodes.image(4);
    let leader = image.partition("made-at-4", 0).unwrap().leader;
    let mut client = nodes.client(leader);
    let offset = nodes.block_on(client.produce("made-at-4", &["a"]));
    assert_eq!(offset, 0);
}

#[test]
fn brokers_show_as_observers_of_the_quorum() {
    let nodes = Nodes::start(&DEDICATED, &[]);
    let active = nodes.active_controller();
    let mut client = nodes.client(4);
    let partition = wait_for("the observers to be caught up", || {
        let quorum = nodes.block_on(client.ask(2, &quorum_request()));
        let partition = quorum.topics[0].partitions[0].clone();
        let end = partition.high_watermark;
        let mut all = partition.current_voters.iter().chain(&partition.observers);
        let caught_up = all.all(|replica| replica.log_end_offset == end);
        (caught_up && partition.observers.len() == 2).then_some(partition)
    });
    let ids = |replicas: &[klamm_protocol::messages::describe_quorum_response::ReplicaState]| {
        replicas
            .iter()
            .map(|replica| replica.replica_id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(&partition.current_voters), [1, 2, 3]);
    assert_eq!(ids(&partition.observers), [4, 5]);
    assert_eq!(partition.leader_id, active);
    assert!(
        partition
            .observers
            .iter()
            .all(|o| o.last_caught_up_timestamp > 0)
    );
}

#[test]
fn brokers_go_on_when_controllers_and_brokers_come_and_go() {
    let mut nodes = Nodes::start(&DEDICATED, &[]);
    let first = nodes.active_controller();
    nodes.kill(first);
    let mut client = nodes.client(4);
    assert_eq!(nodes.block_on(create(&mut client, "after")), 0);
    assert_ne!(nodes.active_controller(), first);
    nodes.wait_for_images("the topic", |image| image.topic("after").is_some());
    // A broker that comes back learns what it missed before it serves anybody.
    nodes.stop(5);
    assert_eq!(nodes.block_on(create(&mut client, "missed")), 0);
    nodes.wait_for_images("the broker to be fenced", |image| {
        image.broker(5).is_some_and(|broker| broker.fenced)
    });
    nodes.start_nodes(&[5]);
    assert!(nodes.image(5).topic("missed").is_some());
}

#[test]
fn a_broker_goes_on_from_its_own_copy_of_the_metadata() {
    let own = [
        ("metadata.log.max.record.bytes.between.snapshots", "2000"),
        ("metadata.max.retention.bytes", "1"),
    ];
    let mut nodes = Nodes::start(&[Roles::Controller, Roles::Broker], &own);
    let mut client = nodes.client(2);
    for n in 0..20 {
        let name = format!("topic-{n}");
        assert_eq!(nodes.block_on(create(&mut client, &name)), 0);
    }
    let dir = nodes.config(2).metadata_log_dir();
    let dir = Path::new(&dir).join("__cluster_metadata-0");
    let snapshots = || {
        let entries = Env::os().fs.read_dir(&dir).unwrap();
        let names = entries.into_iter().map(|entry| entry.name);
        let mut names: Vec<String> = names.filter(|n| n.ends_with(".checkpoint")).collect();
        names.sort();
        names
    };
    // The broker takes snapshots by itself, and keeps the newest ones only.
    let first = wait_for("a snapshot", || snapshots().into_iter().next());
    for n in 20..40 {
        let name = format!("topic-{n}");
        assert_eq!(nodes.block_on(create(&mut client, &name)), 0);
    }
    wait_for("the first snapshot to go", || {
        let now = snapshots();
        (!now.is_empty() && !now.contains(&first)).then_some(())
    });
    nodes.wait_for_images("all topics", |image| image.topic("topic-39").is_some());
    for kill in [true, false] {
        let offset = nodes.image(2).offset();
        if kill {
            nodes.kill(2);
        } else {
            nodes.stop(2);
        }
        let options = MetadataLogOptions::default();
        let env = Env::os();
        let found = MetadataReplica::open(&env, dir.parent().unwrap(), options);
        let found = nodes.block_on(found).unwrap();
        // Of a broker that is killed the last may not have been taken note of.
        assert!(found.image().offset() >= offset);
        assert!(found.image().topic("topic-0").is_some());
        assert!(found.image().topic("topic-39").is_some());
        drop(found);
        nodes.start_nodes(&[2]);
    }
    assert!(nodes.image(2).topic("topic-39").is_some());
}

#[test]
fn a_broker_whose_process_ended_is_fenced_at_once_unless_that_is_switched_off() {
    let roles = [Roles::Controller, Roles::Broker];
    let session = ("broker.session.timeout.ms", "3600000");
    let off = ("klamm.fast.fencing.enable", "false");
    let mut patient = Nodes::start(&roles, &[session, off]);
    let mut quick = Nodes::start(&roles, &[session]);
    patient.kill(2);
    quick.kill(2);
    let is_fenced = |nodes: &Nodes| nodes.image(1).broker(2).unwrap().fenced;
    wait_for("the broker to be fenced", || {
        is_fenced(&quick).then_some(())
    });
    // There was as much time to notice.
    assert!(!is_fenced(&patient));
}

#[test]
fn a_broker_whose_id_was_taken_by_who_is_gone_has_it_back() {
    // The session ends between two heartbeats, so that another one may register.
    let roles = [Roles::Controller, Roles::Broker];
    let rare = [
        ("broker.session.timeout.ms", "200"),
        ("broker.heartbeat.interval.ms", "1500"),
    ];
    let nodes = Nodes::start(&roles, &rare);
    let own = nodes.image(2).broker(2).unwrap().clone();
    let late = BrokerRegistrationRequest {
        broker_id: 2,
        cluster_id: CLUSTER_ID.into(),
        incarnation_id: Uuid::from_bytes([9; 16]),
        listeners: vec![Listener {
            name: "PLAINTEXT".into(),
            host: "127.0.0.1".into(),
            port: 1,
            ..Listener::default()
        }],
        features: SUPPORTED
            .iter()
            .map(|feature| Feature {
                name: feature.name.into(),
                min_supported_version: feature.min,
                max_supported_version: feature.max,
                ..Feature::default()
            })
            .collect(),
        log_dirs: own.log_dirs.clone(),
        ..BrokerRegistrationRequest::default()
    };
    let mut controller = nodes.controller_client(1);
    let taken = wait_for("the session to end", || {
        let answer = nodes.block_on(controller.ask(4, &late));
        (answer.error_code == 0).then_some(answer.broker_epoch)
    });
    nodes.wait_for_images("the broker to register again", |image| {
        let broker = image.broker(2).unwrap();
        broker.epoch > taken && broker.incarnation_id == own.incarnation_id && !broker.fenced
    });
    let mut client = nodes.client(2);
    assert_eq!(nodes.block_on(create(&mut client, "made-since")), 0);
}
