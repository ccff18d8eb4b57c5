//! Configurations of Klamm that Kafka does not have. Their names begin with `klamm.`.

use crate::def::{ConfigDef, Default, Importance, UpdateMode, Validator, ValueType, row};

/// Klamm's own configurations, sorted by name.
pub static KLAMM_CONFIGS: &[ConfigDef] = &[row(
    "klamm.metrics.listeners",
    ValueType::List,
    Importance::Medium,
    Default::Text("127.0.0.1:9644"),
    Validator::ListOf {
        valid: &[],
        empty: true,
        null: false,
    },
    UpdateMode::ReadOnly,
    false,
    &[],
)];
