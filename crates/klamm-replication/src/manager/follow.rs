//! Following leaders: what the fetchers ([`crate::fetcher`]) ask of this broker's replicas.

use bytes::Bytes;
use klamm_protocol::messages::fetch_response::PartitionData;
use klamm_protocol::{ErrorCode, Records};
use klamm_records::TopicPartition;

use super::ReplicaManager;
use crate::fetcher::error_of;
use crate::partition::{EpochEnd, FetchPosition};

/// What a replica asks of its leader next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerWish {
    /// From where.
    pub position: FetchPosition,
    /// Start of the local log, by which the leader knows what all replicas have deleted.
    pub log_start_offset: i64,
    /// The high watermark known here.
    pub high_watermark: i64,
    /// Nothing may be fetched at this moment, lest a bandwidth be exceeded.
    pub throttled: bool,
    /// What was appended is to be on disk before the leader is asked again, because that tells it
    /// that it is replicated.
    pub awaits_sync: bool,
}

/// What a leader's answer led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Followed {
    /// Records were appended, so many bytes; or offsets were taken over, and there were none.
    Appended(u64),
    /// The logs had parted; this one was cut. The next fetch tells whether far enough.
    Truncated,
    /// The leader does not have what was asked for. Ask it where its log starts and ends, and
    /// pass that to [`ReplicaManager::follow_out_of_range`].
    OutOfRange,
}

/// Why an answer could not be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FollowError {
    /// The replica no longer follows in the epoch in which it asked: nothing was done.
    #[error("the replica has moved on since it asked")]
    Moved,
    /// The leader refused the fetch of this partition.
    #[error("the leader answered {0:?}")]
    Leader(ErrorCode),
    /// The local log failed.
    #[error("the local log failed: {0:?}")]
    Log(ErrorCode),
}

impl ReplicaManager {
    /// Where the replica of a partition fetches next, if it follows broker `leader`.
    pub fn follower_wish(&self, partition: &TopicPartition, leader: i32) -> Option<FollowerWish> {
        let found = self.find(&partition.topic, partition.partition).ok()?;
        let throttled = || {
            let held = found.throttled().as_follower() && !found.throttled().is_caught_up();
            let now = self.0.env.clock.monotonic();
            held && self.0.quotas.follower.is_exceeded(now)
        };
        found.wish(leader).map(|wish| FollowerWish {
            throttled: throttled(),
            ..wish
        })
    }

    /// Does what a leader's answer to a fetch under `fetch_epoch` asks for: appends, cuts, takes
    /// over high watermark and log start. Blocks on the file system as an append does.
    ///
    /// # Errors
    /// [`FollowError`]; the partition should then pause.
    pub fn follow(
        &self,
        partition: &TopicPartition,
        fetch_epoch: i32,
        data: &PartitionData,
    ) -> Result<Followed, FollowError> {
        let found = self.find(&partition.topic, partition.partition)?;
        match error_of(data.error_code) {
            ErrorCode::None => {}
            ErrorCode::OffsetOutOfRange => return Ok(Followed::OutOfRange),
            error => return Err(FollowError::Leader(error)),
        }
        let parted = &data.diverging_epoch;
        if parted.epoch >= 0 || parted.end_offset >= 0 {
            let leader = EpochEnd {
                epoch: parted.epoch,
                end_offset: parted.end_offset,
            };
            found.follow_parted(fetch_epoch, leader)?;
            self.0.logs.note_truncation(found.log());
            return Ok(Followed::Truncated);
        }
        let none = Bytes::new();
        let records = data.records.as_ref().and_then(Records::as_bytes);
        let bytes = found.follow(
            fetch_epoch,
            records.unwrap_or(&none),
            data.high_watermark,
            data.log_start_offset,
            self.0.env.clock.wall_ms(),
        )?;
        if found.throttled().as_follower() {
            self.0.quotas.follower.took(bytes);
        }
        Ok(Followed::Appended(bytes))
    }

    /// Brings a replica back into the range of its leader's log.
    ///
    /// # Errors
    /// [`FollowError`]; the partition should then pause.
    pub fn follow_out_of_range(
        &self,
        partition: &TopicPartition,
        fetch_epoch: i32,
        leader_start: i64,
        leader_end: i64,
    ) -> Result<(), FollowError> {
        let found = self.find(&partition.topic, partition.partition)?;
        found.follow_out_of_range(fetch_epoch, leader_start, leader_end)?;
        self.0.logs.note_truncation(found.log());
        Ok(())
    }

    /// Waits until the log of some follower was synced, from the moment of this call on.
    pub(crate) fn follower_synced(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.follower_synced.notified()
    }

    /// Time of the clock that replicas go by, in ms of the wall clock.
    pub(crate) fn now_ms(&self) -> i64 {
        self.0.env.clock.wall_ms()
    }

    /// This broker.
    pub(crate) fn node_id(&self) -> i32 {
        self.0.config.node_id
    }
}
