use klamm_records::Compression;

use super::consumer::MigrationPolicy;
use super::consumer::assignor::Assignor;

/// Settings of the group coordinator, with Kafka's names, defaults and units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupCoordinatorConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long an empty group waits for more members.
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`
    pub max_size: usize,
    /// `group.consumer.max.size`
    pub consumer_max_size: usize,
    /// `group.consumer.assignors`: what members may ask for; the first is for those who do not.
    pub consumer_assignors: Vec<Assignor>,
    /// `group.consumer.migration.policy`
    pub consumer_migration_policy: MigrationPolicy,
    /// `group.consumer.regex.refresh.interval.ms`
    pub consumer_regex_refresh_interval_ms: i32,
    /// `group.share.max.size`
    pub share_max_size: usize,
    /// `group.streams.max.size`
    pub streams_max_size: usize,
    /// `group.share.initialize.retry.interval.ms`: how long share state may take to be made before
    /// it is asked for again.
    pub share_retry_ms: i64,
    /// How long a new member may wait for its first rebalance before it is given up. Not a
    /// setting in Kafka: five minutes.
    pub new_member_join_timeout_ms: i32,
    /// `offset.metadata.max.bytes`: in UTF-16 units, as Kafka counts.
    pub offset_metadata_max_size: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// `offsets.commit.timeout.ms`: how long an answer waits for its records to be committed.
    pub offsets_commit_timeout_ms: u64,
    /// `offsets.topic.num.partitions`, until the topic's real partition count is known.
    pub offsets_topic_partitions: i32,
    /// `offsets.topic.compression.codec`
    pub offsets_topic_compression: Compression,
    /// `offsets.load.buffer.size`, in bytes.
    pub offsets_load_buffer_bytes: usize,
}

impl GroupCoordinatorConfig {
    /// The assignor of consumer groups whose members ask for none.
    pub(super) fn default_consumer_assignor(&self) -> Assignor {
        self.consumer_assignors
            .first()
            .copied()
            .unwrap_or(Assignor::Uniform)
    }
}

impl Default for GroupCoordinatorConfig {
    fn default() -> Self {
        GroupCoordinatorConfig {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: i32::MAX as usize,
            consumer_max_size: i32::MAX as usize,
            consumer_assignors: vec![Assignor::Uniform, Assignor::Range],
            consumer_migration_policy: MigrationPolicy::default(),
            consumer_regex_refresh_interval_ms: 10 * 60 * 1_000,
            share_max_size: 200,
            streams_max_size: i32::MAX as usize,
            share_retry_ms: 30_000,
            new_member_join_timeout_ms: 5 * 60 * 1_000,
            offset_metadata_max_size: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
            offsets_commit_timeout_ms: 5_000,
            offsets_topic_partitions: 50,
            offsets_topic_compression: Compression::None,
            offsets_load_buffer_bytes: 5 * 1024 * 1024,
        }
    }
}
