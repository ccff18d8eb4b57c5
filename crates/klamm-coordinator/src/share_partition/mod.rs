//! One partition of a topic as one share group reads it (KIP-932): which records are out with
//! which member, which are done, and what comes next.
//!
//! ```text
//!                 start offset                        end offset
//!                      |                                  |
//!   ... done for good  |  window: runs of offsets that    |  never handed out
//!                      |  share a state                   |
//!
//!   Available --acquire--> Acquired --accept--> Acknowledged
//!       ^                     |  |----reject--> Archived
//!       '---release, timeout--'  '----renew---> a new deadline
//! ```
//!
//! - [`SharePartition`] is the state machine, pure: time is an argument. It lives beside the leader
//!   of the data partition. `acquire` hands records out, `acknowledge` takes them back,
//!   `window` keeps the runs.
//! - What changes for good is written through the group's share coordinator first: the machine says
//!   what ([`StateWrite`]) and is told the outcome ([`SharePartition::written`]); until then the
//!   records are in transition and nobody gets at them.
//! - [`aborted_spans`] tells which batches a `read_committed` group must not see.
//! - [`sessions`] is who fetches what, without saying it each time.

mod aborted;
mod acknowledge;
mod acquire;
mod partition;
pub mod sessions;
mod window;

#[cfg(test)]
mod tests;

pub use aborted::{TransactionSpan, aborted_spans};
pub use acknowledge::{AcknowledgeType, Acknowledgement};
pub use acquire::{AcquireMode, AcquireRequest, AcquiredRange, BatchSpan};
pub use partition::{LoadError, ShareLimits, SharePartition, StateWrite, StoredState};
pub use window::RecordState;
