//! The broker's configurations by method, for those that Klamm's code reads.

use crate::broker::BrokerConfig;
use crate::listeners;
use crate::quorum;
use crate::rules::BrokenRule;

/// One method a configuration: its name, what it reads, and the configuration.
macro_rules! getters {
    ($($method:ident: $read:ident -> $type:ty = $name:literal;)*) => {
        impl BrokerConfig {
            $(
                #[doc = concat!("`", $name, "`")]
                pub fn $method(&self) -> $type {
                    self.$read($name)
                }
            )*
        }

        /// The names behind the methods.
        #[cfg(test)]
        const NAMES: &[&str] = &[$($name),*];

        #[cfg(test)]
        #[test]
        fn every_method_reads_a_configuration_of_its_type() {
            let config = BrokerConfig::from_pairs([]).unwrap();
            $(let _ = config.$method();)*
            for name in NAMES {
                assert!(crate::def::broker_config(name).is_some(), "{name}");
            }
        }
    };
}

getters! {
    node_id: int -> i32 = "node.id";
    rack: text -> Option<&str> = "broker.rack";
    auto_create_topics_enable: boolean -> bool = "auto.create.topics.enable";
    num_partitions: int -> i32 = "num.partitions";
    default_replication_factor: int -> i32 = "default.replication.factor";
    delete_topic_enable: boolean -> bool = "delete.topic.enable";
    min_insync_replicas: int -> i32 = "min.insync.replicas";
    unclean_leader_election_enable: boolean -> bool = "unclean.leader.election.enable";
    max_request_partition_size_limit: int -> i32 = "max.request.partition.size.limit";
    message_max_bytes: int -> i32 = "message.max.bytes";
    fetch_max_bytes: int -> i32 = "fetch.max.bytes";
    max_incremental_fetch_session_cache_slots: int -> i32 = "max.incremental.fetch.session.cache.slots";
    socket_request_max_bytes: int -> i32 = "socket.request.max.bytes";
    socket_send_buffer_bytes: int -> i32 = "socket.send.buffer.bytes";
    socket_receive_buffer_bytes: int -> i32 = "socket.receive.buffer.bytes";
    socket_listen_backlog_size: int -> i32 = "socket.listen.backlog.size";
    connections_max_idle_ms: long -> i64 = "connections.max.idle.ms";
    max_connections: int -> i32 = "max.connections";
    max_connections_per_ip: int -> i32 = "max.connections.per.ip";
    max_connection_creation_rate: int -> i32 = "max.connection.creation.rate";
    queued_max_requests: int -> i32 = "queued.max.requests";
    queued_max_request_bytes: long -> i64 = "queued.max.request.bytes";
    num_network_threads: int -> i32 = "num.network.threads";
    num_io_threads: int -> i32 = "num.io.threads";
    background_threads: int -> i32 = "background.threads";
    request_timeout_ms: int -> i32 = "request.timeout.ms";
    broker_heartbeat_interval_ms: int -> i32 = "broker.heartbeat.interval.ms";
    broker_session_timeout_ms: int -> i32 = "broker.session.timeout.ms";
    initial_broker_registration_timeout_ms: int -> i32 = "initial.broker.registration.timeout.ms";
    controlled_shutdown_enable: boolean -> bool = "controlled.shutdown.enable";
    controller_quorum_election_timeout_ms: int -> i32 = "controller.quorum.election.timeout.ms";
    controller_quorum_fetch_timeout_ms: int -> i32 = "controller.quorum.fetch.timeout.ms";
    controller_quorum_request_timeout_ms: int -> i32 = "controller.quorum.request.timeout.ms";
    metadata_log_segment_bytes: int -> i32 = "metadata.log.segment.bytes";
    metadata_log_max_record_bytes_between_snapshots: long -> i64 = "metadata.log.max.record.bytes.between.snapshots";
    metadata_log_max_snapshot_interval_ms: long -> i64 = "metadata.log.max.snapshot.interval.ms";
    log_cleaner_enable: boolean -> bool = "log.cleaner.enable";
    log_flush_scheduler_interval_ms: long -> i64 = "log.flush.scheduler.interval.ms";
    log_flush_offset_checkpoint_interval_ms: int -> i32 = "log.flush.offset.checkpoint.interval.ms";
    log_flush_start_offset_checkpoint_interval_ms: int -> i32 = "log.flush.start.offset.checkpoint.interval.ms";
    log_retention_check_interval_ms: long -> i64 = "log.retention.check.interval.ms";
    log_initial_task_delay_ms: long -> i64 = "log.initial.task.delay.ms";
    num_recovery_threads_per_data_dir: int -> i32 = "num.recovery.threads.per.data.dir";
    replica_lag_time_max_ms: long -> i64 = "replica.lag.time.max.ms";
    replica_fetch_max_bytes: int -> i32 = "replica.fetch.max.bytes";
    replica_fetch_min_bytes: int -> i32 = "replica.fetch.min.bytes";
    replica_fetch_wait_max_ms: int -> i32 = "replica.fetch.wait.max.ms";
    replica_fetch_response_max_bytes: int -> i32 = "replica.fetch.response.max.bytes";
    replica_fetch_backoff_ms: int -> i32 = "replica.fetch.backoff.ms";
    num_replica_fetchers: int -> i32 = "num.replica.fetchers";
    replica_high_watermark_checkpoint_interval_ms: long -> i64 = "replica.high.watermark.checkpoint.interval.ms";
    offsets_topic_num_partitions: int -> i32 = "offsets.topic.num.partitions";
    offsets_topic_replication_factor: int -> i32 = "offsets.topic.replication.factor";
    offsets_topic_segment_bytes: int -> i32 = "offsets.topic.segment.bytes";
    offsets_topic_compression_codec: int -> i32 = "offsets.topic.compression.codec";
    offsets_load_buffer_size: int -> i32 = "offsets.load.buffer.size";
    offsets_retention_minutes: int -> i32 = "offsets.retention.minutes";
    offsets_retention_check_interval_ms: long -> i64 = "offsets.retention.check.interval.ms";
    offset_metadata_max_bytes: int -> i32 = "offset.metadata.max.bytes";
    offsets_commit_timeout_ms: int -> i32 = "offsets.commit.timeout.ms";
    group_initial_rebalance_delay_ms: int -> i32 = "group.initial.rebalance.delay.ms";
    group_min_session_timeout_ms: int -> i32 = "group.min.session.timeout.ms";
    group_max_session_timeout_ms: int -> i32 = "group.max.session.timeout.ms";
    group_max_size: int -> i32 = "group.max.size";
    group_coordinator_append_linger_ms: int -> i32 = "group.coordinator.append.linger.ms";
    group_coordinator_threads: int -> i32 = "group.coordinator.threads";
    producer_id_expiration_ms: int -> i32 = "producer.id.expiration.ms";
    producer_id_expiration_check_interval_ms: int -> i32 = "producer.id.expiration.check.interval.ms";
    transaction_state_log_num_partitions: int -> i32 = "transaction.state.log.num.partitions";
    transaction_state_log_replication_factor: int -> i32 = "transaction.state.log.replication.factor";
    transaction_state_log_min_isr: int -> i32 = "transaction.state.log.min.isr";
    transaction_state_log_segment_bytes: int -> i32 = "transaction.state.log.segment.bytes";
    transaction_max_timeout_ms: int -> i32 = "transaction.max.timeout.ms";
    transactional_id_expiration_ms: int -> i32 = "transactional.id.expiration.ms";
    share_coordinator_state_topic_num_partitions: int -> i32 = "share.coordinator.state.topic.num.partitions";
    share_coordinator_state_topic_replication_factor: int -> i32 = "share.coordinator.state.topic.replication.factor";
    share_coordinator_state_topic_min_isr: int -> i32 = "share.coordinator.state.topic.min.isr";
    share_coordinator_state_topic_segment_bytes: int -> i32 = "share.coordinator.state.topic.segment.bytes";
    telemetry_max_bytes: int -> i32 = "telemetry.max.bytes";
}

const MINUTE_MS: i64 = 60 * 1000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

impl BrokerConfig {
    /// Whether this node serves clients.
    pub fn is_broker(&self) -> bool {
        self.list("process.roles").iter().any(|r| r == "broker")
    }

    /// Whether this node is part of the controller quorum.
    pub fn is_controller(&self) -> bool {
        self.list("process.roles").iter().any(|r| r == "controller")
    }

    /// The data directories, `log.dirs` or else `log.dir`, each once.
    pub fn log_dirs(&self) -> Vec<String> {
        let dirs = self.list("log.dirs");
        let dirs = if dirs.is_empty() {
            self.list("log.dir")
        } else {
            dirs
        };
        let mut seen: Vec<String> = Vec::with_capacity(dirs.len());
        for dir in dirs {
            if !seen.contains(dir) {
                seen.push(dir.clone());
            }
        }
        seen
    }

    /// `replica.alter.log.dirs.io.max.bytes.per.second`: how fast replicas are moved between data
    /// directories. Only dynamic values of it are known.
    pub fn alter_log_dirs_bytes_per_second(&self) -> i64 {
        self.dynamic_rate("replica.alter.log.dirs.io.max.bytes.per.second")
    }

    /// `leader.replication.throttled.rate`: how fast this broker sends throttled replicas of the
    /// partitions it leads. Only dynamic values of it are known.
    pub fn leader_replication_bytes_per_second(&self) -> i64 {
        self.dynamic_rate("leader.replication.throttled.rate")
    }

    /// `follower.replication.throttled.rate`: how fast this broker fetches its throttled replicas.
    /// Only dynamic values of it are known.
    pub fn follower_replication_bytes_per_second(&self) -> i64 {
        self.dynamic_rate("follower.replication.throttled.rate")
    }

    /// A bandwidth that was checked when it was set; unlimited by default.
    fn dynamic_rate(&self, name: &str) -> i64 {
        self.dynamic_only(name)
            .and_then(|value| value.trim().parse().ok())
            .unwrap_or(i64::MAX)
    }

    /// Where the metadata log lives: `metadata.log.dir`, or the first data directory.
    pub fn metadata_log_dir(&self) -> String {
        let first = || self.log_dirs().into_iter().next().unwrap_or_default();
        self.text("metadata.log.dir")
            .map_or_else(first, str::to_owned)
    }

    /// How long records are kept, in milliseconds; -1 for ever. Of `log.retention.ms`, `.minutes` and `.hours` the finer
    /// unit wins.
    pub fn log_retention_ms(&self) -> i64 {
        let minutes = || {
            self.optional_long("log.retention.minutes")
                .map(|n| n.saturating_mul(MINUTE_MS))
        };
        let ms = self.optional_long("log.retention.ms").or_else(minutes);
        let ms = ms.unwrap_or_else(|| i64::from(self.int("log.retention.hours")) * HOUR_MS);
        // Any negative time means for ever.
        ms.max(-1)
    }

    /// After how long a segment is closed, in milliseconds.
    pub fn log_roll_ms(&self) -> i64 {
        self.optional_long("log.roll.ms")
            .unwrap_or_else(|| i64::from(self.int("log.roll.hours")) * HOUR_MS)
    }

    /// By how much at most that time is shortened at random, in milliseconds.
    pub fn log_roll_jitter_ms(&self) -> i64 {
        let hours = || i64::from(self.int("log.roll.jitter.hours")) * HOUR_MS;
        self.optional_long("log.roll.jitter.ms")
            .unwrap_or_else(hours)
    }

    /// After how long appended data is forced to disk, in milliseconds.
    pub fn log_flush_interval_ms(&self) -> i64 {
        self.optional_long("log.flush.interval.ms")
            .unwrap_or_else(|| self.log_flush_scheduler_interval_ms())
    }

    /// Limits of connections for single addresses that differ from `max.connections.per.ip`.
    pub fn max_connections_per_ip_overrides(&self) -> Vec<(String, i32)> {
        let name = "max.connections.per.ip.overrides";
        let pairs = listeners::pairs(name, self.text(name).unwrap_or_default()).unwrap_or_default();
        pairs
            .into_iter()
            .filter_map(|(host, n)| n.parse().ok().map(|n| (host, n)))
            .collect()
    }

    /// Where `/metrics` and `/health` are served, host and port; empty if nowhere.
    ///
    /// # Errors
    /// If an entry is not `host:port`; a loaded configuration has none such.
    pub fn metrics_listeners(&self) -> Result<Vec<(String, u16)>, BrokenRule> {
        let read = |e: &String| {
            quorum::host_and_port(e).ok_or_else(|| BrokenRule::MetricsAddress(e.clone()))
        };
        self.list("klamm.metrics.listeners")
            .iter()
            .map(read)
            .collect()
    }
}
