//! Which of Kafka's errors a failure below is answered with. The one place that decides.

use klamm_log::LogError;
use klamm_protocol::ErrorCode;

use crate::fetch_session::SessionError;
use crate::partition::leader::FollowerRefused;
use crate::partition::{AlterPartitionError, EpochMismatch};

/// The error code for a failed operation on a log.
pub(crate) fn log_error_code(error: &LogError) -> ErrorCode {
    match error {
        LogError::OffsetTiered { .. } => ErrorCode::OffsetMovedToTieredStorage,
        LogError::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
        LogError::RecordTooLarge { .. } => ErrorCode::MessageTooLarge,
        LogError::BatchTooLarge { .. } => ErrorCode::RecordListTooLarge,
        LogError::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
        LogError::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
        LogError::InvalidTxnState { .. } => ErrorCode::InvalidTxnState,
        LogError::TransactionCoordinatorFenced { .. } => ErrorCode::TransactionCoordinatorFenced,
        LogError::InvalidBatch { .. } | LogError::Corrupt { .. } => ErrorCode::CorruptMessage,
        LogError::InconsistentTopicId { .. } => ErrorCode::InconsistentTopicId,
        error if error.is_storage_failure() => ErrorCode::KafkaStorageError,
        _ => ErrorCode::UnknownServerError,
    }
}

impl From<EpochMismatch> for ErrorCode {
    fn from(mismatch: EpochMismatch) -> ErrorCode {
        match mismatch {
            EpochMismatch::Fenced => ErrorCode::FencedLeaderEpoch,
            EpochMismatch::Unknown => ErrorCode::UnknownLeaderEpoch,
        }
    }
}

impl From<SessionError> for ErrorCode {
    fn from(error: SessionError) -> ErrorCode {
        match error {
            SessionError::IdNotFound => ErrorCode::FetchSessionIdNotFound,
            SessionError::InvalidEpoch => ErrorCode::InvalidFetchSessionEpoch,
            SessionError::TopicIds => ErrorCode::FetchSessionTopicIdError,
        }
    }
}

/// A stranger that names the current epoch has heard of an assignment that this broker has not;
/// of one that names none nobody can say who is behind.
pub(crate) fn follower_error_code(refused: FollowerRefused, names_epoch: bool) -> ErrorCode {
    match refused {
        FollowerRefused::NotAReplica if names_epoch => ErrorCode::UnknownLeaderEpoch,
        FollowerRefused::NotAReplica | FollowerRefused::StaleBrokerEpoch => {
            ErrorCode::NotLeaderOrFollower
        }
    }
}

impl From<ErrorCode> for AlterPartitionError {
    fn from(code: ErrorCode) -> AlterPartitionError {
        match code {
            ErrorCode::OperationNotAttempted | ErrorCode::IneligibleReplica => {
                AlterPartitionError::Refused
            }
            ErrorCode::UnknownTopicOrPartition
            | ErrorCode::UnknownTopicId
            | ErrorCode::FencedLeaderEpoch
            | ErrorCode::InvalidUpdateVersion
            | ErrorCode::InvalidRequest
            | ErrorCode::NewLeaderElected => AlterPartitionError::AwaitMetadata,
            _ => AlterPartitionError::Retry,
        }
    }
}
