//! What one configuration is: its row in the table and how to find it.

use crate::klamm::KLAMM_TOPIC_CONFIGS;
use crate::table;

/// The type of a value, with the meaning of Kafka's `ConfigDef.Type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are Kafka's types")]
pub enum ValueType {
    Boolean,
    String,
    Int,
    Short,
    Long,
    Double,
    List,
    Class,
    Password,
}

impl ValueType {
    /// The name in Kafka's messages, such as `INT`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Int => "INT",
            Self::Short => "SHORT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
            Self::Class => "CLASS",
            Self::Password => "PASSWORD",
        }
    }

    /// The number in a DescribeConfigs response (0 there means unknown).
    pub const fn wire_id(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
            Self::Class => 8,
            Self::Password => 9,
        }
    }
}

/// How much a configuration matters, in Kafka's own judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "plain levels")]
pub enum Importance {
    High,
    Medium,
    Low,
}

/// Whether and where a configuration changes while the broker runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateMode {
    /// Only by a restart.
    ReadOnly,
    /// For one broker, by its id.
    PerBroker,
    /// For one broker or for all of them.
    ClusterWide,
    /// At any time: it belongs to a topic, a group or a client-metrics subscription.
    Resource,
}

impl UpdateMode {
    /// Kafka's word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::PerBroker => "per-broker",
            Self::ClusterWide => "cluster-wide",
            Self::Resource => "dynamic",
        }
    }
}

/// A bound of a range: the wholes and decimals print differently in messages.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    /// A whole number.
    Whole(i64),
    /// A decimal one.
    Decimal(f64),
}

impl Number {
    /// The number as Java compares it.
    #[allow(
        clippy::cast_precision_loss,
        reason = "Kafka compares bounds as doubles too"
    )]
    pub const fn as_f64(self) -> f64 {
        match self {
            Self::Whole(n) => n as f64,
            Self::Decimal(n) => n,
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Whole(n) => n.fmt(f),
            Self::Decimal(n) => n.fmt(f),
        }
    }
}

/// What a value must satisfy beyond its type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Validator {
    /// Nothing.
    Any,
    /// Inclusive bounds; a missing value is refused.
    Range(Option<Number>, Option<Number>),
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// One of these strings, in any case.
    OneOfAnyCase(&'static [&'static str]),
    /// A list: of these strings only (any if none is named), empty or absent if so allowed.
    ListOf {
        /// The strings allowed in the list.
        valid: &'static [&'static str],
        /// Whether the list may be empty.
        empty: bool,
        /// Whether it may be absent.
        null: bool,
    },
    /// gzip's levels: 1 to 9, or -1 for the codec's own default.
    GzipLevel,
    /// A string that is not empty.
    NonEmpty,
    /// A value that is not absent.
    NonNull,
    /// `id@host:port` entries.
    QuorumVoters,
    /// `host:port` entries.
    BootstrapServers,
    /// `*` or `partition:broker` entries.
    ThrottledReplicas,
    /// `earliest`, `latest` or `by_duration:` and an ISO 8601 duration.
    ShareOffsetReset,
}

/// What holds when nothing is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// There is no default: the value must be given.
    Required,
    /// The default is the absence of a value.
    Null,
    /// The default, as one would write it in a file.
    Text(&'static str),
}

/// How a synonym's number becomes the configuration's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// As it is.
    Same,
    /// The synonym counts minutes, the configuration milliseconds.
    Minutes,
    /// The synonym counts hours, the configuration milliseconds.
    Hours,
}

/// Another configuration whose value stands in when this one is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synonym {
    /// Its name, always a broker configuration.
    pub name: &'static str,
    /// The unit it counts in.
    pub scale: Scale,
}

/// One row of a table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConfigDef {
    /// The configuration's name.
    pub name: &'static str,
    /// Its type.
    pub kind: ValueType,
    /// Its weight.
    pub importance: Importance,
    /// Its default.
    pub default: Default,
    /// What else a value must satisfy.
    pub validator: Validator,
    /// Whether it changes at run time.
    pub update_mode: UpdateMode,
    /// Hidden from descriptions, as Kafka hides it.
    pub internal: bool,
    /// Where a value may come from as well, best first.
    pub synonyms: &'static [Synonym],
}

impl ConfigDef {
    /// Whether the value must never be shown.
    pub const fn is_sensitive(&self) -> bool {
        matches!(self.kind, ValueType::Password)
    }
}

/// Builds a row; only the generated table calls it.
#[allow(
    clippy::too_many_arguments,
    reason = "keeps the generated table one line a row"
)]
pub(crate) const fn row(
    name: &'static str,
    kind: ValueType,
    importance: Importance,
    default: Default,
    validator: Validator,
    update_mode: UpdateMode,
    internal: bool,
    synonyms: &'static [Synonym],
) -> ConfigDef {
    ConfigDef {
        name,
        kind,
        importance,
        default,
        validator,
        update_mode,
        internal,
        synonyms,
    }
}

/// Finds `name` in a table (sorted by name).
pub fn find(table: &'static [ConfigDef], name: &str) -> Option<&'static ConfigDef> {
    table
        .binary_search_by(|def| def.name.cmp(name))
        .ok()
        .map(|at| &table[at])
}

/// The static broker configuration `name`.
pub fn broker_config(name: &str) -> Option<&'static ConfigDef> {
    find(table::BROKER_CONFIGS, name)
}

/// All topic configurations: Kafka's, then Klamm's own.
pub fn topic_configs() -> impl Iterator<Item = &'static ConfigDef> {
    table::TOPIC_CONFIGS.iter().chain(KLAMM_TOPIC_CONFIGS)
}

/// The topic configuration `name`.
pub fn topic_config(name: &str) -> Option<&'static ConfigDef> {
    find(table::TOPIC_CONFIGS, name).or_else(|| find(KLAMM_TOPIC_CONFIGS, name))
}

/// The group configuration `name`.
pub fn group_config(name: &str) -> Option<&'static ConfigDef> {
    find(table::GROUP_CONFIGS, name)
}
