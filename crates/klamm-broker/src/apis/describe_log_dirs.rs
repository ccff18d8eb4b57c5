//! DescribeLogDirs: what lies in each log directory, and how much room there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_log::{DirectoryInfo, Log};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use klamm_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use klamm_records::Uuid;

use crate::context::RequestContext;
use crate::directories::shown;
use crate::dispatch::Api;
use crate::shared::Shared;

/// What stands for a size that is not known.
const UNKNOWN: i64 = -1;

impl Api for DescribeLogDirsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> DescribeLogDirsResponse {
        let wanted: Option<BTreeSet<(&str, i32)>> = self.topics.as_ref().map(|topics| {
            let pairs = topics.iter().flat_map(|topic| {
                topic
                    .partitions
                    .iter()
                    .map(|partition| (&*topic.topic, *partition))
            });
            pairs.collect()
        });
        let logs = broker.replicas.logs();
        let tells_cordoned = broker
            .image()
            .metadata_version()
            .supports_cordoned_log_dirs();
        let results = logs.directories().into_iter().map(|directory| {
            let topics = if directory.online {
                topics(&broker, directory.id, wanted.as_ref())
            } else {
                Vec::new()
            };
            DescribeLogDirsResult {
                is_cordoned: tells_cordoned && directory.online && directory.cordoned,
                ..result(&directory, topics)
            }
        });
        DescribeLogDirsResponse {
            results: results.collect(),
            ..DescribeLogDirsResponse::default()
        }
    }
}

fn result(directory: &DirectoryInfo, topics: Vec<DescribeLogDirsTopic>) -> DescribeLogDirsResult {
    let error = if directory.online {
        ErrorCode::None
    } else {
        ErrorCode::KafkaStorageError
    };
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    DescribeLogDirsResult {
        error_code: error.into(),
        log_dir: shown(&directory.path).into(),
        topics,
        total_bytes: directory
            .space
            .map_or(UNKNOWN, |space| bytes(space.total_bytes)),
        usable_bytes: directory
            .space
            .map_or(UNKNOWN, |space| bytes(space.usable_bytes)),
        ..DescribeLogDirsResult::default()
    }
}

fn topics(
    broker: &Shared,
    directory: Uuid,
    wanted: Option<&BTreeSet<(&str, i32)>>,
) -> Vec<DescribeLogDirsTopic> {
    let logs = broker.replicas.logs();
    let mut topics: BTreeMap<Arc<str>, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    let mut add = |log: &Log, is_future: bool| {
        let name = log.topic_partition();
        if wanted.is_some_and(|wanted| !wanted.contains(&(&*name.topic, name.partition))) {
            return;
        }
        let offset_lag = if is_future {
            let current = logs.get(name).map_or(0, |current| current.log_end_offset());
            (current - log.log_end_offset()).max(0)
        } else {
            broker.replicas.offset_lag(name).unwrap_or(UNKNOWN)
        };
        topics
            .entry(name.topic.clone())
            .or_default()
            .push(DescribeLogDirsPartition {
                partition_index: name.partition,
                partition_size: i64::try_from(log.size_bytes()).unwrap_or(i64::MAX),
                offset_lag,
                is_future_key: is_future,
                ..DescribeLogDirsPartition::default()
            });
    };
    for (log, is_future) in logs.logs_in(directory) {
        add(&log, is_future);
    }
    let listed = topics
        .into_iter()
        .map(|(name, partitions)| DescribeLogDirsTopic {
            name: (&*name).into(),
            partitions,
            ..DescribeLogDirsTopic::default()
        });
    listed.collect()
}
