//! ListOffsets and OffsetsForLeaderEpoch.

use klamm_log::LogError;
use klamm_protocol::ErrorCode;

use super::ReplicaManager;
use super::error::log_error_code;
use super::partition::Partition;

/// The end of the log, as far as the asker may see it.
pub const LATEST_TIMESTAMP: i64 = -1;
/// The start of the log.
pub const EARLIEST_TIMESTAMP: i64 = -2;
/// The record with the largest timestamp.
pub const MAX_TIMESTAMP: i64 = -3;
/// The start of what lies on this broker's disks.
pub const EARLIEST_LOCAL_TIMESTAMP: i64 = -4;
/// The last record in remote storage.
pub const LATEST_TIERED_TIMESTAMP: i64 = -5;
/// The first record that is yet to be copied to remote storage.
pub const EARLIEST_PENDING_UPLOAD_TIMESTAMP: i64 = -6;

/// What to look for in one partition.
#[derive(Clone, Copy, Debug)]
pub struct OffsetQuery {
    /// Milliseconds since the Unix epoch, or one of the special values.
    pub timestamp: i64,
    /// Leader epoch in which the asker believes itself, if it says.
    pub current_leader_epoch: Option<i32>,
    /// Which records a consumer may see; `None` for replicas and tools that see all.
    pub isolation: Option<ReadIsolation>,
    /// Whether only the leader may answer; not so for tools (replica id -2).
    pub leader_only: bool,
}

/// A consumer's `isolation.level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadIsolation {
    /// `read_uncommitted`
    Uncommitted,
    /// `read_committed`
    Committed,
}

/// An offset found; -1 in all fields if there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetAnswer {
    /// Timestamp of the record, -1 for the ends of the log.
    pub timestamp: i64,
    /// Its offset.
    pub offset: i64,
    /// Epoch of the leader that appended it, -1 if unknown.
    pub leader_epoch: i32,
}

impl OffsetAnswer {
    /// No such offset.
    pub const NONE: OffsetAnswer = OffsetAnswer {
        timestamp: -1,
        offset: -1,
        leader_epoch: -1,
    };
}

/// Whether ListOffsets of `version` may ask for `timestamp`; if not, the partition is answered
/// with `UNSUPPORTED_VERSION`.
pub fn is_timestamp_supported(timestamp: i64, version: i16) -> bool {
    match timestamp {
        EARLIEST_TIMESTAMP | LATEST_TIMESTAMP | 0.. => true,
        MAX_TIMESTAMP => version >= 7,
        EARLIEST_LOCAL_TIMESTAMP => version >= 8,
        LATEST_TIERED_TIMESTAMP => version >= 9,
        EARLIEST_PENDING_UPLOAD_TIMESTAMP => version >= 11,
        _ => false,
    }
}

impl ReplicaManager {
    /// Finds an offset by timestamp or at an end of the log.
    ///
    /// Blocks on the disk for a timestamp.
    ///
    /// # Errors
    /// What looking up a partition gives; `OFFSET_NOT_AVAILABLE` while a new leader does not know
    /// yet how far its log is committed (versions before 5 are told `LEADER_NOT_AVAILABLE`).
    pub fn list_offset(
        &self,
        topic: &str,
        partition: i32,
        query: OffsetQuery,
    ) -> Result<OffsetAnswer, ErrorCode> {
        let partition = self.find(topic, partition)?;
        let offsets = partition.offsets_for(query.current_leader_epoch, query.leader_only)?;
        let readable_end = match query.isolation {
            Some(ReadIsolation::Committed) => offsets.last_stable_offset,
            Some(ReadIsolation::Uncommitted) => offsets.high_watermark,
            None => offsets.log_end_offset,
        };
        // Until the high watermark has reached the start of the leader's epoch, records above it
        // may be committed without this leader knowing.
        let epoch_start = partition.role(|role| {
            let leader = role.as_leader();
            leader.map(super::LeaderState::epoch_start_offset)
        });
        let behind = query.isolation.is_some()
            && epoch_start.is_some_and(|start| start > offsets.high_watermark);
        let of_end = |offset, leader_epoch| OffsetAnswer {
            timestamp: -1,
            offset,
            leader_epoch,
        };
        let found = match query.timestamp {
            LATEST_TIMESTAMP if behind => return Err(ErrorCode::OffsetNotAvailable),
            LATEST_TIMESTAMP => return Ok(of_end(readable_end, offsets.leader_epoch)),
            EARLIEST_TIMESTAMP => {
                let start = offsets.log_start_offset;
                return Ok(of_end(start, start_epoch(&partition, start)));
            }
            EARLIEST_LOCAL_TIMESTAMP
            | LATEST_TIERED_TIMESTAMP
            | EARLIEST_PENDING_UPLOAD_TIMESTAMP => {
                return Ok(tier_offset(
                    &partition,
                    query.timestamp,
                    offsets.log_start_offset,
                ));
            }
            MAX_TIMESTAMP => partition.log().max_timestamp_offset(),
            timestamp => partition.log().offset_for_timestamp(timestamp),
        };
        match found.map_err(|error| search_failed(&partition, &error))? {
            Some(found) if found.offset < readable_end => Ok(OffsetAnswer {
                timestamp: found.timestamp,
                offset: found.offset,
                leader_epoch: found.leader_epoch,
            }),
            _ if behind => Err(ErrorCode::OffsetNotAvailable),
            _ => Ok(OffsetAnswer::NONE),
        }
    }

    /// The largest leader epoch not above `leader_epoch` and the offset where it ends; (-1, -1) if
    /// the log has none.
    ///
    /// # Errors
    /// What looking up a partition gives, and `FENCED_LEADER_EPOCH` or `UNKNOWN_LEADER_EPOCH` for
    /// another current epoch than the asker's.
    pub fn offset_for_leader_epoch(
        &self,
        topic: &str,
        partition: i32,
        current_leader_epoch: Option<i32>,
        leader_epoch: i32,
    ) -> Result<(i32, i64), ErrorCode> {
        let partition = self.find(topic, partition)?;
        partition.offsets_for(current_leader_epoch, true)?;
        let end = partition.log().epoch_end_offset(leader_epoch);
        Ok(end.map_or((-1, -1), |end| (end.epoch, end.end_offset)))
    }
}

/// Where the local part of a log begins, where the remote one ends, and what is to go there next.
/// Without a remote tier all there is is local.
fn tier_offset(partition: &Partition, timestamp: i64, start: i64) -> OffsetAnswer {
    let log = partition.log();
    let tiered = log.is_tiered();
    let offset = match timestamp {
        EARLIEST_LOCAL_TIMESTAMP if tiered => log.local_log_start_offset(),
        EARLIEST_LOCAL_TIMESTAMP => start,
        _ if !tiered => return OffsetAnswer::NONE,
        LATEST_TIERED_TIMESTAMP => log.highest_tiered_offset(),
        _ => log.earliest_pending_upload_offset().unwrap_or(-1),
    };
    if offset < 0 {
        return OffsetAnswer::NONE;
    }
    let leader_epoch = if offset == start {
        start_epoch(partition, start)
    } else {
        log.epoch_for_offset(offset).unwrap_or(-1)
    };
    OffsetAnswer {
        timestamp: -1,
        offset,
        leader_epoch,
    }
}

/// The epoch of the log's first record, unless the records there are from before epochs were kept.
fn start_epoch(partition: &Partition, start: i64) -> i32 {
    match partition.log().earliest_epoch() {
        Some((epoch, first_offset)) if first_offset <= start => epoch,
        _ => -1,
    }
}

fn search_failed(partition: &Partition, error: &LogError) -> ErrorCode {
    tracing::error!(partition = %partition.name(), %error, "search by timestamp failed");
    log_error_code(error)
}
