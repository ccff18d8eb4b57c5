//! Groups of consumers over loopback: what lies around the coordinator.

mod common;

use common::{Client, start, try_start};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::update_features_request::FeatureUpdateKey;
use klamm_protocol::messages::*;
use klamm_records::Uuid;

/// The resource type of groups.
const GROUP: i8 = 32;

fn join(member: &str, topic: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: member.into(),
        member_epoch: 0,
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec![topic.into()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    }
}

async fn set(client: &mut Client, name: &str, value: &str) -> i16 {
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: GROUP,
            resource_name: "g".into(),
            configs: vec![AlterableConfig {
                name: name.into(),
                value: Some(value.into()),
                ..AlterableConfig::default()
            }],
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    client.ask(1, &request).await.responses[0].error_code
}

/// Makes the internal topic and waits until the group can be asked for.
async fn ready(client: &mut Client) {
    let find = FindCoordinatorRequest {
        coordinator_keys: vec!["g".into()],
        ..FindCoordinatorRequest::default()
    };
    loop {
        let found = client.ask(4, &find).await;
        if found.coordinators[0].error_code != 0 {
            continue;
        }
        let probe = ConsumerGroupDescribeRequest {
            group_ids: vec!["g".into()],
            ..ConsumerGroupDescribeRequest::default()
        };
        let described = client.ask(1, &probe).await;
        if described.groups[0].error_code == i16::from(ErrorCode::GroupIdNotFound) {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_groups_own_configuration_takes_effect() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(
        dir.path(),
        &[("group.consumer.heartbeat.interval.ms", "6000")],
    )
    .await;
    let mut client = Client::connect(&broker).await;
    let topic = MetadataRequestTopic {
        name: Some("t".into()),
        ..MetadataRequestTopic::default()
    };
    let make = MetadataRequest {
        topics: Some(vec![topic]),
        ..MetadataRequest::default()
    };
    assert_eq!(client.ask(9, &make).await.topics[0].error_code, 0);
    ready(&mut client).await;
    let joined = client.ask(1, &join("a", "t")).await;
    assert_eq!(
        (joined.error_code, joined.heartbeat_interval_ms),
        (0, 6_000)
    );
    let topics = joined.assignment.unwrap().topic_partitions;
    assert_eq!(topics[0].partitions, [0]);
    let name = "consumer.heartbeat.interval.ms";
    assert_eq!(set(&mut client, name, "7000").await, 0);
    let stay = ConsumerGroupHeartbeatRequest {
        member_epoch: joined.member_epoch,
        ..join("a", "t")
    };
    let stayed = client.ask(1, &stay).await;
    assert_eq!(
        (stayed.error_code, stayed.heartbeat_interval_ms),
        (0, 7_000)
    );
    let refused = set(&mut client, name, "1").await;
    assert_eq!(refused, i16::from(ErrorCode::InvalidConfig));
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_found_by_ids_whatever_is_said_of_names() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    let ask = |topics: &[(Option<&str>, Uuid)]| MetadataRequest {
        topics: Some(
            topics
                .iter()
                .map(|(name, topic_id)| MetadataRequestTopic {
                    name: name.map(Into::into),
                    topic_id: *topic_id,
                    ..MetadataRequestTopic::default()
                })
                .collect(),
        ),
        ..MetadataRequest::default()
    };
    let made = client.ask(12, &ask(&[(Some("t"), Uuid::ZERO)])).await;
    let id = made.topics[0].topic_id;
    let unknown = Uuid::from_bytes([7; 16]);
    let names = [
        (Some(""), id),
        (None, id),
        (Some("x"), Uuid::ZERO),
        (Some(""), unknown),
    ];
    let found = client.ask(12, &ask(&names)).await;
    let found: Vec<_> = found
        .topics
        .iter()
        .map(|topic| (topic.error_code, topic.name.as_deref(), topic.topic_id))
        .collect();
    let missing = i16::from(ErrorCode::UnknownTopicId);
    assert_eq!(
        found,
        [
            (0, Some("t"), id),
            (0, Some("t"), id),
            (missing, None, unknown)
        ]
    );
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_protocol_can_be_turned_off() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    ready(&mut client).await;
    let update = UpdateFeaturesRequest {
        timeout_ms: 10_000,
        feature_updates: vec![FeatureUpdateKey {
            feature: "group.version".into(),
            max_version_level: 0,
            upgrade_type: 2,
            ..FeatureUpdateKey::default()
        }],
        ..UpdateFeaturesRequest::default()
    };
    assert_eq!(client.ask(1, &update).await.error_code, 0);
    let unsupported = i16::from(ErrorCode::UnsupportedVersion);
    let refused = client.ask(1, &join("a", "t")).await;
    assert_eq!(refused.error_code, unsupported);
    let describe = ConsumerGroupDescribeRequest {
        group_ids: vec!["g".into()],
        ..ConsumerGroupDescribeRequest::default()
    };
    let described = client.ask(1, &describe).await;
    assert_eq!(described.groups[0].error_code, unsupported);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn assignors_that_are_not_there_are_refused_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let assignors = ("group.consumer.assignors", "range,com.example.Mine");
    let refused = try_start(dir.path(), &[assignors]).await.unwrap_err();
    assert!(
        refused.to_string().contains("com.example.Mine"),
        "{refused}"
    );
    let classes = "org.apache.kafka.coordinator.group.assignor.RangeAssignor";
    let assignors = ("group.consumer.assignors", classes);
    start(dir.path(), &[assignors]).await.shutdown().await;
}
