//! Which configurations have an effect in Klamm. Whoever makes one work adds its name here: one line.

use crate::broker::listener_base;
use crate::def::{self, find};
use crate::klamm::KLAMM_CONFIGS;

/// Broker configurations with an effect, sorted.
pub const BROKER: &[&str] = &[
    "advertised.listeners",
    "broker.id",
    "controller.listener.names",
    "controller.quorum.voters",
    "inter.broker.listener.name",
    "listener.security.protocol.map",
    "listeners",
    "log.dir",
    "log.dirs",
    "node.id",
    "process.roles",
];

/// Topic configurations with an effect, sorted.
pub const TOPIC: &[&str] = &[];

/// Group configurations with an effect, sorted.
pub const GROUP: &[&str] = &[];

/// What Klamm makes of a broker configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It works.
    Honoured,
    /// Kafka has it, Klamm reads and checks it, and that is all so far.
    NotYet,
    /// Neither has it.
    Unknown,
}

/// Prefixes under which a broker hands values on to plugins.
const PLUGIN_PREFIXES: [&str; 3] = ["config.providers.", "rlmm.config.", "rsm.config."];

/// The status of a name as it may stand in a broker's file.
pub fn status(name: &str) -> Status {
    let base = listener_base(name).unwrap_or(name);
    if find(KLAMM_CONFIGS, base).is_some() || BROKER.binary_search(&base).is_ok() {
        Status::Honoured
    } else if def::broker_config(base).is_some() || PLUGIN_PREFIXES.iter().any(|p| name.starts_with(p)) {
        Status::NotYet
    } else {
        Status::Unknown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_known() {
        for (list, table) in [
            (BROKER, crate::table::BROKER_CONFIGS),
            (TOPIC, crate::table::TOPIC_CONFIGS),
            (GROUP, crate::table::GROUP_CONFIGS),
        ] {
            assert!(list.is_sorted());
            for name in list {
                assert!(find(table, name).is_some(), "{name}");
            }
        }
    }
}
