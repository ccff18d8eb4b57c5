//! Where settings come from, one layer over the other: file, environment, command line.

use std::collections::BTreeMap;
use std::fmt;

use crate::properties::Properties;

/// Where a value was set. Later variants win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Klamm's own choice for a broker that was told nothing.
    Implied,
    /// A properties file, by the name it was given.
    File(String),
    /// An environment variable, by its name.
    Environment(String),
    /// `--override`.
    CommandLine,
    /// Set by the program that embeds the broker.
    Program,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Implied => f.write_str("implied"),
            Self::File(name) => write!(f, "file {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::CommandLine => f.write_str("command line"),
            Self::Program => f.write_str("program"),
        }
    }
}

/// A value as given, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The text.
    pub value: String,
    /// Where it was set.
    pub origin: Origin,
}

/// An `--override` without `=`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("--override needs name=value, not '{0}'")]
pub struct OverrideError(pub String);

/// Settings gathered from their sources. Call the methods in rising precedence: what is added later wins.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    entries: BTreeMap<String, Given>,
    cluster_id: Option<String>,
}

/// Variables of the official image that are not broker configurations, and others that share the prefix.
const NOT_CONFIGS: &[&str] = &[
    "KAFKA_CLUSTER_ID",
    "KAFKA_GC_LOG_OPTS",
    "KAFKA_HEAP_OPTS",
    "KAFKA_HOME",
    "KAFKA_JMX_HOSTNAME",
    "KAFKA_JMX_OPTS",
    "KAFKA_JMX_PORT",
    "KAFKA_JVM_PERFORMANCE_OPTS",
    "KAFKA_KRAFT_CLUSTER_ID",
    "KAFKA_LOG4J_LOGGERS",
    "KAFKA_LOG4J_OPTS",
    "KAFKA_LOG4J_ROOT_LOGLEVEL",
    "KAFKA_OPTS",
    "KAFKA_TOOLS_LOG4J_LOGLEVEL",
    "KAFKA_VERSION",
];

/// Variables that name the cluster, best first.
const CLUSTER_ID: [&str; 3] = ["CLUSTER_ID", "KAFKA_CLUSTER_ID", "KAFKA_KRAFT_CLUSTER_ID"];

impl Layers {
    /// Nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing was set at all.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a properties file that was read from `name`.
    pub fn file(&mut self, name: &str, properties: &Properties) -> &mut Self {
        for (key, value) in properties.iter() {
            self.put(key, value, Origin::File(name.to_owned()));
        }
        self
    }

    /// Adds environment variables: `KAFKA_FOO_BAR` (as in Kafka's own image), then `KAFKA_CFG_FOO_BAR`, set `foo.bar`;
    /// `__` stands for an underscore and `___` for a hyphen. `CLUSTER_ID` names the cluster. Others are ignored.
    pub fn environment<K: AsRef<str>, V: AsRef<str>>(
        &mut self,
        variables: impl IntoIterator<Item = (K, V)>,
    ) -> &mut Self {
        let sorted: BTreeMap<String, String> = variables
            .into_iter()
            .map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned()))
            .filter(|(name, _)| name.starts_with("KAFKA_") || name == "CLUSTER_ID")
            .collect();
        let id = CLUSTER_ID
            .iter()
            .find_map(|name| sorted.get(*name))
            .filter(|id| !id.is_empty());
        if let Some(id) = id {
            self.cluster_id = Some(id.clone());
        }
        for prefix in ["KAFKA_", "KAFKA_CFG_"] {
            for (variable, value) in &sorted {
                let Some(rest) = variable.strip_prefix(prefix) else {
                    continue;
                };
                let own = prefix == "KAFKA_CFG_" || !variable.starts_with("KAFKA_CFG_");
                if own && !rest.is_empty() && !NOT_CONFIGS.contains(&variable.as_str()) {
                    self.put(
                        &config_name(rest),
                        value,
                        Origin::Environment(variable.clone()),
                    );
                }
            }
        }
        self
    }

    /// Adds a `name=value` of the command line.
    ///
    /// # Errors
    /// If there is no `=` or nothing before it.
    pub fn set_override(&mut self, pair: &str) -> Result<&mut Self, OverrideError> {
        match pair.split_once('=') {
            Some((name, value)) if !name.trim().is_empty() => {
                self.put(name.trim(), value, Origin::CommandLine);
                Ok(self)
            }
            _ => Err(OverrideError(pair.to_owned())),
        }
    }

    /// Sets one value from a program.
    pub fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.put(name, value, Origin::Program);
        self
    }

    /// Where the value of a configuration was set.
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        self.entries.get(name).map(|given| &given.origin)
    }

    /// Names the cluster that the data directory must belong to, or is formatted for if it is empty.
    pub fn set_cluster_id(&mut self, id: &str) -> &mut Self {
        self.cluster_id = Some(id.to_owned());
        self
    }

    fn put(&mut self, name: &str, value: &str, origin: Origin) {
        self.entries.insert(
            name.to_owned(),
            Given {
                value: value.to_owned(),
                origin,
            },
        );
    }

    pub(crate) fn into_parts(self) -> (BTreeMap<String, Given>, Option<String>) {
        (self.entries, self.cluster_id)
    }
}

/// `LISTENER_NAME__X` as `listener.name_x`: one underscore is a dot, two an underscore, three a hyphen.
fn config_name(variable: &str) -> String {
    variable
        .to_lowercase()
        .replace('_', ".")
        .replace("...", "-")
        .replace("..", "_")
}
