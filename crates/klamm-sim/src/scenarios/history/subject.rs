//! The log under test. [`Bug`] puts a mistake between it and the checks, which must find it.

use klamm_env::FileExt as _;
use klamm_log::{
    AbortedTxn, ActiveProducer, AppendInfo, AppendOrigin, CleanError, Cleanable, Cleaner, EpochEnd,
    Log, LogConfig, LogError, OffsetAndTimestamp,
};
use klamm_records::PreparedBatch;

use super::batch::{Batch, parse};

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The log as it is.
    None,
    /// Flushes are acknowledged and not done.
    FlushesNothing,
    /// Truncations are acknowledged and not done.
    TruncatesNothing,
    /// Truncations to an epoch's end cut one batch too few.
    TruncatesTooLittle,
    /// The last aborted transaction of a list is left out.
    ForgetsAborted,
    /// The last stable offset is the end of the log.
    IgnoresTransactions,
    /// A record at exactly the time asked for is passed over.
    TimesAreLate,
    /// Every epoch ends at the end of the log.
    EpochsNeverEnd,
    /// Sequence numbers are not looked at.
    IgnoresSequences,
    /// A follower leaves out the last byte it was sent.
    FollowersLoseTails,
    /// Retention works with a clock that is fast by a few seconds.
    RetainsTooLittle,
    /// Reads go on beyond their limit.
    ReadsTooFar,
    /// Idle producers are kept.
    NeverExpires,
    /// A new configuration is not put in force.
    IgnoresConfig,
    /// Compaction is acknowledged and not done.
    CleansNothing,
    /// Tombstones are taken for older than they are.
    TombstonesGoEarly,
}

/// The log, seen through a bug.
#[derive(Debug)]
pub struct Subject {
    pub(super) log: Log,
    pub(super) bug: Bug,
}

impl Subject {
    pub(super) fn append(
        &self,
        batches: &mut [PreparedBatch],
        epoch: i32,
        now_ms: i64,
        origin: AppendOrigin,
    ) -> Result<AppendInfo, LogError> {
        let origin = match (self.bug, origin) {
            (Bug::IgnoresSequences, AppendOrigin::Client) => AppendOrigin::Coordinator,
            (_, origin) => origin,
        };
        self.log.append_as_leader(batches, epoch, now_ms, origin)
    }

    pub(super) fn append_as_follower(
        &self,
        bytes: &[u8],
        epoch: i32,
        now_ms: i64,
    ) -> Result<AppendInfo, LogError> {
        let lost = usize::from(self.bug == Bug::FollowersLoseTails);
        let bytes = &bytes[..bytes.len() - lost];
        self.log.append_as_follower(bytes, epoch, now_ms)
    }

    pub(super) fn flush(&self, offset: i64) -> Result<(), LogError> {
        match self.bug {
            Bug::FlushesNothing => Ok(()),
            _ => self.log.flush(offset),
        }
    }

    pub(super) fn truncate_to(&self, offset: i64) -> Result<bool, LogError> {
        match self.bug {
            Bug::TruncatesNothing => Ok(true),
            Bug::TruncatesTooLittle => self.log.truncate_to(offset + 1),
            _ => self.log.truncate_to(offset),
        }
    }

    pub(super) fn apply_retention(&self, now_ms: i64, end: i64) -> Result<usize, LogError> {
        let fast_by = match self.bug {
            Bug::RetainsTooLittle => 5_000,
            _ => 0,
        };
        self.log.apply_retention(now_ms + fast_by, end)
    }

    pub(super) fn tick(&self, now_ms: i64) -> Result<(), LogError> {
        match self.bug {
            Bug::NeverExpires => self.log.tick(i64::MIN),
            _ => self.log.tick(now_ms),
        }
    }

    pub(super) fn update_config(&self, config: LogConfig) {
        if self.bug != Bug::IgnoresConfig {
            self.log.update_config(config);
        }
    }

    pub(super) fn clean(
        &self,
        cleaner: &mut Cleaner,
        target: &Cleanable,
        now_ms: i64,
    ) -> Result<i64, CleanError> {
        let now_ms = match self.bug {
            Bug::CleansNothing => return Ok(target.end_offset),
            Bug::TombstonesGoEarly => now_ms + 100_000,
            _ => now_ms,
        };
        let report = cleaner.clean(&self.log, target, now_ms, &())?;
        Ok(report.cleaned_to)
    }

    /// All batches that can be read.
    pub(super) fn everything(&self) -> Result<Vec<Batch>, String> {
        let start = self.log.log_start_offset();
        let (bytes, _) = self
            .read(start, usize::MAX >> 1, i64::MAX, true)
            .map_err(|error| error.to_string())?;
        let (found, rest) = parse(&bytes)?;
        if rest > 0 {
            return Err(format!("{rest} bytes after the last batch"));
        }
        Ok(found)
    }

    /// The bytes that a read gives, and an offset behind them.
    pub(super) fn read(
        &self,
        offset: i64,
        max_bytes: usize,
        upper: i64,
        min_one: bool,
    ) -> Result<(Vec<u8>, i64), LogError> {
        let upper = match self.bug {
            Bug::ReadsTooFar => upper.saturating_add(2),
            _ => upper,
        };
        let read = self.log.read(offset, max_bytes, upper, min_one)?;
        let mut bytes = Vec::with_capacity(read.len);
        for part in &read.parts {
            let start = bytes.len();
            bytes.resize(start + part.len, 0);
            part.file
                .read_exact_at(&mut bytes[start..], part.position)
                .map_err(|source| LogError::Io {
                    operation: "read",
                    path: self.log.dir(),
                    source,
                })?;
        }
        Ok((bytes, self.log.upper_bound_offset(&read)?))
    }

    pub(super) fn offset_for_timestamp(
        &self,
        time: i64,
    ) -> Result<Option<OffsetAndTimestamp>, LogError> {
        let late_by = i64::from(self.bug == Bug::TimesAreLate);
        self.log.offset_for_timestamp(time + late_by)
    }

    pub(super) fn max_timestamp_offset(&self) -> Result<Option<OffsetAndTimestamp>, LogError> {
        self.log.max_timestamp_offset()
    }

    pub(super) fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        self.log.epoch_for_offset(offset)
    }

    pub(super) fn epoch_end_offset(&self, epoch: i32) -> Option<EpochEnd> {
        let mut found = self.log.epoch_end_offset(epoch)?;
        if self.bug == Bug::EpochsNeverEnd {
            found.end_offset = self.log.log_end_offset();
        }
        Some(found)
    }

    pub(super) fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        match self.bug {
            Bug::IgnoresTransactions => high_watermark,
            _ => self.log.last_stable_offset(high_watermark),
        }
    }

    pub(super) fn aborted_transactions(
        &self,
        from: i64,
        to: i64,
    ) -> Result<Vec<AbortedTxn>, LogError> {
        let mut found = self.log.aborted_transactions(from, to)?;
        if self.bug == Bug::ForgetsAborted {
            found.pop();
        }
        Ok(found)
    }

    pub(super) fn producers(&self) -> Vec<ActiveProducer> {
        self.log.active_producers()
    }

    pub(super) fn segments(&self) -> Vec<i64> {
        self.log.segment_base_offsets()
    }
}
