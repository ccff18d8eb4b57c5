//! From Kafka's configuration names to what the crates below are started with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_config::{
    BrokerConfig, Endpoint, ProduceValidation, TopicCompression, TopicConfig, TopicTimestampType,
};
use klamm_coordinator::group::consumer::MigrationPolicy;
use klamm_coordinator::group::consumer::assignor::Assignor;
use klamm_coordinator::{
    GroupCoordinatorConfig, ShareCoordinatorConfig, TransactionCoordinatorConfig,
};
use klamm_env::raise_open_files_limit;
use klamm_log::LogConfig;
use klamm_net::{ByteBudget, ListenerConfig};
use klamm_records::produce::{ProduceRules, TopicCompression as StoredCompression, Validation};
use klamm_records::{Codec, Compression, TimestampType};
use klamm_replication::{ThrottledPartitions, TopicSettings};
use tracing::error;

use crate::apis::read_replica::RACK_AWARE;

/// What handlers need of the configuration and only a restart changes.
#[derive(Debug)]
pub(crate) struct Settings {
    /// `controller.listener.names`
    pub(crate) controller_listeners: Vec<String>,
    /// Where other nodes reach this node's controller.
    pub(crate) advertised_controller: Vec<Endpoint>,
    /// `max.request.partition.size.limit`: most partitions in one DescribeTopicPartitions answer.
    pub(crate) describe_partitions_max: i32,
    /// `fetch.max.bytes`
    pub(crate) fetch_bytes_max: i32,
    /// Whether `replica.selector.class` sends consumers to replicas in their rack.
    pub(crate) rack_aware_reads: bool,
    /// How long a producer's first write in a transaction waits for the one before to end, in
    /// milliseconds: `add.partitions.to.txn.retry.backoff.max.ms`, at most `request.timeout.ms`.
    pub(crate) transaction_patience_ms: i64,
}

impl Settings {
    pub(crate) fn of(config: &BrokerConfig) -> Self {
        Settings {
            controller_listeners: config.controller_listener_names().to_vec(),
            advertised_controller: config.advertised_controller_listeners().to_vec(),
            describe_partitions_max: config.max_request_partition_size_limit(),
            fetch_bytes_max: config.fetch_max_bytes(),
            rack_aware_reads: config.text("replica.selector.class") == Some(RACK_AWARE),
            transaction_patience_ms: config
                .int("add.partitions.to.txn.retry.backoff.max.ms")
                .min(config.int("request.timeout.ms"))
                .into(),
        }
    }
}

/// What replication needs to know of a topic with these overrides.
pub(crate) fn topic_settings(
    topic: &str,
    overrides: &BTreeMap<String, String>,
    config: &BrokerConfig,
) -> TopicSettings {
    let resolved = TopicConfig::resolve(overrides, config).unwrap_or_else(|refused| {
        // The controller takes no value that would be refused here, so this is a data directory
        // of another version. Serving the topic with defaults beats not serving it.
        error!(topic, error = %refused, "a topic's configuration cannot be read: defaults apply");
        TopicConfig::of_broker(config)
    });
    let timestamp_type = match resolved.message_timestamp_type {
        TopicTimestampType::CreateTime => TimestampType::CreateTime,
        TopicTimestampType::LogAppendTime => TimestampType::LogAppendTime,
    };
    TopicSettings {
        log: log_config(&resolved, timestamp_type, config),
        rules: ProduceRules {
            max_message_bytes: resolved.max_message_bytes,
            compression: stored_compression(resolved.compression),
            compacted: resolved.compact,
            timestamp_type,
            timestamp_before_max_ms: resolved.message_timestamp_before_max_ms,
            timestamp_after_max_ms: resolved.message_timestamp_after_max_ms,
            validation: match resolved.produce_validation {
                ProduceValidation::Strict => Validation::Strict,
                ProduceValidation::Header => Validation::Header,
            },
            ..ProduceRules::default()
        },
        min_insync_replicas: resolved.min_insync_replicas,
        leader_throttled: throttled(&resolved.leader_throttled_replicas, config.node_id()),
        follower_throttled: throttled(&resolved.follower_throttled_replicas, config.node_id()),
    }
}

/// Of `partition:broker` entries or `*`, what concerns this broker.
fn throttled(entries: &[String], node_id: i32) -> ThrottledPartitions {
    if entries.iter().any(|entry| entry.trim() == "*") {
        return ThrottledPartitions::All;
    }
    let partition = |entry: &String| {
        let (partition, broker) = entry.split_once(':')?;
        let is_here = broker.trim().parse() == Ok(node_id);
        partition.trim().parse().ok().filter(|_| is_here)
    };
    let partitions: Vec<i32> = entries.iter().filter_map(partition).collect();
    if partitions.is_empty() {
        ThrottledPartitions::None
    } else {
        ThrottledPartitions::These(partitions)
    }
}

fn log_config(
    topic: &TopicConfig,
    timestamp_type: TimestampType,
    config: &BrokerConfig,
) -> LogConfig {
    // Sizes are checked to be positive where configurations are.
    let bytes = |value: i32| value.unsigned_abs();
    LogConfig {
        segment_bytes: bytes(topic.segment_bytes),
        segment_ms: topic.segment_ms,
        segment_jitter_ms: topic.segment_jitter_ms,
        segment_index_bytes: bytes(topic.segment_index_bytes),
        index_interval_bytes: bytes(topic.index_interval_bytes),
        max_message_bytes: bytes(topic.max_message_bytes),
        timestamp_type,
        delete: topic.delete,
        compact: topic.compact,
        retention_ms: topic.retention_ms,
        retention_bytes: topic.retention_bytes,
        min_cleanable_dirty_ratio: topic.min_cleanable_dirty_ratio,
        min_compaction_lag_ms: topic.min_compaction_lag_ms,
        max_compaction_lag_ms: topic.max_compaction_lag_ms,
        delete_retention_ms: topic.delete_retention_ms,
        flush_messages: topic.flush_messages,
        flush_ms: topic.flush_ms,
        group_sync: topic.flush_group,
        file_delete_delay_ms: topic.file_delete_delay_ms,
        preallocate: topic.preallocate,
        producer_id_expiration_ms: config.producer_id_expiration_ms().into(),
        transaction_verification: config.boolean("transaction.partition.verification.enable"),
        // There is no remote tier to have yet.
        ..LogConfig::default()
    }
}

fn stored_compression(compression: TopicCompression) -> StoredCompression {
    let (compression, level) = match compression {
        TopicCompression::Producer => return StoredCompression::Producer,
        TopicCompression::Uncompressed => (Compression::None, None),
        TopicCompression::Gzip(level) => (Compression::Gzip, Some(level)),
        TopicCompression::Snappy => (Compression::Snappy, None),
        TopicCompression::Lz4(level) => (Compression::Lz4, Some(level)),
        TopicCompression::Zstd(level) => (Compression::Zstd, Some(level)),
    };
    // Levels out of range are refused where configurations are checked.
    let levelled = level.and_then(|level| Codec::new(compression, level).ok());
    StoredCompression::Codec(levelled.unwrap_or_else(|| Codec::from(compression)))
}

/// How many files the logs may keep open. By default half of what the process may have; the rest is
/// for connections, and for files that are open for a moment only.
pub(crate) fn open_files_max(config: &BrokerConfig) -> usize {
    let limit = raise_open_files_limit();
    match usize::try_from(config.int("klamm.log.open.files.max")) {
        Ok(chosen) => chosen,
        Err(_) => limit.map_or(usize::MAX, |limit| {
            usize::try_from(limit / 2).unwrap_or(usize::MAX)
        }),
    }
}

/// What the group coordinator is started with.
pub(crate) fn group_config(config: &BrokerConfig) -> GroupCoordinatorConfig {
    let compression = u8::try_from(config.offsets_topic_compression_codec()).ok();
    GroupCoordinatorConfig {
        min_session_timeout_ms: config.group_min_session_timeout_ms(),
        max_session_timeout_ms: config.group_max_session_timeout_ms(),
        initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms(),
        max_size: positive(config.group_max_size()),
        consumer_max_size: positive(config.int("group.consumer.max.size")),
        consumer_assignors: config
            .list("group.consumer.assignors")
            .iter()
            .filter_map(|name| Assignor::from_name(name))
            .collect(),
        consumer_migration_policy: config
            .text("group.consumer.migration.policy")
            .and_then(MigrationPolicy::from_name)
            .unwrap_or_default(),
        consumer_regex_refresh_interval_ms: config.int("group.consumer.regex.refresh.interval.ms"),
        share_max_size: positive(config.int("group.share.max.size")),
        streams_max_size: positive(config.int("group.streams.max.size")),
        share_retry_ms: config
            .int("group.share.initialize.retry.interval.ms")
            .into(),
        offset_metadata_max_size: positive(config.offset_metadata_max_bytes()),
        offsets_retention_ms: i64::from(config.offsets_retention_minutes()) * 60_000,
        offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms(),
        offsets_commit_timeout_ms: positive(config.offsets_commit_timeout_ms()) as u64,
        offsets_topic_partitions: config.offsets_topic_num_partitions(),
        offsets_topic_compression: compression
            .and_then(Compression::from_id)
            .unwrap_or(Compression::None),
        offsets_load_buffer_bytes: positive(config.offsets_load_buffer_size()),
        ..GroupCoordinatorConfig::default()
    }
}

/// What the transaction coordinator is started with.
pub(crate) fn transaction_config(config: &BrokerConfig) -> TransactionCoordinatorConfig {
    let interval = |name: &str| i64::from(config.int(name));
    TransactionCoordinatorConfig {
        max_timeout_ms: config.transaction_max_timeout_ms(),
        id_expiration_ms: config.transactional_id_expiration_ms().into(),
        abort_interval_ms: interval("transaction.abort.timed.out.transaction.cleanup.interval.ms"),
        expiration_interval_ms: interval(
            "transaction.remove.expired.transaction.cleanup.interval.ms",
        ),
        topic_partitions: config.transaction_state_log_num_partitions(),
        load_buffer_bytes: positive(config.int("transaction.state.log.load.buffer.size")),
        two_phase_commit: config.boolean("transaction.two.phase.commit.enable"),
        write_timeout_ms: positive(config.int("request.timeout.ms")) as u64,
        ..TransactionCoordinatorConfig::default()
    }
}

/// `group.share.max.share.sessions`
pub(crate) fn share_sessions_max(config: &BrokerConfig) -> usize {
    positive(config.int("group.share.max.share.sessions"))
}

/// What the share coordinator is started with.
pub(crate) fn share_coordinator_config(config: &BrokerConfig) -> ShareCoordinatorConfig {
    let int = |name: &str| config.int(&format!("share.coordinator.{name}"));
    let compression = u8::try_from(int("state.topic.compression.codec")).ok();
    ShareCoordinatorConfig {
        updates_per_snapshot: int("snapshot.update.records.per.snapshot"),
        write_timeout_ms: positive(int("write.timeout.ms")) as u64,
        load_buffer_bytes: positive(int("load.buffer.size")),
        topic_partitions: int("state.topic.num.partitions"),
        compression: compression
            .and_then(Compression::from_id)
            .unwrap_or(Compression::None),
        prune_interval_ms: int("state.topic.prune.interval.ms").into(),
        cold_snapshot_interval_ms: int("cold.partition.snapshot.interval.ms").into(),
    }
}

/// What a listener is opened with.
pub(crate) fn listener_config(
    name: &str,
    config: &BrokerConfig,
    budget: Option<&ByteBudget>,
) -> ListenerConfig {
    // Kafka sets its socket buffers to 100 KiB unless told otherwise, which keeps the kernel from
    // growing them. Here the kernel decides unless somebody has chosen a size.
    let chosen =
        |name: &str, bytes: i32| usize::try_from(bytes).ok().filter(|_| config.is_set(name));
    ListenerConfig {
        frame_bytes_max: positive(config.socket_request_max_bytes()),
        idle_max: u64::try_from(config.connections_max_idle_ms())
            .ok()
            .map(Duration::from_millis),
        queued_bytes_max: budget.cloned(),
        connections_max: positive(config.max_connections()),
        connections_per_ip_max: positive(config.max_connections_per_ip()),
        send_buffer_bytes: chosen(
            "socket.send.buffer.bytes",
            config.socket_send_buffer_bytes(),
        ),
        receive_buffer_bytes: chosen(
            "socket.receive.buffer.bytes",
            config.socket_receive_buffer_bytes(),
        ),
        backlog: config.socket_listen_backlog_size(),
        ..ListenerConfig::named(Arc::<str>::from(name))
    }
}

/// The budget of `queued.max.request.bytes`; -1 means none.
pub(crate) fn request_budget(config: &BrokerConfig) -> Option<ByteBudget> {
    let bytes = usize::try_from(config.queued_max_request_bytes()).ok()?;
    Some(ByteBudget::new(bytes))
}

fn positive(value: i32) -> usize {
    usize::try_from(value).unwrap_or(0)
}
