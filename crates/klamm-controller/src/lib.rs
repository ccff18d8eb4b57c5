#![doc = include_str!("../README.md")]
//! # What lives here
//!
//! - [`Controller`] (`driver/`): the running controller; one task decides, a handle asks.
//! - [`managers`]: what it decides, as pure functions, one file per kind of request.
//! - `raft/`: the quorum that commits the decisions, and `__cluster_metadata-0`.
//! - `runtime`: tasks and their time: tokio, or a simulation in its place.
//! - [`ConfigSchema`]: what the managers need to know of configs.

#![forbid(unsafe_code)]

mod driver;
pub mod managers;
mod raft;
mod runtime;
mod schema;

pub use self::driver::{
    Controller, ControllerConfig, ControllerError, ControllerListener, Describable, DynamicQuorum,
};
pub use self::managers::{ApiError, Settings};
pub use self::raft::{
    IncomingSnapshot, InitialVoters, MetadataLogOptions, MetadataPublisher, MetadataReplica,
    MetadataUpdate, QuorumTransport, VoterEndpoint, write_levels, write_voters,
};
pub use self::schema::{ConfigSchema, EffectiveConfig, KafkaConfigs};
