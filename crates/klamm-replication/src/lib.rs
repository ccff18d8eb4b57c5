#![doc = include_str!("../README.md")]
//! # What lives here
//!
//! - [`partition`]: the rules of replication as state machines: leader, follower, ISR, high
//!   watermark, truncation. No I/O, no clock.
//! - [`fetch_session`]: fetch sessions (KIP-227). No I/O, no clock.
//! - [`fetcher`]: following leaders on other brokers, round by round.
//! - [`waiters`]: who waits for acknowledgements, bytes or time, as data structures.
//! - [`Throttle`]: a bandwidth that transfers keep to. No clock.
//! - [`manager`]: [`ReplicaManager`], the driver over logs and metadata that a broker calls.
//!
//! A produced batch: [`ReplicaManager::prepare`] validates it outside of any lock,
//! [`ReplicaManager::append_now`] appends it, the leader's state machine moves the high watermark,
//! and [`PendingProduce::wait`] ends once that has passed the batch. A fetch: the session says
//! which partitions the client wants, [`ReplicaManager::fetch`] finds where in the files their
//! records lie, or sleeps until an append credits it with enough bytes.

#![forbid(unsafe_code)]

pub mod fetch_session;
pub mod fetcher;
pub mod manager;
pub mod partition;
mod throttle;
mod time;
pub mod waiters;

pub use manager::{
    BlockingPool, CoordinatorAppend, DeletedRecords, DirectoryAssignment, DirectorySink, Elected,
    FetchParams, FetchSlices, FetchedPartition, FollowError, Followed, FollowerWish, Following,
    LeaderHint, LeaderStatus, LoadedRange, MoveStep, MoveTicket, OffsetAnswer, OffsetQuery,
    PendingProduce, Prepared, ProduceContext, ProduceResult, ProducerClaim, ProposalSink,
    ReadIsolation, ReadableReplica, ReplicaChanges, ReplicaManager, ReplicaManagerConfig,
    ReplicaOffsets, ReplicaStatus, ThrottledPartitions, TopicRef, TopicSettings,
};
pub use throttle::Throttle;
pub use waiters::Isolation;
