//! Coordinators: state machines that live over partitions of internal topics.
//!
//! - [`runtime`] drives them: one task per partition that this broker leads, which loads the
//!   state from the log, handles requests in order, appends the records they make in batches, and
//!   answers when the records are committed. It knows nothing of groups.
//! - [`group`] is the group coordinator: who is in a group and how far it has read. Its state
//!   machines are pure: no tasks, no clock, no I/O; time and randomness are handed in.
//! - [`transaction`] is the transaction coordinator: what a producer writes atomically.
//! - [`share_state`] is the share coordinator: what share groups are done with.
//! - [`share_partition`] is the delivery of a partition's records to the members of a share group.
//! - [`metrics`] counts.
//!
//! A request travels `GroupCoordinator -> Runtime -> driver task -> GroupShard` and its answer
//! the same way back. The log is reached through two traits, [`runtime::PartitionWriter`] and
//! [`runtime::PartitionReader`], which the broker implements over its replicas.

#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod group;
pub mod metrics;
pub mod runtime;
pub mod share_partition;
pub mod share_state;
pub mod transaction;

pub use group::{GroupCoordinator, GroupCoordinatorConfig, RequestContext, TopicLookup};
pub use share_state::{ShareCoordinatorConfig, ShareStateCoordinator};
pub use transaction::{TransactionCoordinator, TransactionCoordinatorConfig};
