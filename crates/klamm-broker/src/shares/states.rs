//! What share partitions ask of the share coordinators: their state as it was, and changes of it.

use std::sync::Arc;

use klamm_coordinator::share_partition::{SharePartition, StateWrite, StoredState};
use klamm_coordinator::share_state::SharePersister as _;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::read_share_group_state_request::{
    PartitionData as ReadPartition, ReadStateData,
};
use klamm_protocol::messages::write_share_group_state_request::{
    PartitionData as WritePartition, WriteStateData,
};
use klamm_protocol::messages::{ReadShareGroupStateRequest, WriteShareGroupStateRequest};
use klamm_replication::{OffsetQuery, ReadIsolation};
use tokio::task::spawn_blocking;
use tracing::warn;

use super::cells::Cell;
use super::config::OffsetReset;
use crate::shared::Shared;

/// Reads what the share coordinator knows, and where to begin if that is nothing.
pub(super) async fn read_state(broker: &Shared, cell: &Cell) -> Result<SharePartition, ErrorCode> {
    let (group_id, topic_id, partition) = &cell.key;
    let request = ReadShareGroupStateRequest {
        group_id: group_id.clone(),
        topics: vec![ReadStateData {
            topic_id: *topic_id,
            partitions: vec![ReadPartition {
                partition: *partition,
                leader_epoch: cell.leader_epoch,
                ..ReadPartition::default()
            }],
            ..ReadStateData::default()
        }],
        ..ReadShareGroupStateRequest::default()
    };
    let response = broker.persister.read(request).await;
    let mut results = response.results.into_iter().flat_map(|t| t.partitions);
    let result = results.next().ok_or(ErrorCode::CoordinatorNotAvailable)?;
    if result.error_code != 0 {
        let message = result.error_message.as_deref().unwrap_or_default();
        warn!(group = %group_id, topic = %cell.topic, partition, code = result.error_code, message,
            "a share partition cannot be loaded");
        return Err(persister_error(result.error_code));
    }
    let stored = StoredState {
        state_epoch: result.state_epoch,
        start_offset: result.start_offset,
        batches: result.state_batches,
    };
    let start_offset = if stored.start_offset == -1 {
        let reset = broker.group_cluster.share_config(group_id).reset;
        reset_offset(broker, &cell.topic, *partition, reset).await?
    } else {
        stored.start_offset
    };
    SharePartition::load(&stored, start_offset).map_err(|error| {
        warn!(group = %group_id, topic = %cell.topic, partition, %error, "a share state is broken");
        ErrorCode::UnknownServerError
    })
}

/// Where a group begins that has read nothing of the partition.
async fn reset_offset(
    broker: &Shared,
    topic: &Arc<str>,
    partition: i32,
    reset: OffsetReset,
) -> Result<i64, ErrorCode> {
    let query = |timestamp| OffsetQuery {
        timestamp,
        current_leader_epoch: None,
        isolation: Some(ReadIsolation::Uncommitted),
        leader_only: true,
    };
    let (latest, earliest) = (-1, -2);
    let timestamp = match reset {
        OffsetReset::Latest => latest,
        OffsetReset::Earliest => earliest,
        OffsetReset::ByDuration { ms } => (broker.env.clock.wall_ms().saturating_sub(ms)).max(0),
    };
    let (replicas, name) = (broker.replicas.clone(), topic.clone());
    // A search by time reads files.
    let found = spawn_blocking(move || {
        let found = replicas.list_offset(&name, partition, query(timestamp))?;
        if found.offset >= 0 {
            return Ok(found.offset);
        }
        // Nothing that young: the end.
        replicas
            .list_offset(&name, partition, query(latest))
            .map(|found| found.offset)
    });
    found.await.unwrap_or(Err(ErrorCode::UnknownServerError))
}

/// Writes a change. The error is one that clients know.
pub(super) async fn write_state(broker: &Shared, cell: &Cell, write: StateWrite) -> ErrorCode {
    let (group_id, topic_id, partition) = &cell.key;
    let request = WriteShareGroupStateRequest {
        group_id: group_id.clone(),
        topics: vec![WriteStateData {
            topic_id: *topic_id,
            partitions: vec![WritePartition {
                partition: *partition,
                state_epoch: write.state_epoch,
                leader_epoch: cell.leader_epoch,
                start_offset: write.start_offset,
                delivery_complete_count: write.delivery_complete_count,
                state_batches: write.batches,
                ..WritePartition::default()
            }],
            ..WriteStateData::default()
        }],
        ..WriteShareGroupStateRequest::default()
    };
    let response = broker.persister.write(request).await;
    let mut results = response.results.into_iter().flat_map(|t| t.partitions);
    let code = results.next().map(|result| result.error_code);
    match code {
        Some(0) => ErrorCode::None,
        Some(code) => {
            warn!(group = %group_id, topic = %cell.topic, partition, code, "share state not written");
            persister_error(code)
        }
        None => ErrorCode::CoordinatorNotAvailable,
    }
}

/// What clients are told of a share coordinator's refusal.
fn persister_error(code: i16) -> ErrorCode {
    match ErrorCode::from_code(code) {
        Some(
            ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress,
        ) => ErrorCode::CoordinatorNotAvailable,
        Some(ErrorCode::GroupIdNotFound) => ErrorCode::GroupIdNotFound,
        Some(ErrorCode::UnknownTopicOrPartition) => ErrorCode::UnknownTopicOrPartition,
        Some(ErrorCode::FencedLeaderEpoch | ErrorCode::FencedStateEpoch) => {
            ErrorCode::NotLeaderOrFollower
        }
        _ => ErrorCode::UnknownServerError,
    }
}
