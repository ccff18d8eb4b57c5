//! Sources of settings: precedence, the images' environment, what Klamm implies, what it warns of.

use klamm_config::{BrokerConfig, Layers, Loaded, Origin, Properties, Warning};

fn load(layers: Layers) -> Loaded {
    BrokerConfig::load(layers).unwrap()
}

#[test]
fn command_line_beats_environment_beats_file() {
    let mut layers = Layers::new();
    let file = Properties::parse("num.partitions=2\nnum.io.threads=2\nbroker.rack=a").unwrap();
    layers.file("f.properties", &file);
    layers.environment([
        ("KAFKA_NUM_PARTITIONS", "3"),
        ("KAFKA_CFG_NUM_PARTITIONS", "4"),
        ("KAFKA_NUM_IO_THREADS", "5"),
    ]);
    layers.set_override("num.partitions=6").unwrap();
    let config = load(layers).config;
    assert_eq!(
        (
            config.num_partitions(),
            config.num_io_threads(),
            config.rack()
        ),
        (6, 5, Some("a"))
    );
    let origin = |name: &str| config.given()[name].origin.clone();
    assert_eq!(origin("num.partitions"), Origin::CommandLine);
    assert_eq!(
        origin("num.io.threads"),
        Origin::Environment("KAFKA_NUM_IO_THREADS".into())
    );
    assert_eq!(origin("broker.rack"), Origin::File("f.properties".into()));
}

#[test]
fn cfg_form_of_a_variable_beats_the_plain_one() {
    let mut layers = Layers::new();
    layers.environment([
        ("KAFKA_CFG_NUM_PARTITIONS", "4"),
        ("KAFKA_NUM_PARTITIONS", "3"),
    ]);
    assert_eq!(load(layers).config.num_partitions(), 4);
}

#[test]
fn underscores_in_variables_follow_the_official_image() {
    let mut layers = Layers::new();
    layers.environment([
        (
            "KAFKA_LISTENER_NAME_MY__NET_SASL_ENABLED_MECHANISMS",
            "PLAIN",
        ),
        ("KAFKA_LISTENER_NAME_A___B_SASL_ENABLED_MECHANISMS", "PLAIN"),
        ("KAFKA_OPTS", "-Xmx1g"),
        ("KAFKA_HEAP_OPTS", "-Xmx1g"),
        ("KAFKA_LOG4J_LOGGERS", "kafka=DEBUG"),
        ("KAFKA_JMX_PORT", "1"),
        ("PATH", "/bin"),
        ("CLUSTER_ID", "4L6g3nShT-eMCtK--X86sw"),
    ]);
    let config = load(layers).config;
    let mine: Vec<&String> = config
        .given()
        .keys()
        .filter(|n| n.contains("mechanisms") || n.contains("opts"))
        .collect();
    assert_eq!(
        mine,
        [
            "listener.name.a-b.sasl.enabled.mechanisms",
            "listener.name.my_net.sasl.enabled.mechanisms"
        ]
    );
    assert_eq!(
        config.listener_list("MY_NET", "sasl.enabled.mechanisms"),
        ["PLAIN"]
    );
    assert_eq!(
        config.listener_list("OTHER", "sasl.enabled.mechanisms"),
        ["GSSAPI"]
    );
    assert_eq!(config.cluster_id(), Some("4L6g3nShT-eMCtK--X86sw"));
    assert!(
        !config
            .given()
            .keys()
            .any(|n| n.contains("log4j") || n.contains("jmx") || n.contains("path"))
    );
}

#[test]
fn compose_environment_of_today_works() {
    let mut layers = Layers::new();
    layers.environment([
        ("KAFKA_CFG_NODE_ID", "0"),
        ("KAFKA_CFG_PROCESS_ROLES", "controller,broker"),
        ("KAFKA_CFG_CONTROLLER_QUORUM_VOTERS", "0@kafka:9093"),
        (
            "KAFKA_CFG_LISTENERS",
            "PLAINTEXT://:9092,CONTROLLER://:9093",
        ),
        (
            "KAFKA_CFG_ADVERTISED_LISTENERS",
            "PLAINTEXT://localhost:9092",
        ),
        ("KAFKA_CFG_CONTROLLER_LISTENER_NAMES", "CONTROLLER"),
    ]);
    let Loaded { config, warnings } = load(layers);
    assert_eq!(warnings, []);
    assert_eq!(config.node_id(), 0);
    assert!(config.is_broker() && config.is_controller() && !config.is_standalone());
    assert_eq!(config.quorum_voters()[0].host, "kafka");
    assert_eq!(
        config.advertised_listeners()[0].to_string(),
        "PLAINTEXT://localhost:9092"
    );
    assert_eq!(
        config.controller_listeners()[0].to_string(),
        "CONTROLLER://:9093"
    );
    assert_eq!(config.log_dirs(), ["./data"]);
}

#[test]
fn nothing_at_all_is_a_cluster_of_one() {
    let Loaded { config, warnings } = load(Layers::new());
    assert_eq!(warnings, []);
    assert!(config.is_standalone() && config.is_broker() && config.is_controller());
    assert_eq!(
        (config.node_id(), config.log_dirs()),
        (1, vec!["./data".to_owned()])
    );
    assert_eq!(
        config
            .listeners()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["PLAINTEXT://localhost:9092"]
    );
    assert!(config.quorum_voters().is_empty() && config.controller_listeners().is_empty());
    assert_eq!(
        config.metrics_listeners().unwrap(),
        [("127.0.0.1".to_owned(), 9644)]
    );
}

#[test]
fn a_cluster_of_one_takes_the_rest_from_what_is_given() {
    let sole = BrokerConfig::from_pairs([("controller.quorum.voters", "7@h:9093")]).unwrap();
    assert_eq!(sole.node_id(), 7);
    assert_eq!(
        BrokerConfig::from_pairs([("broker.id", "5")])
            .unwrap()
            .node_id(),
        5
    );
    let both =
        BrokerConfig::from_pairs([("listeners", "PLAINTEXT://[::1]:0,CONTROLLER://:0")]).unwrap();
    assert_eq!(both.listeners()[0].to_string(), "PLAINTEXT://[::1]:0");
    assert_eq!(
        (
            both.broker_listeners().count(),
            both.controller_listeners().len()
        ),
        (1, 1)
    );
}

#[test]
fn unknown_and_unhonoured_settings_are_warned_of_by_name() {
    let mut layers = Layers::new();
    layers.environment([
        ("KAFKA_CFG_NO_SUCH_THING", "1"),
        ("KAFKA_CFG_SASL_KERBEROS_KINIT_CMD", "x"),
    ]);
    let warnings: Vec<String> = load(layers)
        .warnings
        .iter()
        .map(Warning::to_string)
        .collect();
    assert_eq!(
        warnings,
        [
            "configuration 'no.such.thing' (environment KAFKA_CFG_NO_SUCH_THING) is not known to Kafka 4.3 and is ignored",
            "configuration 'sasl.kerberos.kinit.cmd' (environment KAFKA_CFG_SASL_KERBEROS_KINIT_CMD) is known but Klamm \
             does not honour it yet",
        ]
    );
}

#[test]
fn an_override_needs_a_name_and_an_equals_sign() {
    for bad in ["", "a", "=b", " =b"] {
        assert!(Layers::new().set_override(bad).is_err(), "{bad}");
    }
    let mut layers = Layers::new();
    layers.set_override("broker.rack=a=b").unwrap();
    assert_eq!(load(layers).config.rack(), Some("a=b"));
}

#[test]
fn dynamic_values_go_before_static_ones_and_can_be_taken_back() {
    let config =
        BrokerConfig::from_pairs([("log.retention.hours", "1"), ("message.max.bytes", "100")])
            .unwrap();
    let map = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
    let changed = config
        .with_dynamic(
            &map("log.retention.ms", "5"),
            &map("message.max.bytes", "200"),
        )
        .unwrap();
    assert_eq!(
        (changed.log_retention_ms(), changed.message_max_bytes()),
        (5, 200)
    );
    let own = changed
        .with_dynamic(&map("log.retention.ms", "5"), &map("log.retention.ms", "6"))
        .unwrap();
    assert_eq!((own.log_retention_ms(), own.message_max_bytes()), (6, 100));
    let back = own.with_dynamic(&[].into(), &[].into()).unwrap();
    assert_eq!(back.log_retention_ms(), 3_600_000);
    assert!(
        config
            .with_dynamic(&map("log.retention.ms", "0"), &[].into())
            .is_err()
    );
}

#[test]
fn metrics_listeners_can_be_turned_off_and_must_be_addresses() {
    let off = BrokerConfig::from_pairs([("klamm.metrics.listeners", "")]).unwrap();
    assert_eq!(off.metrics_listeners().unwrap(), []);
    let error = BrokerConfig::from_pairs([("klamm.metrics.listeners", "9644")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "klamm.metrics.listeners needs host:port, not 9644"
    );
}
