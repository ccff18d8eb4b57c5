use klamm_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use klamm_protocol::messages::{DescribeQuorumRequest, DescribeQuorumResponse};
use klamm_protocol::{ErrorCode, topic_name};

use super::Controller;
use super::serving::Observer;
use crate::raft::QuorumMember;

impl Controller {
    /// Tells who leads the quorum, how far it is, and who votes.
    pub fn describe_quorum(&self, request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
        let status = self.0.raft.status();
        let topics = request.topics.iter().map(|topic| TopicData {
            topic_name: topic.topic_name.clone(),
            partitions: topic
                .partitions
                .iter()
                .map(|partition| {
                    let index = partition.partition_index;
                    if topic.topic_name == topic_name::CLUSTER_METADATA && index == 0 {
                        self.describe_partition()
                    } else {
                        PartitionData {
                            partition_index: index,
                            error_code: ErrorCode::UnknownTopicOrPartition.code(),
                            ..PartitionData::default()
                        }
                    }
                })
                .collect(),
            ..TopicData::default()
        });
        let node = |(id, voter): (&i32, &QuorumMember)| Node {
            node_id: *id,
            listeners: voter
                .endpoints
                .iter()
                .map(|endpoint| Listener {
                    name: endpoint.name.as_str().into(),
                    host: endpoint.host.as_str().into(),
                    port: endpoint.port,
                    ..Listener::default()
                })
                .collect(),
            ..Node::default()
        };
        DescribeQuorumResponse {
            topics: topics.collect(),
            nodes: status.voters.iter().map(node).collect(),
            ..DescribeQuorumResponse::default()
        }
    }

    fn describe_partition(&self) -> PartitionData {
        let status = self.0.raft.status();
        let end = self.image().offset() + 1;
        let now_ms = self.0.env.clock.wall_ms();
        let voter = |(id, voter): (&i32, &QuorumMember)| {
            let leads = status.leader == Some(*id);
            let heard_ms = voter.silence.map_or(-1, |silence| {
                now_ms.saturating_sub(i64::try_from(silence.as_millis()).unwrap_or(i64::MAX))
            });
            ReplicaState {
                replica_id: *id,
                replica_directory_id: voter.directory_id,
                // The leader is always caught up with itself, and heard of now.
                log_end_offset: if leads { end } else { voter.end_offset },
                last_fetch_timestamp: if leads { now_ms } else { heard_ms },
                last_caught_up_timestamp: if leads { now_ms } else { voter.caught_up_ms },
                ..ReplicaState::default()
            }
        };
        let observers = self.observers();
        let observers = observers
            .iter()
            .filter(|(id, _)| !status.voters.contains_key(id) && !status.learners.contains_key(id));
        let observer = |(id, observer): (&i32, &Observer)| ReplicaState {
            replica_id: *id,
            replica_directory_id: observer.directory_id,
            log_end_offset: observer.end_offset,
            last_fetch_timestamp: observer.fetched_ms,
            last_caught_up_timestamp: observer.caught_up_ms,
            ..ReplicaState::default()
        };
        PartitionData {
            partition_index: 0,
            observers: status
                .learners
                .iter()
                .map(voter)
                .chain(observers.map(observer))
                .collect(),
            leader_id: status.leader.unwrap_or(-1),
            leader_epoch: status.epoch,
            high_watermark: end,
            current_voters: status.voters.iter().map(voter).collect(),
            ..PartitionData::default()
        }
    }
}
