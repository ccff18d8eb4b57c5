//! Following leaders: what a broker asks a leader for, round after round, and what it does with
//! the answers.
//!
//! ```text
//! FetchPlan::next  -> FetchRequest ->  (the leader)  -> FetchResponse ->  FetchPlan::answered
//!       ^                                                                        |
//!       |  positions                          ReplicaManager::follow             v
//!       +------------------------------ append, truncate, high watermark <-------+
//! ```
//!
//! - [`session`]: the follower's side of fetch sessions (KIP-227), so that a round names only the
//!   partitions that moved.
//! - [`plan`]: which partitions to ask one leader for, and when again after an error.
//! - [`driver`]: the loop that puts plan, channel and replicas together; one per leader.
//!
//! Session and plan are state machines without sockets and clocks; the driver reaches the leader
//! through [`LeaderChannel`] alone.

pub mod driver;
pub mod plan;
pub mod session;

pub use driver::{ChannelError, Fetcher, FetcherCommand, LeaderChannel, RoundEnd};
pub use plan::{Answered, FetchLimits, FetchPlan, Round};

use klamm_protocol::ErrorCode;

/// The error that a leader's number stands for.
pub(crate) fn error_of(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)
}
