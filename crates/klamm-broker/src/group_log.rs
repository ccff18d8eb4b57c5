//! `__consumer_offsets` as the group coordinator's log: its seams over the replica manager.

use bytes::Bytes;
use klamm_coordinator::runtime::{
    Appended, BoxFuture, LogRange, PartitionReader, PartitionWriter, ReadError, WriteError,
};
use klamm_log::AppendOrigin;
use klamm_protocol::ErrorCode;
use klamm_protocol::topic_name::CONSUMER_OFFSETS;
use klamm_records::produce::PreparedBatch;
use klamm_replication::ReplicaManager;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// The partitions of `__consumer_offsets` on this broker.
#[derive(Clone, Debug)]
pub(crate) struct GroupLog {
    replicas: ReplicaManager,
    /// `max.message.bytes` of the topic.
    batch_bytes_max: usize,
}

impl GroupLog {
    pub(crate) fn new(replicas: ReplicaManager, batch_bytes_max: usize) -> Self {
        GroupLog {
            replicas,
            batch_bytes_max,
        }
    }

    fn append(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: Bytes,
    ) -> Result<Appended, WriteError> {
        let batch = PreparedBatch::trusted(batch).map_err(|_| WriteError::Refused)?;
        let origin = AppendOrigin::Coordinator;
        let appended = self
            .replicas
            .append_as_coordinator(CONSUMER_OFFSETS, partition, batch, leader_epoch, origin)
            .map_err(write_error)?;
        Ok(Appended {
            base_offset: appended.base_offset,
            last_offset: appended.end_offset - 1,
        })
    }
}

impl PartitionWriter for GroupLog {
    fn append(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: Bytes,
    ) -> BoxFuture<'_, Result<Appended, WriteError>> {
        // An append to the page cache, like a producer's: done when the call returns.
        let appended = GroupLog::append(self, partition, leader_epoch, batch);
        Box::pin(std::future::ready(appended))
    }

    fn high_watermark(&self, partition: i32) -> Result<watch::Receiver<i64>, WriteError> {
        self.replicas
            .watch(CONSUMER_OFFSETS, partition)
            .map_err(write_error)
    }

    fn max_batch_bytes(&self, _partition: i32) -> usize {
        self.batch_bytes_max
    }
}

impl PartitionReader for GroupLog {
    fn range(&self, partition: i32) -> Result<LogRange, ReadError> {
        let offsets = self
            .replicas
            .offsets(CONSUMER_OFFSETS, partition)
            .map_err(read_error)?;
        Ok(LogRange {
            start_offset: offsets.log_start_offset,
            end_offset: offsets.log_end_offset,
        })
    }

    fn read(
        &self,
        partition: i32,
        offset: i64,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Bytes, ReadError>> {
        let replicas = self.replicas.clone();
        Box::pin(async move {
            let read = spawn_blocking(move || {
                let loaded = replicas
                    .load(CONSUMER_OFFSETS, partition, offset, bytes_max)
                    .map_err(read_error)?;
                loaded.records.read().map_err(|_| ReadError::Storage)
            });
            // The task is lost only with the runtime itself.
            let records = read.await.map_err(|_| ReadError::Storage)??;
            Ok(Bytes::from(records))
        })
    }
}

fn write_error(code: ErrorCode) -> WriteError {
    match code {
        ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch => WriteError::NotLeader,
        ErrorCode::UnknownTopicOrPartition => WriteError::UnknownPartition,
        ErrorCode::NotEnoughReplicas => WriteError::NotEnoughReplicas,
        ErrorCode::MessageTooLarge | ErrorCode::RecordListTooLarge => WriteError::TooLarge,
        ErrorCode::KafkaStorageError => WriteError::Storage,
        _ => WriteError::Refused,
    }
}

fn read_error(code: ErrorCode) -> ReadError {
    match code {
        ErrorCode::NotLeaderOrFollower | ErrorCode::FencedLeaderEpoch => ReadError::NotLeader,
        ErrorCode::UnknownTopicOrPartition => ReadError::UnknownPartition,
        _ => ReadError::Storage,
    }
}
