//! The table says what Kafka's jars say (golden/config-facts.tsv, made by `cargo xtask config-facts`).

use klamm_config::def::{ConfigDef, Default, Number, Scale, Validator, ValueType};
use klamm_config::table;

/// One row as a fact line.
fn line(scope: &str, def: &ConfigDef) -> String {
    let default = match def.default {
        Default::Required => "required".to_owned(),
        Default::Null => "null".to_owned(),
        Default::Text(text) => format!("={text}"),
    };
    let mode = def.update_mode.name();
    let synonym = |s: &klamm_config::def::Synonym| match s.scale {
        Scale::Same => s.name.to_owned(),
        Scale::Minutes => format!("{}*m", s.name),
        Scale::Hours => format!("{}*h", s.name),
    };
    let synonyms: Vec<String> = def.synonyms.iter().map(synonym).collect();
    [
        scope,
        def.name,
        def.kind.name(),
        &format!("{:?}", def.importance).to_uppercase(),
        &default,
        &validator(def.validator),
        mode,
        if def.internal { "internal" } else { "-" },
        &if synonyms.is_empty() {
            "-".to_owned()
        } else {
            synonyms.join(",")
        },
    ]
    .join("\t")
}

fn validator(validator: Validator) -> String {
    let bound = |n: Option<Number>| n.map(|n| n.to_string()).unwrap_or_default();
    match validator {
        Validator::Any => "-".to_owned(),
        Validator::Range(min, max) => format!("range:{}:{}", bound(min), bound(max)),
        Validator::OneOf(valid) => format!("in:{}", valid.join("|")),
        Validator::OneOfAnyCase(valid) => format!("in-any-case:{}", valid.join("|")),
        Validator::ListOf { valid, empty, null } => {
            let word = |yes: bool, word: &'static str| if yes { word } else { "" };
            format!(
                "list:{}:{}:{}",
                word(empty, "empty"),
                word(null, "null"),
                valid.join("|")
            )
        }
        Validator::GzipLevel => "lambda:[1,...,9] or -1".to_owned(),
        Validator::NonEmpty => "class:NonEmptyString".to_owned(),
        Validator::NonNull => "class:NonNullValidator".to_owned(),
        Validator::QuorumVoters => "class:ControllerQuorumVotersValidator".to_owned(),
        Validator::BootstrapServers => "class:ControllerQuorumBootstrapServersValidator".to_owned(),
        Validator::ThrottledReplicas => "class:ThrottledReplicaListValidator".to_owned(),
        Validator::ShareOffsetReset => "class:Validator".to_owned(),
    }
}

#[test]
fn table_says_what_kafka_says() {
    let facts = include_str!("golden/config-facts.tsv");
    let ours: Vec<String> = [
        ("broker", table::BROKER_CONFIGS),
        ("dynamic", table::DYNAMIC_BROKER_CONFIGS),
        ("topic", table::TOPIC_CONFIGS),
        ("group", table::GROUP_CONFIGS),
        ("client-metrics", table::CLIENT_METRICS_CONFIGS),
    ]
    .into_iter()
    .flat_map(|(scope, table)| table.iter().map(move |def| line(scope, def)))
    .collect();
    let theirs: Vec<&str> = facts.lines().collect();
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours, theirs);
    }
}

#[test]
fn every_default_satisfies_its_own_type_and_validator() {
    for def in table::BROKER_CONFIGS
        .iter()
        .chain(table::TOPIC_CONFIGS)
        .chain(table::GROUP_CONFIGS)
    {
        if let Default::Text(text) = def.default {
            // Kafka does not check defaults: these two lists may be absent but not empty.
            if matches!(
                def.validator,
                Validator::BootstrapServers | Validator::QuorumVoters
            ) {
                continue;
            }
            let value = def.parse(text).unwrap_or_else(|e| panic!("{e}"));
            let back = value.to_text().unwrap();
            assert_eq!(back, text, "{}", def.name);
        }
    }
}

#[test]
fn tables_are_sorted_for_binary_search() {
    for table in [
        table::BROKER_CONFIGS,
        table::TOPIC_CONFIGS,
        table::GROUP_CONFIGS,
        table::CLIENT_METRICS_CONFIGS,
    ] {
        assert!(table.is_sorted_by(|a, b| a.name < b.name));
    }
    assert_eq!(
        klamm_config::def::broker_config("num.partitions")
            .unwrap()
            .kind,
        ValueType::Int
    );
    assert!(klamm_config::def::broker_config("num.partition").is_none());
}
