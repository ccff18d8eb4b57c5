//! TxnOffsetCommit, and the markers that end transactions.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::txn_offset_commit_request::TxnOffsetCommitRequestTopic;
use klamm_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use klamm_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use super::{GroupCoordinator, mismatch};
use crate::group::shard::{GroupRequest, GroupResponse};
use crate::group::{RequestContext, TopicLookup, errors};
use crate::runtime::TransactionEnd;

/// From this version on, clients know that a coordinator may be loading.
const LOADING_FROM: i16 = 2;

impl GroupCoordinator {
    /// TxnOffsetCommit (key 28), versions 0-5. Answers when the offsets are in the log; they count
    /// when the transaction commits.
    ///
    /// Partitions that `topics` does not know are refused one by one. `verify` makes sure that the
    /// transaction covers the group's partition, and gives what the append has to show.
    pub async fn txn_offset_commit(
        &self,
        context: &RequestContext,
        mut request: TxnOffsetCommitRequest,
        topics: &dyn TopicLookup,
        verify: impl AsyncFnOnce(&TxnOffsetCommitRequest) -> Result<Option<u64>, ErrorCode>,
    ) -> TxnOffsetCommitResponse {
        let mut response = split(&mut request, topics);
        if request.topics.is_empty() {
            return response;
        }
        let committed = match self.check_group(&request.group_id) {
            Err(error) => Err(error),
            Ok(()) => match verify(&request).await {
                Err(error) => Err(errors::client_error(error)),
                Ok(guard) => {
                    let group_id = request.group_id.clone();
                    let request = GroupRequest::TxnOffsetCommit(Box::new(request), guard);
                    self.submit(&group_id, request).await
                }
            },
        };
        let (committed, error) = match committed {
            Ok(GroupResponse::TxnOffsetCommit(committed)) => (committed.topics, ErrorCode::None),
            Ok(other) => (Vec::new(), mismatch(&other)),
            Err(ErrorCode::CoordinatorLoadInProgress) if context.api_version < LOADING_FROM => {
                (Vec::new(), ErrorCode::CoordinatorNotAvailable)
            }
            Err(error) => (Vec::new(), error),
        };
        // What was not refused above was asked for in the same order as it is answered.
        let mut verdicts = committed
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .map(|partition| partition.error_code);
        for topic in &mut response.topics {
            for partition in &mut topic.partitions {
                if partition.error_code == i16::from(ErrorCode::None) {
                    partition.error_code = verdicts.next().unwrap_or(error.into());
                }
            }
        }
        response
    }

    /// Ends a producer's transaction in a partition of `__consumer_offsets`. The errors are those
    /// that a transaction coordinator knows from WriteTxnMarkers.
    pub async fn end_transaction(
        &self,
        partition: i32,
        end: TransactionEnd,
    ) -> Result<(), ErrorCode> {
        let ended = match self.check_active() {
            Ok(()) => self.runtime.end_transaction(partition, end).await,
            Err(error) => Err(error),
        };
        ended.map_err(|error| match error {
            ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::NotCoordinator => ErrorCode::NotLeaderOrFollower,
            error => error,
        })
    }
}

/// Takes partitions that do not exist out of the request. Returns the whole answer, with the
/// errors of those that were taken out.
fn split(
    request: &mut TxnOffsetCommitRequest,
    topics: &dyn TopicLookup,
) -> TxnOffsetCommitResponse {
    let exists = |topic: &TxnOffsetCommitRequestTopic, partition: i32| {
        topics.has_partition(&topic.name, partition)
    };
    let answer = |topic: &TxnOffsetCommitRequestTopic| TxnOffsetCommitResponseTopic {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| {
                let index = partition.partition_index;
                let error = if exists(topic, index) {
                    ErrorCode::None
                } else {
                    ErrorCode::UnknownTopicOrPartition
                };
                TxnOffsetCommitResponsePartition {
                    partition_index: index,
                    error_code: error.into(),
                    ..TxnOffsetCommitResponsePartition::default()
                }
            })
            .collect(),
        ..TxnOffsetCommitResponseTopic::default()
    };
    let response = TxnOffsetCommitResponse {
        topics: request.topics.iter().map(answer).collect(),
        ..TxnOffsetCommitResponse::default()
    };
    for topic in &mut request.topics {
        let name = topic.name.clone();
        topic
            .partitions
            .retain(|partition| topics.has_partition(&name, partition.partition_index));
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    response
}
