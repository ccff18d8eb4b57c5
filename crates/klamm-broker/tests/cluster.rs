//! Three nodes, each broker and controller: one decides, any of them can be asked.

mod common;

use bytes::{Bytes, BytesMut};
use common::nodes::{CLUSTER_ID, Nodes, Roles, create, quorum_request, topic, wait_for};
use klamm_broker::BrokerError;
use klamm_protocol::frame::{decode_response, encode_request};
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::{
    AllocateProducerIdsRequest, CreateTopicsRequest, EnvelopeRequest,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, InitProducerIdRequest,
    ListPartitionReassignmentsRequest, MetadataRequest,
};
use klamm_protocol::{ErrorCode, Request, Segment};

const THREE: [Roles; 3] = [Roles::Both; 3];

fn change_retention(topic: &str, ms: &str) -> IncrementalAlterConfigsRequest {
    IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 2,
            resource_name: topic.into(),
            configs: vec![AlterableConfig {
                name: "retention.ms".into(),
                value: Some(ms.to_owned().into()),
                ..AlterableConfig::default()
            }],
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    }
}

fn first_error(answer: &IncrementalAlterConfigsResponse) -> i16 {
    answer.responses[0].error_code
}

#[test]
fn several_controllers_without_a_cluster_id_do_not_start() {
    let nodes = Nodes::new(&THREE, &[]);
    let refused = nodes.try_start(nodes.layers(1));
    assert!(
        matches!(refused, Err(BrokerError::NoClusterId)),
        "{refused:?}"
    );
}

#[test]
fn any_node_takes_changes_and_all_nodes_see_them() {
    let nodes = Nodes::start(&THREE, &[]);
    for id in 1..=3 {
        let mut client = nodes.client(id);
        let name = format!("made-at-{id}");
        assert_eq!(nodes.block_on(create(&mut client, &name)), 0);
        // Twice is once too many, whoever is asked.
        let again = nodes.block_on(create(&mut client, &name));
        assert_eq!(again, ErrorCode::TopicAlreadyExists.code());
        let changed = nodes.block_on(client.ask(1, &change_retention(&name, "4321")));
        assert_eq!(first_error(&changed), 0);
    }
    nodes.wait_for_images("three topics with configs", |image| {
        (1..=3).all(|id| {
            let name = format!("made-at-{id}");
            let resource = klamm_metadata::ConfigResource::topic(&name);
            image.topic(&name).is_some() && !image.config(&resource).is_empty()
        })
    });
    for id in 1..=3 {
        let mut client = nodes.client(id);
        let metadata = nodes.block_on(client.ask(9, &MetadataRequest::default()));
        assert_eq!(metadata.cluster_id.as_deref(), Some(CLUSTER_ID));
        let brokers: Vec<i32> = metadata.brokers.iter().map(|node| node.node_id).collect();
        assert_eq!(brokers, [1, 2, 3]);
        let partitions = metadata.topics.iter().flat_map(|topic| &topic.partitions);
        let leaderless = partitions.filter(|partition| partition.leader_id < 0);
        assert_eq!(leaderless.count(), 0);
    }
}

#[test]
fn a_topic_that_a_client_asks_for_is_there_at_once_wherever_it_asks() {
    let nodes = Nodes::start(&THREE, &[]);
    for id in 1..=3 {
        let mut client = nodes.client(id);
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(format!("wanted-at-{id}").into()),
                ..MetadataRequestTopic::default()
            }]),
            allow_auto_topic_creation: true,
            ..MetadataRequest::default()
        };
        let metadata = nodes.block_on(client.ask(9, &request));
        assert_eq!(metadata.topics[0].error_code, 0, "{metadata:?}");
    }
}

#[test]
fn producer_ids_of_all_nodes_differ() {
    let nodes = Nodes::start(&THREE, &[]);
    let mut ids: Vec<i64> = (1..=3)
        .map(|id| {
            let request = InitProducerIdRequest {
                transactional_id: None,
                transaction_timeout_ms: 60_000,
                ..InitProducerIdRequest::default()
            };
            let mut client = nodes.client(id);
            let answer = nodes.block_on(client.ask(4, &request));
            assert_eq!(answer.error_code, 0, "{answer:?}");
            answer.producer_id
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
}

#[test]
fn a_controller_that_does_not_decide_says_so() {
    let nodes = Nodes::start(&THREE, &[]);
    let active = nodes.active_controller();
    let other = (1..=3).find(|id| *id != active).unwrap();
    let not_controller = ErrorCode::NotController.code();
    let mut client = nodes.controller_client(other);
    let created = nodes.block_on(create(&mut client, "t"));
    assert_eq!(created, not_controller);
    let request = AllocateProducerIdsRequest::default();
    let allocated = nodes.block_on(client.ask(0, &request));
    assert_eq!(allocated.error_code, not_controller);
    let request = ListPartitionReassignmentsRequest::default();
    let listed = nodes.block_on(client.ask(0, &request));
    assert_eq!(listed.error_code, not_controller);
    let described = nodes.block_on(client.ask(2, &quorum_request()));
    let partition = &described.topics[0].partitions[0];
    let not_leader = ErrorCode::NotLeaderOrFollower.code();
    assert_eq!(partition.error_code, not_leader);
}

#[test]
fn controllers_know_each_other() {
    let nodes = Nodes::start(&THREE, &[]);
    let active = nodes.active_controller();
    for id in 1..=3 {
        let told = wait_for("all controllers to be known", || {
            let told = nodes.describe_controllers(id);
            (told.brokers.len() == 3).then_some(told)
        });
        assert_eq!(told.controller_id, active);
        for known in &told.brokers {
            let address = nodes.controller_address(known.broker_id);
            assert_eq!(known.port, i32::from(address.port()));
        }
        // Wherever it is asked, the one that leads answers.
        let mut client = nodes.client(id);
        let quorum = wait_for("all voters to be caught up", || {
            let quorum = nodes.block_on(client.ask(2, &quorum_request()));
            let partition = &quorum.topics[0].partitions[0];
            let mut voters = partition.current_voters.iter();
            let end = partition.high_watermark;
            voters
                .all(|voter| voter.log_end_offset == end && voter.last_caught_up_timestamp > 0)
                .then_some(quorum)
        });
        let partition = &quorum.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.leader_id), (0, active));
        let voters: Vec<i32> = partition
            .current_voters
            .iter()
            .map(|voter| voter.replica_id)
            .collect();
        assert_eq!(voters, [1, 2, 3]);
        assert_eq!(quorum.nodes.len(), 3);
    }
}

/// What a client asks for while there is no controller is done by the next one.
#[test]
fn another_controller_takes_over_from_one_that_was_killed() {
    let mut nodes = Nodes::start(&THREE, &[]);
    let first = nodes.active_controller();
    nodes.kill(first);
    let other = nodes.running()[0];
    let mut client = nodes.client(other);
    assert_eq!(nodes.block_on(create(&mut client, "after")), 0);
    let second = nodes.active_controller();
    assert_ne!(second, first);
    nodes.wait_for_images("the topic", |image| image.topic("after").is_some());
    // It was killed, so it is only silence that tells.
    nodes.wait_for_images("the killed broker to be fenced", |image| {
        image.broker(first).is_some_and(|broker| broker.fenced)
    });
}

#[test]
fn nodes_stop_and_come_back_one_after_the_other() {
    let mut nodes = Nodes::start(&THREE, &[]);
    for id in 1..=3 {
        let before = nodes.image(id).broker(id).unwrap().epoch;
        nodes.stop(id);
        let other = nodes.running()[0];
        let mut client = nodes.client(other);
        let name = format!("without-{id}");
        assert_eq!(nodes.block_on(create(&mut client, &name)), 0);
        nodes.wait_for_images("the stopped broker to be fenced", |image| {
            image.broker(id).is_some_and(|broker| broker.fenced)
        });
        nodes.start_nodes(&[id]);
        assert!(nodes.image(id).topic(&name).is_some());
        assert!(nodes.image(id).broker(id).unwrap().epoch > before);
    }
    nodes.wait_for_images("all topics and brokers", |image| {
        (1..=3).all(|id| {
            image.topic(&format!("without-{id}")).is_some()
                && image.broker(id).is_some_and(|broker| !broker.fenced)
        })
    });
}

fn envelope<R: Request>(version: i16, request: &R) -> EnvelopeRequest {
    let segments = encode_request(7, Some("a-client"), version, request).unwrap();
    let mut bytes = BytesMut::new();
    for segment in segments {
        let Segment::Bytes(segment) = segment else {
            panic!("requests lie in memory")
        };
        bytes.extend_from_slice(&segment);
    }
    EnvelopeRequest {
        request_data: bytes.freeze().slice(4..),
        request_principal: Some(Bytes::from_static(b"\0\0\x05User\x0aANONYMOUS\0\0")),
        client_host_address: Bytes::from_static(&[10, 1, 2, 3]),
        ..EnvelopeRequest::default()
    }
}

#[test]
fn envelopes_are_opened_as_kafka_opens_them() {
    let nodes = Nodes::start(&THREE, &[]);
    let active = nodes.active_controller();
    let other = (1..=3).find(|id| *id != active).unwrap();
    let good = envelope(7, &topic("passed-on", 1));
    let refused = nodes.block_on(nodes.controller_client(other).ask(0, &good));
    assert_eq!(refused.error_code, ErrorCode::NotController.code());

    let mut client = nodes.controller_client(active);
    let answer = nodes.block_on(client.ask(0, &good));
    assert_eq!(answer.error_code, 0);
    let data = answer.response_data.unwrap();
    let (id, created) = decode_response::<CreateTopicsRequest>(data, 7).unwrap();
    assert_eq!((id, created.topics[0].error_code), (7, 0));

    let of_a_stranger = EnvelopeRequest {
        request_principal: None,
        ..good.clone()
    };
    let from_nowhere = EnvelopeRequest {
        client_host_address: Bytes::from_static(&[1, 2, 3]),
        ..good.clone()
    };
    let not_to_be_passed_on = envelope(9, &MetadataRequest::default());
    for (bad, error) in [
        (of_a_stranger, ErrorCode::PrincipalDeserializationFailure),
        (from_nowhere, ErrorCode::InvalidRequest),
        (not_to_be_passed_on, ErrorCode::InvalidRequest),
    ] {
        let refused = nodes.block_on(client.ask(0, &bad));
        assert_eq!(refused.error_code, error.code());
        assert_eq!(refused.response_data, None);
    }
}
