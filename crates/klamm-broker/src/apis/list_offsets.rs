//! ListOffsets: an offset by timestamp, or at an end of the log.

use std::collections::BTreeSet;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::list_offsets_request::ListOffsetsPartition;
use klamm_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use klamm_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use klamm_replication::manager::{MAX_TIMESTAMP, is_timestamp_supported};
use klamm_replication::{OffsetAnswer, OffsetQuery, ReadIsolation};
use tokio::task::spawn_blocking;
use tracing::error;

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

/// The replica id of consumers.
const CONSUMER: i32 = -1;
/// The replica id of tools that read any replica.
const DEBUGGING: i32 = -2;
const READ_COMMITTED: i8 = 1;

impl Api for ListOffsetsRequest {
    const MAY_BE_OVERTAKEN: bool = true;

    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> ListOffsetsResponse {
        let version = context.api_version;
        if !reads_files(&self) {
            return answer(&self, &broker, version);
        }
        // A search by time reads indexes and batches that may lie on the disk alone.
        let searched = spawn_blocking(move || answer(&self, &broker, version)).await;
        searched.unwrap_or_else(|failed| {
            error!(error = %failed, "a search by timestamp did not end");
            ListOffsetsResponse::default()
        })
    }
}

/// Whether any of the answers must be searched for in files.
fn reads_files(request: &ListOffsetsRequest) -> bool {
    let mut asked = request.topics.iter().flat_map(|topic| &topic.partitions);
    asked.any(|asked| asked.timestamp >= 0 || asked.timestamp == MAX_TIMESTAMP)
}

fn answer(request: &ListOffsetsRequest, broker: &Shared, version: i16) -> ListOffsetsResponse {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let key = (&*topic.name, partition.partition_index);
            if !seen.insert(key) {
                twice.insert(key);
            }
        }
    }
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let found = if twice.contains(&(&*topic.name, asked.partition_index)) {
                Err(ErrorCode::InvalidRequest)
            } else {
                find(request, broker, version, &topic.name, asked)
            };
            let (error, answer) = match found {
                Ok(answer) => (ErrorCode::None, answer),
                Err(error) => (for_version(error, version), OffsetAnswer::NONE),
            };
            ListOffsetsPartitionResponse {
                partition_index: asked.partition_index,
                error_code: error.into(),
                timestamp: answer.timestamp,
                offset: answer.offset,
                leader_epoch: epoch_for(answer.leader_epoch, version),
                ..ListOffsetsPartitionResponse::default()
            }
        });
        ListOffsetsTopicResponse {
            name: topic.name.clone(),
            partitions: partitions.collect(),
            ..ListOffsetsTopicResponse::default()
        }
    });
    ListOffsetsResponse {
        topics: topics.collect(),
        ..ListOffsetsResponse::default()
    }
}

fn find(
    request: &ListOffsetsRequest,
    broker: &Shared,
    version: i16,
    topic: &str,
    asked: &ListOffsetsPartition,
) -> Result<OffsetAnswer, ErrorCode> {
    if !is_timestamp_supported(asked.timestamp, version) {
        return Err(ErrorCode::UnsupportedVersion);
    }
    let isolation =
        (request.replica_id == CONSUMER).then_some(if request.isolation_level == READ_COMMITTED {
            ReadIsolation::Committed
        } else {
            ReadIsolation::Uncommitted
        });
    let epoch = asked.current_leader_epoch;
    let query = OffsetQuery {
        timestamp: asked.timestamp,
        current_leader_epoch: (epoch >= 0).then_some(epoch),
        isolation,
        leader_only: request.replica_id != DEBUGGING,
    };
    broker
        .replicas
        .list_offset(topic, asked.partition_index, query)
}

/// The leader epoch came with version 4; before, it must stay at its default.
fn epoch_for(epoch: i32, version: i16) -> i32 {
    if version >= 4 {
        epoch
    } else {
        ListOffsetsPartitionResponse::default().leader_epoch
    }
}

/// Clients before version 5 do not know the newer error.
fn for_version(error: ErrorCode, version: i16) -> ErrorCode {
    match error {
        ErrorCode::OffsetNotAvailable if version < 5 => ErrorCode::LeaderNotAvailable,
        error => error,
    }
}
