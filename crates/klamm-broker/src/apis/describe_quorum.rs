//! DescribeQuorum (KIP-836): answered by the controller.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_quorum_response::{PartitionData, TopicData};
use klamm_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use klamm_records::Uuid;

use crate::context::RequestContext;
use crate::controller::ControllerApi;

/// From here on the response tells where the voters are, and in which directory.
const NODES_VERSION: i16 = 2;

impl ControllerApi for DescribeQuorumRequest {
    async fn decide(
        self,
        controller: &Controller,
        context: &RequestContext,
    ) -> Result<DescribeQuorumResponse, ApiError> {
        if !controller.is_active() {
            return Err(ErrorCode::NotLeaderOrFollower.into());
        }
        let mut response = controller.describe_quorum(&self);
        if context.api_version < NODES_VERSION {
            response.nodes.clear();
            let partitions = response
                .topics
                .iter_mut()
                .flat_map(|topic| &mut topic.partitions);
            for partition in partitions {
                let replicas = partition
                    .current_voters
                    .iter_mut()
                    .chain(&mut partition.observers);
                replicas.for_each(|replica| replica.replica_directory_id = Uuid::ZERO);
            }
        }
        Ok(response)
    }

    fn refused(&self, error: &ApiError) -> DescribeQuorumResponse {
        let partition = |index| PartitionData {
            partition_index: index,
            error_code: error.code.into(),
            error_message: error.wire_message(),
            ..PartitionData::default()
        };
        let topics = self.topics.iter().map(|topic| TopicData {
            topic_name: topic.topic_name.clone(),
            partitions: topic
                .partitions
                .iter()
                .map(|asked| partition(asked.partition_index))
                .collect(),
            ..TopicData::default()
        });
        DescribeQuorumResponse {
            topics: topics.collect(),
            ..DescribeQuorumResponse::default()
        }
    }
}
