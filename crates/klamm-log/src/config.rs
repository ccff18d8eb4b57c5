use klamm_env::Rng;
use klamm_records::TimestampType;

/// How one log behaves. The names and defaults are those of Kafka's topic configs, in the units
/// that the names say.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// Size over which the active segment is rolled.
    pub segment_bytes: u32,
    /// Age over which the active segment is rolled, by the timestamps of its records.
    pub segment_ms: i64,
    /// Upper bound of a random time taken off `segment_ms`, so that logs do not roll in step.
    pub segment_jitter_ms: i64,
    /// Size over which an index counts as full and its segment is rolled.
    pub segment_index_bytes: u32,
    /// Bytes of batches between two entries of the indexes.
    pub index_interval_bytes: u32,
    /// Largest batch an append takes.
    pub max_message_bytes: u32,
    /// Whose clock stamps the records.
    pub timestamp_type: TimestampType,
    /// Old segments are deleted (`cleanup.policy` contains `delete`).
    pub delete: bool,
    /// Old values of a key are removed (`cleanup.policy` contains `compact`).
    pub compact: bool,
    /// Age over which segments are deleted; negative: never.
    pub retention_ms: i64,
    /// Size of the log over which segments are deleted; negative: never.
    pub retention_bytes: i64,
    /// The log has a remote tier (`remote.storage.enable`): both limits above go for all of it, and
    /// segments leave the local disk once they are in the tier.
    pub remote_storage: bool,
    /// Age over which segments leave the local disk; negative: never, but -2: `retention_ms`.
    pub local_retention_ms: i64,
    /// Local size over which segments leave the local disk; negative: never, but -2:
    /// `retention_bytes`.
    pub local_retention_bytes: i64,
    /// Share of a log's bytes that must be new before it is compacted
    /// (`min.cleanable.dirty.ratio`).
    pub min_cleanable_dirty_ratio: f64,
    /// Time for which a record is safe from compaction.
    pub min_compaction_lag_ms: i64,
    /// Time after which a log is compacted whatever its share of new bytes.
    pub max_compaction_lag_ms: i64,
    /// Time for which a compacted log keeps tombstones, and the markers of transactions of which
    /// nothing is left.
    pub delete_retention_ms: i64,
    /// Records after which an append has the log flushed: by itself, or, attached to a
    /// [`Flusher`](crate::Flusher), by that, which [`AppendInfo::sync_pending`] then tells.
    ///
    /// [`AppendInfo::sync_pending`]: crate::AppendInfo::sync_pending
    pub flush_messages: i64,
    /// Time after which [`tick`](crate::Log::tick) flushes.
    pub flush_ms: i64,
    /// Each append is made durable without delay, by the [`Flusher`](crate::Flusher) that the log
    /// is attached to, together with all that come meanwhile (`klamm.flush=group`).
    pub group_sync: bool,
    /// Time between the renaming of a file to `.deleted` and its removal.
    pub file_delete_delay_ms: i64,
    /// New segments get their full size at once (`preallocate`).
    pub preallocate: bool,
    /// Idle time after which a producer's sequence numbers are forgotten
    /// (`producer.id.expiration.ms`).
    pub producer_id_expiration_ms: i64,
    /// The first batch of a transaction must have been verified
    /// (`transaction.partition.verification.enable`).
    pub transaction_verification: bool,
}

/// "As much as in all" for what is kept locally.
const AS_TOTAL: i64 = -2;

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            delete: true,
            compact: false,
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            remote_storage: false,
            local_retention_ms: AS_TOTAL,
            local_retention_bytes: AS_TOTAL,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            delete_retention_ms: 24 * 3_600_000,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            group_sync: false,
            file_delete_delay_ms: 60_000,
            preallocate: false,
            producer_id_expiration_ms: 86_400_000,
            transaction_verification: false,
        }
    }
}

impl LogConfig {
    /// Age in milliseconds and size in bytes over which segments leave the local disk; negative:
    /// never.
    pub(crate) fn local_limits(&self) -> (i64, i64) {
        let of = |local: i64, total: i64| match local {
            local if self.remote_storage && local != AS_TOTAL => local,
            _ => total,
        };
        (
            of(self.local_retention_ms, self.retention_ms),
            of(self.local_retention_bytes, self.retention_bytes),
        )
    }

    /// The random part of a new segment's life, below both `segment_jitter_ms` and `segment_ms`.
    pub(crate) fn roll_jitter_ms(&self, rng: &dyn Rng) -> i64 {
        let bound = self.segment_jitter_ms.min(self.segment_ms).max(0);
        i64::try_from(rng.below(bound.unsigned_abs())).unwrap_or(0)
    }

    /// Segment size as the file position type that Kafka's indexes have room for.
    pub(crate) fn segment_bytes_max(&self) -> u64 {
        u64::from(self.segment_bytes).min(i32::MAX as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use klamm_env::SplitMix64;

    #[test]
    fn jitter_stays_below_both_bounds() {
        let rng = SplitMix64::new(1);
        let mut config = LogConfig {
            segment_jitter_ms: 50,
            segment_ms: 20,
            ..LogConfig::default()
        };
        assert!((0..500).all(|_| (0..20).contains(&config.roll_jitter_ms(&rng))));
        config.segment_jitter_ms = 0;
        assert_eq!(config.roll_jitter_ms(&rng), 0);
    }
}
