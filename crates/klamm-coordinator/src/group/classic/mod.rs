//! The classic group protocol: JoinGroup, SyncGroup, Heartbeat, LeaveGroup.
//!
//! [`ClassicGroup`] is the data of one group; [`Machine`] lends it the clock, the timers and a
//! place for what is to be done, and moves it:
//!
//! ```text
//!            join                 all joined, or time is up          leader synced
//!   Empty ---------> PreparingRebalance -----------> CompletingRebalance -------> Stable
//!     ^                |   ^       ^                        |                       |
//!     +----------------+   |       +------------------------+                       |
//!       nobody is left     +--------------------------------------------------------+
//!                               a member joins, leaves, or falls silent
//! ```
//!
//! One file per request (`join`, `sync`, `heartbeat`, `leave`), and `rebalance` for what they
//! share: preparing and completing a generation, and what happens when a timer fires.
//!
//! Only three facts reach the log: that a group exists, that a generation got its assignment (or
//! became empty), and that a static member has a new id. Everything else is in memory, and lost
//! with the coordinator, as in Kafka: members then find the last generation that was stable.

mod checks;
mod converted;
mod group;
mod heartbeat;
mod join;
mod leave;
mod machine;
mod member;
mod rebalance;
mod state;
mod stored;
mod sync;

#[cfg(test)]
mod tests;

pub use group::{CONSUMER_PROTOCOL_TYPE, ClassicGroup};
pub(in crate::group) use leave::leave_response;
pub use machine::{ClassicCompletion, ClassicTimer};
pub(in crate::group) use machine::{Machine, join_error};
pub use member::{Member, MemberProtocol};
pub use state::{ClassicState, DEAD};
