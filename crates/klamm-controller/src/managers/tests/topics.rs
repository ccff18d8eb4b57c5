use klamm_protocol::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use klamm_protocol::messages::delete_topics_request::DeleteTopicState;
use klamm_protocol::messages::{CreatePartitionsRequest, DeleteTopicsRequest};

use super::*;
use crate::managers::{deletion, partitions, topics};

#[test]
fn a_topic_gets_leaders_directories_and_configs() {
    let mut cluster = Cluster::with_brokers(3);
    let request = CreateTopicsRequest {
        topics: vec![with_config(topic("a", 6, 2), "retention.ms", Some("5"))],
        ..Default::default()
    };
    let outcome = topics::create_topics(&cluster.context(), &request, &|_| true);
    let reply = cluster.commit(outcome);
    let result = &reply.topics[0];
    assert_eq!(
        (
            result.error_code,
            result.num_partitions,
            result.replication_factor
        ),
        (0, 6, 2)
    );
    let configs = result.configs.as_ref().unwrap();
    assert!(configs.is_sorted_by(|a, b| a.name < b.name));
    let retention = configs
        .iter()
        .find(|config| config.name == "retention.ms")
        .unwrap();
    assert_eq!(
        (retention.value.as_deref(), retention.config_source),
        (Some("5"), 1)
    );

    let made = cluster.image.topic("a").unwrap();
    assert_eq!(made.id(), result.topic_id);
    for (_, partition) in made.partitions() {
        assert_eq!(partition.replicas.len(), 2);
        assert_eq!(partition.isr, partition.replicas);
        assert_eq!(partition.leader, partition.replicas[0]);
        assert_eq!(partition.directories[0], directory(partition.leader));
        assert_eq!((partition.leader_epoch, partition.partition_epoch), (0, 0));
    }
}

#[test]
fn configs_are_told_only_to_those_who_may_see_them() {
    let cluster = Cluster::with_brokers(1);
    let request = CreateTopicsRequest {
        topics: vec![topic("a", 1, 1)],
        ..Default::default()
    };
    let reply = topics::create_topics(&cluster.context(), &request, &|_| false).reply;
    assert!(reply.topics[0].configs.as_ref().is_none_or(Vec::is_empty));
    assert_eq!(
        reply.topics[0].topic_config_error_code,
        ErrorCode::TopicAuthorizationFailed.code()
    );
}

#[test]
fn the_defaults_of_the_cluster_stand_in_for_minus_one() {
    let mut cluster = Cluster::with_brokers(3);
    cluster.settings.default_partitions = 4;
    cluster.settings.default_replication_factor = 3;
    assert_eq!(cluster.create(topic("a", -1, -1)), Ok(()));
    let made = cluster.image.topic("a").unwrap();
    assert_eq!((made.partition_count(), made.replication_factor()), (4, 3));
}

#[test]
fn validate_only_makes_nothing() {
    let cluster = Cluster::with_brokers(1);
    let request = CreateTopicsRequest {
        topics: vec![topic("a", 1, 1), topic("b c", 1, 1)],
        validate_only: true,
        ..Default::default()
    };
    let outcome = topics::create_topics(&cluster.context(), &request, &|_| true);
    assert!(outcome.records.is_empty());
    assert_eq!(outcome.reply.topics[0].error_code, 0);
    assert_ne!(outcome.reply.topics[1].error_code, 0);
}

#[test]
fn refuses_topics_as_kafka_does() {
    let mut cluster = Cluster::with_brokers(1);
    assert_eq!(cluster.create(topic("a.b", 1, 1)), Ok(()));
    let mut create = |topic| cluster.create(topic);
    use ErrorCode::{
        InvalidConfig, InvalidPartitions, InvalidReplicationFactor, InvalidRequest,
        InvalidTopicException, PolicyViolation, TopicAlreadyExists,
    };
    let name = "Topic name is invalid: 'a b' contains one or more characters other than ASCII \
                alphanumerics, '.', '_' and '-'";
    assert_eq!(
        create(topic("a b", 1, 1)),
        refused(InvalidTopicException, name)
    );
    let name = "Topic name is invalid: '.' is not allowed";
    assert_eq!(
        create(topic(".", 1, 1)),
        refused(InvalidTopicException, name)
    );
    let collides = "Topic 'a_b' collides with existing topic: a.b";
    assert_eq!(
        create(topic("a_b", 1, 1)),
        refused(InvalidTopicException, collides)
    );
    let exists = "Topic 'a.b' already exists.";
    assert_eq!(
        create(topic("a.b", 1, 1)),
        refused(TopicAlreadyExists, exists)
    );
    let brokers = "Unable to replicate the partition 2 time(s): The target replication factor of \
                   2 cannot be reached because only 1 broker(s) are registered or some brokers \
                   have all their log directories cordoned.";
    assert_eq!(
        create(topic("x", 1, 2)),
        refused(InvalidReplicationFactor, brokers)
    );
    let zero = "Number of partitions was set to an invalid non-positive value.";
    assert_eq!(create(topic("x", 0, 1)), refused(InvalidPartitions, zero));
    let zero = "Replication factor must be larger than 0, or -1 to use the default value.";
    assert_eq!(
        create(topic("x", 1, 0)),
        refused(InvalidReplicationFactor, zero)
    );
    let many = "Excessively large number of partitions per request.";
    assert_eq!(
        create(topic("x", 10_001, 1)),
        refused(PolicyViolation, many)
    );
    let unknown = with_config(topic("x", 1, 1), "nope", Some("1"));
    assert_eq!(
        create(unknown),
        refused(InvalidConfig, "Unknown topic config name: nope")
    );
    let null = with_config(topic("x", 1, 1), "segment.ms", None);
    let message = "Null value not supported for topic configs: segment.ms";
    assert_eq!(create(null), refused(InvalidConfig, message));
    let bad = with_config(topic("x", 1, 1), "retention.ms", Some("x"));
    let message = "Invalid value x for configuration retention.ms: Not a number of type LONG";
    assert_eq!(create(bad), refused(InvalidConfig, message));
    let message = "Creation of internal topic __cluster_metadata is prohibited.";
    assert_eq!(
        create(topic("__cluster_metadata", 1, 1)),
        refused(InvalidRequest, message)
    );
    assert_eq!(cluster.image.topics().len(), 1);
}

#[test]
fn refuses_assignments_as_kafka_does() {
    let mut cluster = Cluster::with_brokers(2);
    let mut assign = |assignments: &[(i32, &[i32])]| {
        let assignment = |(index, brokers): &(i32, &[i32])| CreatableReplicaAssignment {
            partition_index: *index,
            broker_ids: brokers.to_vec(),
            ..Default::default()
        };
        let assignments = assignments.iter().map(assignment).collect();
        let topic = CreatableTopic {
            assignments,
            ..topic("x", -1, -1)
        };
        cluster.create(topic).unwrap_err()
    };
    let includes = |what: &str| {
        let message = format!("The manual partition assignment includes {what}");
        (ErrorCode::InvalidReplicaAssignment, message)
    };
    assert_eq!(
        assign(&[(0, &[9])]),
        includes("broker 9, but no such broker is registered.")
    );
    assert_eq!(
        assign(&[(0, &[1, 1])]),
        includes("the broker 1 more than once.")
    );
    assert_eq!(assign(&[(0, &[])]), includes("an empty replica list."));
    let inconsistent = "a partition with 2 replica(s), but this is not consistent with previous \
                        partitions, which have 1 replica(s).";
    assert_eq!(assign(&[(0, &[1]), (1, &[1, 2])]), includes(inconsistent));
    let gap = "partitions should be a consecutive 0-based integer sequence";
    assert_eq!(assign(&[(1, &[1])]).1, gap);
    let twice = "Found multiple manual partition assignments for partition 0";
    assert_eq!(assign(&[(0, &[1]), (0, &[1])]).1, twice);
    cluster.fence(2);
    let fenced = CreatableTopic {
        assignments: vec![CreatableReplicaAssignment {
            partition_index: 0,
            broker_ids: vec![2],
            ..Default::default()
        }],
        ..topic("x", -1, -1)
    };
    let message = "All brokers specified in the manual partition assignment for partition 0 are \
                   fenced or in controlled shutdown.";
    assert_eq!(cluster.create(fenced).unwrap_err().1, message);
}

#[test]
fn a_name_that_comes_up_twice_is_refused_once() {
    let cluster = Cluster::with_brokers(1);
    let request = CreateTopicsRequest {
        topics: vec![topic("a", 1, 1), topic("a", 2, 1), topic("b", 1, 1)],
        ..Default::default()
    };
    let reply = topics::create_topics(&cluster.context(), &request, &|_| true).reply;
    let codes: Vec<i16> = reply.topics.iter().map(|topic| topic.error_code).collect();
    assert_eq!(codes, [ErrorCode::InvalidRequest.code(), 0]);
    assert_eq!(
        reply.topics[0].error_message.as_deref(),
        Some("Duplicate topic name.")
    );
}

#[test]
fn topics_are_deleted_by_name_and_by_id() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.create(topic("a", 1, 1)).unwrap();
    cluster.create(topic("b", 1, 1)).unwrap();
    let b = cluster.image.topic("b").unwrap().id();
    let state = |name: Option<&str>, topic_id| DeleteTopicState {
        name: name.map(ByteStr::from),
        topic_id,
        ..Default::default()
    };
    let request = DeleteTopicsRequest {
        topics: vec![
            state(Some("a"), Uuid::ZERO),
            state(None, b),
            state(Some("gone"), Uuid::ZERO),
            state(None, Uuid::from_bytes([3; 16])),
            state(None, Uuid::ZERO),
            state(Some("a"), b),
        ],
        ..Default::default()
    };
    let outcome = deletion::delete_topics(&cluster.context(), &request);
    let reply = cluster.commit(outcome);
    let codes: Vec<i16> = reply.responses.iter().map(|r| r.error_code).collect();
    use ErrorCode::{InvalidRequest, UnknownTopicId, UnknownTopicOrPartition};
    let wanted = [
        ErrorCode::None,
        ErrorCode::None,
        UnknownTopicOrPartition,
        UnknownTopicId,
        InvalidRequest,
        InvalidRequest,
    ];
    // The last one names both "a" twice and an id.
    assert_eq!(codes.len(), 6);
    assert_eq!(
        codes[1..],
        wanted[1..]
            .iter()
            .map(|code| code.code())
            .collect::<Vec<_>>()[..]
    );
    assert_eq!(reply.responses[1].name.as_deref(), Some("b"));
    assert!(cluster.image.topic("b").is_none());
}

#[test]
fn old_versions_delete_by_plain_names() {
    let mut cluster = Cluster::with_brokers(1);
    cluster.create(topic("a", 1, 1)).unwrap();
    let request = DeleteTopicsRequest {
        topic_names: vec!["a".into()],
        ..Default::default()
    };
    let outcome = deletion::delete_topics(&cluster.context(), &request);
    assert_eq!(cluster.commit(outcome).responses[0].error_code, 0);
    assert!(cluster.image.topics().is_empty());
    cluster.settings.delete_topic_enable = false;
    cluster.create(topic("a", 1, 1)).unwrap();
    let reply = deletion::delete_topics(&cluster.context(), &request).reply;
    assert_eq!(
        reply.responses[0].error_code,
        ErrorCode::TopicDeletionDisabled.code()
    );
}

fn grow(
    cluster: &mut Cluster,
    name: &str,
    count: i32,
    brokers: Option<&[&[i32]]>,
) -> Result<(), String> {
    let assignments = brokers.map(|brokers| {
        let assignment = |brokers: &&[i32]| CreatePartitionsAssignment {
            broker_ids: brokers.to_vec(),
            ..Default::default()
        };
        brokers.iter().map(assignment).collect()
    });
    let topic = CreatePartitionsTopic {
        name: name.into(),
        count,
        assignments,
        ..Default::default()
    };
    let request = CreatePartitionsRequest {
        topics: vec![topic],
        ..Default::default()
    };
    let outcome = partitions::create_partitions(&cluster.context(), &request);
    let reply = cluster.commit(outcome);
    result_of(reply.results[0].error_code, &reply.results[0].error_message).map_err(|(_, m)| m)
}

#[test]
fn a_topic_grows_and_never_shrinks() {
    let mut cluster = Cluster::with_brokers(2);
    cluster.create(topic("a", 2, 1)).unwrap();
    assert_eq!(grow(&mut cluster, "a", 4, None), Ok(()));
    assert_eq!(grow(&mut cluster, "a", 5, Some(&[&[2]])), Ok(()));
    assert_eq!(cluster.partition("a", 4).replicas, [2]);
    let mut fails = |count, brokers| grow(&mut cluster, "a", count, brokers).unwrap_err();
    assert_eq!(fails(5, None), "Topic already has 5 partition(s).");
    let less = "The topic a currently has 5 partition(s); 3 would not be an increase.";
    assert_eq!(fails(3, None), less);
    let few =
        "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.";
    assert_eq!(fails(7, Some(&[&[1]])), few);
    let factor = fails(6, Some(&[&[1, 2]]));
    assert!(factor.contains("not consistent with previous"), "{factor}");
    assert_eq!(grow(&mut cluster, "gone", 3, None), Err(String::new()));
}
