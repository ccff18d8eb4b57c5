//! The configuration of a broker or controller: every value read and checked, with its source.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::def::{self, ConfigDef, ValueType};
use crate::derived::Derived;
use crate::error::ConfigError;
use crate::honoured;
use crate::klamm::KLAMM_CONFIGS;
use crate::layers::{Given, Layers, Origin};
use crate::rules;
use crate::table::{BROKER_CONFIGS, DYNAMIC_BROKER_CONFIGS};
use crate::value::Value;

/// A broker's configuration, cheap to clone. Immutable: a dynamic change makes a new one ([`with_dynamic`](Self::with_dynamic)).
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// Values in the order of [`BROKER_CONFIGS`], then of [`KLAMM_CONFIGS`].
    values: Arc<Vec<Value>>,
    pub(crate) given: Arc<BTreeMap<String, Given>>,
    pub(crate) dynamic_default: Arc<BTreeMap<String, String>>,
    pub(crate) dynamic_broker: Arc<BTreeMap<String, String>>,
    standalone: bool,
    cluster_id: Option<String>,
    pub(crate) derived: Arc<Derived>,
}

/// A configuration that is fine to run with, and what to tell the user about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: BrokerConfig,
    /// What to log once at start.
    pub warnings: Vec<Warning>,
}

/// Something in the configuration that has no effect.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    /// No such configuration in Kafka 4.3.
    #[error("configuration '{name}' ({origin}) is not known to Kafka 4.3 and is ignored")]
    Unknown {
        /// Its name.
        name: String,
        /// Where it was set.
        origin: Origin,
    },
    /// Kafka has it; Klamm does nothing with it yet.
    #[error("configuration '{name}' ({origin}) is known but Klamm does not honour it yet")]
    NotHonoured {
        /// Its name.
        name: String,
        /// Where it was set.
        origin: Origin,
    },
}

impl BrokerConfig {
    /// Reads and checks what the layers hold.
    ///
    /// # Errors
    /// The first value or rule that Kafka would refuse too, in Kafka's words.
    pub fn load(layers: Layers) -> Result<Loaded, ConfigError> {
        let (mut given, cluster_id) = layers.into_parts();
        let standalone = !given.contains_key("process.roles");
        imply(&mut given, standalone);
        let config = Self::build(
            Arc::new(given),
            cluster_id,
            standalone,
            Arc::default(),
            Arc::default(),
        )?;
        let warnings = config.warnings();
        Ok(Loaded { config, warnings })
    }

    /// A configuration from name and value pairs, for tests and for programs that embed a broker.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::new();
        for (name, value) in pairs {
            layers.set(name, value);
        }
        Self::load(layers).map(|loaded| loaded.config)
    }

    /// The same broker with these dynamic values instead of those it had: those of the cluster's default, and its own.
    ///
    /// # Errors
    /// If a value is refused. Kafka then keeps what it had, and so should the caller.
    pub fn with_dynamic(
        &self,
        cluster_default: &BTreeMap<String, String>,
        own: &BTreeMap<String, String>,
    ) -> Result<Self, ConfigError> {
        if *self.dynamic_default == *cluster_default && *self.dynamic_broker == *own {
            return Ok(self.clone());
        }
        Self::build(
            self.given.clone(),
            self.cluster_id.clone(),
            self.standalone,
            Arc::new(cluster_default.clone()),
            Arc::new(own.clone()),
        )
    }

    fn build(
        given: Arc<BTreeMap<String, Given>>,
        cluster_id: Option<String>,
        standalone: bool,
        dynamic_default: Arc<BTreeMap<String, String>>,
        dynamic_broker: Arc<BTreeMap<String, String>>,
    ) -> Result<Self, ConfigError> {
        let dynamic = |name: &str| {
            dynamic_broker
                .get(name)
                .or_else(|| dynamic_default.get(name))
        };
        let text = |def: &ConfigDef| {
            // As in Kafka, a dynamic value puts the static ones of its synonyms out of force.
            let static_value = || {
                let displaced = def.synonyms.iter().any(|s| dynamic(s.name).is_some());
                given
                    .get(def.name)
                    .filter(|_| !displaced)
                    .map(|g| g.value.as_str())
            };
            dynamic(def.name).map(String::as_str).or_else(static_value)
        };
        let mut values = Vec::with_capacity(BROKER_CONFIGS.len() + KLAMM_CONFIGS.len());
        for def in BROKER_CONFIGS.iter().chain(KLAMM_CONFIGS) {
            values.push(match text(def) {
                Some(text) => def.parse(text)?,
                None => def.default_value()?,
            });
        }
        let derived = Arc::default();
        let mut config = Self {
            values: Arc::new(values),
            given,
            dynamic_default,
            dynamic_broker,
            standalone,
            cluster_id,
            derived,
        };
        config.derived = Arc::new(Derived::of(&config)?);
        rules::check(&config)?;
        Ok(config)
    }

    fn warnings(&self) -> Vec<Warning> {
        let warn = |(name, given): (&String, &Given)| {
            let (name, origin) = (name.clone(), given.origin.clone());
            match honoured::status(&name) {
                honoured::Status::Honoured => None,
                _ if origin == Origin::Implied => None,
                honoured::Status::NotYet => Some(Warning::NotHonoured { name, origin }),
                honoured::Status::Unknown => Some(Warning::Unknown { name, origin }),
            }
        };
        self.given.iter().filter_map(warn).collect()
    }

    /// Whether a value was set for `name` (as opposed to its default).
    pub fn is_set(&self, name: &str) -> bool {
        self.dynamic_broker.contains_key(name)
            || self.dynamic_default.contains_key(name)
            || self.given.contains_key(name)
    }

    /// The static values with their origin.
    pub fn given(&self) -> &BTreeMap<String, Given> {
        &self.given
    }

    /// Whether no `process.roles` was given, so that Klamm fills in the rest of a one-node cluster.
    pub fn is_standalone(&self) -> bool {
        self.standalone
    }

    /// The cluster id the environment or the program asks for.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }

    /// The text of a configuration that exists only as a dynamic one, if it is set.
    pub(crate) fn dynamic_only(&self, name: &str) -> Option<&str> {
        let own = self.dynamic_broker.get(name);
        own.or_else(|| self.dynamic_default.get(name))
            .map(String::as_str)
    }

    /// The value of any configuration in the table.
    ///
    /// # Panics
    /// If there is no such configuration: names are written by programmers, never by users.
    pub fn value(&self, name: &str) -> &Value {
        let at = match BROKER_CONFIGS.binary_search_by(|d| d.name.cmp(name)) {
            Ok(at) => Some(at),
            Err(_) => KLAMM_CONFIGS
                .iter()
                .position(|d| d.name == name)
                .map(|at| at + BROKER_CONFIGS.len()),
        };
        match at {
            Some(at) => &self.values[at],
            None => panic!("no broker configuration is called {name}"),
        }
    }

    /// An INT or SHORT; 0 where none is set.
    ///
    /// # Panics
    /// As [`value`](Self::value), and if the configuration is of another type.
    pub fn int(&self, name: &str) -> i32 {
        match self.value(name) {
            Value::Int(n) => *n,
            Value::Short(n) => i32::from(*n),
            Value::Null => 0,
            other => panic!("{name} is no INT: {other:?}"),
        }
    }

    /// A LONG; 0 where none is set.
    ///
    /// # Panics
    /// As [`int`](Self::int).
    pub fn long(&self, name: &str) -> i64 {
        self.optional_long(name).unwrap_or(0)
    }

    /// An INT, SHORT or LONG, if set.
    ///
    /// # Panics
    /// As [`int`](Self::int).
    pub fn optional_long(&self, name: &str) -> Option<i64> {
        match self.value(name) {
            Value::Long(n) => Some(*n),
            Value::Int(n) => Some(i64::from(*n)),
            Value::Short(n) => Some(i64::from(*n)),
            Value::Null => None,
            other => panic!("{name} is no LONG: {other:?}"),
        }
    }

    /// A BOOLEAN.
    ///
    /// # Panics
    /// As [`int`](Self::int).
    pub fn boolean(&self, name: &str) -> bool {
        match self.value(name) {
            Value::Boolean(b) => *b,
            other => panic!("{name} is no BOOLEAN: {other:?}"),
        }
    }

    /// A DOUBLE.
    ///
    /// # Panics
    /// As [`int`](Self::int).
    pub fn double(&self, name: &str) -> f64 {
        match self.value(name) {
            Value::Double(n) => *n,
            other => panic!("{name} is no DOUBLE: {other:?}"),
        }
    }

    /// A STRING, CLASS or PASSWORD, if set.
    ///
    /// # Panics
    /// As [`int`](Self::int).
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.value(name) {
            Value::Text(text) => Some(text),
            Value::Null => None,
            other => panic!("{name} is no STRING: {other:?}"),
        }
    }

    /// A LIST; empty where none is set.
    ///
    /// # Panics
    /// As [`int`](Self::int).
    pub fn list(&self, name: &str) -> &[String] {
        match self.value(name) {
            Value::List(items) => items,
            Value::Null => &[],
            other => panic!("{name} is no LIST: {other:?}"),
        }
    }

    /// What is set for one listener by `listener.name.<listener>.<name>`, as text.
    pub fn listener_override(&self, listener: &str, name: &str) -> Option<&str> {
        let full = format!("listener.name.{}.{name}", listener.to_lowercase());
        let dynamic = self
            .dynamic_broker
            .get(&full)
            .or_else(|| self.dynamic_default.get(&full));
        dynamic
            .map(String::as_str)
            .or_else(|| self.given.get(&full).map(|g| g.value.as_str()))
    }

    /// A LIST for one listener: its own if it has one, else the broker's.
    ///
    /// # Panics
    /// As [`int`](Self::int).
    pub fn listener_list(&self, listener: &str, name: &str) -> Vec<String> {
        match self.listener_override(listener, name) {
            Some(text) => crate::value::split_list(crate::value::trim(text)),
            None => self.list(name).to_vec(),
        }
    }
}

/// Fills in what Klamm chooses for itself: where data lives, and all that a node without `process.roles` needs.
fn imply(given: &mut BTreeMap<String, Given>, standalone: bool) {
    if !given.contains_key("log.dirs") && !given.contains_key("log.dir") {
        imply_one(given, "log.dirs", "./data");
    }
    if standalone {
        if !given.contains_key("broker.id") {
            let voter = given
                .get("controller.quorum.voters")
                .and_then(|g| sole_voter(&g.value));
            imply_one(given, "node.id", voter.as_deref().unwrap_or("1"));
        }
        imply_one(given, "process.roles", "broker,controller");
        imply_one(given, "controller.listener.names", "CONTROLLER");
        imply_one(given, "listeners", "PLAINTEXT://localhost:9092");
    }
    // Kafka's own synonyms: either of the two names sets both.
    for (from, to) in [("broker.id", "node.id"), ("node.id", "broker.id")] {
        if let Some(found) = given.get(from).cloned() {
            given.entry(to.to_owned()).or_insert(found);
        }
    }
}

fn imply_one(given: &mut BTreeMap<String, Given>, name: &str, value: &str) {
    given.entry(name.to_owned()).or_insert_with(|| Given {
        value: value.to_owned(),
        origin: Origin::Implied,
    });
}

fn sole_voter(text: &str) -> Option<String> {
    let (id, _) = text.trim().split_once('@')?;
    (!text.contains(',')).then(|| id.to_owned())
}

/// The definition that governs a name as it may stand in a file: the configuration's own, or the base of a
/// `listener.name.<listener>.` prefix.
pub(crate) fn governing(name: &str) -> Option<&'static ConfigDef> {
    let other =
        || def::find(KLAMM_CONFIGS, name).or_else(|| def::find(DYNAMIC_BROKER_CONFIGS, name));
    def::broker_config(name)
        .or_else(other)
        .or_else(|| listener_base(name).and_then(def::broker_config))
}

/// The configuration behind `listener.name.<listener>.[<mechanism>.]<name>`.
pub(crate) fn listener_base(name: &str) -> Option<&str> {
    let (_, base) = name.strip_prefix("listener.name.")?.split_once('.')?;
    let mechanism = MECHANISM_CONFIGS.iter().find(|m| base.ends_with(**m));
    Some(mechanism.map_or(base, |m| m))
}

/// What may be set per SASL mechanism of a listener.
const MECHANISM_CONFIGS: [&str; 5] = [
    "sasl.jaas.config",
    "sasl.login.callback.handler.class",
    "sasl.login.class",
    "sasl.server.callback.handler.class",
    "connections.max.reauth.ms",
];

/// Whether a value of this name must not be shown: passwords, and whatever Klamm does not know.
pub(crate) fn is_sensitive(kind: Option<ValueType>) -> bool {
    kind.is_none_or(|kind| kind == ValueType::Password)
}
