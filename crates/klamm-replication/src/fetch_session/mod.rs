//! Fetch sessions (KIP-227): a fetch names only what changed since the last one, an answer holds
//! only what is new.
//!
//! A request passes through in two steps. [`FetchSessionCache::begin`] finds or refuses the
//! session, applies the request's changes and returns a [`FetchContext`] whose
//! [`FetchContext::partitions`] are what the client wants in all, in the order in which to serve
//! them. After the reads, [`FetchSessionCache::finish`] drops what the client knows already and
//! names the session of the answer. Between the two no lock is held.
//!
//! - [`cache`]: the slots, shared out over shards, and who may evict whom.
//! - [`session`]: one session and its partitions in serving order. A partition that returned
//!   records goes to the end, so that a small `max.bytes` cannot starve the others.
//! - [`context`]: what one request carries from `begin` to `finish`.
//!
//! Time and randomness are arguments.

pub mod cache;
pub mod context;
pub mod session;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use klamm_records::Uuid;

pub use cache::{CacheStats, FetchSessionCache, SessionRequest};
pub use context::{FetchContext, Finished};
pub use session::SessionError;

/// The session id of a fetch or an answer without a session.
pub const INVALID_SESSION_ID: i32 = 0;
/// The epoch of a fetch that names all partitions and asks for a new session.
pub const INITIAL_EPOCH: i32 = 0;
/// The epoch of a fetch that names all partitions and asks for no session.
pub const FINAL_EPOCH: i32 = -1;

/// The session epoch after `epoch`; wraps to 1.
pub fn next_epoch(epoch: i32) -> i32 {
    match epoch {
        ..0 => FINAL_EPOCH,
        i32::MAX => 1,
        _ => epoch + 1,
    }
}

/// A partition as a fetch names it: by topic name before version 13, by topic id since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicIdPartition {
    /// The name; `None` for an id that no known topic has (`UNKNOWN_TOPIC_ID`).
    pub topic: Option<Arc<str>>,
    /// The id, or zero for a fetch by name.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: i32,
}

impl TopicIdPartition {
    /// A partition named by topic name alone.
    pub fn by_name(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        TopicIdPartition {
            topic: Some(topic.into()),
            topic_id: Uuid::ZERO,
            partition,
        }
    }
}

/// What a fetch wants of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    /// First offset wanted.
    pub fetch_offset: i64,
    /// The start of the follower's log; -1 from a consumer.
    pub log_start_offset: i64,
    /// Most bytes to return for this partition.
    pub max_bytes: i32,
    /// The leader epoch in which the client believes itself, if it says.
    pub current_leader_epoch: Option<i32>,
    /// The epoch of the record before `fetch_offset`, if the client checks for truncation.
    pub last_fetched_epoch: Option<i32>,
    /// The high watermark that a follower knows, if it says (version 18, KIP-1166).
    pub high_watermark: Option<i64>,
}

impl FetchPartition {
    /// Whether a follower would take over a high watermark of `high_watermark`: it is above the one
    /// it knows, and so is the end of its log.
    pub fn lacks_high_watermark(&self, high_watermark: i64) -> bool {
        let reachable = high_watermark.min(self.fetch_offset);
        self.high_watermark.is_some_and(|known| known < reachable)
    }
}

/// What a session must know of one partition's answer.
pub trait PartitionAnswer {
    /// Bytes of records in the answer.
    fn records_len(&self) -> usize;
    /// High watermark in the answer, -1 if unknown.
    fn high_watermark(&self) -> i64;
    /// Log start offset in the answer, -1 if unknown.
    fn log_start_offset(&self) -> i64;
    /// Whether the answer is an error.
    fn is_error(&self) -> bool;
    /// Whether the answer tells more than offsets and records: a preferred read replica or a
    /// diverging epoch.
    fn has_advice(&self) -> bool;
}
