//! Kafka record batches: view, validate, patch, build, walk; compression; ids.
//!
//! What lives where:
//!
//! - [`batch`]: the format of magic 2, which everything written today has;
//! - [`produce`]: the checks on a batch that a client sent, and the batch ready to be appended;
//! - [`compression`]: the codecs of batch bodies;
//! - [`control`]: the control records that end transactions;
//! - [`legacy`]: messages of magic 0 and 1, read only;
//! - [`mod@crc`], the checksum CRC-32C;
//! - [`Uuid`] and [`TopicPartition`]: the names that travel with records.
//!
//! No I/O, no clock, no threads: bytes and times come in as arguments. Bytes from outside never
//! make it panic or allocate more than they could hold.

#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod batch;
pub mod compression;
pub mod control;
pub mod crc;
mod ids;
pub mod legacy;
pub mod produce;
mod scratch;
mod varint;

pub use batch::{
    Attributes, BatchBuilder, BatchError, BatchHeader, BatchOptions, BatchView, HEADER_LEN, Record,
    RecordRef, TimestampType, batches,
};
pub use compression::{Codec, Compression};
pub use ids::{TopicPartition, Uuid, UuidParseError};
pub use produce::{PreparedBatch, ProduceError, ProduceRules};
pub use scratch::Scratch;
