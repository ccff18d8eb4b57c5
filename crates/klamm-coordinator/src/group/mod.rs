//! Group coordination: who is in a group, and how far it has read.
//!
//! ```text
//!  broker --request--> GroupCoordinator --GroupRequest--> runtime --> GroupShard
//!                        (facade)                                      |- classic/   members
//!         <-response--            <--GroupResponse--                   |- consumer/  members
//!                                                                      |- share/     members
//!                                                                      |- streams/   members
//!                                                                      '- offsets/   progress
//! ```
//!
//! - [`GroupCoordinator`] checks what needs no state, finds the partition, and gives every
//!   version of a request its form.
//! - [`GroupShard`] is the state over one partition of `__consumer_offsets`: pure, one folder per
//!   protocol (`classic`, `consumer`, `share`, `streams`), one for offsets.
//! - [`GroupRecord`] is what it writes, in Kafka's bytes.

pub mod classic;
mod cluster;
mod config;
pub mod consumer;
mod context;
mod coordinator;
mod describe;
mod errors;
mod java;
pub mod offsets;
mod record;
mod shard;
pub mod share;
pub mod streams;
mod versions;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use cluster::{
    Cluster, ConsumerGroupSettings, FixedCluster, ListedTopic, ShareGroupSettings,
    StreamsGroupSettings, TopicList, TopicsView,
};
pub use config::GroupCoordinatorConfig;
pub use context::{RequestContext, TopicLookup};
pub use coordinator::{EndOffsets, GroupCoordinator};
pub(crate) use errors::client_error;
pub use java::{client_host, partition_for};

pub use offsets::DeletedTopic;
pub use record::GroupRecord;
pub use shard::{
    Group, GroupCompletion, GroupCreation, GroupEffects, GroupRequest, GroupResponse, GroupShard,
    GroupTimer, GroupUndo,
};
