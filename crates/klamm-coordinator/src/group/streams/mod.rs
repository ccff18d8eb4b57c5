//! The membership of streams groups (KIP-1071): members are the threads of a Kafka Streams
//! application, and what the coordinator shares out among them are the tasks of its topology.
//!
//! ```text
//!   heartbeat --> checks, member's metadata, the topology of whoever comes first
//!             --> configured   the topology over the topics that there are: how many tasks, which
//!                              internal topics are missing, what is wrong
//!             --> target       the sticky assignor, over all tasks
//!             --> reconcile    revocation before assignment, by process
//!             --> records --replay--> StreamsGroup
//!             --> internal topics to be made: the broker asks the controller
//! ```
//!
//! - `tasks`, `member`, `topology`, `group`: the data. `record`: its records; `replay`: what they do.
//! - `configured`: from a topology to tasks; `repartition` and `copartition` decide partition counts.
//! - `heartbeat` (`beat`), `leave`, `describe`: the requests; `checks`: what needs no state;
//!   `endpoints`: who answers interactive queries for what. `target`, `reconcile`, `assignor`: who
//!   runs what.

mod assignor;
mod beat;
mod checks;
mod configured;
mod copartition;
mod describe;
mod endpoints;
mod group;
mod heartbeat;
mod leave;
mod member;
mod reconcile;
mod record;
mod repartition;
mod replay;
mod target;
mod tasks;
mod topology;

#[cfg(test)]
mod tests;

use klamm_protocol::ByteStr;

pub(in crate::group) use checks::check_streams_request;
pub use configured::{ConfiguredSubtopology, ConfiguredTopology, InternalTopic};
pub use group::{StreamsGroup, StreamsGroupState};
pub(in crate::group) use heartbeat::streams_heartbeat_error;
pub(in crate::group) use leave::streams_tombstones;
pub use member::{MemberState, StreamsMember};
pub use record::StreamsRecord;
pub use replay::StreamsUndo;
pub use tasks::{ActiveTasks, OwnedTasks, TaskSet, Tasks};
pub use topology::Topology;

/// The type of these groups and the protocol type of their members.
pub(in crate::group) const STREAMS: &str = "streams";

/// The timers of a streams group, beside its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamsTimer {
    /// The session of a member.
    Session(ByteStr),
    /// How long a member may take to give tasks up.
    Rebalance(ByteStr),
    /// How long a new group waits for more members before its first assignment.
    InitialRebalance,
}

/// The states of a heartbeat's answer.
mod status {
    pub(super) const STALE_TOPOLOGY: i8 = 0;
    pub(super) const MISSING_SOURCE_TOPICS: i8 = 1;
    pub(super) const INCORRECTLY_PARTITIONED_TOPICS: i8 = 2;
    pub(super) const MISSING_INTERNAL_TOPICS: i8 = 3;
    pub(super) const SHUTDOWN_APPLICATION: i8 = 4;
    pub(super) const ASSIGNMENT_DELAYED: i8 = 5;
}

/// The code of the status that says that internal topics are missing.
pub const MISSING_INTERNAL_TOPICS: i8 = status::MISSING_INTERNAL_TOPICS;
