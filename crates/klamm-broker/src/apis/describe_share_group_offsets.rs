//! DescribeShareGroupOffsets: how far share groups are, and how far behind.

use std::sync::Arc;

use klamm_coordinator::group::EndOffsets;
use klamm_coordinator::runtime::BoxFuture;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_share_group_offsets_response::DescribeShareGroupOffsetsResponseGroup;
use klamm_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use klamm_protocol::messages::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, ListOffsetsRequest,
};
use klamm_replication::{OffsetQuery, ReadIsolation};
use tracing::debug;

use super::share_groups_are_on;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::{Shared, Topics};

/// `timestamp` of ListOffsets for the end of the log.
const LATEST: i64 = -1;

/// `replica_id` of those who are no replica.
const CONSUMER: i32 = -1;
/// No epoch of the leader is expected.
const ANY_EPOCH: i32 = -1;

/// The ends of partitions, as their leaders tell them.
struct Ends<'a>(&'a Shared);

impl EndOffsets for Ends<'_> {
    fn latest<'a>(
        &'a self,
        topic: &'a str,
        partition: i32,
    ) -> BoxFuture<'a, Result<i64, ErrorCode>> {
        Box::pin(async move {
            let image = self.0.image();
            let found = image.partition(topic, partition);
            let leader = found.ok_or(ErrorCode::UnknownTopicOrPartition)?.leader;
            if leader == self.0.node_id {
                latest_here(self.0, topic, partition)
            } else {
                latest_there(self.0, leader, topic, partition).await
            }
        })
    }
}

fn latest_here(broker: &Shared, topic: &str, partition: i32) -> Result<i64, ErrorCode> {
    let query = OffsetQuery {
        timestamp: LATEST,
        current_leader_epoch: None,
        isolation: Some(ReadIsolation::Uncommitted),
        leader_only: true,
    };
    let found = broker.replicas.list_offset(topic, partition, query)?;
    Ok(found.offset)
}

async fn latest_there(
    broker: &Shared,
    leader: i32,
    topic: &str,
    partition: i32,
) -> Result<i64, ErrorCode> {
    let question = ListOffsetsRequest {
        replica_id: CONSUMER,
        topics: vec![ListOffsetsTopic {
            name: topic.into(),
            partitions: vec![ListOffsetsPartition {
                partition_index: partition,
                current_leader_epoch: ANY_EPOCH,
                timestamp: LATEST,
                ..ListOffsetsPartition::default()
            }],
            ..ListOffsetsTopic::default()
        }],
        ..ListOffsetsRequest::default()
    };
    let answer = broker.share_line.ask(leader, &question).await;
    let answer = answer.map_err(|error| {
        debug!(leader, %error, "the end of a partition cannot be asked for");
        ErrorCode::LeaderNotAvailable
    })?;
    let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let told = partitions.next().ok_or(ErrorCode::UnknownServerError)?;
    match ErrorCode::from_code(told.error_code) {
        Some(ErrorCode::None) => Ok(told.offset),
        error => Err(error.unwrap_or(ErrorCode::UnknownServerError)),
    }
}

impl Api for DescribeShareGroupOffsetsRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        _: RequestContext,
    ) -> DescribeShareGroupOffsetsResponse {
        if !share_groups_are_on(&broker) {
            let refused =
                self.groups
                    .into_iter()
                    .map(|group| DescribeShareGroupOffsetsResponseGroup {
                        group_id: group.group_id,
                        error_code: ErrorCode::UnsupportedVersion.into(),
                        ..DescribeShareGroupOffsetsResponseGroup::default()
                    });
            return DescribeShareGroupOffsetsResponse {
                groups: refused.collect(),
                ..DescribeShareGroupOffsetsResponse::default()
            };
        }
        let topics = Topics(broker.image());
        let ends = Ends(&broker);
        broker
            .groups
            .describe_share_group_offsets(self, &topics, &ends)
            .await
    }
}
