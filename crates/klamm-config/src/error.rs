//! Why a configuration is refused. Texts are Kafka's, so that people and tools find what they know.

use std::fmt;

use crate::def::{Number, ValueType};
use crate::rules::BrokenRule;

/// A refused configuration.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A value that its configuration does not take.
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    Invalid {
        /// The configuration.
        name: String,
        /// The value as given, or as understood where Kafka prints that.
        value: String,
        /// What is wrong with it.
        reason: Reason,
    },
    /// A value that has no default is missing.
    #[error("Missing required configuration \"{0}\" which has no default value.")]
    Missing(&'static str),
    /// A list is empty that must not be.
    #[error("Configuration '{name}' must not be empty. Valid values include: {}", ListChoices(.valid))]
    EmptyList {
        /// The configuration.
        name: String,
        /// What may stand in it; empty for anything.
        valid: &'static [&'static str],
    },
    /// A list has an empty entry.
    #[error("Configuration '{0}' values must not be empty.")]
    EmptyListEntry(String),
    /// A topic configuration that does not exist.
    #[error("Unknown topic config name: {0}")]
    UnknownTopicConfig(String),
    /// A group configuration that does not exist.
    #[error("Unknown group config name: {0}")]
    UnknownGroupConfig(String),
    /// A client-metrics configuration that does not exist.
    #[error("Unknown client metrics configuration: {0}")]
    UnknownClientMetricsConfig(String),
    /// A topic or group configuration set to nothing.
    #[error("Null value not supported for {scope} configs: {}", .names.join(","))]
    NullValue {
        /// `topic` or `group`.
        scope: &'static str,
        /// The configurations without a value.
        names: Vec<String>,
    },
    /// The push interval of a client-metrics subscription is out of bounds.
    #[error("Invalid value {0} for interval.ms, interval must be between 100 and 3600000 (1 hour)")]
    PushInterval(i32),
    /// A client match pattern that cannot be read.
    #[error("Illegal client matching pattern: {0}")]
    MatchPattern(String),
    /// Configurations that only a restart changes.
    #[error("Cannot update these configs dynamically: [{}]", .0.join(", "))]
    NotDynamic(Vec<String>),
    /// Security configurations that need a listener's prefix.
    #[error("These security configs can be dynamically updated only per-listener using the listener prefix: [{}]", .0.join(", "))]
    NeedsListenerPrefix(Vec<String>),
    /// Per-broker configurations given for the whole cluster.
    #[error("Cannot update these configs at default cluster level, broker id must be specified: [{}]", .0.join(", "))]
    NeedsBrokerId(Vec<String>),
    /// Values that do not go together.
    #[error(transparent)]
    Rule(#[from] BrokenRule),
}

/// How the error goes over the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Kafka's INVALID_CONFIG.
    InvalidConfig,
    /// Kafka's INVALID_REQUEST.
    InvalidRequest,
}

impl ConfigError {
    /// The configuration whose value is refused, where it is a single one.
    pub fn config_name(&self) -> Option<&str> {
        match self {
            Self::Invalid { name, .. } | Self::EmptyList { name, .. } => Some(name),
            Self::EmptyListEntry(name) => Some(name),
            _ => None,
        }
    }

    /// The error code a request with this configuration is answered with.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownClientMetricsConfig(_)
            | Self::PushInterval(_)
            | Self::NotDynamic(_)
            | Self::NeedsListenerPrefix(_)
            | Self::NeedsBrokerId(_) => ErrorKind::InvalidRequest,
            _ => ErrorKind::InvalidConfig,
        }
    }
}

/// What is wrong with a single value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the text of each is its documentation")]
pub enum Reason {
    NotANumber(ValueType),
    NotABoolean,
    Null,
    TooSmall(Number),
    TooLarge(Number),
    NotOneOf(&'static [&'static str]),
    NotOneOfAnyCase(&'static [&'static str]),
    GzipLevel,
    EmptyString,
    NoSuchClass(String),
    ThrottledReplicas(String),
    ShareOffsetReset { name: String, value: String },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotANumber(kind) => write!(f, "Not a number of type {}", kind.name()),
            Self::NotABoolean => f.write_str("Expected value to be either true or false"),
            Self::Null => f.write_str("Value must be non-null"),
            Self::TooSmall(min) => write!(f, "Value must be at least {min}"),
            Self::TooLarge(max) => write!(f, "Value must be no more than {max}"),
            Self::NotOneOf(valid) => write!(f, "String must be one of: {}", valid.join(", ")),
            Self::NotOneOfAnyCase(valid) => {
                write!(
                    f,
                    "String must be one of (case insensitive): {}",
                    valid.join(", ")
                )
            }
            Self::GzipLevel => f.write_str("Value must be between 1 and 9 or equal to -1"),
            Self::EmptyString => f.write_str("String must be non-empty"),
            Self::NoSuchClass(name) => write!(f, "Class {name} could not be found."),
            Self::ThrottledReplicas(name) => write!(
                f,
                "{name} must be the literal '*' or a list of replicas in the following format: \
                 [partitionId]:[brokerId],[partitionId]:[brokerId],..."
            ),
            Self::ShareOffsetReset { name, value } => write!(
                f,
                "Invalid value `{value}` for configuration {name}. The value must be either 'earliest', 'latest' or of \
                 the format 'by_duration:<PnDTnHnMn.nS>'."
            ),
        }
    }
}

struct ListChoices<'a>(&'a [&'static str]);

impl fmt::Display for ListChoices<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("any non-empty value")
        } else {
            write!(f, "[{}]", self.0.join(", "))
        }
    }
}
