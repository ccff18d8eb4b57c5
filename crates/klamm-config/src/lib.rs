#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod broker;
mod client_metrics;
pub mod def;
mod derived;
mod describe;
pub mod docs;
mod duration;
mod dynamic;
mod error;
mod group;
pub mod honoured;
pub mod klamm;
mod layers;
mod listeners;
mod order;
mod properties;
mod quorum;
mod rules;
#[rustfmt::skip]
pub mod table;
mod topic;
mod typed;
mod value;

pub use broker::{BrokerConfig, Loaded, Warning};
pub use client_metrics::validate_client_metrics_configs;
pub use describe::{
    ConfigEntry, ConfigSource, ConfigSynonym, describe_broker, describe_broker_default,
    describe_client_metrics, describe_group, describe_topic,
};
pub use dynamic::validate_dynamic_broker_configs;
pub use error::{ConfigError, ErrorKind, Reason};
pub use group::{GroupConfig, validate_group_configs};
pub use layers::{Given, Layers, Origin, OverrideError};
pub use listeners::{Endpoint, ListenerProblem, ProtocolMap, SecurityProtocol};
pub use properties::{Properties, PropertiesError};
pub use quorum::Voter;
pub use rules::BrokenRule;
pub use topic::{
    ProduceValidation, TopicCompression, TopicConfig, TopicTimestampType, validate_topic_config,
    validate_topic_configs,
};
pub use value::Value;
