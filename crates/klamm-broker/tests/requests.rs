//! The broker over loopback, request by request.

mod common;

use bytes::Bytes;
use common::{Client, batch, produce_error, produce_request, start};
use klamm_broker::Broker;
use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::*;
use klamm_protocol::{ApiKey, ErrorCode, Records};
use klamm_records::batch::Header;
use klamm_records::{BatchBuilder, BatchOptions, Compression, HEADER_LEN, batches, crc};

fn code(error: ErrorCode) -> i16 {
    error.into()
}

/// A fetch of partition 0 by name, without a session.
fn fetch_request(topic: &str, offset: i64) -> FetchRequest {
    let partition = FetchPartition {
        fetch_offset: offset,
        partition_max_bytes: 1 << 20,
        ..FetchPartition::default()
    };
    FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        topics: vec![FetchTopic {
            topic: topic.into(),
            partitions: vec![partition],
            ..FetchTopic::default()
        }],
        ..FetchRequest::default()
    }
}

fn base_offsets(response: &FetchResponse) -> Vec<i64> {
    let records = response.responses[0].partitions[0].records.as_ref();
    let bytes = records.and_then(Records::as_bytes).unwrap();
    batches(bytes)
        .map(|batch| batch.unwrap().header().base_offset)
        .collect()
}

fn named(topic: &str) -> MetadataRequest {
    let topic = MetadataRequestTopic {
        name: Some(topic.into()),
        ..MetadataRequestTopic::default()
    };
    MetadataRequest {
        topics: Some(vec![topic]),
        ..MetadataRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_produced_is_fetched_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    let metadata = client.ask(9, &named("t")).await;
    assert_eq!(metadata.topics[0].error_code, 0, "auto creation is on");
    assert_eq!(client.produce("t", &["a", "b"]).await, 0);
    assert_eq!(client.produce("t", &["c"]).await, 2);
    assert_eq!(
        base_offsets(&client.ask(12, &fetch_request("t", 0)).await),
        [0, 2]
    );
    assert_eq!(
        base_offsets(&client.ask(12, &fetch_request("t", 2)).await),
        [2]
    );
    let cluster_id = broker.cluster_id().to_owned();
    broker.shutdown().await;

    let broker = start(dir.path(), &[]).await;
    assert_eq!(broker.cluster_id(), cluster_id);
    let mut client = Client::connect(&broker).await;
    assert_eq!(
        base_offsets(&client.ask(12, &fetch_request("t", 0)).await),
        [0, 2]
    );
    assert_eq!(client.produce("t", &["d"]).await, 3);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_advertised_version_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    answers_what_it_advertises(&broker, "PLAINTEXT", 52).await;
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_advertised_on_a_controller_listener_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let listeners = "PLAINTEXT://127.0.0.1:0,CONTROLLER://127.0.0.1:0";
    let broker = start(dir.path(), &[("listeners", listeners)]).await;
    answers_what_it_advertises(&broker, "CONTROLLER", 25).await;
    broker.shutdown().await;
}

async fn answers_what_it_advertises(broker: &Broker, listener: &str, at_least: usize) {
    let mut client = Client::connect_to(broker, listener).await;
    let versions = client.ask(4, &api_versions_request()).await;
    assert_eq!(versions.error_code, 0);
    let advertised: Vec<(i16, i16, i16)> = versions
        .api_keys
        .iter()
        .map(|api| (api.api_key, api.min_version, api.max_version))
        .collect();
    assert!(advertised.len() >= at_least, "{advertised:?}");
    for (key, min, max) in advertised {
        for version in min..=max {
            let mut client = Client::connect_to(broker, listener).await;
            answered(&mut client, key, version).await;
        }
    }
}

fn api_versions_request() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: "test".into(),
        client_software_version: "1".into(),
        ..ApiVersionsRequest::default()
    }
}

/// Sends a request with default fields and demands a response that can be read.
async fn answered(client: &mut Client, key: i16, version: i16) {
    macro_rules! ask {
        ($($request:ident),* $(,)?) => {
            match ApiKey::from_code(key).unwrap() {
                ApiKey::ApiVersions => {
                    let request =
                        if version >= 3 { api_versions_request() } else { Default::default() };
                    assert!(client.try_ask(version, &request).await.is_some());
                }
                // Listed from 0 for old clients of librdkafka, and refused before 3 (KAFKA-18659).
                ApiKey::Produce if version < 3 => {}
                // acks=0, the default, has no answer.
                ApiKey::Produce => {
                    let request = ProduceRequest { acks: 1, ..ProduceRequest::default() };
                    assert!(client.try_ask(version, &request).await.is_some());
                }
                $(key if key == <$request as klamm_protocol::Request>::API_KEY => {
                    let response = client.try_ask(version, &$request::default()).await;
                    assert!(response.is_some(), "{} {version}", key.name());
                })*
                key => panic!("{} is advertised but not tested: add it here", key.name()),
            }
        };
    }
    ask!(
        EnvelopeRequest,
        FetchSnapshotRequest,
        ControllerRegistrationRequest,
        ShareGroupHeartbeatRequest,
        ShareGroupDescribeRequest,
        ShareFetchRequest,
        ShareAcknowledgeRequest,
        InitializeShareGroupStateRequest,
        ReadShareGroupStateRequest,
        WriteShareGroupStateRequest,
        DeleteShareGroupStateRequest,
        ReadShareGroupStateSummaryRequest,
        DescribeShareGroupOffsetsRequest,
        AlterShareGroupOffsetsRequest,
        DeleteShareGroupOffsetsRequest,
        StreamsGroupHeartbeatRequest,
        StreamsGroupDescribeRequest,
        AddRaftVoterRequest,
        RemoveRaftVoterRequest,
        UpdateRaftVoterRequest,
        FetchRequest,
        ListOffsetsRequest,
        MetadataRequest,
        OffsetCommitRequest,
        AddPartitionsToTxnRequest,
        AddOffsetsToTxnRequest,
        EndTxnRequest,
        WriteTxnMarkersRequest,
        TxnOffsetCommitRequest,
        DescribeTransactionsRequest,
        ListTransactionsRequest,
        OffsetFetchRequest,
        FindCoordinatorRequest,
        JoinGroupRequest,
        HeartbeatRequest,
        LeaveGroupRequest,
        SyncGroupRequest,
        DescribeGroupsRequest,
        ConsumerGroupHeartbeatRequest,
        ConsumerGroupDescribeRequest,
        ListGroupsRequest,
        SaslHandshakeRequest,
        CreateTopicsRequest,
        DeleteTopicsRequest,
        DeleteRecordsRequest,
        InitProducerIdRequest,
        OffsetForLeaderEpochRequest,
        DescribeAclsRequest,
        CreateAclsRequest,
        DeleteAclsRequest,
        DescribeConfigsRequest,
        AlterConfigsRequest,
        AlterReplicaLogDirsRequest,
        DescribeLogDirsRequest,
        SaslAuthenticateRequest,
        CreatePartitionsRequest,
        CreateDelegationTokenRequest,
        RenewDelegationTokenRequest,
        ExpireDelegationTokenRequest,
        DescribeDelegationTokenRequest,
        DeleteGroupsRequest,
        ElectLeadersRequest,
        IncrementalAlterConfigsRequest,
        AlterPartitionReassignmentsRequest,
        ListPartitionReassignmentsRequest,
        OffsetDeleteRequest,
        DescribeClientQuotasRequest,
        AlterClientQuotasRequest,
        DescribeUserScramCredentialsRequest,
        AlterUserScramCredentialsRequest,
        DescribeQuorumRequest,
        UpdateFeaturesRequest,
        DescribeClusterRequest,
        DescribeProducersRequest,
        UnregisterBrokerRequest,
        ListConfigResourcesRequest,
        DescribeTopicPartitionsRequest,
        AlterPartitionRequest,
        BrokerRegistrationRequest,
        BrokerHeartbeatRequest,
        AllocateProducerIdsRequest,
        AssignReplicasToDirsRequest,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    // Key 18, version 99, correlation id 7, no client id, no tags. The response has no tags.
    let frame = [0, 0, 0, 11, 0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff, 0];
    tokio::io::AsyncWriteExt::write_all(&mut client.stream, &frame)
        .await
        .unwrap();
    let answer = client.receive().await.unwrap();
    // Correlation id, UNSUPPORTED_VERSION, one key: 18, from 0 to 4 (KIP-511).
    assert_eq!(
        &answer[..],
        [0, 0, 0, 7, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]
    );
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_keys_and_garbage_cost_their_own_connection_only() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut good = Client::connect(&broker).await;
    let garbage: [&[u8]; 5] = [
        &[0, 0, 0, 10, 0x7f, 0xff, 0, 0, 0, 0, 0, 7, 0xff, 0xff],
        &[0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 7, 0xff, 0xff],
        &[0, 0, 0, 2, 0, 3],
        &[0xff, 0xff, 0xff, 0xff],
        &[0x7f, 0xff, 0xff, 0xff],
    ];
    for bytes in garbage {
        let mut bad = Client::connect(&broker).await;
        tokio::io::AsyncWriteExt::write_all(&mut bad.stream, bytes)
            .await
            .unwrap();
        assert!(bad.receive().await.is_none(), "{bytes:?}");
    }
    assert_eq!(good.ask(4, &api_versions_request()).await.error_code, 0);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_batches_are_refused_with_kafkas_codes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.ask(9, &named("t")).await;
    let good = batch(&["a", "b"]);
    let damaged = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.to_vec();
        change(&mut bytes);
        bytes.into()
    };
    let cases = [
        (
            "bad CRC",
            damaged(&|b| b[60] ^= 1),
            ErrorCode::CorruptMessage,
        ),
        (
            "truncated",
            damaged(&|b| b.truncate(40)),
            ErrorCode::CorruptMessage,
        ),
        (
            "magic 1",
            damaged(&|b| b[16] = 1),
            ErrorCode::UnsupportedForMessageFormat,
        ),
        (
            "two batches",
            [&good[..], &good[..]].concat().into(),
            ErrorCode::InvalidRecord,
        ),
    ];
    for (what, records, expected) in cases {
        let response = client.ask(9, &produce_request("t", records, -1)).await;
        let got = produce_error(&response);
        let acceptable = [code(expected), code(ErrorCode::InvalidRecord)];
        assert!(acceptable.contains(&got), "{what}: {got}");
    }
    let missing = client
        .ask(9, &produce_request("missing", good.clone(), 1))
        .await;
    assert_eq!(
        produce_error(&missing),
        code(ErrorCode::UnknownTopicOrPartition)
    );
    let acks = client.ask(9, &produce_request("t", good.clone(), 2)).await;
    assert_eq!(produce_error(&acks), code(ErrorCode::InvalidRequiredAcks));
    assert_eq!(client.produce("t", &["still served"]).await, 0);
    broker.shutdown().await;
}

/// There is no transaction coordinator yet: such a batch would open a transaction for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactional_batches_need_a_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.ask(9, &named("t")).await;
    let request = produce_request("t", transactional_batch(5, 0, 0), 1);
    let unnamed = client.ask(9, &request).await;
    assert_eq!(
        produce_error(&unnamed),
        code(ErrorCode::TransactionalIdAuthorizationFailed)
    );
    // Without a coordinator that could know of it the client has to come again.
    let request = ProduceRequest {
        transactional_id: Some("x".into()),
        ..request
    };
    let named = client.ask(9, &request).await;
    assert_eq!(produce_error(&named), code(ErrorCode::NotEnoughReplicas));
    broker.shutdown().await;
}

fn transactional_batch(producer_id: i64, producer_epoch: i16, base_sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id,
        producer_epoch,
        base_sequence,
        transactional: true,
        ..BatchOptions::default()
    });
    builder.append(0, None, Some(b"v"), []).unwrap();
    builder.build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_0_has_no_answer_and_a_failure_closes_the_connection() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.ask(9, &named("t")).await;
    client
        .send(9, &produce_request("t", batch(&["a"]), 0))
        .await;
    // The next answer belongs to the next request: its correlation id is checked.
    assert_eq!(client.produce("t", &["b"]).await, 1);
    client
        .send(9, &produce_request("missing", batch(&["a"]), 0))
        .await;
    assert!(client.receive().await.is_none());
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_fetch_is_woken_by_a_produce() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut producer = Client::connect(&broker).await;
    let mut consumer = Client::connect(&broker).await;
    producer.ask(9, &named("t")).await;
    // Half an hour: were it not woken, the test would hang.
    let patient = FetchRequest {
        max_wait_ms: 1_800_000,
        ..fetch_request("t", 0)
    };
    consumer.send(12, &patient).await;
    tokio::task::yield_now().await;
    producer.produce("t", &["a"]).await;
    assert!(consumer.receive().await.is_some());
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_are_found_by_their_special_names() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.ask(9, &named("t")).await;
    client.produce("t", &["a", "b", "c"]).await;
    for (timestamp, expected) in [(-1, 3), (-2, 0), (-4, 0), (-5, -1), (0, 0)] {
        let partition = ListOffsetsPartition {
            timestamp,
            ..ListOffsetsPartition::default()
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: "t".into(),
                partitions: vec![partition],
                ..ListOffsetsTopic::default()
            }],
            ..ListOffsetsRequest::default()
        };
        let response = client.ask(9, &request).await;
        let found = &response.topics[0].partitions[0];
        assert_eq!(
            (found.error_code, found.offset),
            (0, expected),
            "timestamp {timestamp}"
        );
    }
    broker.shutdown().await;
}

/// Old clients must not be told in fields that their version does not have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_answers_fit_into_every_version() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.ask(9, &named("t")).await;
    client.produce("t", &["a"]).await;
    for version in 1..=11 {
        let partition = ListOffsetsPartition {
            timestamp: -1,
            ..ListOffsetsPartition::default()
        };
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: "t".into(),
                partitions: vec![partition],
                ..ListOffsetsTopic::default()
            }],
            ..ListOffsetsRequest::default()
        };
        let response = client.ask(version, &request).await;
        assert_eq!(
            response.topics[0].partitions[0].offset, 1,
            "version {version}"
        );
    }
    for version in 4..=12 {
        assert_eq!(
            base_offsets(&client.ask(version, &fetch_request("t", 0)).await),
            [0]
        );
        let stale = client.ask(version, &fetch_request("missing", 0)).await;
        assert_eq!(
            stale.responses[0].partitions[0].error_code, 3,
            "version {version}"
        );
    }
    for version in 3..=12 {
        let response = client
            .ask(version, &produce_request("t", batch(&["b"]), 1))
            .await;
        assert_eq!(produce_error(&response), 0, "version {version}");
        let response = client
            .ask(version, &produce_request("missing", batch(&["b"]), 1))
            .await;
        assert_eq!(produce_error(&response), 3, "version {version}");
    }
    for version in 0..=6 {
        let request = if version >= 4 {
            FindCoordinatorRequest {
                coordinator_keys: vec!["g".into()],
                ..Default::default()
            }
        } else {
            FindCoordinatorRequest {
                key: "g".into(),
                ..Default::default()
            }
        };
        assert!(
            client.try_ask(version, &request).await.is_some(),
            "version {version}"
        );
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_carry_the_texts_that_kafkas_carry() {
    use klamm_protocol::messages::describe_producers_request::TopicRequest;
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    let malformed = "This most likely occurs because of a request being malformed by the client \
                     library or the message was sent to an incompatible broker. See the broker \
                     logs for more details.";
    for version in 1..=3 {
        for (key_type, text) in [(0, "NONE"), (9, malformed)] {
            let request = FindCoordinatorRequest {
                key: "g".into(),
                key_type,
                ..Default::default()
            };
            let found = client.ask(version, &request).await;
            assert_eq!(found.error_message.as_deref(), Some(text));
        }
    }
    for (key_type, text) in [(0, ""), (2, malformed)] {
        let request = FindCoordinatorRequest {
            coordinator_keys: vec!["g".into()],
            key_type,
            ..Default::default()
        };
        let found = client.ask(4, &request).await;
        assert_eq!(found.coordinators[0].error_message.as_deref(), Some(text));
    }
    let unknown = "This server does not host this topic-partition.";
    let invalid = "Topic name is invalid: the empty string is not allowed";
    for (name, index, code, text) in [
        ("nope", 0, 3, Some(unknown)),
        ("", 0, 17, Some(invalid)),
        ("__consumer_offsets", 99, 3, None),
        ("__consumer_offsets", 0, 0, None),
    ] {
        let request = DescribeProducersRequest {
            topics: vec![TopicRequest {
                name: name.into(),
                partition_indexes: vec![index],
                ..TopicRequest::default()
            }],
            ..Default::default()
        };
        let described = client.ask(0, &request).await;
        let partition = &described.topics[0].partitions[0];
        assert_eq!(partition.error_code, code, "{name}");
        assert_eq!(partition.error_message.as_deref(), text, "{name}");
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_committed_offset_survives_a_restart() {
    use klamm_protocol::messages::offset_commit_request::{
        OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    };
    use klamm_protocol::messages::offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopics,
    };
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client.ask(9, &named("t")).await;
    let find = FindCoordinatorRequest {
        coordinator_keys: vec!["g".into()],
        ..Default::default()
    };
    assert_eq!(client.ask(4, &find).await.coordinators[0].error_code, 0);
    let partition = OffsetCommitRequestPartition {
        committed_offset: 42,
        ..Default::default()
    };
    let commit = OffsetCommitRequest {
        group_id: "g".into(),
        topics: vec![OffsetCommitRequestTopic {
            name: "t".into(),
            partitions: vec![partition],
            ..Default::default()
        }],
        ..OffsetCommitRequest::default()
    };
    let loaded = until_loaded(async |client: &mut Client| {
        let response = client.ask(8, &commit).await;
        response.topics[0].partitions[0].error_code
    });
    assert_eq!(loaded(&mut client).await, 0);
    broker.shutdown().await;

    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    let topic = OffsetFetchRequestTopics {
        name: "t".into(),
        partition_indexes: vec![0],
        ..Default::default()
    };
    let group = OffsetFetchRequestGroup {
        group_id: "g".into(),
        topics: Some(vec![topic]),
        ..Default::default()
    };
    let fetch = OffsetFetchRequest {
        groups: vec![group],
        ..OffsetFetchRequest::default()
    };
    let loaded =
        until_loaded(async |client: &mut Client| client.ask(8, &fetch).await.groups[0].error_code);
    assert_eq!(loaded(&mut client).await, 0);
    let response = client.ask(8, &fetch).await;
    assert_eq!(
        response.groups[0].topics[0].partitions[0].committed_offset,
        42
    );
    broker.shutdown().await;
}

/// Repeats a request while the coordinator loads, as every client does.
fn until_loaded<F>(ask: F) -> impl AsyncFn(&mut Client) -> i16
where
    F: AsyncFn(&mut Client) -> i16,
{
    async move |client: &mut Client| loop {
        match ask(client).await {
            14..=16 => tokio::task::yield_now().await,
            other => return other,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_may_trust_the_headers_of_compressed_batches() {
    let dir = tempfile::tempdir().unwrap();
    let default = [("klamm.log.produce.validation", "header")];
    let broker = start(dir.path(), &default).await;
    let mut client = Client::connect(&broker).await;
    let topic = |name: &str, configs: &[(&str, &str)]| CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: 1,
        configs: configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig {
                name: (*name).into(),
                value: Some((*value).into()),
                ..CreatableTopicConfig::default()
            })
            .collect(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![
            topic("default", &[]),
            topic("strict", &[("klamm.produce.validation", "strict")]),
            topic("compacted", &[("cleanup.policy", "compact")]),
            topic("wrong", &[("klamm.produce.validation", "lax")]),
        ],
        timeout_ms: 10_000,
        ..CreateTopicsRequest::default()
    };
    let created = client.ask(5, &request).await;
    let codes: Vec<i16> = created.topics.iter().map(|t| t.error_code).collect();
    let none = code(ErrorCode::None);
    assert_eq!(codes, [none, none, none, code(ErrorCode::InvalidConfig)]);
    // The checksum holds, but what stands behind the header is not what the codec writes.
    let mut lie = compressed_batch(&["a", "b"]).to_vec();
    lie[HEADER_LEN..].fill(0xa5);
    let crc = crc::crc32c(&lie[21..]);
    lie[17..21].copy_from_slice(&crc.to_be_bytes());
    for (name, expected) in [
        ("default", ErrorCode::None),
        ("strict", ErrorCode::UnknownServerError),
        ("compacted", ErrorCode::UnknownServerError),
    ] {
        let request = produce_request(name, lie.clone().into(), -1);
        let answer = client.ask(9, &request).await;
        assert_eq!(produce_error(&answer), code(expected), "{name}");
    }
    broker.shutdown().await;
}

fn compressed_batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions {
        codec: Compression::Zstd.into(),
        ..BatchOptions::default()
    });
    for value in values {
        let headers: [Header<'_>; 0] = [];
        builder
            .append(0, Some(b"key"), Some(value.as_bytes()), headers)
            .unwrap();
    }
    builder.build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_can_be_made_to_mean_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[("klamm.log.flush", "group")]).await;
    let mut client = Client::connect(&broker).await;
    let topic = |name: &str, value: Option<&str>| CreatableTopic {
        name: name.into(),
        num_partitions: 1,
        replication_factor: 1,
        configs: value
            .map(|value| CreatableTopicConfig {
                name: "klamm.flush".into(),
                value: Some(value.into()),
                ..CreatableTopicConfig::default()
            })
            .into_iter()
            .collect(),
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest {
        topics: vec![
            topic("group", None),
            topic("os", Some("os")),
            topic("wrong", Some("sometimes")),
        ],
        timeout_ms: 10_000,
        ..CreateTopicsRequest::default()
    };
    let created = client.ask(5, &request).await;
    let codes: Vec<i16> = created.topics.iter().map(|t| t.error_code).collect();
    let none = code(ErrorCode::None);
    assert_eq!(codes, [none, none, code(ErrorCode::InvalidConfig)]);
    for name in ["group", "os"] {
        let request = produce_request(name, compressed_batch(&["a", "b"]), -1);
        let answer = client.ask(9, &request).await;
        assert_eq!(produce_error(&answer), none, "{name}");
    }
    broker.shutdown().await;
}
