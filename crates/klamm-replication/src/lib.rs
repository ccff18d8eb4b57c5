//! Partitions: leader and follower state machines, high watermark, fetch sessions
#![forbid(unsafe_code)]

pub mod fetch_session;
pub mod partition;
pub mod waiters;
