#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub use klamm_broker::{Broker, BrokerError, ops};
pub use klamm_config::{self as config, BrokerConfig};
pub use klamm_env::{self as env, Env};
