//! The error codes of the protocol.

use std::fmt;

/// What a client does about an error.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Remedy {
    /// Nothing: the same request would fail again.
    Final,
    /// Sends the request again.
    Retriable,
    /// Asks for metadata first, then sends the request again.
    Refreshable,
}

/// Defines [`ErrorCode`] from one line a code: variant, number, Kafka's name, remedy, message.
macro_rules! error_codes {
    ($($variant:ident = $code:literal, $name:literal, $remedy:ident, $message:literal;)*) => {
        /// An error as it travels in responses. Which codes are retriable is as in kafka-clients.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ErrorCode {
            $(
                #[doc = concat!("`", $name, "`: ", $message, ".")]
                $variant = $code,
            )*
        }

        impl ErrorCode {
            /// All codes in the order of their numbers.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant),*];

            /// Kafka's name, as in `NOT_LEADER_OR_FOLLOWER`.
            pub fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $name,)* }
            }

            /// What it means, to be shown to people.
            pub fn message(self) -> &'static str {
                match self { $(ErrorCode::$variant => $message,)* }
            }

            fn remedy(self) -> Remedy {
                match self { $(ErrorCode::$variant => error_codes!(@$remedy),)* }
            }
        }
    };
    (@final) => { Remedy::Final };
    (@retriable) => { Remedy::Retriable };
    (@refreshable) => { Remedy::Refreshable };
}

error_codes! {
    UnknownServerError = -1, "UNKNOWN_SERVER_ERROR", final, "something went wrong in the broker that no other code describes";
    None = 0, "NONE", final, "no error";
    OffsetOutOfRange = 1, "OFFSET_OUT_OF_RANGE", final, "the log has no such offset: it is before the start or after the end";
    CorruptMessage = 2, "CORRUPT_MESSAGE", retriable, "the record batch is damaged: wrong checksum, wrong size or not well formed";
    UnknownTopicOrPartition = 3, "UNKNOWN_TOPIC_OR_PARTITION", refreshable, "this broker has no such topic or partition";
    InvalidFetchSize = 4, "INVALID_FETCH_SIZE", final, "the number of bytes to fetch makes no sense";
    LeaderNotAvailable = 5, "LEADER_NOT_AVAILABLE", refreshable, "the partition has no leader right now; an election may be going on";
    NotLeaderOrFollower = 6, "NOT_LEADER_OR_FOLLOWER", refreshable, "this broker is not the leader, or not a replica, of the partition";
    RequestTimedOut = 7, "REQUEST_TIMED_OUT", retriable, "the request was not done within its time limit";
    BrokerNotAvailable = 8, "BROKER_NOT_AVAILABLE", final, "the broker cannot be reached";
    ReplicaNotAvailable = 9, "REPLICA_NOT_AVAILABLE", refreshable, "the replica asked for cannot serve the partition";
    MessageTooLarge = 10, "MESSAGE_TOO_LARGE", final, "the record batch is larger than the topic allows";
    StaleControllerEpoch = 11, "STALE_CONTROLLER_EPOCH", final, "the request comes from a controller that has been replaced";
    OffsetMetadataTooLarge = 12, "OFFSET_METADATA_TOO_LARGE", final, "the text committed along with the offset is longer than allowed";
    NetworkException = 13, "NETWORK_EXCEPTION", refreshable, "the connection was lost before an answer arrived";
    CoordinatorLoadInProgress = 14, "COORDINATOR_LOAD_IN_PROGRESS", retriable, "the coordinator is still reading its state";
    CoordinatorNotAvailable = 15, "COORDINATOR_NOT_AVAILABLE", retriable, "there is no coordinator for this key right now";
    NotCoordinator = 16, "NOT_COORDINATOR", retriable, "another broker is the coordinator for this key";
    InvalidTopicException = 17, "INVALID_TOPIC_EXCEPTION", final, "the topic name is not valid, or the topic does not permit this";
    RecordListTooLarge = 18, "RECORD_LIST_TOO_LARGE", final, "the records are larger than a log segment";
    NotEnoughReplicas = 19, "NOT_ENOUGH_REPLICAS", retriable, "too few replicas are in sync to accept the records";
    NotEnoughReplicasAfterAppend = 20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", retriable, "the records were written, but too few replicas are in sync";
    InvalidRequiredAcks = 21, "INVALID_REQUIRED_ACKS", final, "acks must be -1, 0 or 1";
    IllegalGeneration = 22, "ILLEGAL_GENERATION", final, "the group is in another generation than the request";
    InconsistentGroupProtocol = 23, "INCONSISTENT_GROUP_PROTOCOL", final, "the member has no protocol in common with the group";
    InvalidGroupId = 24, "INVALID_GROUP_ID", final, "the group id is not valid";
    UnknownMemberId = 25, "UNKNOWN_MEMBER_ID", final, "the group has no such member";
    InvalidSessionTimeout = 26, "INVALID_SESSION_TIMEOUT", final, "the session timeout lies outside of the limits of the broker";
    RebalanceInProgress = 27, "REBALANCE_IN_PROGRESS", final, "the group is rebalancing; the member has to join again";
    InvalidCommitOffsetSize = 28, "INVALID_COMMIT_OFFSET_SIZE", final, "the offset commit is too large to be stored";
    TopicAuthorizationFailed = 29, "TOPIC_AUTHORIZATION_FAILED", final, "not permitted on this topic";
    GroupAuthorizationFailed = 30, "GROUP_AUTHORIZATION_FAILED", final, "not permitted on this group";
    ClusterAuthorizationFailed = 31, "CLUSTER_AUTHORIZATION_FAILED", final, "not permitted on the cluster";
    InvalidTimestamp = 32, "INVALID_TIMESTAMP", final, "the timestamp of a record lies outside of what the topic accepts";
    UnsupportedSaslMechanism = 33, "UNSUPPORTED_SASL_MECHANISM", final, "the broker does not offer this SASL mechanism";
    IllegalSaslState = 34, "ILLEGAL_SASL_STATE", final, "the request does not fit the state of the authentication";
    UnsupportedVersion = 35, "UNSUPPORTED_VERSION", final, "this version of the request is not supported";
    TopicAlreadyExists = 36, "TOPIC_ALREADY_EXISTS", final, "a topic of this name exists";
    InvalidPartitions = 37, "INVALID_PARTITIONS", final, "the number of partitions is not valid";
    InvalidReplicationFactor = 38, "INVALID_REPLICATION_FACTOR", final, "the replication factor is below 1 or above the number of usable brokers";
    InvalidReplicaAssignment = 39, "INVALID_REPLICA_ASSIGNMENT", final, "the assignment of replicas to brokers is not valid";
    InvalidConfig = 40, "INVALID_CONFIG", final, "the configuration is not valid";
    NotController = 41, "NOT_CONTROLLER", retriable, "this node is not the active controller";
    InvalidRequest = 42, "INVALID_REQUEST", final, "the request contradicts itself or the protocol";
    UnsupportedForMessageFormat = 43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", final, "the format of the stored records does not support this";
    PolicyViolation = 44, "POLICY_VIOLATION", final, "a policy of the cluster does not permit this";
    OutOfOrderSequenceNumber = 45, "OUT_OF_ORDER_SEQUENCE_NUMBER", final, "a batch of the producer is missing before this one";
    DuplicateSequenceNumber = 46, "DUPLICATE_SEQUENCE_NUMBER", final, "the batch was already written";
    InvalidProducerEpoch = 47, "INVALID_PRODUCER_EPOCH", final, "the producer has an old epoch";
    InvalidTxnState = 48, "INVALID_TXN_STATE", final, "the transaction is not in a state that permits this";
    InvalidProducerIdMapping = 49, "INVALID_PRODUCER_ID_MAPPING", final, "the producer id does not belong to the transactional id";
    InvalidTransactionTimeout = 50, "INVALID_TRANSACTION_TIMEOUT", final, "the transaction timeout is longer than the broker permits";
    ConcurrentTransactions = 51, "CONCURRENT_TRANSACTIONS", retriable, "an earlier operation on the transaction is still going on";
    TransactionCoordinatorFenced = 52, "TRANSACTION_COORDINATOR_FENCED", final, "the marker comes from a coordinator that has been replaced";
    TransactionalIdAuthorizationFailed = 53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", final, "not permitted on this transactional id";
    SecurityDisabled = 54, "SECURITY_DISABLED", final, "the broker has no security features turned on";
    OperationNotAttempted = 55, "OPERATION_NOT_ATTEMPTED", final, "not tried, because another part of the request failed";
    KafkaStorageError = 56, "KAFKA_STORAGE_ERROR", refreshable, "the disk failed, or its directory is offline";
    LogDirNotFound = 57, "LOG_DIR_NOT_FOUND", final, "the broker has no such log directory";
    SaslAuthenticationFailed = 58, "SASL_AUTHENTICATION_FAILED", final, "the authentication failed";
    UnknownProducerId = 59, "UNKNOWN_PRODUCER_ID", final, "nothing is known of the producer; its records may have been deleted";
    ReassignmentInProgress = 60, "REASSIGNMENT_IN_PROGRESS", final, "the partition is being reassigned";
    DelegationTokenAuthDisabled = 61, "DELEGATION_TOKEN_AUTH_DISABLED", final, "delegation tokens are turned off";
    DelegationTokenNotFound = 62, "DELEGATION_TOKEN_NOT_FOUND", final, "there is no such delegation token";
    DelegationTokenOwnerMismatch = 63, "DELEGATION_TOKEN_OWNER_MISMATCH", final, "the principal neither owns the token nor may renew it";
    DelegationTokenRequestNotAllowed = 64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", final, "delegation tokens cannot be managed over this connection";
    DelegationTokenAuthorizationFailed = 65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", final, "not permitted on this delegation token";
    DelegationTokenExpired = 66, "DELEGATION_TOKEN_EXPIRED", final, "the delegation token has expired";
    InvalidPrincipalType = 67, "INVALID_PRINCIPAL_TYPE", final, "this type of principal is not supported";
    NonEmptyGroup = 68, "NON_EMPTY_GROUP", final, "the group still has members";
    GroupIdNotFound = 69, "GROUP_ID_NOT_FOUND", final, "there is no such group";
    FetchSessionIdNotFound = 70, "FETCH_SESSION_ID_NOT_FOUND", retriable, "there is no such fetch session";
    InvalidFetchSessionEpoch = 71, "INVALID_FETCH_SESSION_EPOCH", retriable, "the fetch session is at another epoch";
    ListenerNotFound = 72, "LISTENER_NOT_FOUND", refreshable, "the leader has no listener like the one asked";
    TopicDeletionDisabled = 73, "TOPIC_DELETION_DISABLED", final, "topics cannot be deleted in this cluster";
    FencedLeaderEpoch = 74, "FENCED_LEADER_EPOCH", refreshable, "the leader epoch of the request is older than that of the broker";
    UnknownLeaderEpoch = 75, "UNKNOWN_LEADER_EPOCH", retriable, "the leader epoch of the request is newer than that of the broker";
    UnsupportedCompressionType = 76, "UNSUPPORTED_COMPRESSION_TYPE", final, "the client cannot read the compression of the partition";
    StaleBrokerEpoch = 77, "STALE_BROKER_EPOCH", final, "the broker has registered again since";
    OffsetNotAvailable = 78, "OFFSET_NOT_AVAILABLE", retriable, "the new leader does not know yet how far its log is committed";
    MemberIdRequired = 79, "MEMBER_ID_REQUIRED", final, "join again with the member id given";
    PreferredLeaderNotAvailable = 80, "PREFERRED_LEADER_NOT_AVAILABLE", refreshable, "the preferred leader cannot lead";
    GroupMaxSizeReached = 81, "GROUP_MAX_SIZE_REACHED", final, "the group has as many members as it may have";
    FencedInstanceId = 82, "FENCED_INSTANCE_ID", final, "another member has registered with the same group.instance.id";
    EligibleLeadersNotAvailable = 83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", refreshable, "no replica that could lead is available";
    ElectionNotNeeded = 84, "ELECTION_NOT_NEEDED", refreshable, "the partition already has the leader asked for";
    NoReassignmentInProgress = 85, "NO_REASSIGNMENT_IN_PROGRESS", final, "the partition is not being reassigned";
    GroupSubscribedToTopic = 86, "GROUP_SUBSCRIBED_TO_TOPIC", final, "the group is subscribed to the topic";
    InvalidRecord = 87, "INVALID_RECORD", final, "a record failed the checks of the broker";
    UnstableOffsetCommit = 88, "UNSTABLE_OFFSET_COMMIT", retriable, "offsets of an open transaction are pending";
    ThrottlingQuotaExceeded = 89, "THROTTLING_QUOTA_EXCEEDED", retriable, "the quota is used up; try again later";
    ProducerFenced = 90, "PRODUCER_FENCED", final, "a newer producer has the same transactional id";
    ResourceNotFound = 91, "RESOURCE_NOT_FOUND", final, "there is no such resource";
    DuplicateResource = 92, "DUPLICATE_RESOURCE", final, "the request names a resource twice";
    UnacceptableCredential = 93, "UNACCEPTABLE_CREDENTIAL", final, "the credential does not meet the requirements";
    InconsistentVoterSet = 94, "INCONSISTENT_VOTER_SET", final, "one of the two sides is not among the voters";
    InvalidUpdateVersion = 95, "INVALID_UPDATE_VERSION", final, "the version of the update is not valid";
    FeatureUpdateFailed = 96, "FEATURE_UPDATE_FAILED", final, "the features could not be updated";
    PrincipalDeserializationFailure = 97, "PRINCIPAL_DESERIALIZATION_FAILURE", final, "the principal of a forwarded request cannot be read";
    SnapshotNotFound = 98, "SNAPSHOT_NOT_FOUND", final, "there is no such snapshot";
    PositionOutOfRange = 99, "POSITION_OUT_OF_RANGE", final, "the snapshot has no such position";
    UnknownTopicId = 100, "UNKNOWN_TOPIC_ID", refreshable, "this broker has no topic with this id";
    DuplicateBrokerRegistration = 101, "DUPLICATE_BROKER_REGISTRATION", final, "another broker has this id";
    BrokerIdNotRegistered = 102, "BROKER_ID_NOT_REGISTERED", final, "no broker with this id is registered";
    InconsistentTopicId = 103, "INCONSISTENT_TOPIC_ID", refreshable, "the log belongs to a topic with another id";
    InconsistentClusterId = 104, "INCONSISTENT_CLUSTER_ID", final, "the request is meant for another cluster";
    TransactionalIdNotFound = 105, "TRANSACTIONAL_ID_NOT_FOUND", final, "there is no such transactional id";
    FetchSessionTopicIdError = 106, "FETCH_SESSION_TOPIC_ID_ERROR", retriable, "the fetch session mixes topic ids and names";
    IneligibleReplica = 107, "INELIGIBLE_REPLICA", final, "a replica in the new in-sync set may not be in it";
    NewLeaderElected = 108, "NEW_LEADER_ELECTED", final, "the partition was changed and now has another leader";
    OffsetMovedToTieredStorage = 109, "OFFSET_MOVED_TO_TIERED_STORAGE", final, "the offset lies in remote storage";
    FencedMemberEpoch = 110, "FENCED_MEMBER_EPOCH", final, "the member epoch is fenced; give up all partitions and join again";
    UnreleasedInstanceId = 111, "UNRELEASED_INSTANCE_ID", final, "another member still uses the instance id";
    UnsupportedAssignor = 112, "UNSUPPORTED_ASSIGNOR", final, "the group does not support this assignor";
    StaleMemberEpoch = 113, "STALE_MEMBER_EPOCH", final, "the member epoch is old; learn the new one by a heartbeat first";
    MismatchedEndpointType = 114, "MISMATCHED_ENDPOINT_TYPE", final, "the request was sent to the wrong kind of endpoint";
    UnsupportedEndpointType = 115, "UNSUPPORTED_ENDPOINT_TYPE", final, "this kind of endpoint is not supported";
    UnknownControllerId = 116, "UNKNOWN_CONTROLLER_ID", final, "there is no controller with this id";
    UnknownSubscriptionId = 117, "UNKNOWN_SUBSCRIPTION_ID", final, "the telemetry subscription is unknown or out of date";
    TelemetryTooLarge = 118, "TELEMETRY_TOO_LARGE", final, "the telemetry is larger than the broker accepts";
    InvalidRegistration = 119, "INVALID_REGISTRATION", final, "the controller refused the registration of the broker";
    TransactionAbortable = 120, "TRANSACTION_ABORTABLE", final, "the transaction failed; abort it to go on";
    InvalidRecordState = 121, "INVALID_RECORD_STATE", final, "the record is not in a state that can be acknowledged";
    ShareSessionNotFound = 122, "SHARE_SESSION_NOT_FOUND", retriable, "there is no such share session";
    InvalidShareSessionEpoch = 123, "INVALID_SHARE_SESSION_EPOCH", retriable, "the share session is at another epoch";
    FencedStateEpoch = 124, "FENCED_STATE_EPOCH", final, "the state of the share group is at another epoch";
    InvalidVoterKey = 125, "INVALID_VOTER_KEY", final, "the voter asked for is not the replica that answers";
    DuplicateVoter = 126, "DUPLICATE_VOTER", final, "the voter is already among the voters";
    VoterNotFound = 127, "VOTER_NOT_FOUND", final, "the voter is not among the voters";
    InvalidRegularExpression = 128, "INVALID_REGULAR_EXPRESSION", final, "the regular expression is not valid";
    RebootstrapRequired = 129, "REBOOTSTRAP_REQUIRED", final, "what the client knows of the cluster is out of date; it has to bootstrap again";
    StreamsInvalidTopology = 130, "STREAMS_INVALID_TOPOLOGY", final, "the topology is not valid";
    StreamsInvalidTopologyEpoch = 131, "STREAMS_INVALID_TOPOLOGY_EPOCH", final, "the topology epoch is not valid";
    StreamsTopologyFenced = 132, "STREAMS_TOPOLOGY_FENCED", final, "the topology epoch is out of date";
    ShareSessionLimitReached = 133, "SHARE_SESSION_LIMIT_REACHED", retriable, "there are as many share sessions as there may be";
}

impl ErrorCode {
    /// The code with this number, if there is one.
    pub fn from_code(code: i16) -> Option<ErrorCode> {
        // The numbers have no gap and begin at -1.
        let index = usize::try_from(i32::from(code) + 1).ok()?;
        ErrorCode::ALL.get(index).copied()
    }

    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// Whether the same request may succeed when sent again.
    pub fn is_retriable(self) -> bool {
        self.remedy() != Remedy::Final
    }

    /// Whether the error says that the client's metadata is out of date.
    pub fn invalidates_metadata(self) -> bool {
        self.remedy() == Remedy::Refreshable
    }
}

impl Default for ErrorCode {
    /// No error.
    fn default() -> ErrorCode {
        ErrorCode::None
    }
}

impl From<ErrorCode> for i16 {
    fn from(code: ErrorCode) -> i16 {
        code.code()
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_no_gap() {
        for (index, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(usize::try_from(code.code() + 1), Ok(index));
            assert_eq!(ErrorCode::from_code(code.code()), Some(*code));
        }
        assert_eq!(ErrorCode::from_code(-2), None);
        assert_eq!(ErrorCode::from_code(134), None);
        assert_eq!(ErrorCode::from_code(i16::MAX), None);
    }

    #[test]
    fn retriable_is_as_in_kafka_clients() {
        assert!(ErrorCode::NotLeaderOrFollower.is_retriable());
        assert!(ErrorCode::NotLeaderOrFollower.invalidates_metadata());
        assert!(ErrorCode::RequestTimedOut.is_retriable());
        assert!(!ErrorCode::RequestTimedOut.invalidates_metadata());
        assert!(!ErrorCode::None.is_retriable());
        assert!(!ErrorCode::UnknownServerError.is_retriable());
        assert_eq!(
            ErrorCode::InvalidTopicException.name(),
            "INVALID_TOPIC_EXCEPTION"
        );
    }
}
