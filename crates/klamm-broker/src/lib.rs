//! The Klamm broker: the crates below it put together into a process that Kafka's clients and tools
//! take for Kafka.
//!
//! - [`Broker`] (`broker.rs`, `start.rs`, `listeners.rs`, `membership.rs`): lifecycle. Locks the data directories, starts the
//!   controller, registers with it, follows the metadata, opens the listeners.
//! - `service.rs`, `dispatch.rs`, `apis/`: a request's way in. One file per API key, one table.
//! - `controller/`: the way to the controller that decides, in this process or another.
//! - [`mod@format`]: preparing directories before the first start.
//! - `shared.rs`: what handlers work with. `settings.rs`: configuration into what the crates below
//!   are started with. `follow.rs`: metadata into replicas and coordinators.
//! - `connections.rs`: connections to other nodes; `peers.rs`: those to other brokers. `fetchers.rs`: following their partitions.
//!   `isr_changes.rs`: in-sync replicas of the partitions led here, to the controller.
//! - [`ops`]: metrics and health.
//!
//! Logic lives below: in `klamm-controller`, `klamm-replication`, `klamm-coordinator`, `klamm-log`.

#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod apis;
mod authorized;
mod auto_create;
mod blocking;
mod broker;
mod cleaner;
mod connections;
mod context;
mod controller;
mod coordinator_log;
mod directories;
mod dispatch;
mod error;
mod fetchers;
mod follow;
pub mod format;
mod group_cluster;
mod isr_changes;
mod listeners;
mod lookout;
mod markers;
mod membership;
mod movers;
pub mod ops;
mod peers;
mod producer_ids;
mod quorum;
mod service;
mod settings;
mod shared;
mod shares;
mod start;
mod streams;
mod supervise;
mod upkeep;

pub use broker::Broker;
pub use error::BrokerError;
