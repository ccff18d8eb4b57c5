//! What Klamm tells of its configurations is what Kafka tells (golden/describe.tsv, made by `cargo xtask config-facts`).

use std::collections::BTreeMap;

use klamm_config::{
    BrokerConfig, ConfigEntry, ConfigSource, Layers, Properties, describe_broker,
    describe_broker_default, describe_client_metrics, describe_group, describe_topic,
};

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// The broker of describe.properties, with what the Java program sets dynamically.
fn broker() -> BrokerConfig {
    let file = Properties::parse(include_str!("golden/describe.properties")).unwrap();
    let mut layers = Layers::new();
    layers.file("describe.properties", &file);
    let cluster = map(&[
        ("log.retention.ms", "3600000"),
        ("message.max.bytes", "2000000"),
        ("leader.replication.throttled.rate", "1000"),
        // Not by the program: Kafka's controller sets it in a new cluster.
        ("min.insync.replicas", "1"),
    ]);
    let own = map(&[
        ("log.cleaner.threads", "2"),
        ("log.retention.ms", "7200000"),
        ("listener.name.plaintext.max.connections", "77"),
    ]);
    BrokerConfig::load(layers)
        .unwrap()
        .config
        .with_dynamic(&cluster, &own)
        .unwrap()
}

fn source(source: ConfigSource) -> &'static str {
    match source {
        ConfigSource::DynamicTopic => "DYNAMIC_TOPIC_CONFIG",
        ConfigSource::DynamicBroker => "DYNAMIC_BROKER_CONFIG",
        ConfigSource::DynamicDefaultBroker => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        ConfigSource::StaticBroker => "STATIC_BROKER_CONFIG",
        ConfigSource::Default => "DEFAULT_CONFIG",
        ConfigSource::ClientMetrics => "DYNAMIC_CLIENT_METRICS_CONFIG",
        ConfigSource::Group => "DYNAMIC_GROUP_CONFIG",
    }
}

fn line(scope: &str, entry: &ConfigEntry) -> String {
    let text = |value: &Option<String>| value.as_ref().map_or("-".to_owned(), |v| format!("={v}"));
    let synonyms: Vec<String> = entry
        .synonyms
        .iter()
        .map(|s| format!("{}{}@{}", s.name, text(&s.value), source(s.source)))
        .collect();
    [
        scope,
        &entry.name,
        &text(&entry.value),
        source(entry.source),
        &entry.read_only.to_string(),
        &entry.sensitive.to_string(),
        entry.kind.map_or("UNKNOWN", |k| k.name()),
        &synonyms.join(";"),
    ]
    .join("\t")
}

#[test]
fn descriptions_are_kafkas() {
    let config = broker();
    let topic = map(&[
        ("retention.ms", "1000"),
        ("cleanup.policy", "compact,delete"),
        ("min.cleanable.dirty.ratio", "0.10"),
        ("segment.bytes", "2097152"),
    ]);
    let group = map(&[
        ("consumer.session.timeout.ms", "50000"),
        ("share.auto.offset.reset", "earliest"),
    ]);
    let metrics = map(&[("interval.ms", "1000"), ("metrics", "a,b")]);
    let scopes = [
        ("broker", describe_broker(&config, None)),
        ("cluster", describe_broker_default(&config, None)),
        ("topic", describe_topic(&topic, &config, None).unwrap()),
        ("group", describe_group(&group, &config, None).unwrap()),
        ("client-metrics", describe_client_metrics(&metrics, None)),
    ];
    let ours: Vec<String> = scopes
        .iter()
        .flat_map(|(scope, all)| all.iter().map(move |entry| (scope, entry)))
        .filter(|(_, entry)| !entry.name.starts_with("klamm."))
        .map(|(scope, entry)| line(scope, entry))
        .collect();
    let theirs: Vec<&str> = include_str!("golden/describe.tsv").lines().collect();
    let missing: Vec<&&str> = theirs
        .iter()
        .filter(|l| !ours.iter().any(|o| o == *l))
        .collect();
    let extra: Vec<&String> = ours
        .iter()
        .filter(|l| !theirs.contains(&l.as_str()))
        .collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "kafka: {missing:#?}\nours: {extra:#?}"
    );
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn names_select() {
    let config = broker();
    let some = describe_broker(&config, Some(&["num.partitions", "no.such"]));
    assert_eq!(
        some.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(),
        ["num.partitions"]
    );
    assert!(some[0].documentation.is_some());
    assert!(describe_topic(&map(&[]), &config, Some(&[])).unwrap().len() > 30);
    assert!(describe_topic(&map(&[("retention.ms", "x")]), &config, None).is_err());
}

#[test]
fn secrets_are_never_told() {
    let config =
        BrokerConfig::from_pairs([("ssl.key.password", "s3cret"), ("my.own.setting", "s3cret")])
            .unwrap();
    for entry in describe_broker(&config, Some(&["ssl.key.password", "my.own.setting"])) {
        assert!(entry.sensitive, "{}", entry.name);
        assert!(!format!("{entry:?}").contains("s3cret"));
    }
}

#[test]
fn klamms_own_topic_configurations_are_described_like_kafkas() {
    let file = Properties::parse("klamm.log.produce.validation=header").unwrap();
    let mut layers = Layers::new();
    layers.file("server.properties", &file);
    let config = BrokerConfig::load(layers).unwrap().config;
    let describe = |overrides: &[(&str, &str)]| {
        let names = ["klamm.produce.validation"];
        let entries = describe_topic(&map(overrides), &config, Some(&names)).unwrap();
        entries
            .iter()
            .map(|entry| line("topic", entry))
            .collect::<Vec<_>>()
    };
    let inherited = "klamm.log.produce.validation=header@STATIC_BROKER_CONFIG;\
                     klamm.log.produce.validation=strict@DEFAULT_CONFIG";
    assert_eq!(
        describe(&[]),
        [format!(
            "topic\tklamm.produce.validation\t=header\tSTATIC_BROKER_CONFIG\tfalse\tfalse\tSTRING\t{inherited}"
        )]
    );
    assert_eq!(
        describe(&[("klamm.produce.validation", "strict")]),
        [format!(
            "topic\tklamm.produce.validation\t=strict\tDYNAMIC_TOPIC_CONFIG\tfalse\tfalse\tSTRING\t\
             klamm.produce.validation=strict@DYNAMIC_TOPIC_CONFIG;{inherited}"
        )]
    );
}
