use klamm_metadata::ConfigResource;
use klamm_protocol::messages::alter_configs_request as legacy;
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use klamm_protocol::messages::{AlterConfigsRequest, IncrementalAlterConfigsRequest};

use super::*;
use crate::managers::configs;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const LOGGER: i8 = 8;
const METRICS: i8 = 16;
const GROUP: i8 = 32;

fn alter(
    cluster: &mut Cluster,
    (resource_type, name): (i8, &str),
    changes: &[(&str, i8, Option<&str>)],
) -> Result<(), (ErrorCode, String)> {
    let config = |(name, operation, value): &(&str, i8, Option<&str>)| AlterableConfig {
        name: (*name).into(),
        config_operation: *operation,
        value: value.map(ByteStr::from),
        ..Default::default()
    };
    let resource = AlterConfigsResource {
        resource_type,
        resource_name: name.into(),
        configs: changes.iter().map(config).collect(),
        ..Default::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![resource],
        ..Default::default()
    };
    let outcome = configs::incremental_alter_configs(&cluster.context(), &request);
    let reply = cluster.commit(outcome);
    result_of(
        reply.responses[0].error_code,
        &reply.responses[0].error_message,
    )
}

fn value(cluster: &Cluster, resource: &ConfigResource, name: &str) -> Option<String> {
    cluster.image.config(resource).get(name).cloned()
}

fn with_topic() -> Cluster {
    let mut cluster = Cluster::with_brokers(1);
    cluster.create(topic("a", 1, 1)).unwrap();
    cluster
}

#[test]
fn configs_are_set_deleted_appended_and_subtracted() {
    let mut cluster = with_topic();
    let a = ConfigResource::topic("a");
    let topic = (TOPIC, "a");
    assert_eq!(
        alter(&mut cluster, topic, &[("retention.ms", SET, Some("1000"))]),
        Ok(())
    );
    assert_eq!(value(&cluster, &a, "retention.ms").as_deref(), Some("1000"));
    assert_eq!(
        alter(&mut cluster, topic, &[("retention.ms", DELETE, None)]),
        Ok(())
    );
    assert_eq!(value(&cluster, &a, "retention.ms"), None);
    let policy = "cleanup.policy";
    assert_eq!(
        alter(&mut cluster, topic, &[(policy, APPEND, Some("compact"))]),
        Ok(())
    );
    assert_eq!(
        value(&cluster, &a, policy).as_deref(),
        Some("delete,compact")
    );
    assert_eq!(
        alter(&mut cluster, topic, &[(policy, APPEND, Some("compact"))]),
        Ok(())
    );
    assert_eq!(
        value(&cluster, &a, policy).as_deref(),
        Some("delete,compact")
    );
    assert_eq!(
        alter(&mut cluster, topic, &[(policy, SUBTRACT, Some("delete"))]),
        Ok(())
    );
    assert_eq!(value(&cluster, &a, policy).as_deref(), Some("compact"));
}

#[test]
fn what_stays_as_it_is_makes_no_record() {
    let mut cluster = with_topic();
    alter(
        &mut cluster,
        (TOPIC, "a"),
        &[("retention.ms", SET, Some("5"))],
    )
    .unwrap();
    let offset = cluster.image.offset();
    alter(
        &mut cluster,
        (TOPIC, "a"),
        &[("retention.ms", SET, Some("5"))],
    )
    .unwrap();
    alter(&mut cluster, (TOPIC, "a"), &[("segment.ms", DELETE, None)]).unwrap();
    assert_eq!(cluster.image.offset(), offset);
}

#[test]
fn refuses_configs_as_kafka_does() {
    let mut cluster = with_topic();
    let mut fails = |resource, name, operation, value| {
        alter(&mut cluster, resource, &[(name, operation, value)])
    };
    use ErrorCode::{
        BrokerIdNotRegistered, InvalidConfig, InvalidRequest, UnknownTopicOrPartition,
    };
    let a = (TOPIC, "a");
    let number = "Invalid value abc for configuration retention.ms: Not a number of type LONG";
    assert_eq!(
        fails(a, "retention.ms", SET, Some("abc")),
        refused(InvalidConfig, number)
    );
    let list = "Can't APPEND to key retention.ms because its type is not LIST.";
    assert_eq!(
        fails(a, "retention.ms", APPEND, Some("1")),
        refused(InvalidConfig, list)
    );
    let null = "Null value not supported for : segment.ms";
    assert_eq!(
        fails(a, "segment.ms", SET, None),
        refused(InvalidRequest, null)
    );
    let unknown = "Unknown topic config name: nope";
    assert_eq!(
        fails(a, "nope", SET, Some("1")),
        refused(InvalidConfig, unknown)
    );
    assert_eq!(
        fails(a, "retention.ms", 9, Some("1")),
        refused(InvalidRequest, "Unknown operation type 9")
    );
    let gone = "The topic 'gone' does not exist.";
    let result = fails((TOPIC, "gone"), "retention.ms", SET, Some("1"));
    assert_eq!(result, refused(UnknownTopicOrPartition, gone));
    let none = "Default topic resources are not allowed.";
    assert_eq!(
        fails((TOPIC, ""), "retention.ms", SET, Some("1")),
        refused(InvalidRequest, none)
    );
    let long = "x".repeat(32_768);
    let size = "The configuration value cannot be added because it exceeds the maximum value size of 32767 bytes.";
    assert_eq!(
        fails(a, "retention.ms", SET, Some(&long)),
        refused(InvalidConfig, size)
    );
    let fixed = "Cannot update these configs dynamically: [num.partitions]";
    assert_eq!(
        fails((BROKER, "1"), "num.partitions", SET, Some("3")),
        refused(InvalidRequest, fixed)
    );
    let node = "No node with id 7 found.";
    let threads = "log.cleaner.threads";
    assert_eq!(
        fails((BROKER, "7"), threads, SET, Some("2")),
        refused(BrokerIdNotRegistered, node)
    );
    let name = "Unable to parse broker name as a base 10 number.";
    assert_eq!(
        fails((BROKER, "x"), threads, SET, Some("2")),
        refused(InvalidRequest, name)
    );
    let none = "Default group resources are not allowed.";
    let timeout = "consumer.session.timeout.ms";
    assert_eq!(
        fails((GROUP, ""), timeout, SET, Some("50000")),
        refused(InvalidRequest, none)
    );
    let zz = "Unknown client metrics configuration: zz";
    assert_eq!(
        fails((METRICS, "m"), "zz", SET, Some("1")),
        refused(InvalidRequest, zz)
    );
    let logger = "Unexpected resource type BROKER_LOGGER.";
    assert_eq!(
        fails((LOGGER, "1"), "root", SET, Some("DEBUG")),
        refused(InvalidRequest, logger)
    );
    assert_eq!(fails((GROUP, "g"), timeout, SET, Some("50000")), Ok(()));
    assert_eq!(fails((BROKER, "1"), threads, SET, Some("2")), Ok(()));
    assert_eq!(
        fails((BROKER, ""), "log.retention.ms", SET, Some("100000")),
        Ok(())
    );
}

#[test]
fn refuses_what_comes_up_twice() {
    let mut cluster = with_topic();
    let twice = [
        ("retention.ms", SET, Some("1")),
        ("retention.ms", SET, Some("2")),
    ];
    let message = "Error due to duplicate config keys";
    let result = alter(&mut cluster, (TOPIC, "a"), &twice);
    assert_eq!(result, refused(ErrorCode::InvalidRequest, message));
    let resource = AlterConfigsResource {
        resource_type: TOPIC,
        resource_name: "a".into(),
        ..Default::default()
    };
    let resources = vec![resource.clone(), resource];
    let request = IncrementalAlterConfigsRequest {
        resources,
        ..Default::default()
    };
    let reply = configs::incremental_alter_configs(&cluster.context(), &request).reply;
    assert!(
        reply
            .responses
            .iter()
            .all(|r| r.error_code == ErrorCode::InvalidRequest.code())
    );
}

#[test]
fn min_insync_replicas_stays_one_value_for_the_cluster() {
    let mut cluster = with_topic();
    let name = "min.insync.replicas";
    let result = alter(&mut cluster, (BROKER, "1"), &[(name, SET, Some("2"))]);
    let message = "Broker-level min.insync.replicas cannot be altered while ELR is enabled.";
    assert_eq!(result, refused(ErrorCode::InvalidConfig, message));
    let result = alter(&mut cluster, (BROKER, ""), &[(name, DELETE, None)]);
    let message = "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.";
    assert_eq!(result, refused(ErrorCode::InvalidConfig, message));
}

#[test]
fn eligible_replicas_are_forgotten_where_someone_else_is_in_sync() {
    let mut cluster = Cluster::with_brokers(2);
    cluster.create_assigned("a", &[&[1, 2]]);
    cluster.create_assigned("b", &[&[1]]);
    let set = |cluster: &mut Cluster, value| {
        let change = [("min.insync.replicas", SET, Some(value))];
        assert_eq!(alter(cluster, (BROKER, ""), &change), Ok(()));
    };
    set(&mut cluster, "2");
    cluster.fence(1);
    assert_eq!(cluster.partition("a", 0).elr, [1]);
    assert_eq!(cluster.partition("b", 0).elr, [1]);
    // By the new value the other one may acknowledge alone.
    set(&mut cluster, "1");
    assert!(cluster.partition("a", 0).elr.is_empty());
    let partition = cluster.partition("b", 0);
    assert_eq!(
        (&partition.isr[..], &partition.elr[..]),
        (&[][..], &[1][..])
    );
    cluster.beat(1, |_| ());
    assert_eq!(cluster.partition("b", 0).leader, 1);
}

#[test]
fn eligible_replicas_stay_where_nothing_is_acknowledged_before_and_after() {
    let mut cluster = Cluster::with_brokers(3);
    cluster.create_assigned("a", &[&[1, 2, 3]]);
    cluster.create_assigned("b", &[&[1, 2, 3]]);
    let min_isr = |value| [("min.insync.replicas", SET, Some(value))];
    alter(&mut cluster, (BROKER, ""), &min_isr("2")).unwrap();
    cluster.fence(1);
    cluster.fence(2);
    let elr = |cluster: &Cluster, topic| cluster.partition(topic, 0).elr;
    assert_eq!((elr(&cluster, "a"), elr(&cluster, "b")), (vec![2], vec![2]));
    // One in sync is too few by both values.
    alter(&mut cluster, (TOPIC, "a"), &min_isr("3")).unwrap();
    assert_eq!(elr(&cluster, "a"), [2]);
    // What a topic says itself holds, whatever the cluster says.
    alter(&mut cluster, (BROKER, ""), &min_isr("1")).unwrap();
    assert_eq!((elr(&cluster, "a"), elr(&cluster, "b")), (vec![2], vec![]));
    alter(&mut cluster, (TOPIC, "a"), &min_isr("1")).unwrap();
    assert_eq!(elr(&cluster, "a"), []);
}

#[test]
fn the_old_request_replaces_all_configs() {
    let mut cluster = with_topic();
    let a = ConfigResource::topic("a");
    alter(
        &mut cluster,
        (TOPIC, "a"),
        &[("retention.ms", SET, Some("5"))],
    )
    .unwrap();
    let replace = |cluster: &mut Cluster, configs: &[(&str, Option<&str>)], validate_only| {
        let config = |(name, value): &(&str, Option<&str>)| legacy::AlterableConfig {
            name: (*name).into(),
            value: value.map(ByteStr::from),
            ..Default::default()
        };
        let resource = legacy::AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: "a".into(),
            configs: configs.iter().map(config).collect(),
            ..Default::default()
        };
        let resources = vec![resource];
        let request = AlterConfigsRequest {
            resources,
            validate_only,
            ..Default::default()
        };
        let outcome = configs::alter_configs(&cluster.context(), &request);
        let reply = cluster.commit(outcome);
        result_of(
            reply.responses[0].error_code,
            &reply.responses[0].error_message,
        )
    };
    assert_eq!(
        replace(&mut cluster, &[("segment.ms", Some("7"))], true),
        Ok(())
    );
    assert_eq!(value(&cluster, &a, "retention.ms").as_deref(), Some("5"));
    assert_eq!(
        replace(&mut cluster, &[("segment.ms", Some("7"))], false),
        Ok(())
    );
    assert_eq!(
        cluster.image.config(&a).keys().collect::<Vec<_>>(),
        ["segment.ms"]
    );
    let null = refused(
        ErrorCode::InvalidRequest,
        "Null value not supported for : segment.ms",
    );
    assert_eq!(replace(&mut cluster, &[("segment.ms", None)], false), null);
}
