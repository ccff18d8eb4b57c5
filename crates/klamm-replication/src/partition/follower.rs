//! A follower: where to fetch from, what to truncate, how far its high watermark may move.

use super::PartitionMetadata;

/// State of a replica that follows.
#[derive(Clone, Debug)]
pub struct FollowerState {
    leader_id: Option<i32>,
    leader_epoch: i32,
    partition_epoch: i32,
    high_watermark: i64,
}

/// Where a follower's next fetch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchPosition {
    /// The end of the local log.
    pub offset: i64,
    /// The leader epoch in which the follower believes itself.
    pub current_leader_epoch: i32,
    /// The epoch of the last record it holds, so that the leader can tell where the logs part;
    /// `None` for an empty log.
    pub last_fetched_epoch: Option<i32>,
}

/// A leader epoch and the offset at which it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The epoch, -1 if unknown.
    pub epoch: i32,
    /// The offset after its last record, -1 if unknown.
    pub end_offset: i64,
}

/// What to do with a log that has parted from the leader's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// Cut to this offset and fetch on.
    To(i64),
    /// Cut to this offset; the logs may still differ below, the next fetch will tell.
    Probe(i64),
    /// Drop everything and start at this offset: the leader no longer has what is missing.
    RestartAt(i64),
    /// Nothing to cut: fetch on from the end.
    Nothing,
}

impl FollowerState {
    /// A follower that has heard no metadata yet.
    pub fn new(high_watermark: i64) -> Self {
        FollowerState {
            leader_id: None,
            leader_epoch: -1,
            partition_epoch: -1,
            high_watermark,
        }
    }

    /// Takes over the controller's word.
    pub fn update(&mut self, metadata: &PartitionMetadata) {
        self.leader_id = (metadata.leader >= 0).then_some(metadata.leader);
        self.leader_epoch = metadata.leader_epoch;
        self.partition_epoch = metadata.partition_epoch;
    }

    /// Where to fetch next, given the end of the local log and the epoch of its last record.
    pub fn next_fetch(&self, log_end_offset: i64, latest_epoch: Option<i32>) -> FetchPosition {
        FetchPosition {
            offset: log_end_offset,
            current_leader_epoch: self.leader_epoch,
            last_fetched_epoch: latest_epoch,
        }
    }

    /// Whether the next fetch may be sent. It tells the leader that everything below its offset
    /// counts as replicated, so where only what is on disk counts (`durable_offset` is given) it
    /// waits until the whole log is.
    pub fn may_fetch(&self, log_end_offset: i64, durable_offset: Option<i64>) -> bool {
        durable_offset.is_none_or(|durable| durable >= log_end_offset)
    }

    /// Whether a batch of leader epoch `batch_epoch`, fetched while `fetch_epoch` was current, may
    /// be appended. A batch from a later epoch than the fetch asked under may come from a log that
    /// the follower has not compared its own with (KAFKA-18723).
    pub fn may_append(&self, batch_epoch: i32, fetch_epoch: i32) -> bool {
        fetch_epoch == self.leader_epoch && batch_epoch <= fetch_epoch
    }

    /// What to cut after the leader answered that the logs part.
    ///
    /// `leader` is the leader's largest epoch not above the one the follower fetched with, and its
    /// end there. `local` is the same question asked of the local log: its largest epoch not above
    /// `leader.epoch` and that epoch's end offset, if it keeps epochs at all.
    pub fn truncation(
        &self,
        leader: EpochEnd,
        local: Option<EpochEnd>,
        log_end_offset: i64,
    ) -> Truncation {
        if leader.end_offset < 0 {
            // The leader knows nothing of the epoch: only what is committed is safe to keep.
            return Truncation::To(self.high_watermark.min(log_end_offset));
        }
        match local {
            Some(local) if leader.epoch >= 0 && local.epoch != leader.epoch => {
                Truncation::Probe(local.end_offset.min(log_end_offset))
            }
            Some(local) if leader.epoch >= 0 => {
                Truncation::To(local.end_offset.min(leader.end_offset).min(log_end_offset))
            }
            _ => Truncation::To(leader.end_offset.min(log_end_offset)),
        }
    }

    /// What to do after `OFFSET_OUT_OF_RANGE`, given where the leader's log starts and ends.
    pub fn out_of_range(
        &self,
        log_end_offset: i64,
        leader_start_offset: i64,
        leader_end_offset: i64,
    ) -> Truncation {
        if leader_end_offset < log_end_offset {
            // An unclean election: the leader lost records that this replica has.
            Truncation::To(leader_end_offset)
        } else if leader_start_offset > log_end_offset {
            Truncation::RestartAt(leader_start_offset)
        } else {
            Truncation::Nothing
        }
    }

    /// Takes over the leader's high watermark as far as the local log
    /// (`log_start_offset..=log_end_offset`) reaches; returns it if it changed. After a truncation
    /// it may fall.
    pub fn observe_high_watermark(
        &mut self,
        leader_high_watermark: i64,
        log_start_offset: i64,
        log_end_offset: i64,
    ) -> Option<i64> {
        let bounded = leader_high_watermark
            .min(log_end_offset)
            .max(log_start_offset);
        (bounded != self.high_watermark).then(|| {
            self.high_watermark = bounded;
            bounded
        })
    }

    /// The leader, if there is one.
    pub fn leader_id(&self) -> Option<i32> {
        self.leader_id
    }

    /// The leader epoch, -1 before the first metadata.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// The partition epoch, -1 before the first metadata.
    pub fn partition_epoch(&self) -> i32 {
        self.partition_epoch
    }

    /// The offset below which records are known to be committed.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }
}
