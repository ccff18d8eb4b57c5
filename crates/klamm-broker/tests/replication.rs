//! Three nodes that copy each other's partitions, and what becomes of the records when they go.

mod common;

use std::cell::RefCell;

use common::nodes::{Nodes, PATIENCE, Roles, wait_for, wait_for_or};
use common::{batch, produce_request};
use klamm_metadata::PartitionImage;
use klamm_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_protocol::messages::{
    CreateTopicsRequest, FetchRequest, FetchResponse, FindCoordinatorRequest, OffsetCommitRequest,
    OffsetFetchRequest, offset_commit_request, offset_fetch_request,
};
use klamm_protocol::{ErrorCode, Records};
use klamm_records::{Scratch, batches};

const THREE: [Roles; 3] = [Roles::Both; 3];
const IDS: [i32; 3] = [1, 2, 3];

/// Faults show soon.
const HASTY: [(&str, &str); 5] = [
    // The records here are dated long ago.
    ("log.retention.ms", "-1"),
    ("replica.lag.time.max.ms", "2000"),
    ("replica.fetch.wait.max.ms", "200"),
    ("replica.fetch.backoff.ms", "50"),
    ("min.insync.replicas", "2"),
];

/// Makes topic `t` with one partition on all nodes; node 1 leads it.
fn create(nodes: &Nodes, configs: &[(&str, &str)]) {
    let configs = configs.iter().map(|(name, value)| CreatableTopicConfig {
        name: (*name).into(),
        value: Some((*value).into()),
        ..CreatableTopicConfig::default()
    });
    let request = CreateTopicsRequest {
        topics: vec![CreatableTopic {
            name: "t".into(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: vec![CreatableReplicaAssignment {
                partition_index: 0,
                broker_ids: IDS.to_vec(),
                ..CreatableReplicaAssignment::default()
            }],
            configs: configs.collect(),
            ..CreatableTopic::default()
        }],
        timeout_ms: 30_000,
        ..CreateTopicsRequest::default()
    };
    let mut client = nodes.client(nodes.running()[0]);
    let answer = nodes.block_on(client.ask(7, &request));
    assert_eq!(answer.topics[0].error_code, 0, "{answer:?}");
    nodes.wait_for_images("the topic", |image| image.partition("t", 0).is_some());
}

/// Partition 0 of a topic as the nodes that run know it.
fn partition(nodes: &Nodes, topic: &str) -> PartitionImage {
    let image = nodes.image(nodes.running()[0]);
    PartitionImage::clone(image.partition(topic, 0).unwrap())
}

fn wait_for_isr(nodes: &Nodes, isr: &[i32]) {
    nodes.wait_for_images(&format!("in-sync replicas {isr:?}"), |image| {
        let mut found = image.partition("t", 0).unwrap().isr.clone();
        found.sort_unstable();
        found == isr
    });
}

/// What a produce with `acks=all` to node `id` is answered with: an error and an offset.
fn try_produce(nodes: &Nodes, id: i32, values: &[&str]) -> (i16, i64) {
    let mut client = nodes.client(id);
    let request = produce_request("t", batch(values), -1);
    let answer = nodes.block_on(client.ask(9, &request));
    let partition = &answer.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

/// Has the leader take records, whoever it is, and all in-sync replicas.
fn produce(nodes: &Nodes, values: &[&str]) -> i64 {
    wait_for("a leader that takes records", || {
        let leader = partition(nodes, "t").leader;
        if !nodes.running().contains(&leader) {
            return None;
        }
        match try_produce(nodes, leader, values) {
            (0, offset) => Some(offset),
            // To be tried again only where it was not appended.
            (error, _) if error == ErrorCode::NotLeaderOrFollower.code() => None,
            (error, _) if error == ErrorCode::NotEnoughReplicas.code() => None,
            (error, _) => panic!("a record was refused with {error}"),
        }
    })
}

/// A consumer's fetch at node `id`: version 11 and up, any replica answers.
fn fetch(nodes: &Nodes, id: i32, offset: i64, rack: &str) -> FetchResponse {
    let mut client = nodes.client(id);
    let request = FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        rack_id: rack.into(),
        topics: vec![FetchTopic {
            topic: "t".into(),
            partitions: vec![FetchPartition {
                fetch_offset: offset,
                partition_max_bytes: 1 << 20,
                ..FetchPartition::default()
            }],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    nodes.block_on(client.ask(12, &request))
}

/// The committed records that node `id` has.
fn values(nodes: &Nodes, id: i32) -> Vec<String> {
    let response = fetch(nodes, id, 0, "");
    let Some(partition) = response.responses.first().map(|topic| &topic.partitions[0]) else {
        return Vec::new();
    };
    let bytes = partition.records.as_ref().and_then(Records::as_bytes);
    let mut values = Vec::new();
    for batch in batches(bytes.map_or(&[], |bytes| &bytes[..])) {
        for record in batch.unwrap().records(&mut Scratch::new()).unwrap() {
            let record = record.unwrap();
            values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
        }
    }
    values
}

fn wait_for_values(nodes: &Nodes, ids: &[i32], expected: &[String]) {
    for id in ids {
        let seen = RefCell::default();
        let all_there = || {
            seen.replace(values(nodes, *id));
            *seen.borrow() == expected
        };
        let waited = wait_for_or(PATIENCE, || all_there().then_some(()));
        assert!(
            waited.is_some(),
            "node {id} has {:?}, not {expected:?}",
            seen.borrow()
        );
    }
}

#[test]
fn what_is_acknowledged_is_on_all_replicas_and_can_be_read_from_each() {
    let nodes = Nodes::start(&THREE, &HASTY);
    create(&nodes, &[]);
    let mut expected = Vec::new();
    for n in 0..50 {
        let value = format!("record {n}");
        assert_eq!(produce(&nodes, &[&value]), n);
        expected.push(value);
    }
    wait_for_values(&nodes, &IDS, &expected);
    assert_eq!(partition(&nodes, "t").isr, IDS);
    // Who does not lead says so.
    let (error, _) = try_produce(&nodes, 2, &["x"]);
    assert_eq!(error, ErrorCode::NotLeaderOrFollower.code());
}

#[test]
fn nothing_is_lost_when_leaders_are_killed_in_turn() {
    let mut nodes = Nodes::start(&THREE, &HASTY);
    create(&nodes, &[]);
    let mut expected = Vec::new();
    for round in 0..3 {
        for n in 0..10 {
            let value = format!("{round}: with all, {n}");
            produce(&nodes, &[&value]);
            expected.push(value);
        }
        let leader = partition(&nodes, "t").leader;
        nodes.kill(leader);
        let value = format!("{round}: without {leader}");
        produce(&nodes, &[&value]);
        expected.push(value);
        let rest = nodes.running();
        assert!(!rest.contains(&leader));
        wait_for_isr(&nodes, &rest);
        wait_for_values(&nodes, &rest, &expected);
        nodes.start_nodes(&[leader]);
        wait_for_isr(&nodes, &IDS);
    }
    wait_for_values(&nodes, &IDS, &expected);
}

#[test]
fn a_broker_whose_process_is_gone_is_missed_before_its_session_is_over() {
    let more = [("broker.session.timeout.ms", "600000")];
    let roles = [Roles::Controller, Roles::Broker, Roles::Broker];
    let mut nodes = Nodes::start(&roles, &more);
    nodes.kill(3);
    nodes.wait_for_images("node 3 fenced", |image| image.broker(3).unwrap().fenced);
    // It need not wait for the end of that session either.
    nodes.start_nodes(&[3]);
    nodes.wait_for_images("node 3 back", |image| !image.broker(3).unwrap().fenced);
}

#[test]
fn a_rolling_restart_loses_nothing() {
    let mut nodes = Nodes::start(&THREE, &HASTY);
    create(&nodes, &[]);
    let mut expected = Vec::new();
    for id in IDS {
        nodes.stop(id);
        let value = format!("without {id}");
        produce(&nodes, &[&value]);
        expected.push(value);
        nodes.start_nodes(&[id]);
        wait_for_isr(&nodes, &IDS);
    }
    wait_for_values(&nodes, &IDS, &expected);
}

#[test]
fn too_few_replicas_in_sync_take_no_records() {
    let mut nodes = Nodes::start(&THREE, &HASTY);
    create(&nodes, &[("min.insync.replicas", "3")]);
    produce(&nodes, &["a"]);
    nodes.kill(3);
    wait_for_isr(&nodes, &[1, 2]);
    let leader = partition(&nodes, "t").leader;
    wait_for("the leader to know", || {
        let (error, _) = try_produce(&nodes, leader, &["b"]);
        (error == ErrorCode::NotEnoughReplicas.code()).then_some(())
    });
    nodes.start_nodes(&[3]);
    wait_for_isr(&nodes, &IDS);
    produce(&nodes, &["c"]);
}

/// What a leader took alone, without anybody's acknowledgement, does not survive the next leader.
#[test]
fn a_leader_that_comes_back_drops_what_nobody_else_has() {
    let mut nodes = Nodes::start(&THREE, &HASTY);
    create(&nodes, &[]);
    produce(&nodes, &["a"]);
    wait_for_values(&nodes, &IDS, &["a".to_owned()]);
    // The last to leave stays eligible to lead, as fewer than min.insync.replicas are left.
    nodes.stop(2);
    nodes.stop(3);
    // Nobody copies what node 1 takes now, and so none of it is committed.
    let mut client = nodes.client(1);
    let request = produce_request("t", batch(&["lost", "as well"]), 1);
    let answer = nodes.block_on(client.ask(9, &request));
    let taken = &answer.responses[0].partition_responses[0];
    assert_eq!((taken.error_code, taken.base_offset), (0, 1));
    drop(client);
    nodes.kill(1);
    nodes.start_nodes(&[2, 3]);
    nodes.wait_for_images("the eligible leader", |image| {
        image.partition("t", 0).unwrap().leader == 3
    });
    assert_eq!(produce(&nodes, &["b"]), 1);
    nodes.start_nodes(&[1]);
    wait_for_isr(&nodes, &IDS);
    wait_for_values(&nodes, &IDS, &["a".to_owned(), "b".to_owned()]);
}

#[test]
fn consumers_are_sent_to_the_replica_in_their_rack() {
    let selector = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
    let mut configs = HASTY.to_vec();
    configs.push(("replica.selector.class", selector));
    let mut nodes = Nodes::new(&THREE, &configs);
    for id in IDS {
        nodes.set(id, "broker.rack", &format!("rack-{id}"));
    }
    nodes.start_nodes(&IDS);
    create(&nodes, &[]);
    produce(&nodes, &["a"]);
    wait_for_values(&nodes, &IDS, &["a".to_owned()]);
    wait_for("a replica that is up to date to be preferred", || {
        let response = fetch(&nodes, 1, 0, "rack-3");
        let partition = &response.responses[0].partitions[0];
        (partition.preferred_read_replica == 3).then_some(())
    });
    for rack in ["rack-1", "rack-4", ""] {
        let response = fetch(&nodes, 1, 0, rack);
        let partition = &response.responses[0].partitions[0];
        assert_eq!(partition.preferred_read_replica, -1);
        assert_ne!(
            partition
                .records
                .as_ref()
                .and_then(Records::as_bytes)
                .unwrap()
                .len(),
            0
        );
    }
}

/// A group's offsets are with whoever coordinates it, and what was committed stays.
#[test]
fn a_groups_offsets_outlive_its_coordinator() {
    let mut configs = HASTY.to_vec();
    configs.push(("offsets.topic.replication.factor", "3"));
    let mut nodes = Nodes::start(&THREE, &configs);
    create(&nodes, &[]);
    let first = coordinator(&nodes);
    wait_for("the offset to be committed", || {
        let mut client = nodes.client(first);
        let answer = nodes.block_on(client.ask(8, &commit(7)));
        let error = answer.topics[0].partitions[0].error_code;
        (error == 0).then_some(())
    });
    nodes.kill(first);
    let second = wait_for("another coordinator", || {
        let found = coordinator(&nodes);
        (found != first).then_some(found)
    });
    let offset = wait_for("the coordinator to know its groups", || {
        let mut client = nodes.client(second);
        let answer = nodes.block_on(client.ask(7, &committed()));
        (answer.error_code == 0).then(|| answer.topics[0].partitions[0].committed_offset)
    });
    assert_eq!(offset, 7);
    // The one that was killed does not take itself for the coordinator when it is back.
    nodes.start_nodes(&[first]);
    let mut client = nodes.client(first);
    let answer = nodes.block_on(client.ask(7, &committed()));
    assert_eq!(answer.error_code, ErrorCode::NotCoordinator.code());
}

fn coordinator(nodes: &Nodes) -> i32 {
    wait_for("a coordinator", || {
        let request = FindCoordinatorRequest {
            coordinator_keys: vec!["g".into()],
            ..FindCoordinatorRequest::default()
        };
        let mut client = nodes.client(nodes.running()[0]);
        let answer = nodes.block_on(client.ask(4, &request));
        let found = &answer.coordinators[0];
        (found.error_code == 0 && nodes.running().contains(&found.node_id)).then_some(found.node_id)
    })
}

fn commit(committed_offset: i64) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: "g".into(),
        generation_id_or_member_epoch: -1,
        topics: vec![offset_commit_request::OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![offset_commit_request::OffsetCommitRequestPartition {
                committed_offset,
                ..Default::default()
            }],
            ..Default::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

fn committed() -> OffsetFetchRequest {
    OffsetFetchRequest {
        group_id: "g".into(),
        topics: Some(vec![offset_fetch_request::OffsetFetchRequestTopic {
            name: "t".into(),
            partition_indexes: vec![0],
            ..Default::default()
        }]),
        ..OffsetFetchRequest::default()
    }
}
