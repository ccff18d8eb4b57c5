//! OffsetForLeaderEpoch (KIP-101, KIP-320): where an epoch ends in this leader's log.

use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use klamm_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for OffsetForLeaderEpochRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> OffsetForLeaderEpochResponse {
        let topics = self.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|asked| {
                let current = asked.current_leader_epoch;
                let found = broker.replicas.offset_for_leader_epoch(
                    &topic.topic,
                    asked.partition,
                    (current >= 0).then_some(current),
                    asked.leader_epoch,
                );
                let (error, (leader_epoch, end_offset)) = match found {
                    Ok(end) => (ErrorCode::None, end),
                    Err(error) => (error, (-1, -1)),
                };
                EpochEndOffset {
                    error_code: error.into(),
                    partition: asked.partition,
                    leader_epoch,
                    end_offset,
                    ..EpochEndOffset::default()
                }
            });
            OffsetForLeaderTopicResult {
                topic: topic.topic.clone(),
                partitions: partitions.collect(),
                ..OffsetForLeaderTopicResult::default()
            }
        });
        OffsetForLeaderEpochResponse {
            topics: topics.collect(),
            ..OffsetForLeaderEpochResponse::default()
        }
    }
}
