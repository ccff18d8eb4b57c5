//! Kafka record batches: view, validate, patch, build, walk; compression; ids.

mod ids;

pub use ids::{TopicPartition, Uuid, UuidParseError};
