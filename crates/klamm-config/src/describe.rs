//! What DescribeConfigs tells: each value, where it comes from, and what else could have set it.

use std::collections::BTreeMap;

use crate::broker::{self, BrokerConfig};
use crate::def::{self, ConfigDef, Default, UpdateMode, ValueType};
use crate::docs;
use crate::error::ConfigError;
use crate::group::GroupConfig;
use crate::klamm::KLAMM_CONFIGS;
use crate::table::{BROKER_CONFIGS, CLIENT_METRICS_CONFIGS, DYNAMIC_BROKER_CONFIGS, GROUP_CONFIGS};
use crate::topic::TopicValues;
use crate::value::Value;

/// Where a described value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "Kafka's sources by their own names")]
pub enum ConfigSource {
    DynamicTopic,
    DynamicBroker,
    DynamicDefaultBroker,
    StaticBroker,
    Default,
    ClientMetrics,
    Group,
}

impl ConfigSource {
    /// The number in a DescribeConfigs response.
    pub const fn wire_id(self) -> i8 {
        match self {
            Self::DynamicTopic => 1,
            Self::DynamicBroker => 2,
            Self::DynamicDefaultBroker => 3,
            Self::StaticBroker => 4,
            Self::Default => 5,
            Self::ClientMetrics => 7,
            Self::Group => 8,
        }
    }
}

/// One value that could be in force, best first in its list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    /// The configuration that holds it.
    pub name: String,
    /// The value; none if it must not be shown.
    pub value: Option<String>,
    /// Where it was set.
    pub source: ConfigSource,
}

/// One described configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// The value in force; none if there is none or it must not be shown.
    pub value: Option<String>,
    /// Where the value in force was set.
    pub source: ConfigSource,
    /// Whether only a restart changes it.
    pub read_only: bool,
    /// Whether the value must not be shown.
    pub sensitive: bool,
    /// All the values that could be in force, best first.
    pub synonyms: Vec<ConfigSynonym>,
    /// The type; none for a name that Klamm does not know.
    pub kind: Option<ValueType>,
    /// What it is for; none where Klamm has no words of its own for it.
    pub documentation: Option<&'static str>,
}

impl ConfigEntry {
    /// The type's number in a DescribeConfigs response.
    pub fn kind_wire_id(&self) -> i8 {
        self.kind.map_or(0, ValueType::wire_id)
    }

    fn new(
        name: &str,
        value: Option<String>,
        kind: Option<ValueType>,
        synonyms: Vec<ConfigSynonym>,
    ) -> Self {
        let sensitive = broker::is_sensitive(kind);
        Self {
            name: name.to_owned(),
            value: value.filter(|_| !sensitive),
            source: synonyms.first().map_or(ConfigSource::Default, |s| s.source),
            read_only: false,
            sensitive,
            synonyms,
            kind,
            documentation: docs::of(name),
        }
    }
}

/// Whether a request that asks for `names` (none: everything) wants this one.
fn wanted(names: Option<&[&str]>, name: &str) -> bool {
    names.is_none_or(|names| names.is_empty() || names.contains(&name))
}

/// Describes one broker: its known configurations and whatever else it was started with. `names` selects; none: all.
pub fn describe_broker(config: &BrokerConfig, names: Option<&[&str]>) -> Vec<ConfigEntry> {
    let mut all: BTreeMap<&str, Option<String>> = BTreeMap::new();
    for maps in [&config.dynamic_default, &config.dynamic_broker] {
        all.extend(
            maps.iter()
                .map(|(name, value)| (name.as_str(), Some(value.clone()))),
        );
    }
    for (name, given) in config.given() {
        all.entry(name).or_insert_with(|| Some(given.value.clone()));
    }
    for def in BROKER_CONFIGS {
        if !def.internal || all.contains_key(def.name) {
            all.insert(def.name, config.value(def.name).to_text());
        }
    }
    let entry = |(name, value): (&str, Option<String>)| {
        let kind = broker::governing(name).map(|d| d.kind);
        let synonyms = broker_synonyms(config, name, broker::is_sensitive(kind));
        ConfigEntry {
            read_only: is_read_only(name),
            ..ConfigEntry::new(name, value, kind, synonyms)
        }
    };
    all.into_iter()
        .filter(|(name, _)| wanted(names, name))
        .map(entry)
        .collect()
}

/// Describes the cluster's default for brokers: only what was set dynamically for all of them.
pub fn describe_broker_default(config: &BrokerConfig, names: Option<&[&str]>) -> Vec<ConfigEntry> {
    let entry = |(name, value): (&String, &String)| {
        let kind = broker::governing(name).map(|d| d.kind);
        let mut synonyms = broker_synonyms(config, name, broker::is_sensitive(kind));
        synonyms.retain(|s| s.source == ConfigSource::DynamicDefaultBroker);
        ConfigEntry {
            read_only: is_read_only(name),
            ..ConfigEntry::new(name, Some(value.clone()), kind, synonyms)
        }
    };
    config
        .dynamic_default
        .iter()
        .filter(|(name, _)| wanted(names, name))
        .map(entry)
        .collect()
}

/// Describes a topic with these overrides.
///
/// # Errors
/// If an override's value is refused.
pub fn describe_topic(
    overrides: &BTreeMap<String, String>,
    config: &BrokerConfig,
    names: Option<&[&str]>,
) -> Result<Vec<ConfigEntry>, ConfigError> {
    let values = TopicValues::parse(overrides, config)?;
    let shown = |d: &&ConfigDef| !d.internal || overrides.contains_key(d.name);
    let entry = |def: &ConfigDef| {
        let value = values.value(def.name).to_text();
        let mut synonyms = Vec::new();
        if overrides.contains_key(def.name) {
            let (name, value) = (def.name.to_owned(), value.clone());
            synonyms.push(ConfigSynonym {
                name,
                value,
                source: ConfigSource::DynamicTopic,
            });
        }
        if let Some(synonym) = def.synonyms.first() {
            synonyms.extend(broker_synonyms(config, synonym.name, def.is_sensitive()));
        }
        ConfigEntry::new(def.name, value, Some(def.kind), synonyms)
    };
    Ok(def::topic_configs()
        .filter(shown)
        .filter(|d| wanted(names, d.name))
        .map(entry)
        .collect())
}

/// Describes a group with these overrides.
///
/// # Errors
/// If an override's value is refused.
pub fn describe_group(
    overrides: &BTreeMap<String, String>,
    config: &BrokerConfig,
    names: Option<&[&str]>,
) -> Result<Vec<ConfigEntry>, ConfigError> {
    let values = GroupConfig::resolve(overrides, config)?;
    let entry = |def: &ConfigDef| {
        let value = values.value(def.name).to_text();
        let mut synonyms = Vec::new();
        if overrides.contains_key(def.name) {
            let (name, value) = (def.name.to_owned(), value.clone());
            synonyms.push(ConfigSynonym {
                name,
                value,
                source: ConfigSource::Group,
            });
        }
        match (def.synonyms.first(), def.default) {
            (Some(synonym), _) => {
                synonyms.extend(broker_synonyms(config, synonym.name, def.is_sensitive()))
            }
            (None, Default::Text(text)) => {
                let (name, value) = (def.name.to_owned(), Some(text.to_owned()));
                synonyms.push(ConfigSynonym {
                    name,
                    value,
                    source: ConfigSource::Default,
                });
            }
            (None, _) => {}
        }
        ConfigEntry::new(def.name, value, Some(def.kind), synonyms)
    };
    Ok(GROUP_CONFIGS
        .iter()
        .filter(|d| wanted(names, d.name))
        .map(entry)
        .collect())
}

/// Describes a client-metrics subscription: what was set for it, else the defaults.
pub fn describe_client_metrics(
    set: &BTreeMap<String, String>,
    names: Option<&[&str]>,
) -> Vec<ConfigEntry> {
    let entry = |def: &ConfigDef| match set.get(def.name) {
        Some(value) => {
            let (name, value) = (def.name.to_owned(), Some(value.clone()));
            let synonym = ConfigSynonym {
                name,
                value: value.clone(),
                source: ConfigSource::ClientMetrics,
            };
            ConfigEntry::new(def.name, value, Some(def.kind), vec![synonym])
        }
        None => {
            let default = def.default_value().ok().and_then(|v| v.to_text());
            ConfigEntry::new(def.name, default, Some(def.kind), Vec::new())
        }
    };
    CLIENT_METRICS_CONFIGS
        .iter()
        .filter(|d| wanted(names, d.name))
        .map(entry)
        .collect()
}

/// Whether only a restart changes a broker configuration. Kafka says so of listener-prefixed ones too.
fn is_read_only(name: &str) -> bool {
    let dynamic = |d: &ConfigDef| d.update_mode != UpdateMode::ReadOnly;
    !(def::broker_config(name).is_some_and(dynamic)
        || def::find(DYNAMIC_BROKER_CONFIGS, name).is_some())
}

/// Every value that could be in force for a broker configuration, best first, beginning at its own name.
fn broker_synonyms(config: &BrokerConfig, name: &str, sensitive: bool) -> Vec<ConfigSynonym> {
    let names: Vec<&str> = match (def::broker_config(name), broker::listener_base(name)) {
        (Some(def), _) if !def.synonyms.is_empty() => def.synonyms.iter().map(|s| s.name).collect(),
        (None, Some(base)) => vec![name, base],
        _ => vec![name],
    };
    let dynamic = |map: &BTreeMap<String, String>, name: &str| map.get(name).cloned();
    let given = |name: &str| config.given.get(name).map(|g| g.value.clone());
    let definition =
        |name: &str| def::broker_config(name).or_else(|| def::find(KLAMM_CONFIGS, name));
    let default = |name: &str| match definition(name)?.default_value() {
        Ok(Value::Null) | Err(_) => None,
        Ok(value) => value.to_text(),
    };
    let mut all = Vec::new();
    let mut add = |source: ConfigSource, value_of: &dyn Fn(&str) -> Option<String>| {
        for &name in &names {
            if let Some(value) = value_of(name) {
                let value = (!sensitive).then_some(value);
                all.push(ConfigSynonym {
                    name: name.to_owned(),
                    value,
                    source,
                });
            }
        }
    };
    add(ConfigSource::DynamicBroker, &|name| {
        dynamic(&config.dynamic_broker, name)
    });
    add(ConfigSource::DynamicDefaultBroker, &|name| {
        dynamic(&config.dynamic_default, name)
    });
    add(ConfigSource::StaticBroker, &given);
    add(ConfigSource::Default, &default);
    let own = all.iter().position(|s| s.name == name).unwrap_or(all.len());
    all.split_off(own)
}
