//! Committed offsets: where they are kept, and the requests that deal with them.
//!
//! [`OffsetStore`] holds the newest offset of each partition and, for partitions with commits
//! that are still in flight, the last one that is committed: a plain OffsetFetch reads that,
//! a stable one reads the newest and waits. `transactional` keeps what open transactions
//! committed until their marker comes.
//!
//! One file per request (`commit`, `txn_commit`, `fetch`, `delete`), and `expire` for retention.

mod commit;
mod delete;
mod expire;
mod fetch;
mod store;
mod transactional;
mod txn_commit;

#[cfg(test)]
mod tests;

pub use delete::DeletedTopic;
pub use store::{CommittedOffset, OffsetStore, OffsetUndo};
pub use transactional::{PendingOffsets, PendingUndo};
