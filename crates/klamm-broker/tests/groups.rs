//! Groups of consumers over loopback: what lies around the coordinator.

mod common;

use std::net::SocketAddr;

use common::{Client, start, try_start};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::update_features_request::FeatureUpdateKey;
use klamm_protocol::messages::*;
use klamm_records::Uuid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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

/// The page of metrics, as whoever scrapes it gets it.
async fn metrics(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let get = b"GET /metrics HTTP/1.1\r\n\r\n";
    stream.write_all(get).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}

/// The value of a line of the page.
fn value(page: &str, series: &str) -> Option<f64> {
    let mut lines = page.lines();
    lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// The share group `g` with one member, which reads partition 0 of one topic.
struct Sharing {
    client: Client,
    topic_id: Uuid,
    session_epoch: i32,
}

impl Sharing {
    const MEMBER: &str = "m";

    /// Joins and stays until the partition is assigned.
    async fn join(mut client: Client, topic: &str) -> Sharing {
        let mut member_epoch = 0;
        loop {
            let beat = ShareGroupHeartbeatRequest {
                group_id: "g".into(),
                member_id: Sharing::MEMBER.into(),
                member_epoch,
                subscribed_topic_names: Some(vec![topic.into()]),
                ..ShareGroupHeartbeatRequest::default()
            };
            let answer = client.ask(1, &beat).await;
            assert_eq!(answer.error_code, 0, "{answer:?}");
            member_epoch = answer.member_epoch;
            let given = answer.assignment.unwrap_or_default().topic_partitions;
            if let Some(given) = given.first() {
                return Sharing {
                    client,
                    topic_id: given.topic_id,
                    session_epoch: 0,
                };
            }
            tokio::task::yield_now().await;
        }
    }

    /// Asks until it is given records; tells which.
    async fn fetch(&mut self) -> (i64, i64) {
        loop {
            let request = ShareFetchRequest {
                group_id: Some("g".into()),
                member_id: Some(Sharing::MEMBER.into()),
                share_session_epoch: self.session_epoch,
                max_wait_ms: 100,
                min_bytes: 1,
                max_bytes: 1 << 20,
                max_records: 100,
                batch_size: 100,
                topics: vec![share_fetch_request::FetchTopic {
                    topic_id: self.topic_id,
                    partitions: vec![share_fetch_request::FetchPartition::default()],
                    ..share_fetch_request::FetchTopic::default()
                }],
                ..ShareFetchRequest::default()
            };
            let answer = self.client.ask(1, &request).await;
            assert_eq!(answer.error_code, 0, "{answer:?}");
            self.session_epoch += 1;
            let mut partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
            let acquired = partitions.find_map(|partition| partition.acquired_records.first());
            if let Some(range) = acquired {
                return (range.first_offset, range.last_offset);
            }
        }
    }

    /// Says something of each record from 0 on: 1 accepts, 2 releases, 3 rejects.
    async fn acknowledge(&mut self, types: &[i8]) {
        let batch = share_acknowledge_request::AcknowledgementBatch {
            first_offset: 0,
            last_offset: i64::try_from(types.len()).unwrap() - 1,
            acknowledge_types: types.to_vec(),
            ..share_acknowledge_request::AcknowledgementBatch::default()
        };
        let partition = share_acknowledge_request::AcknowledgePartition {
            acknowledgement_batches: vec![batch],
            ..share_acknowledge_request::AcknowledgePartition::default()
        };
        let request = ShareAcknowledgeRequest {
            group_id: Some("g".into()),
            member_id: Some(Sharing::MEMBER.into()),
            share_session_epoch: self.session_epoch,
            topics: vec![share_acknowledge_request::AcknowledgeTopic {
                topic_id: self.topic_id,
                partitions: vec![partition],
                ..share_acknowledge_request::AcknowledgeTopic::default()
            }],
            ..ShareAcknowledgeRequest::default()
        };
        let answer = self.client.ask(1, &request).await;
        self.session_epoch += 1;
        let partition = &answer.responses[0].partitions[0];
        assert_eq!(partition.error_code, 0, "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_share_group_does_shows_in_the_metrics() {
    let dir = tempfile::tempdir().unwrap();
    let configs = [
        ("klamm.metrics.listeners", "127.0.0.1:0"),
        ("share.coordinator.state.topic.num.partitions", "1"),
        ("share.coordinator.state.topic.replication.factor", "1"),
        ("share.coordinator.state.topic.min.isr", "1"),
        ("group.share.initialize.retry.interval.ms", "100"),
        // Longer than this takes, however slow the machine.
        ("group.share.record.lock.duration.ms", "600000"),
        ("group.share.max.record.lock.duration.ms", "600000"),
    ];
    let broker = start(dir.path(), &configs).await;
    let address = broker.ops_addresses()[0];
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
    assert_eq!(
        set(&mut client, "share.auto.offset.reset", "earliest").await,
        0
    );
    client.produce("t", &["a", "b", "c", "d"]).await;

    let mut sharing = Sharing::join(client, "t").await;
    assert_eq!(sharing.fetch().await, (0, 3));
    let of_partition = |name: &str| {
        format!(
            "kafka_server_sharepartitionmetrics_{name}{{group=\"g\",topic=\"t\",partition=\"0\"}}"
        )
    };
    let of_group = |name: &str| format!("kafka_server_sharegroupmetrics_{name}{{group=\"g\"}}");
    let page = metrics(address).await;
    let expected = [
        (of_partition("inflightmessagecount"), 4.0),
        (of_partition("inflightbatchcount"), 1.0),
        (of_partition("inflightbatchmessagecount_count"), 1.0),
        (of_partition("inflightbatchmessagecount_sum"), 4.0),
        (of_partition("acquisitionlocktimeout_total"), 0.0),
        (of_group("partitionloadtime_count"), 1.0),
    ];
    for (series, expected) in &expected {
        assert_eq!(value(&page, series), Some(*expected), "{series}: {page}");
    }
    // How often it had to ask until the state was there is not known.
    let counted = [
        of_partition("fetchlocktime_count"),
        of_group("topicpartitionsacquiretime_count"),
        of_group("requesttopicpartitionsfetchratio_count"),
        of_group("requesttopicpartitionsfetchratio_percent_total"),
    ];
    for series in &counted {
        assert!(value(&page, series) >= Some(1.0), "{series}: {page}");
    }

    sharing.acknowledge(&[1, 1, 3, 2]).await;
    let page = metrics(address).await;
    let said = |what: &str| {
        let labels = format!("{{group=\"g\",ackType=\"{what}\"}}");
        value(
            &page,
            &format!("kafka_server_sharegroupmetrics_recordacknowledgements_total{labels}"),
        )
    };
    let all = ["Accept", "Release", "Reject", "Renew"].map(said);
    assert_eq!(all, [Some(2.0), Some(1.0), Some(1.0), Some(0.0)], "{page}");
    // Only the one that was released is still to be done with.
    let left = of_partition("inflightmessagecount");
    assert_eq!(value(&page, &left), Some(1.0), "{page}");
    broker.shutdown().await;
}
