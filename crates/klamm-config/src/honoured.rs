//! Which configurations have an effect in Klamm. Whoever makes one work adds its name here: one line.

use crate::broker::listener_base;
use crate::def::{self, ConfigDef, find};
use crate::klamm::KLAMM_CONFIGS;
use crate::table;

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

/// Client-metrics configurations with an effect, sorted.
pub const CLIENT_METRICS: &[&str] = &[];

/// What a configuration belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A broker or controller, static ones.
    Broker,
    /// All brokers or one, only while they run.
    DynamicBroker,
    /// A broker, and only Klamm has them.
    Klamm,
    /// A topic.
    Topic,
    /// A group.
    Group,
    /// A client-metrics subscription.
    ClientMetrics,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Broker,
        Self::Klamm,
        Self::DynamicBroker,
        Self::Topic,
        Self::Group,
        Self::ClientMetrics,
    ];

    /// The scope in a word or two.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Broker => "broker",
            Self::DynamicBroker => "dynamic broker",
            Self::Klamm => "klamm",
            Self::Topic => "topic",
            Self::Group => "group",
            Self::ClientMetrics => "client-metrics",
        }
    }

    /// Its configurations, sorted by name.
    pub fn table(self) -> &'static [ConfigDef] {
        match self {
            Self::Broker => table::BROKER_CONFIGS,
            Self::DynamicBroker => table::DYNAMIC_BROKER_CONFIGS,
            Self::Klamm => KLAMM_CONFIGS,
            Self::Topic => table::TOPIC_CONFIGS,
            Self::Group => table::GROUP_CONFIGS,
            Self::ClientMetrics => table::CLIENT_METRICS_CONFIGS,
        }
    }
}

/// Whether a configuration has an effect.
pub fn is_honoured(scope: Scope, name: &str) -> bool {
    let list = match scope {
        Scope::Klamm => return find(KLAMM_CONFIGS, name).is_some(),
        Scope::Broker | Scope::DynamicBroker => BROKER,
        Scope::Topic => TOPIC,
        Scope::Group => GROUP,
        Scope::ClientMetrics => CLIENT_METRICS,
    };
    list.binary_search(&name).is_ok()
}

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
    } else if def::broker_config(base).is_some()
        || PLUGIN_PREFIXES.iter().any(|p| name.starts_with(p))
    {
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
        for (list, scopes) in [
            (BROKER, &[Scope::Broker, Scope::DynamicBroker][..]),
            (TOPIC, &[Scope::Topic]),
            (GROUP, &[Scope::Group]),
            (CLIENT_METRICS, &[Scope::ClientMetrics]),
        ] {
            assert!(list.is_sorted());
            for name in list {
                assert!(
                    scopes.iter().any(|s| find(s.table(), name).is_some()),
                    "{name}"
                );
            }
        }
    }
}
