//! Listeners, framing, pipelining and responses made of memory and file ranges.
//!
//! What flows through here: a [`Listener`] accepts sockets and gives each a task. The task cuts
//! the byte stream into size-prefixed frames ([`FrameReader`]) and hands each to a [`Service`],
//! which answers at once, later in order, or after a barrier ([`Handling`]). A [`Reply`] is a list
//! of [`Part`]s: bytes, or a range of a file that goes from the page cache to the socket by
//! `sendfile` without entering user space.
//!
//! The crate knows nothing of Kafka's messages: a frame is bytes behind a four-byte length.
//!
//! # Order
//! Responses leave a connection in the order of its requests. A *pipelined* request (Produce) has
//! taken effect when `handle` returns and only its answer is pending, so the requests behind it
//! are read meanwhile; a *barrier* is started once all earlier answers are out, and nothing behind
//! it is looked at until it is done. Kafka itself handles one request per connection at a time, so
//! every order seen here is one that a Kafka client could see, only sooner.
//!
//! # Memory
//! A frame's buffer grows as its bytes arrive, never on the word of its length field alone; the
//! budget of [`ListenerConfig::queued_bytes_max`] covers all connections and stops reading when it
//! is used up; at most [`ListenerConfig::pipeline_max`] answers are pending per connection; an idle
//! connection holds no buffer.
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod budget;
mod connection;
mod frame;
mod listener;
mod service;
mod shutdown;
mod threads;
mod write;

pub use budget::ByteBudget;
pub use frame::{FrameError, FrameReader};
pub use listener::{BindError, Listener, ListenerConfig};
pub use service::{ConnectionInfo, Handling, Part, Reply, ReplyFuture, Service};
pub use shutdown::Shutdown;
pub use threads::Threads;
