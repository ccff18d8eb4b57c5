/// Settings of the share coordinator, with Kafka's names, defaults and units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShareCoordinatorConfig {
    /// `share.coordinator.snapshot.update.records.per.snapshot`
    pub updates_per_snapshot: i32,
    /// `share.coordinator.write.timeout.ms`: how long an answer waits for its record to be
    /// committed.
    pub write_timeout_ms: u64,
    /// `share.coordinator.load.buffer.size`, in bytes.
    pub load_buffer_bytes: usize,
    /// `share.coordinator.state.topic.num.partitions`, until the topic's real partition count is
    /// known.
    pub topic_partitions: i32,
    /// `share.coordinator.state.topic.compression.codec`
    pub compression: klamm_records::Compression,
    /// `share.coordinator.state.topic.prune.interval.ms`
    pub prune_interval_ms: i64,
    /// `share.coordinator.cold.partition.snapshot.interval.ms`
    pub cold_snapshot_interval_ms: i64,
}

impl Default for ShareCoordinatorConfig {
    fn default() -> Self {
        ShareCoordinatorConfig {
            updates_per_snapshot: 500,
            write_timeout_ms: 5_000,
            load_buffer_bytes: 5 * 1024 * 1024,
            topic_partitions: 50,
            compression: klamm_records::Compression::None,
            prune_interval_ms: 300_000,
            cold_snapshot_interval_ms: 300_000,
        }
    }
}
