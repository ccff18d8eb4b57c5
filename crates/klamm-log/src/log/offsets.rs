use klamm_records::legacy::Message;
use klamm_records::{BatchView, Scratch};

use crate::batch::{BatchMeta, verify_checksum};
use crate::epoch_cache::EpochEnd;
use crate::error::{BatchFault, LogError};
use crate::index::txn::AbortedTxn;
use crate::log::Log;
use crate::segment::{BatchSpan, Segment};
use crate::storage::lock;

/// "No leader epoch known" in answers to clients.
pub const UNKNOWN_LEADER_EPOCH: i32 = -1;

/// A record found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAndTimestamp {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds.
    pub timestamp: i64,
    /// Epoch of the leader that appended it, [`UNKNOWN_LEADER_EPOCH`] for old formats.
    pub leader_epoch: i32,
}

impl Log {
    /// The offset below which `read_committed` consumers may read, under this high watermark: it
    /// stops at the first transaction that is open or whose end is not replicated yet.
    pub fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        if !self
            .has_transactions
            .load(std::sync::atomic::Ordering::SeqCst)
        {
            return high_watermark;
        }
        let mut state = lock(&self.state);
        let unstable = state.producers.first_unstable_offset(high_watermark);
        self.publish_transactions(&state);
        match unstable {
            Some(offset) => offset.max(self.log_start_offset()).min(high_watermark),
            None => high_watermark,
        }
    }

    /// Aborted transactions with records in `from..to`, in the order of their markers. May name
    /// some that end after `to`, which do no harm.
    ///
    /// # Errors
    /// The disk's.
    pub fn aborted_transactions(&self, from: i64, to: i64) -> Result<Vec<AbortedTxn>, LogError> {
        self.with_segments(|| {
            let mut found = Vec::new();
            let mut next = self.segment_at(from).or_else(|| self.segment_after(from));
            while let Some(segment) = next {
                if segment.txn_index().collect(from, to, &mut found)? {
                    break;
                }
                next = self.segment_after(segment.base_offset);
            }
            Ok(found)
        })
    }

    /// The first record at or after a timestamp (milliseconds) and the log's start. The caller
    /// compares the offset with the high watermark.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if a batch cannot be read, or the disk's.
    pub fn offset_for_timestamp(
        &self,
        timestamp: i64,
    ) -> Result<Option<OffsetAndTimestamp>, LogError> {
        self.with_segments(|| self.find_timestamp(timestamp))
    }

    fn find_timestamp(&self, timestamp: i64) -> Result<Option<OffsetAndTimestamp>, LogError> {
        let start = self.log_start_offset();
        for segment in self.all_segments() {
            if segment.checked_max_timestamp()?.timestamp < timestamp {
                continue;
            }
            let found = segment.find_by_timestamp(timestamp, start, |span| {
                self.check_place(&segment, &span)?;
                first_record(&segment, span, |record_offset, record_timestamp| {
                    record_timestamp >= timestamp && record_offset >= start
                })
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The record with the largest timestamp, the first of several; none if there are no
    /// timestamps.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] if a batch cannot be read, or the disk's.
    pub fn max_timestamp_offset(&self) -> Result<Option<OffsetAndTimestamp>, LogError> {
        self.with_segments(|| self.find_max_timestamp())
    }

    fn find_max_timestamp(&self) -> Result<Option<OffsetAndTimestamp>, LogError> {
        let mut best = None;
        for segment in self.all_segments() {
            let max = segment.checked_max_timestamp()?;
            let better = best
                .as_ref()
                .is_none_or(|(_, timestamp)| max.timestamp > *timestamp);
            if max.timestamp >= 0 && better {
                best = Some((segment, max.timestamp));
            }
        }
        let Some((segment, timestamp)) = best else {
            return Ok(None);
        };
        let start = segment.base_offset;
        segment.find_by_timestamp(timestamp, start, |span| {
            self.check_place(&segment, &span)?;
            first_record(&segment, span, |_, record_timestamp| {
                record_timestamp >= timestamp
            })
        })
    }

    /// The latest leader epoch of the log's batches.
    pub fn latest_epoch(&self) -> Option<i32> {
        lock(&self.state).epochs.latest()
    }

    /// The earliest leader epoch of the log's batches, with the offset where it starts.
    pub fn earliest_epoch(&self) -> Option<(i32, i64)> {
        lock(&self.state).epochs.earliest()
    }

    /// The leader epoch that an offset was or would be appended in.
    pub fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        lock(&self.state).epochs.epoch_of(offset)
    }

    /// All leader epochs with the offsets where they start, ascending.
    pub fn epochs(&self) -> Vec<(i32, i64)> {
        lock(&self.state).epochs.entries()
    }

    /// Where an epoch ends, for a follower that looks for the point up to which it agrees with
    /// this log. None if the log has no epochs, or only smaller ones.
    pub fn epoch_end_offset(&self, epoch: i32) -> Option<EpochEnd> {
        lock(&self.state)
            .epochs
            .end_of(epoch, self.log_end_offset())
    }

    /// Notes that an epoch starts at the end of the log: what a new leader does. Durable with the
    /// epoch's first batch.
    ///
    /// # Errors
    /// [`LogError::Closed`] or [`LogError::Offline`].
    pub fn assign_epoch_start(&self, epoch: i32) -> Result<(), LogError> {
        let mut state = self.open_state()?;
        let end = self.log_end_offset();
        state.epochs.assign_at_end(epoch, end);
        Ok(())
    }
}

/// The first record of a batch, by offset and timestamp, that `wanted` holds for.
fn first_record(
    segment: &Segment,
    span: BatchSpan,
    wanted: impl Fn(i64, i64) -> bool,
) -> Result<Option<OffsetAndTimestamp>, LogError> {
    let bytes = segment.read_batch(&span)?;
    first_record_in(&bytes, &span.meta, wanted).map_err(|reason| LogError::Corrupt {
        file: segment.path(),
        position: span.position,
        offset: span.meta.base_offset,
        reason,
    })
}

/// As [`first_record`], of the bytes of a batch.
pub(crate) fn first_record_in(
    bytes: &[u8],
    meta: &BatchMeta,
    wanted: impl Fn(i64, i64) -> bool,
) -> Result<Option<OffsetAndTimestamp>, BatchFault> {
    // An offset that is made of damaged records would be taken for good: nobody sees the batch.
    verify_checksum(bytes, meta.magic)?;
    let hit = |offset, timestamp| {
        Some(OffsetAndTimestamp {
            offset,
            timestamp,
            leader_epoch: meta.leader_epoch,
        })
    };
    let corrupt = |_| BatchFault::Records;
    let mut scratch = Scratch::new();
    if meta.magic < 2 {
        let message = Message::parse(bytes).map_err(|_| BatchFault::Records)?;
        let records = message
            .records(&mut scratch)
            .map_err(|_| BatchFault::Records)?;
        let found = records.iter().find(|r| wanted(r.offset, r.timestamp));
        return Ok(found.and_then(|record| hit(record.offset, record.timestamp)));
    }
    let view = BatchView::parse(bytes).map_err(|_| BatchFault::Records)?;
    for record in view
        .records(&mut scratch)
        .map_err(|_| BatchFault::Records)?
    {
        let record = record.map_err(corrupt)?;
        if wanted(record.offset, record.timestamp) {
            return Ok(hit(record.offset, record.timestamp));
        }
    }
    Ok(None)
}
