//! What clients are told of failures behind the coordinator: the table of Kafka's coordinator.

use klamm_protocol::ErrorCode;

/// The error that a client gets for a failed write or read of the group's log.
pub(crate) fn client_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::NetworkException => ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::NotEnoughReplicasAfterAppend
        | ErrorCode::RequestTimedOut => ErrorCode::CoordinatorNotAvailable,
        ErrorCode::NotLeaderOrFollower | ErrorCode::KafkaStorageError => ErrorCode::NotCoordinator,
        ErrorCode::MessageTooLarge
        | ErrorCode::RecordListTooLarge
        | ErrorCode::InvalidFetchSize => ErrorCode::UnknownServerError,
        other => other,
    }
}

/// The same for a stable OffsetFetch. Consumers before 3.9 know no COORDINATOR_NOT_AVAILABLE
/// here, and NOT_COORDINATOR also makes them look for the coordinator again.
pub(super) fn stable_fetch_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotEnoughReplicas
        | ErrorCode::RequestTimedOut => ErrorCode::NotCoordinator,
        other => client_error(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_of_the_log_become_errors_that_consumers_know() {
        assert_eq!(
            client_error(ErrorCode::RequestTimedOut),
            ErrorCode::CoordinatorNotAvailable
        );
        assert_eq!(
            client_error(ErrorCode::NotLeaderOrFollower),
            ErrorCode::NotCoordinator
        );
        assert_eq!(
            client_error(ErrorCode::RecordListTooLarge),
            ErrorCode::UnknownServerError
        );
        assert_eq!(
            client_error(ErrorCode::IllegalGeneration),
            ErrorCode::IllegalGeneration
        );
        assert_eq!(
            stable_fetch_error(ErrorCode::NotEnoughReplicas),
            ErrorCode::NotCoordinator
        );
    }
}
