//! The consumer group protocol (KIP-848): members heartbeat, the coordinator assigns.
//!
//! ```text
//!   heartbeat --> checks (epochs, instance ids)
//!             --> member's metadata, regular expressions   a change bumps the group epoch
//!             --> target        an assignor shares the partitions out for the new epoch
//!             --> reconcile     one step of the member towards the target
//!             --> records --replay--> ConsumerGroup
//! ```
//!
//! Unlike in the classic protocol everything is in the log: the group and its members change by
//! replaying records alone, so that another coordinator goes on where this one was. In memory are
//! only the timers (`timers`).
//!
//! - `member`, `group`, `subscription`: the data. `record`: its records; `replay`: what they do.
//! - `heartbeat`, `leave`, `describe`: the requests. `classic_member`: JoinGroup, SyncGroup,
//!   Heartbeat and LeaveGroup of members that speak the classic protocol in such a group.
//! - `assignor`, `target`, `reconcile`: who gets what, and when. `regex`: subscriptions by regular
//!   expressions. `metadata_hash`: how a change of topics is noticed.
//! - `convert`: a classic group becomes a consumer group and the reverse, while in use.

pub mod assignor;
mod checks;
mod classic_member;
mod convert;
mod describe;
mod group;
mod heartbeat;
mod leave;
mod member;
mod metadata_hash;
mod policy;
mod reconcile;
mod record;
pub mod regex;
mod replay;
mod resolve;
mod subscription;
mod target;
mod timers;
mod work;

#[cfg(test)]
mod tests;

use klamm_protocol::ErrorCode;

pub(in crate::group) use checks::check_request;
pub use convert::DowngradeCompletion;
pub use group::{CommitCheck, ConsumerGroup, ConsumerGroupState};
pub(in crate::group) use group::{MetadataRefresh, decrement};
pub(in crate::group) use heartbeat::heartbeat_error;
pub(in crate::group) use leave::tombstones;
pub use member::{
    ConsumerMember, JOIN_EPOCH, LEAVE_EPOCH, MemberState, OwnedPartitions, Partitions,
    STATIC_LEAVE_EPOCH,
};
pub(in crate::group) use metadata_hash::TopicHashes;
pub use policy::MigrationPolicy;
pub use record::ConsumerRecord;
pub use replay::ConsumerUndo;
pub use subscription::ResolvedRegex;
pub use timers::ConsumerTimer;

/// The type of these groups and the protocol type of their members.
pub(in crate::group) const PROTOCOL_TYPE: &str = "consumer";

/// Why a request is refused, and what the client is told beside the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub error: ErrorCode,
    /// The words.
    pub message: String,
}

impl Refusal {
    pub(in crate::group) fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        Refusal {
            error,
            message: message.into(),
        }
    }
}
