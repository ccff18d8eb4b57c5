#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod managers;
mod schema;

pub use self::schema::{ConfigSchema, EffectiveConfig, KafkaConfigs};
