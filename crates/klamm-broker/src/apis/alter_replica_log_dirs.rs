//! AlterReplicaLogDirs (KIP-113): replicas move between the directories of this broker.

use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use klamm_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};
use klamm_records::TopicPartition;
use tokio::task::spawn_blocking;
use tracing::error;

use crate::context::RequestContext;
use crate::directories::shown;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for AlterReplicaLogDirsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> AlterReplicaLogDirsResponse {
        let begun = spawn_blocking(move || {
            let results = results(&broker, &self);
            broker.movers.start();
            results
        });
        AlterReplicaLogDirsResponse {
            results: begun.await.unwrap_or_else(|failed| {
                error!(error = %failed, "a request to move replicas was not carried out in full");
                Vec::new()
            }),
            ..AlterReplicaLogDirsResponse::default()
        }
    }
}

fn results(
    broker: &Shared,
    request: &AlterReplicaLogDirsRequest,
) -> Vec<AlterReplicaLogDirTopicResult> {
    let directories = broker.replicas.logs().directories();
    let mut results = Vec::new();
    for dir in &request.dirs {
        let known = directories
            .iter()
            .find(|known| shown(&known.path) == *dir.path);
        let path = known.map(|known| &*known.path);
        for topic in &dir.topics {
            let partitions = topic.partitions.iter().map(|&partition_index| {
                let name = TopicPartition::new(&*topic.name, partition_index);
                let begun = broker.replicas.move_replica(&name, path);
                AlterReplicaLogDirPartitionResult {
                    partition_index,
                    error_code: begun.err().unwrap_or(ErrorCode::None).into(),
                    ..AlterReplicaLogDirPartitionResult::default()
                }
            });
            results.push(AlterReplicaLogDirTopicResult {
                topic_name: topic.name.clone(),
                partitions: partitions.collect(),
                ..AlterReplicaLogDirTopicResult::default()
            });
        }
    }
    results
}
