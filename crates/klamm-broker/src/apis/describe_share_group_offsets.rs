//! DescribeShareGroupOffsets: how far share groups are, and how far behind.

use std::sync::Arc;

use klamm_coordinator::group::EndOffsets;
use klamm_coordinator::runtime::BoxFuture;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_share_group_offsets_response::DescribeShareGroupOffsetsResponseGroup;
use klamm_protocol::messages::{
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse,
};
use klamm_replication::{OffsetQuery, ReadIsolation, ReplicaManager};

use super::share_groups_are_on;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::{Shared, Topics};

/// `timestamp` of ListOffsets for the end of the log.
const LATEST: i64 = -1;

/// The ends of partitions that are led here.
struct Ends<'a>(&'a ReplicaManager);

impl EndOffsets for Ends<'_> {
    fn latest<'a>(
        &'a self,
        topic: &'a str,
        partition: i32,
    ) -> BoxFuture<'a, Result<i64, ErrorCode>> {
        let query = OffsetQuery {
            timestamp: LATEST,
            current_leader_epoch: None,
            isolation: Some(ReadIsolation::Uncommitted),
            leader_only: true,
        };
        let found = self.0.list_offset(topic, partition, query);
        Box::pin(std::future::ready(found.map(|found| found.offset)))
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
        let ends = Ends(&broker.replicas);
        broker
            .groups
            .describe_share_group_offsets(self, &topics, &ends)
            .await
    }
}
