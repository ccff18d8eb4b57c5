//! Every Kafka wire message and internal record, generated from Kafka's schemas.

#![deny(unsafe_code)]

mod api_key;
mod byte_str;
mod decoder;
mod encoder;
mod error;
mod error_code;
mod message;
mod records;
mod tags;
mod version;

pub mod consumer_protocol;
pub mod control_records;
pub mod frame;
pub mod group_records;
pub mod messages;
pub mod metadata;
pub mod record_frame;
pub mod remote_log_records;
pub mod share_records;
pub mod topic_name;
pub mod transaction_records;

pub use api_key::{ApiKey, Listener, UnknownApiKey};
pub use byte_str::ByteStr;
pub use decoder::Decoder;
pub use encoder::{Encoder, TagWriter};
pub use error::{DecodeError, EncodeError};
pub use error_code::ErrorCode;
pub use message::{Message, RecordKey, Request};
pub use records::{Records, Segment};
pub use tags::{UnknownTag, UnknownTags};
pub use version::VersionRange;
