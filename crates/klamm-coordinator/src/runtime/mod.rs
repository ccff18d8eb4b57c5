//! The runtime that drives coordinators: one task per partition that this broker leads.
//!
//! ```text
//!   submit() --> queue --> driver task:  handle / tick      the shard says what to do
//!                                        replay             its records change the state
//!                                        append             one batch for all of the queue
//!                                        park               answers wait for the high watermark
//!   <-- answer ------------------------  commit             records are committed
//!                                        or undo            the append failed: all of it back
//! ```
//!
//! State is changed first and written after, so that a request sees what the one before it did
//! without waiting for the disk. An answer never leaves before all that it is based on is
//! committed; reads that must not wait see the committed state, which the shard keeps beside.
//!
//! - [`Shard`] is the contract with a state machine, [`Effects`] what it asks for, [`Timers`] a
//!   help for its deadlines.
//! - A shard may take part in transactions: records in a producer's name go into a batch of their
//!   own ([`TransactionalProducer`]), and [`TransactionEnd`] is the marker that ends them.
//! - [`Runtime`] starts and stops drivers as partitions come and go; `driver` is the task,
//!   `writing` its way into the log, `loader` reads the log when a partition is won.
//! - [`Tasks`] runs the drivers and lets them wait.
//! - [`PartitionWriter`] and [`PartitionReader`] are the log, [`MemoryPartitions`] one in memory.

mod driver;
mod loader;
mod memory;
mod runner;
mod shard;
mod storage;
mod tasks;
mod timers;
mod writing;

#[cfg(test)]
mod tests;

pub use driver::TransactionEnd;
pub use loader::LoadError;
pub use memory::MemoryPartitions;
pub use runner::{Runtime, RuntimeOptions};
pub use shard::{
    CoordinatorRecord, Effects, EncodedRecord, Now, RecordError, RecordOrigin, ReplyToken, Shard,
    TransactionalProducer, WriteOutcome,
};
pub use storage::{
    Appended, BatchKind, BoxFuture, LogRange, PartitionReader, PartitionWriter, ReadError,
    WriteError,
};
pub use tasks::{Tasks, TokioTasks};
pub use timers::Timers;
