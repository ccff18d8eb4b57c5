//! Configurations of Klamm that Kafka does not have. Their names begin with `klamm.`.

use crate::def::{
    ConfigDef, Default, Importance, Number, Scale, Synonym, UpdateMode, Validator, ValueType, row,
};

const FLUSHES: Validator = Validator::OneOf(&["os", "group"]);
const VALIDATIONS: Validator = Validator::OneOf(&["strict", "header"]);

/// Klamm's own broker configurations, sorted by name.
pub static KLAMM_CONFIGS: &[ConfigDef] = &[
    row(
        "klamm.fast.fencing.enable",
        ValueType::Boolean,
        Importance::Low,
        Default::Text("true"),
        Validator::Any,
        UpdateMode::ReadOnly,
        false,
        &[],
    ),
    row(
        "klamm.log.flush",
        ValueType::String,
        Importance::Medium,
        Default::Text("os"),
        FLUSHES,
        UpdateMode::ReadOnly,
        false,
        &[],
    ),
    row(
        "klamm.log.open.files.max",
        ValueType::Int,
        Importance::Low,
        Default::Text("-1"),
        Validator::Range(Some(Number::Whole(-1)), None),
        UpdateMode::ReadOnly,
        false,
        &[],
    ),
    row(
        "klamm.log.produce.validation",
        ValueType::String,
        Importance::Medium,
        Default::Text("strict"),
        VALIDATIONS,
        UpdateMode::ReadOnly,
        false,
        &[],
    ),
    row(
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
    ),
];

/// Klamm's own topic configurations, sorted by name.
pub static KLAMM_TOPIC_CONFIGS: &[ConfigDef] = &[
    row(
        "klamm.flush",
        ValueType::String,
        Importance::Medium,
        Default::Text("os"),
        FLUSHES,
        UpdateMode::Resource,
        false,
        &[Synonym {
            name: "klamm.log.flush",
            scale: Scale::Same,
        }],
    ),
    row(
        "klamm.produce.validation",
        ValueType::String,
        Importance::Medium,
        Default::Text("strict"),
        VALIDATIONS,
        UpdateMode::Resource,
        false,
        &[Synonym {
            name: "klamm.log.produce.validation",
            scale: Scale::Same,
        }],
    ),
];
