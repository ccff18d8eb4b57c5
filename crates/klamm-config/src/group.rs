//! A group's own configuration over the broker's.

use std::collections::BTreeMap;

use crate::broker::BrokerConfig;
use crate::def::{self, ConfigDef};
use crate::error::ConfigError;
use crate::order;
use crate::table::GROUP_CONFIGS;
use crate::value::Value;

/// The values in force for one group, in the order of [`GROUP_CONFIGS`].
#[derive(Debug, Clone, PartialEq)]
pub struct GroupConfig(Vec<Value>);

impl GroupConfig {
    /// The values in force with these overrides on this broker.
    ///
    /// # Errors
    /// If an override's value is refused (names that are not group configurations are ignored).
    pub fn resolve(
        overrides: &BTreeMap<String, String>,
        broker: &BrokerConfig,
    ) -> Result<Self, ConfigError> {
        let one = |def: &ConfigDef| match (overrides.get(def.name), def.synonyms.first()) {
            (Some(text), _) => def.parse(text),
            (None, Some(synonym)) => Ok(broker.value(synonym.name).clone()),
            (None, None) => def.default_value(),
        };
        GROUP_CONFIGS
            .iter()
            .map(one)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The value of a configuration; nothing for a name that is none.
    pub fn value(&self, name: &str) -> &Value {
        match GROUP_CONFIGS.binary_search_by(|d| d.name.cmp(name)) {
            Ok(at) => &self.0[at],
            Err(_) => &Value::Null,
        }
    }

    /// A configuration of type INT; 0 for a name that is none.
    pub fn int(&self, name: &str) -> i32 {
        if let Value::Int(n) = self.value(name) {
            *n
        } else {
            0
        }
    }

    /// A configuration of type STRING; empty for a name that is none.
    pub fn text(&self, name: &str) -> &str {
        if let Value::Text(text) = self.value(name) {
            text
        } else {
            ""
        }
    }

    /// A configuration of type BOOLEAN.
    pub fn boolean(&self, name: &str) -> bool {
        matches!(self.value(name), Value::Boolean(true))
    }
}

/// Checks all the values a group would have.
///
/// # Errors
/// The first unknown name, refused value, or value outside the broker's bounds, with Kafka's text.
pub fn validate_group_configs(
    wanted: &BTreeMap<String, String>,
    broker: &BrokerConfig,
) -> Result<(), ConfigError> {
    if let Some(name) = wanted.keys().find(|name| def::group_config(name).is_none()) {
        return Err(ConfigError::UnknownGroupConfig(name.clone()));
    }
    let values = GroupConfig::resolve(wanted, broker)?;
    order::check_group(|name| values.int(name), broker).map_err(Into::into)
}
