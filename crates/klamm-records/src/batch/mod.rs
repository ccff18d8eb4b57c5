//! Record batches of magic 2: header, borrowed view, walk over the records, builder.
//!
//! ```text
//! base offset i64 | length i32 | leader epoch i32 | magic i8 | crc u32 | attributes i16 | …
//! '------------- not under the CRC ---------------------------'        '--- under the CRC
//! ```
//!
//! Bytes flow one way: [`batches`] cuts a buffer into [`BatchView`]s, a view gives its
//! [`BatchHeader`] and, through a [`Scratch`](crate::Scratch), its records. Uncompressed records
//! are slices of the batch; compressed ones are slices of the scratch buffer.

mod builder;
mod header;
mod record;
mod view;

pub use builder::{BatchBuilder, BatchOptions, BuildError};
pub use header::{
    Attributes, BatchHeader, HEADER_LEN, LOG_OVERHEAD, NO_PARTITION_LEADER_EPOCH,
    NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType,
    decrement_sequence, increment_sequence, set_base_offset, set_partition_leader_epoch,
};
pub use record::{Header, Headers, Record, RecordError, RecordRef};
pub use view::{BatchView, Batches, Frame, Records, batches};

pub(crate) use header::CRC_FROM;
pub(crate) use record::{Base, read_body, read_record, write_record};

use crate::compression::CompressionError;

/// Why bytes are not a record batch.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The buffer ends before the batch does.
    #[error("the batch needs {needed} bytes and {available} are there")]
    Truncated {
        /// Bytes of the whole batch or header.
        needed: usize,
        /// Bytes in the buffer.
        available: usize,
    },
    /// The length field is too small for any batch of its magic.
    #[error("the batch says to be {size} bytes long, less than a header")]
    TooSmall {
        /// Bytes of the whole batch as the length field has it; negative if that is.
        size: i64,
    },
    /// Not a format version that this reader takes.
    #[error("magic {0} where another was needed")]
    UnsupportedMagic(i8),
    /// The content is not what the checksum was made of.
    #[error("the batch is corrupt: it carries checksum {stored:#010x} and has {computed:#010x}")]
    ChecksumMismatch {
        /// As in the header.
        stored: u32,
        /// Of the bytes there.
        computed: u32,
    },
    /// The attributes name a codec that does not exist.
    #[error("compression codec {0} does not exist")]
    UnknownCompression(u8),
    /// The header's record count is negative.
    #[error("the batch says to hold {0} records")]
    NegativeCount(i32),
    /// Bytes are left after the last record.
    #[error("bytes remain after the last of {0} records")]
    TrailingBytes(i32),
    /// A record inside is malformed.
    #[error("record {index} of the batch: {error}")]
    Record {
        /// Place of the record in the batch, from 0.
        index: i32,
        /// What is wrong with it.
        error: RecordError,
    },
    /// The compressed body cannot be read.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}
