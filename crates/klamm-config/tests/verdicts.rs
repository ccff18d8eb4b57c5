//! Klamm's verdict on good and bad settings is Kafka's (golden/config-verdicts.tsv, made by `cargo xtask config-facts`).

use std::collections::BTreeMap;

use klamm_config::{
    BrokerConfig, ConfigError, Endpoint, validate_client_metrics_configs,
    validate_dynamic_broker_configs, validate_group_configs, validate_topic_configs,
};

/// What a broker case starts from; the Java program has the same.
const BASE: [(&str, &str); 6] = [
    ("node.id", "1"),
    ("process.roles", "broker,controller"),
    ("controller.quorum.voters", "1@localhost:9093"),
    (
        "listeners",
        "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093",
    ),
    ("advertised.listeners", "PLAINTEXT://localhost:9092"),
    ("controller.listener.names", "CONTROLLER"),
];

/// Cases where Klamm means to differ, with what it says instead.
const DIFFERENT: &[(&str, &str)] = &[
    // Kafka says only where its own parser stumbled.
    (
        "max.connections.per.ip.overrides=localhost:x",
        "max.connections.per.ip.overrides has no number in x",
    ),
    (
        "max.connections.per.ip.overrides=localhost",
        "Error parsing configuration property 'max.connections.per.ip.overrides': localhost is not a pair key:value",
    ),
    (
        "listener.security.protocol.map=PLAINTEXT,CONTROLLER:PLAINTEXT",
        "Error parsing configuration property 'listener.security.protocol.map': PLAINTEXT is not a pair key:value",
    ),
    (
        "log.cleaner.threads=0",
        "log.cleaner.threads must be at least 1",
    ),
    // Ports that do not exist are refused at once rather than at the bind.
    (
        "listeners=PLAINTEXT://:99999,CONTROLLER://:9093",
        "Error creating broker listeners from 'PLAINTEXT://:99999, CONTROLLER://:9093': Unable to parse \
         PLAINTEXT://:99999 to a broker endpoint",
    ),
    (
        "listeners=PLAINTEXT://:-1,CONTROLLER://:9093",
        "Error creating broker listeners from 'PLAINTEXT://:-1, CONTROLLER://:9093': Unable to parse PLAINTEXT://:-1 \
         to a broker endpoint",
    ),
    // Kafka takes the port of the voter entry; Klamm that which the listener gets.
    (
        "listeners=PLAINTEXT://:0,CONTROLLER://:0",
        "ok listeners=[PLAINTEXT/PLAINTEXT/null/0",
    ),
    // Without roles Klamm runs a cluster of one.
    ("-process.roles", "ok"),
];

fn given(case: &str) -> BTreeMap<String, String> {
    let pairs = case.split(" ;; ").filter_map(|p| p.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn broker(case: &str) -> Result<BrokerConfig, ConfigError> {
    let removed: Vec<&str> = case
        .split(" ;; ")
        .filter(|p| !p.contains('='))
        .filter_map(|p| p.strip_prefix('-'))
        .collect();
    let mut all: BTreeMap<String, String> = BASE
        .iter()
        .filter(|(name, _)| !removed.contains(name))
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    all.extend(given(case));
    // Klamm's own default of this one differs.
    if !all.contains_key("log.dirs") {
        all.entry("log.dir".to_owned())
            .or_insert_with(|| "/tmp/kafka-logs".to_owned());
    }
    BrokerConfig::from_pairs(
        all.iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    )
}

fn verdict(scope: &str, case: &str) -> Result<String, ConfigError> {
    let base = BrokerConfig::from_pairs(BASE)?;
    let given = given(case);
    match scope {
        "broker" => return broker(case).map(|config| format!("ok {}", described(&config))),
        "topic" => validate_topic_configs(&BTreeMap::new(), &given, &base)?,
        "group" => validate_group_configs(&given, &base)?,
        "client-metrics" => validate_client_metrics_configs(&given)?,
        "per-broker" => validate_dynamic_broker_configs(&given, true)?,
        "cluster" => validate_dynamic_broker_configs(&given, false)?,
        other => panic!("scope {other}"),
    }
    Ok("ok".to_owned())
}

/// The configuration in the words of the Java program.
fn described(config: &BrokerConfig) -> String {
    let endpoints = |all: &mut dyn Iterator<Item = &Endpoint>, unnamed: &str| {
        let one = |e: &Endpoint| {
            let host = if e.host.is_empty() { unnamed } else { &e.host };
            format!("{}/{}/{}/{}", e.name, e.protocol, host, e.port)
        };
        all.map(one).collect::<Vec<_>>().join(", ")
    };
    let list = |all: &[Endpoint], unnamed: &str| endpoints(&mut all.iter(), unnamed);
    // Kafka resolves a controller's empty host, or 0.0.0.0, to this machine's name.
    let controllers = list(config.advertised_controller_listeners(), "localhost")
        .replace("/0.0.0.0/", "/localhost/");
    format!(
        "listeners=[{}] advertised=[{}] controllers=[{}] inter={}/{} dirs=[{}] metadata={} retention={} roll={}",
        list(config.listeners(), "null"),
        list(config.advertised_listeners(), "null"),
        controllers,
        config.inter_broker_listener_name(),
        config.inter_broker_security_protocol(),
        config.log_dirs().join(", "),
        config.metadata_log_dir(),
        config.log_retention_ms(),
        config.log_roll_ms(),
    )
}

#[test]
fn verdicts_are_kafkas() {
    let mut wrong = Vec::new();
    for line in include_str!("golden/config-verdicts.tsv").lines() {
        let mut fields = line.splitn(3, '\t');
        let (scope, case, theirs) = (
            fields.next().unwrap(),
            fields.next().unwrap(),
            fields.next().unwrap(),
        );
        let ours = verdict(scope, case).unwrap_or_else(|e| e.to_string());
        if let Some((_, meant)) = DIFFERENT.iter().find(|(c, _)| *c == case) {
            if !ours.starts_with(meant) && ours.replace(['[', ']'], "") != *meant {
                wrong.push(format!("{scope} {case}\n  meant {meant}\n  ours  {ours}"));
            }
            continue;
        }
        // Kafka's messages come after the exception's class.
        let theirs = theirs
            .split_once("Exception: ")
            .map_or(theirs, |(_, message)| message);
        let theirs = theirs
            .strip_prefix("requirement failed: ")
            .unwrap_or(theirs);
        if ours != theirs {
            wrong.push(format!("{scope} {case}\n  kafka {theirs}\n  ours  {ours}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}
