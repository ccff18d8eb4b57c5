//! The membership of share groups (KIP-932): members heartbeat, the coordinator shares out which
//! partitions each of them reads. Several may read the same partition.
//!
//! ```text
//!   heartbeat --> checks, member's metadata      a change bumps the group epoch
//!             --> target       the assignor, over partitions whose share state is initialised
//!             --> the member is in the epoch of the target at once: nobody waits for anybody
//!             --> records --replay--> ShareGroup
//!             --> partitions without share state: the share coordinator is asked to make it,
//!                 and the next heartbeat shares them out
//! ```
//!
//! - `member`, `group`, `states`: the data. `record`: its records; `replay`: what they do.
//! - `heartbeat`, `leave`, `describe`, `offsets`: the requests. `assignor`: who reads what.

mod assignor;
mod describe;
mod group;
mod heartbeat;
mod leave;
mod member;
mod offsets;
mod record;
mod replay;
mod states;

#[cfg(test)]
mod tests;

pub use group::ShareGroup;
pub(in crate::group) use heartbeat::check_share_request;
pub(in crate::group) use heartbeat::share_heartbeat_error;
pub(in crate::group) use leave::share_tombstones;
pub use member::ShareMember;
pub use offsets::{DeletedOffsets, OffsetsToInitialize};
pub use record::ShareGroupRecord;
pub use replay::ShareGroupUndo;
pub use states::{ShareStates, TopicStates};

/// The type of these groups and the protocol type of their members.
pub(in crate::group) const SHARE: &str = "share";
/// The only assignor.
pub(in crate::group) const ASSIGNOR: &str = "simple";
