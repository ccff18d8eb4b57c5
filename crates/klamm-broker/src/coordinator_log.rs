//! An internal topic as a coordinator's log: its seams over the replica manager.

use bytes::Bytes;
use klamm_coordinator::runtime::{
    Appended, BatchKind, BoxFuture, LogRange, PartitionReader, PartitionWriter, ReadError,
    WriteError,
};
use klamm_log::AppendOrigin;
use klamm_protocol::ErrorCode;
use klamm_records::produce::PreparedBatch;
use klamm_replication::ReplicaManager;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

/// The partitions of an internal topic on this broker.
#[derive(Clone, Debug)]
pub(crate) struct CoordinatorLog {
    replicas: ReplicaManager,
    topic: &'static str,
    /// `max.message.bytes` of the topic.
    batch_bytes_max: usize,
}

impl CoordinatorLog {
    pub(crate) fn new(
        replicas: ReplicaManager,
        topic: &'static str,
        batch_bytes_max: usize,
    ) -> Self {
        CoordinatorLog {
            replicas,
            topic,
            batch_bytes_max,
        }
    }

    fn append(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: Bytes,
        kind: BatchKind,
    ) -> Result<Appended, WriteError> {
        let batch = PreparedBatch::trusted(batch).map_err(|_| WriteError::Refused)?;
        let origin = match kind {
            BatchKind::Plain | BatchKind::Transactional { guard: None } => {
                AppendOrigin::Coordinator
            }
            BatchKind::Transactional { guard: Some(guard) } => {
                AppendOrigin::VerifiedCoordinator { guard }
            }
            BatchKind::Marker {
                transaction_version,
            } => AppendOrigin::TxnMarkers {
                transaction_version,
            },
        };
        let appended = self
            .replicas
            .append_as_coordinator(self.topic, partition, batch, leader_epoch, origin)
            .map_err(write_error)?;
        Ok(Appended {
            base_offset: appended.base_offset,
            last_offset: appended.end_offset - 1,
        })
    }
}

impl PartitionWriter for CoordinatorLog {
    fn append(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: Bytes,
        kind: BatchKind,
    ) -> BoxFuture<'_, Result<Appended, WriteError>> {
        // An append to the page cache, like a producer's: done when the call returns.
        let appended = CoordinatorLog::append(self, partition, leader_epoch, batch, kind);
        Box::pin(std::future::ready(appended))
    }

    fn high_watermark(&self, partition: i32) -> Result<watch::Receiver<i64>, WriteError> {
        self.replicas
            .watch(self.topic, partition)
            .map_err(write_error)
    }

    fn max_batch_bytes(&self, _partition: i32) -> usize {
        self.batch_bytes_max
    }
}

impl PartitionReader for CoordinatorLog {
    fn range(&self, partition: i32) -> Result<LogRange, ReadError> {
        let offsets = self
            .replicas
            .offsets(self.topic, partition)
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
        let (replicas, topic) = (self.replicas.clone(), self.topic);
        Box::pin(async move {
            let read = spawn_blocking(move || {
                let loaded = replicas
                    .load(topic, partition, offset, bytes_max)
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
        ErrorCode::InvalidProducerEpoch => WriteError::InvalidProducerEpoch,
        ErrorCode::InvalidTxnState => WriteError::InvalidTxnState,
        ErrorCode::TransactionCoordinatorFenced => WriteError::TransactionCoordinatorFenced,
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
