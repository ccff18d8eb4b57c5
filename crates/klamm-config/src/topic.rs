//! A topic's configuration: its own overrides over the broker's values.

use std::collections::BTreeMap;

use crate::broker::BrokerConfig;
use crate::def::{self, ConfigDef};
use crate::error::ConfigError;
use crate::klamm::KLAMM_TOPIC_CONFIGS;
use crate::rules::BrokenRule;
use crate::table::TOPIC_CONFIGS;
use crate::value::Value;

/// What the broker does to a batch's compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicCompression {
    /// Keeps what the producer sent.
    Producer,
    /// Stores records uncompressed.
    Uncompressed,
    /// Stores them in gzip at this level.
    Gzip(i32),
    /// Stores them in snappy.
    Snappy,
    /// Stores them in lz4 at this level.
    Lz4(i32),
    /// Stores them in zstd at this level.
    Zstd(i32),
}

/// `klamm.produce.validation`: how closely produced batches are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProduceValidation {
    /// Every record, as Kafka does.
    Strict,
    /// Of compressed batches no more than the header and the checksum.
    Header,
}

/// Whose time a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopicTimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, when it appends.
    LogAppendTime,
}

/// The values in force for one topic. Times are in milliseconds, sizes in bytes, -1 means no limit.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    /// `segment.bytes`, or the smaller `internal.segment.bytes` of tests.
    pub segment_bytes: i32,
    /// `segment.ms`
    pub segment_ms: i64,
    /// `segment.jitter.ms`
    pub segment_jitter_ms: i64,
    /// `segment.index.bytes`
    pub segment_index_bytes: i32,
    /// `flush.messages`
    pub flush_messages: i64,
    /// `flush.ms`
    pub flush_ms: i64,
    /// Whether `klamm.flush` is `group`: `acks=all` waits for the disk.
    pub flush_group: bool,
    /// `retention.bytes`
    pub retention_bytes: i64,
    /// `retention.ms`
    pub retention_ms: i64,
    /// `max.message.bytes`: the largest batch a producer may send.
    pub max_message_bytes: i32,
    /// `index.interval.bytes`
    pub index_interval_bytes: i32,
    /// `delete.retention.ms`: how long tombstones stay after cleaning.
    pub delete_retention_ms: i64,
    /// `min.compaction.lag.ms`
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`
    pub max_compaction_lag_ms: i64,
    /// `file.delete.delay.ms`
    pub file_delete_delay_ms: i64,
    /// `min.cleanable.dirty.ratio`
    pub min_cleanable_dirty_ratio: f64,
    /// Whether `cleanup.policy` has `compact`.
    pub compact: bool,
    /// Whether `cleanup.policy` has `delete`.
    pub delete: bool,
    /// `min.insync.replicas`
    pub min_insync_replicas: i32,
    /// `compression.type` with the level of that codec.
    pub compression: TopicCompression,
    /// `unclean.leader.election.enable`
    pub unclean_leader_election_enable: bool,
    /// `preallocate`
    pub preallocate: bool,
    /// `message.timestamp.type`
    pub message_timestamp_type: TopicTimestampType,
    /// `message.timestamp.before.max.ms`
    pub message_timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub message_timestamp_after_max_ms: i64,
    /// `leader.replication.throttled.replicas`: `partition:broker` entries or `*`.
    pub leader_throttled_replicas: Vec<String>,
    /// `follower.replication.throttled.replicas`, alike.
    pub follower_throttled_replicas: Vec<String>,
    /// `remote.storage.enable`
    pub remote_storage_enable: bool,
    /// `remote.log.copy.disable`
    pub remote_log_copy_disable: bool,
    /// `remote.log.delete.on.disable`
    pub remote_log_delete_on_disable: bool,
    /// `local.retention.ms`, or `retention.ms` where that is -2.
    pub local_retention_ms: i64,
    /// `local.retention.bytes`, or `retention.bytes` where that is -2.
    pub local_retention_bytes: i64,
    /// `klamm.produce.validation`
    pub produce_validation: ProduceValidation,
}

impl TopicConfig {
    /// The values in force with these overrides on this broker.
    ///
    /// # Errors
    /// If an override's value is refused (names that are not topic configurations are ignored).
    pub fn resolve(
        overrides: &BTreeMap<String, String>,
        broker: &BrokerConfig,
    ) -> Result<Self, ConfigError> {
        Ok(Self::from_values(&TopicValues::parse(overrides, broker)?))
    }

    /// The values of a topic without overrides.
    pub fn of_broker(broker: &BrokerConfig) -> Self {
        Self::from_values(&TopicValues::of_broker(broker))
    }

    fn from_values(v: &TopicValues) -> Self {
        let segment = v.value("internal.segment.bytes");
        let (retention_ms, retention_bytes) = (v.long("retention.ms"), v.long("retention.bytes"));
        let local = |own: i64, whole: i64| if own == -2 { whole } else { own };
        let policy = v.list("cleanup.policy");
        Self {
            segment_bytes: if let Value::Int(n) = segment {
                *n
            } else {
                v.int("segment.bytes")
            },
            segment_ms: v.long("segment.ms"),
            segment_jitter_ms: v.long("segment.jitter.ms"),
            segment_index_bytes: v.int("segment.index.bytes"),
            flush_messages: v.long("flush.messages"),
            flush_ms: v.long("flush.ms"),
            flush_group: v.text("klamm.flush") == "group",
            retention_bytes,
            retention_ms,
            max_message_bytes: v.int("max.message.bytes"),
            index_interval_bytes: v.int("index.interval.bytes"),
            delete_retention_ms: v.long("delete.retention.ms"),
            min_compaction_lag_ms: v.long("min.compaction.lag.ms"),
            max_compaction_lag_ms: v.long("max.compaction.lag.ms"),
            file_delete_delay_ms: v.long("file.delete.delay.ms"),
            min_cleanable_dirty_ratio: v.double("min.cleanable.dirty.ratio"),
            compact: policy.iter().any(|p| p == "compact"),
            delete: policy.iter().any(|p| p == "delete"),
            min_insync_replicas: v.int("min.insync.replicas"),
            compression: v.compression(),
            unclean_leader_election_enable: v.boolean("unclean.leader.election.enable"),
            preallocate: v.boolean("preallocate"),
            message_timestamp_type: v.timestamp_type(),
            message_timestamp_before_max_ms: v.long("message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms: v.long("message.timestamp.after.max.ms"),
            leader_throttled_replicas: v.list("leader.replication.throttled.replicas").to_vec(),
            follower_throttled_replicas: v.list("follower.replication.throttled.replicas").to_vec(),
            remote_storage_enable: v.boolean("remote.storage.enable"),
            remote_log_copy_disable: v.boolean("remote.log.copy.disable"),
            remote_log_delete_on_disable: v.boolean("remote.log.delete.on.disable"),
            local_retention_ms: local(v.long("local.retention.ms"), retention_ms),
            local_retention_bytes: local(v.long("local.retention.bytes"), retention_bytes),
            produce_validation: match v.text("klamm.produce.validation") {
                "header" => ProduceValidation::Header,
                _ => ProduceValidation::Strict,
            },
        }
    }
}

/// Every topic configuration's value, in the order of [`def::topic_configs`].
pub(crate) struct TopicValues(Vec<Value>);

impl TopicValues {
    pub(crate) fn of_broker(broker: &BrokerConfig) -> Self {
        Self(
            def::topic_configs()
                .map(|def| broker_value(def, broker))
                .collect(),
        )
    }

    pub(crate) fn parse(
        overrides: &BTreeMap<String, String>,
        broker: &BrokerConfig,
    ) -> Result<Self, ConfigError> {
        let one = |def: &ConfigDef| match overrides.get(def.name) {
            Some(text) => def.parse(text),
            None => Ok(broker_value(def, broker)),
        };
        def::topic_configs()
            .map(one)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    pub(crate) fn value(&self, name: &str) -> &Value {
        let at = match TOPIC_CONFIGS.binary_search_by(|d| d.name.cmp(name)) {
            Ok(at) => Some(at),
            Err(_) => KLAMM_TOPIC_CONFIGS
                .iter()
                .position(|d| d.name == name)
                .map(|at| at + TOPIC_CONFIGS.len()),
        };
        at.map_or(&Value::Null, |at| &self.0[at])
    }

    fn int(&self, name: &str) -> i32 {
        if let Value::Int(n) = self.value(name) {
            *n
        } else {
            0
        }
    }

    fn long(&self, name: &str) -> i64 {
        if let Value::Long(n) = self.value(name) {
            *n
        } else {
            0
        }
    }

    fn double(&self, name: &str) -> f64 {
        if let Value::Double(n) = self.value(name) {
            *n
        } else {
            0.0
        }
    }

    fn boolean(&self, name: &str) -> bool {
        matches!(self.value(name), Value::Boolean(true))
    }

    fn list(&self, name: &str) -> &[String] {
        if let Value::List(items) = self.value(name) {
            items
        } else {
            &[]
        }
    }

    fn text(&self, name: &str) -> &str {
        if let Value::Text(text) = self.value(name) {
            text
        } else {
            ""
        }
    }

    fn compression(&self) -> TopicCompression {
        match self.text("compression.type") {
            "uncompressed" => TopicCompression::Uncompressed,
            "gzip" => TopicCompression::Gzip(self.int("compression.gzip.level")),
            "snappy" => TopicCompression::Snappy,
            "lz4" => TopicCompression::Lz4(self.int("compression.lz4.level")),
            "zstd" => TopicCompression::Zstd(self.int("compression.zstd.level")),
            _ => TopicCompression::Producer,
        }
    }

    fn timestamp_type(&self) -> TopicTimestampType {
        match self.text("message.timestamp.type") {
            "LogAppendTime" => TopicTimestampType::LogAppendTime,
            _ => TopicTimestampType::CreateTime,
        }
    }
}

/// What the broker says for a topic configuration that the topic does not set.
fn broker_value(def: &ConfigDef, broker: &BrokerConfig) -> Value {
    match def.name {
        "retention.ms" => Value::Long(broker.log_retention_ms()),
        "segment.ms" => Value::Long(broker.log_roll_ms()),
        "segment.jitter.ms" => Value::Long(broker.log_roll_jitter_ms()),
        "flush.ms" => Value::Long(broker.log_flush_interval_ms()),
        _ => match def.synonyms.first() {
            Some(synonym) => broker.value(synonym.name).clone(),
            None => def.default_value().unwrap_or(Value::Null),
        },
    }
}

/// Checks one topic configuration by itself.
///
/// # Errors
/// If there is no such configuration, or it does not take the value; the text is Kafka's.
pub fn validate_topic_config(name: &str, value: &str) -> Result<(), ConfigError> {
    match def::topic_config(name) {
        Some(def) => def.parse(value).map(drop),
        None => Err(ConfigError::UnknownTopicConfig(name.to_owned())),
    }
}

/// Checks all the overrides a topic would have, as CreateTopics and the alter-configs requests do.
///
/// `existing` holds what it has now (empty for a new topic).
///
/// # Errors
/// The first unknown name, refused value or broken rule, with Kafka's text.
pub fn validate_topic_configs(
    existing: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
    broker: &BrokerConfig,
) -> Result<(), ConfigError> {
    if let Some(name) = wanted.keys().find(|name| def::topic_config(name).is_none()) {
        return Err(ConfigError::UnknownTopicConfig(name.clone()));
    }
    let values = TopicValues::parse(wanted, broker)?;
    let (min, max) = (
        values.long("min.compaction.lag.ms"),
        values.long("max.compaction.lag.ms"),
    );
    if min > max {
        return Err(BrokenRule::CompactionLag { min, max }.into());
    }
    let rule = if values.boolean("remote.storage.enable") {
        if !broker.boolean("remote.log.storage.system.enable") {
            Some(BrokenRule::NoTieredStorage)
        } else if values.list("cleanup.policy").iter().any(|p| p == "compact") {
            Some(BrokenRule::TieredCompacted)
        } else {
            None
        }
    } else {
        let was = existing
            .get("remote.storage.enable")
            .is_some_and(|v| v.eq_ignore_ascii_case("true"));
        (was && !values.boolean("remote.log.delete.on.disable"))
            .then_some(BrokenRule::TieredDisabledWithData)
    };
    rule.map_or(Ok(()), |rule| Err(rule.into()))
}
