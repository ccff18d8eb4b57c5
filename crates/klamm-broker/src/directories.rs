//! The log directories of this broker, as the controller and operators know them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_config::BrokerConfig;
use klamm_log::LogManager;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::assign_replicas_to_dirs_request::{
    DirectoryData, PartitionData, TopicData,
};
use klamm_protocol::messages::{AssignReplicasToDirsRequest, AssignReplicasToDirsResponse};
use klamm_records::Uuid;
use klamm_replication::{DirectoryAssignment, DirectorySink};
use tokio::sync::Mutex as AsyncMutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;
use tracing::{error, warn};

use crate::shared::Shared;

/// Most replicas that one request tells of, as in Kafka.
const ASSIGNMENTS_MAX: usize = 2250;
/// How long to wait before a refused request is repeated: first, and at most.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// A directory's path as clients are told it: absolute.
pub(crate) fn shown(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = absolute.to_string_lossy();
    match text.trim_end_matches('/') {
        "" => "/".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

/// Tells of what opening the logs found that is not as it was left.
pub(crate) fn report_recovery(logs: &LogManager) {
    for log in logs.logs() {
        let report = log.recovery_report();
        let partition = log.topic_partition();
        for damage in &report.damage {
            error!(
                %partition,
                file = %damage.file.display(),
                position = damage.position,
                bytes = damage.bytes,
                offsets = %format_args!("{}..{}", damage.first_offset, damage.next_offset),
                fault = %damage.fault,
                "damaged on disk; what lies before and behind it is served"
            );
        }
        if let Some(cut) = &report.truncation {
            warn!(
                %partition,
                file = %cut.file.display(),
                position = cut.position,
                bytes = cut.bytes,
                segments_removed = cut.segments_removed,
                offset = cut.offset,
                fault = %cut.fault,
                "what had not reached the disk was cut off"
            );
        }
    }
}

/// Cordons the directories that `cordoned.log.dirs` names, and no others. Returns whether that
/// changes anything.
pub(crate) fn cordon(logs: &LogManager, config: &BrokerConfig) -> bool {
    let cordoned = config.list("cordoned.log.dirs");
    let all = cordoned.iter().any(|dir| dir == "*");
    logs.set_cordoned(|path| all || cordoned.iter().any(|dir| Path::new(dir) == path))
}

/// Takes the directories of replicas to [`report`].
#[derive(Debug)]
struct Sender(UnboundedSender<DirectoryAssignment>);

impl DirectorySink for Sender {
    fn assign(&self, assignment: DirectoryAssignment) {
        // Nobody hears this any more only while the broker stops.
        let _ = self.0.send(assignment);
    }
}

/// What replicas report, for [`report`].
#[derive(Debug)]
pub(crate) struct Reports {
    received: UnboundedReceiver<DirectoryAssignment>,
    /// Not yet taken note of by the controller.
    pending: Pending,
}

/// The two ends of the way from replicas to the controller.
pub(crate) fn reports() -> (Arc<dyn DirectorySink>, Reports) {
    let (sender, receiver) = unbounded_channel();
    let reports = Reports {
        received: receiver,
        pending: Pending::new(),
    };
    (Arc::new(Sender(sender)), reports)
}

type Pending = BTreeMap<(Uuid, i32), Uuid>;

/// Tells the controller of the directories of replicas, many at once and as often as it takes,
/// until the task is ended. To be spawned when this broker is registered.
pub(crate) async fn report(shared: Arc<Shared>, reports: Arc<AsyncMutex<Reports>>) {
    let mut reports = reports.lock().await;
    let Reports { received, pending } = &mut *reports;
    let mut pause = RETRY_PAUSES.0;
    loop {
        if pending.is_empty() {
            match received.recv().await {
                Some(first) => note(pending, first),
                None => return,
            }
        }
        while let Ok(next) = received.try_recv() {
            note(pending, next);
        }
        let batch: Pending = pending
            .iter()
            .take(ASSIGNMENTS_MAX)
            .map(|(key, directory)| (*key, *directory))
            .collect();
        let request = request(&shared, &batch);
        match shared.controller.assign_replicas_to_dirs(request).await {
            Ok(answer) => {
                pause = RETRY_PAUSES.0;
                log_refusals(&answer);
                // A refused one is of a replica that the controller does not know (any more).
                pending.retain(|key, directory| batch.get(key) != Some(directory));
            }
            Err(refused) => {
                warn!(error = %refused, "the controller does not take note of directories");
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSES.1);
            }
        }
    }
}

fn note(pending: &mut Pending, assignment: DirectoryAssignment) {
    let key = (assignment.topic_id, assignment.partition);
    pending.insert(key, assignment.directory);
}

fn request(shared: &Shared, batch: &Pending) -> AssignReplicasToDirsRequest {
    let mut directories: BTreeMap<Uuid, BTreeMap<Uuid, Vec<PartitionData>>> = BTreeMap::new();
    for (&(topic_id, partition_index), &directory) in batch {
        let topics = directories.entry(directory).or_default();
        topics.entry(topic_id).or_default().push(PartitionData {
            partition_index,
            ..PartitionData::default()
        });
    }
    let directories = directories.into_iter().map(|(id, topics)| {
        let topics = topics.into_iter().map(|(topic_id, partitions)| TopicData {
            topic_id,
            partitions,
            ..TopicData::default()
        });
        DirectoryData {
            id,
            topics: topics.collect(),
            ..DirectoryData::default()
        }
    });
    AssignReplicasToDirsRequest {
        broker_id: shared.node_id,
        broker_epoch: shared.epoch(),
        directories: directories.collect(),
        ..AssignReplicasToDirsRequest::default()
    }
}

fn log_refusals(answer: &AssignReplicasToDirsResponse) {
    let topics = answer.directories.iter().flat_map(|dir| &dir.topics);
    for topic in topics {
        for partition in &topic.partitions {
            if partition.error_code != ErrorCode::None.code() {
                warn!(
                    topic_id = %topic.topic_id, partition = partition.partition_index,
                    error_code = partition.error_code, "a directory is not taken note of"
                );
            }
        }
    }
}
