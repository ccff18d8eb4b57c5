/// Settings of the transaction coordinator, with Kafka's names, defaults and units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionCoordinatorConfig {
    /// `transaction.max.timeout.ms`
    pub max_timeout_ms: i32,
    /// `transactional.id.expiration.ms`
    pub id_expiration_ms: i64,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`
    pub abort_interval_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`
    pub expiration_interval_ms: i64,
    /// `transaction.state.log.num.partitions`, until the topic's real partition count is known.
    pub topic_partitions: i32,
    /// `transaction.state.log.load.buffer.size`, in bytes.
    pub load_buffer_bytes: usize,
    /// `transaction.two.phase.commit.enable`
    pub two_phase_commit: bool,
    /// `request.timeout.ms`: how long an answer waits for its record to be committed.
    pub write_timeout_ms: u64,
    /// How long to wait before markers that could not be written are tried again. Not a setting in
    /// Kafka.
    pub marker_retry_ms: u64,
}

impl Default for TransactionCoordinatorConfig {
    fn default() -> Self {
        TransactionCoordinatorConfig {
            max_timeout_ms: 900_000,
            id_expiration_ms: 7 * 24 * 60 * 60 * 1_000,
            abort_interval_ms: 10_000,
            expiration_interval_ms: 3_600_000,
            topic_partitions: 50,
            load_buffer_bytes: 5 * 1024 * 1024,
            two_phase_commit: false,
            write_timeout_ms: 30_000,
            marker_retry_ms: 50,
        }
    }
}
