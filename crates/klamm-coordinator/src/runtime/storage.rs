//! The seams to the partition that a shard keeps its records in.

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use tokio::sync::watch;

/// A future without a name, for cold seams.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where an appended batch landed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset of its last record. The batch is committed when the high watermark is above it.
    pub last_offset: i64,
}

/// Why a batch is not in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// This broker does not lead the partition, or not at this epoch.
    #[error("not the leader of the partition at this epoch")]
    NotLeader,
    /// The partition does not exist here.
    #[error("the partition does not exist")]
    UnknownPartition,
    /// Fewer replicas are in sync than the topic demands.
    #[error("not enough replicas are in sync")]
    NotEnoughReplicas,
    /// The batch is larger than the topic takes.
    #[error("the batch is too large")]
    TooLarge,
    /// The disk failed.
    #[error("the log cannot be written")]
    Storage,
    /// No answer in time.
    #[error("the append timed out")]
    TimedOut,
    /// The batch was refused as invalid, which is a fault of this program.
    #[error("the log refused the batch")]
    Refused,
    /// The producer's epoch is older than one that the log has seen.
    #[error("the producer's epoch is outdated")]
    InvalidProducerEpoch,
    /// The records belong to no transaction that is known to be open.
    #[error("the records belong to no open transaction")]
    InvalidTxnState,
    /// The marker comes from a transaction coordinator that was replaced.
    #[error("the transaction coordinator is outdated")]
    TransactionCoordinatorFenced,
}

impl WriteError {
    /// The code that Kafka's log gives for this failure.
    pub fn code(self) -> ErrorCode {
        match self {
            WriteError::NotLeader => ErrorCode::NotLeaderOrFollower,
            WriteError::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
            WriteError::NotEnoughReplicas => ErrorCode::NotEnoughReplicas,
            WriteError::TooLarge => ErrorCode::MessageTooLarge,
            WriteError::Storage => ErrorCode::KafkaStorageError,
            WriteError::TimedOut => ErrorCode::RequestTimedOut,
            WriteError::Refused => ErrorCode::UnknownServerError,
            WriteError::InvalidProducerEpoch => ErrorCode::InvalidProducerEpoch,
            WriteError::InvalidTxnState => ErrorCode::InvalidTxnState,
            WriteError::TransactionCoordinatorFenced => ErrorCode::TransactionCoordinatorFenced,
        }
    }
}

/// Why a partition cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// This broker does not lead the partition any more.
    #[error("not the leader of the partition")]
    NotLeader,
    /// The partition does not exist here.
    #[error("the partition does not exist")]
    UnknownPartition,
    /// The disk failed.
    #[error("the log cannot be read")]
    Storage,
}

/// What a batch is, beside records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchKind {
    /// Records of no transaction.
    Plain,
    /// Records of an open transaction; the guard is what its verification gave, if there was one.
    Transactional {
        /// See [`super::TransactionalProducer::guard`].
        guard: Option<u64>,
    },
    /// The marker that ends a transaction, which ran under this `transaction.version`.
    Marker {
        /// The feature level.
        transaction_version: i16,
    },
}

/// The way from a coordinator to its log.
pub trait PartitionWriter: Send + Sync + 'static {
    /// Appends one record batch (format v2, base offset 0) as the leader at `leader_epoch`. Done
    /// when the batch is in the leader's log; that it is committed shows in
    /// [`PartitionWriter::high_watermark`]. An error says that nothing was appended.
    fn append(
        &self,
        partition: i32,
        leader_epoch: i32,
        batch: Bytes,
        kind: BatchKind,
    ) -> BoxFuture<'_, Result<Appended, WriteError>>;

    /// The high watermark and its changes. The sender may go away when the partition does.
    fn high_watermark(&self, partition: i32) -> Result<watch::Receiver<i64>, WriteError>;

    /// The largest batch that the partition takes (`max.message.bytes`).
    fn max_batch_bytes(&self, partition: i32) -> usize;
}

/// First and last offset of a partition at the moment of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRange {
    /// Offset of the first record.
    pub start_offset: i64,
    /// Offset that the next record will get.
    pub end_offset: i64,
}

/// The way from a log to a coordinator that loads.
pub trait PartitionReader: Send + Sync + 'static {
    /// What there is to read.
    fn range(&self, partition: i32) -> Result<LogRange, ReadError>;

    /// Whole record batches from the one that holds `offset` on, committed or not, about
    /// `bytes_max` of them but at least one. Empty at the end of the log.
    fn read(
        &self,
        partition: i32,
        offset: i64,
        bytes_max: usize,
    ) -> BoxFuture<'_, Result<Bytes, ReadError>>;
}
