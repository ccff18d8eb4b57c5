//! Changes to a broker's configuration while it runs: what may change, and where.

use std::collections::BTreeMap;

use crate::broker::listener_base;
use crate::def::{self, ConfigDef, UpdateMode};
use crate::error::ConfigError;
use crate::table::DYNAMIC_BROKER_CONFIGS;

/// Security configurations that change at run time only with a listener's prefix.
fn is_security(name: &str) -> bool {
    name.starts_with("ssl.")
        && def::broker_config(name).is_some_and(|d| d.update_mode == UpdateMode::PerBroker)
}

/// Listener configurations that, prefixed, still hold for all brokers.
const CLUSTER_WIDE_LISTENER: [&str; 3] = [
    "max.connection.creation.rate",
    "max.connections",
    "num.network.threads",
];

/// The definition of a broker configuration that may change at run time, or the base of a listener's.
fn dynamic_def(name: &str) -> Option<&'static ConfigDef> {
    let base = name
        .strip_prefix("listener.name.")
        .and_then(|rest| rest.split_once('.'))
        .map_or(name, |(_, base)| base);
    def::broker_config(base).or_else(|| def::find(DYNAMIC_BROKER_CONFIGS, base))
}

/// Checks the dynamic values that one broker (`per_broker`) or the cluster's default would have.
///
/// # Errors
/// With Kafka's text: values that need a restart, security values without a listener's prefix, refused values, values
/// of single brokers in the cluster's default.
pub fn validate_dynamic_broker_configs(
    wanted: &BTreeMap<String, String>,
    per_broker: bool,
) -> Result<(), ConfigError> {
    let names = |test: &dyn Fn(&str) -> bool| {
        wanted
            .keys()
            .filter(|n| test(n))
            .cloned()
            .collect::<Vec<_>>()
    };
    let read_only =
        |n: &str| def::broker_config(n).is_some_and(|d| d.update_mode == UpdateMode::ReadOnly);
    let fixed = names(&read_only);
    if !fixed.is_empty() {
        return Err(ConfigError::NotDynamic(fixed));
    }
    let bare = names(&is_security);
    if !bare.is_empty() {
        return Err(ConfigError::NeedsListenerPrefix(bare));
    }
    for (name, text) in wanted {
        if let Some(def) = dynamic_def(name) {
            def.parse(text)?;
        }
    }
    let single = |n: &str| match listener_base(n) {
        Some(base) => !CLUSTER_WIDE_LISTENER.contains(&base),
        None => def::broker_config(n).is_some_and(|d| d.update_mode == UpdateMode::PerBroker),
    };
    let single = names(&single);
    if !per_broker && !single.is_empty() {
        return Err(ConfigError::NeedsBrokerId(single));
    }
    Ok(())
}
