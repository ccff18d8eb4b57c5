//! Share groups at the leaders of data partitions: sessions, and for each group and partition the
//! state machine that says who gets which records.
//!
//! ```text
//!   ShareFetch ──┐                     ┌─ SharePartition (pure, of klamm-coordinator)
//!                ├─ sessions ─ SharePartitions
//!   ShareAck  ───┘                     └─ SharePersister ─ the group's share coordinator
//! ```
//!
//! - `cells`: which state machines there are, in which term. `partitions`: how they are loaded,
//!   written and let go of.
//! - `fetch`: reading and waiting for records to hand out. `config`: what groups are set to.
//! - `stats`: what is counted of them. `persister`: the way to the share coordinators, and the
//!   pruning of their topic; `states`: what partitions ask them.

mod cells;
mod config;
mod fetch;
mod partitions;
mod persister;
mod states;
mod stats;

#[cfg(test)]
mod tests;

pub(crate) use cells::{Cell, PartitionKey};
pub(crate) use config::ShareConfig;
pub(crate) use fetch::{Fetched, ShareFetch};
pub(crate) use partitions::{SharePartitions, disconnected};
pub(crate) use persister::{Persister, start};
pub(crate) use stats::{ACK_TYPES, GroupStats};
