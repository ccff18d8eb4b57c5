#![doc = include_str!("../README.md")]
//! # What lives here
//!
//! - [`core`]: what a connection is, without sockets: versions, correlation ids, frames.
//! - [`Connection`]: the same over TCP, on tokio; requests may overlap.
//!
//! A request is encoded in the highest version that both sides know, takes its place in the queue
//! of those that wait, and leaves. One task reads: answers come in the order of the requests, so
//! each belongs to the head of the queue.

#![forbid(unsafe_code)]

mod connection;
pub mod core;
mod error;

pub use self::connection::{ConnectOptions, Connection};
pub use self::core::VersionTable;
pub use self::error::ClientError;
