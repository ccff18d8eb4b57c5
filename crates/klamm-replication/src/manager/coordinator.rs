//! What coordinators need of a partition that they keep their state in: append under their epoch,
//! follow what is committed, read everything back.

use klamm_log::AppendOrigin;
use klamm_protocol::ErrorCode;
use klamm_records::PreparedBatch;
use tokio::sync::watch;

use super::error::log_error_code;
use super::fetched::{FetchSlices, FetchedPartition};
use super::partition::{Acks, Limits};
use super::wait::Wakes;
use super::{ReplicaManager, TopicRef};
use crate::waiters::Isolation;

/// A producer that wants to write in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerClaim {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence number of the first record that it wants to write.
    pub sequence: i32,
    /// Whether its epoch is bumped with each transaction (KIP-890).
    pub bumps_epoch: bool,
}

/// Where an append of a coordinator went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoordinatorAppend {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset after the last record: committed once the high watermark is here.
    pub end_offset: i64,
    /// Time that the log stamped the records with, -1 if they keep their own.
    pub log_append_time_ms: i64,
}

/// Records read for a coordinator that loads its state.
#[derive(Clone, Debug)]
pub struct LoadedRange {
    /// Whole batches, the last one maybe cut short.
    pub records: FetchSlices,
    /// First offset of the log.
    pub log_start_offset: i64,
    /// Offset of the next record.
    pub log_end_offset: i64,
    /// Offset below which records are committed.
    pub high_watermark: i64,
}

impl ReplicaManager {
    /// Appends a batch that a coordinator built, if this broker leads the partition in
    /// `leader_epoch`. The records are durable by Kafka's rules once the high watermark reaches
    /// the end offset of the append: see [`ReplicaManager::watch`].
    ///
    /// # Errors
    /// `NOT_LEADER_OR_FOLLOWER` in another epoch, `NOT_ENOUGH_REPLICAS` if fewer are in sync than
    /// `min.insync.replicas`, and those of the log.
    pub fn append_as_coordinator(
        &self,
        topic: &str,
        partition: i32,
        batch: PreparedBatch,
        leader_epoch: i32,
        origin: AppendOrigin,
    ) -> Result<CoordinatorAppend, ErrorCode> {
        self.append_unwatched(topic, partition, batch, Some(leader_epoch), origin)
    }

    /// Appends the marker that ends a transaction under `transaction_version`, in whatever epoch
    /// this broker leads the partition. Committed as an append of a coordinator is.
    ///
    /// # Errors
    /// Those of [`ReplicaManager::append_as_coordinator`]; `INVALID_PRODUCER_EPOCH` and
    /// `TRANSACTION_COORDINATOR_FENCED` if a newer epoch decided already.
    pub fn append_marker(
        &self,
        topic: &str,
        partition: i32,
        marker: PreparedBatch,
        transaction_version: i16,
    ) -> Result<CoordinatorAppend, ErrorCode> {
        let origin = AppendOrigin::TxnMarkers {
            transaction_version,
        };
        self.append_unwatched(topic, partition, marker, None, origin)
    }

    /// A producer is about to write to a partition in a transaction. If the partition knows the
    /// transaction there is nothing to verify, and none is returned; else the transaction
    /// coordinator must be asked, and the append show what is returned ([`super::Prepared::verified`]).
    ///
    /// # Errors
    /// As for any look-up; `INVALID_PRODUCER_EPOCH` if the partition has seen a newer epoch.
    pub fn begin_verification(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        producer: ProducerClaim,
    ) -> Result<Option<u64>, ErrorCode> {
        let partition = match topic {
            TopicRef::Name(name) => self.find(name, partition),
            TopicRef::Id(id) => self.find_by_id(id, partition),
        }?;
        if partition.role(|role| role.as_leader().is_none()) {
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        let now_ms = self.0.env.clock.wall_ms();
        partition
            .log()
            .begin_verification(
                producer.id,
                producer.epoch,
                producer.sequence,
                producer.bumps_epoch,
                now_ms,
            )
            .map_err(|error| log_error_code(&error))
    }

    fn append_unwatched(
        &self,
        topic: &str,
        partition: i32,
        batch: PreparedBatch,
        leader_epoch: Option<i32>,
        origin: AppendOrigin,
    ) -> Result<CoordinatorAppend, ErrorCode> {
        let partition = self.find(topic, partition)?;
        let mut wakes = Wakes::default();
        let now_ms = self.0.env.clock.wall_ms();
        let appended = partition.append(
            &mut [batch],
            origin,
            leader_epoch,
            Acks::AllUnwatched,
            now_ms,
            &mut wakes,
        );
        wakes.wake();
        let info = appended?.info;
        Ok(CoordinatorAppend {
            base_offset: info.first_offset,
            end_offset: info.last_offset + 1,
            log_append_time_ms: info.log_append_time_ms,
        })
    }

    /// Follows the high watermark of a replica.
    pub fn watch(&self, topic: &str, partition: i32) -> Result<watch::Receiver<i64>, ErrorCode> {
        Ok(self.find(topic, partition)?.watch())
    }

    /// Reads from `offset` to the end of the log, whatever is committed: at least one whole batch,
    /// at most about `max_bytes`. Empty at the end.
    pub fn load(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        max_bytes: usize,
    ) -> Result<LoadedRange, ErrorCode> {
        let partition = self.find(topic, partition)?;
        let seen = partition.offsets_for(None, true)?;
        let mut answer = FetchedPartition::error(ErrorCode::None);
        let limits = Limits {
            max_bytes,
            min_one: true,
        };
        partition.read(offset, limits, &seen, Isolation::LogEnd, &mut answer)?;
        Ok(LoadedRange {
            records: answer.records,
            log_start_offset: seen.log_start_offset,
            log_end_offset: seen.log_end_offset,
            high_watermark: seen.high_watermark,
        })
    }
}
