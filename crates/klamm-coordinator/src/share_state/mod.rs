//! The share coordinator (KIP-932): keeps what share groups are done with, one state for each
//! group and partition, in `__share_group_state`.
//!
//! ```text
//!  leader of a data partition, group coordinator
//!     --request--> SharePersister --> ShareStateCoordinator --> runtime --> ShareStateShard
//!                      (seam)               (facade)                          state per key
//! ```
//!
//! - [`SharePersister`] is the seam for those who ask. [`ShareStateCoordinator`] answers for keys
//!   whose partition is led here; another implementation may find the broker that does.
//! - [`ShareStateShard`] is the state over one partition of `__share_group_state`: pure. A change
//!   is a small update record; every so many of them, and for keys that rest, a snapshot is
//!   written, and what lies before all keys' snapshots is deleted from the log.
//! - [`ShareState`] is one key's state, [`ShareStateRecord`] its bytes; `combine` puts batches of
//!   state over each other.

mod combine;
mod config;
mod coordinator;
mod persister;
mod record;
mod shard;
mod state;

#[cfg(test)]
mod tests;

pub use combine::{StateBatch, combine};
pub use config::ShareCoordinatorConfig;
pub use coordinator::{LogPruner, ShareStateCoordinator};
pub use persister::SharePersister;
pub use record::{ShareStateKey, ShareStateRecord};
pub use shard::{
    ShareStateAction, ShareStateEffects, ShareStateRequest, ShareStateResponse, ShareStateShard,
    ShareStateTimer, ShareStateUndo, StateChange,
};
pub use state::ShareState;

/// An epoch or offset that is not given.
pub const NOT_GIVEN: i32 = -1;
