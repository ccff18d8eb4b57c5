//! AlterReplicaLogDirs (KIP-113). Moving a replica between directories waits for future logs; until
//! then a move to where the replica already is succeeds and every other is refused.

use std::path::Path;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use klamm_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};
use klamm_records::TopicPartition;

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for AlterReplicaLogDirsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> AlterReplicaLogDirsResponse {
        let results = self.dirs.iter().flat_map(|dir| {
            dir.topics
                .iter()
                .map(|topic| AlterReplicaLogDirTopicResult {
                    topic_name: topic.name.clone(),
                    partitions: topic
                        .partitions
                        .iter()
                        .map(|partition| AlterReplicaLogDirPartitionResult {
                            partition_index: *partition,
                            error_code: verdict(&broker, &dir.path, &topic.name, *partition).into(),
                            ..AlterReplicaLogDirPartitionResult::default()
                        })
                        .collect(),
                    ..AlterReplicaLogDirTopicResult::default()
                })
        });
        AlterReplicaLogDirsResponse {
            results: results.collect(),
            ..AlterReplicaLogDirsResponse::default()
        }
    }
}

fn verdict(broker: &Shared, path: &str, topic: &str, partition: i32) -> ErrorCode {
    let logs = broker.replicas.logs();
    let directories = logs.directories();
    let Some(target) = directories
        .iter()
        .find(|directory| directory.path == Path::new(path))
    else {
        return ErrorCode::LogDirNotFound;
    };
    if !target.online {
        return ErrorCode::KafkaStorageError;
    }
    match logs.directory_of(&TopicPartition::new(topic, partition)) {
        None => ErrorCode::ReplicaNotAvailable,
        Some(current) if current == target.id => ErrorCode::None,
        Some(_) => ErrorCode::LogDirNotFound,
    }
}
