//! Reading: where in the files the records of a fetch lie.

use klamm_log::LogError;
use klamm_protocol::ErrorCode;

use super::{Partition, ReplicaOffsets};
use crate::manager::error::log_error_code;
use crate::manager::fetched::{FetchSlices, FetchedPartition};
use crate::waiters::Isolation;

/// Byte limits of one partition's read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_bytes: usize,
    /// Whether a batch larger than `max_bytes` is returned nevertheless.
    pub(crate) min_one: bool,
}

impl Partition {
    /// Reads records from `offset` on into `answer`.
    pub(crate) fn read(
        &self,
        offset: i64,
        limits: Limits,
        seen: &ReplicaOffsets,
        isolation: Isolation,
        answer: &mut FetchedPartition,
    ) -> Result<(), ErrorCode> {
        if isolation == Isolation::LastStable {
            answer.aborted = Some(Vec::new());
        }
        if offset < seen.log_start_offset || offset > seen.log_end_offset {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let bound = seen.bound(isolation);
        if offset >= bound || (limits.max_bytes == 0 && !limits.min_one) {
            return Ok(());
        }
        let failed = |error: LogError| {
            if error.is_storage_failure() || error.is_damage() {
                tracing::error!(partition = %self.name(), %error, "read failed");
            }
            log_error_code(&error)
        };
        let read = loop {
            let read = self
                .log()
                .read(offset, limits.max_bytes, bound, true)
                .map_err(failed)?;
            if read.len > limits.max_bytes && !limits.min_one {
                // Not even one whole batch fits: a part of it would be of no use.
                return Ok(());
            }
            let Some(aborted) = &mut answer.aborted else {
                break read;
            };
            let end = self.log().upper_bound_offset(&read).map_err(failed)?;
            *aborted = self
                .log()
                .aborted_transactions(offset, end)
                .map_err(failed)?;
            // Or else compaction put other segments there, and the list may lack what was read.
            if self.log().is_current(&read) {
                break read;
            }
        };
        answer.records = FetchSlices::new(read.parts, read.len);
        Ok(())
    }

    /// Where the logs of a reader and of this replica part, if they do at or before
    /// `fetch_offset`.
    pub(crate) fn diverging(
        &self,
        fetch_offset: i64,
        last_fetched_epoch: i32,
        seen: &ReplicaOffsets,
    ) -> Result<Option<(i32, i64)>, ErrorCode> {
        let Some(end) = self.log.epoch_end_offset(last_fetched_epoch) else {
            return Err(ErrorCode::OffsetOutOfRange);
        };
        if fetch_offset < seen.log_start_offset {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        let parted = end.epoch < last_fetched_epoch || end.end_offset < fetch_offset;
        Ok(parted.then_some((end.epoch, end.end_offset)))
    }
}
