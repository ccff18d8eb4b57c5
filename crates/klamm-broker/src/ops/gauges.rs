//! What can be asked for rather than counted: the state of partitions, brokers and directories.

use std::sync::{Arc, Weak};

use klamm_log::CleaningStatus;
use klamm_metadata::{MetadataImage, PartitionImage};

use crate::shared::Shared;

/// A partition as one broker sees it.
type Test = fn(&MetadataImage, &PartitionImage, i32) -> bool;

/// Gauges that count partitions: name, help, which ones.
const PARTITIONS: [(&str, &str, Test); 6] = [
    (
        "kafka_server_replicamanager_partitioncount",
        "Partitions with a replica on this broker.",
        |_, partition, node| partition.replicas.contains(&node),
    ),
    (
        "kafka_server_replicamanager_leadercount",
        "Partitions that this broker leads.",
        |_, partition, node| partition.leader == node,
    ),
    (
        "kafka_server_replicamanager_underreplicatedpartitions",
        "Partitions led here whose replicas are not all in sync.",
        |_, partition, node| {
            partition.leader == node && partition.isr.len() < partition.replicas.len()
        },
    ),
    (
        "kafka_server_replicamanager_offlinereplicacount",
        "Replicas of this broker that cannot serve.",
        |image, partition, node| image.offline_replicas(partition).contains(&node),
    ),
    (
        "kafka_controller_kafkacontroller_globalpartitioncount",
        "Partitions of the cluster.",
        |_, _, _| true,
    ),
    (
        "kafka_controller_kafkacontroller_offlinepartitionscount",
        "Partitions of the cluster without a leader.",
        |_, partition, _| !partition.has_leader(),
    ),
];

/// A number of the broker as a whole.
type Read = fn(&Shared) -> usize;

/// The other gauges.
const WHOLE: [(&str, &str, Read); 6] = [
    (
        "kafka_controller_kafkacontroller_activecontrollercount",
        "1 where the cluster's active controller is.",
        |shared| usize::from(shared.controller.is_active()),
    ),
    (
        "kafka_controller_kafkacontroller_globaltopiccount",
        "Topics of the cluster.",
        |shared| shared.image().topics().iter().count(),
    ),
    (
        "kafka_controller_kafkacontroller_activebrokercount",
        "Brokers that serve.",
        |shared| shared.image().cluster().alive_brokers().count(),
    ),
    (
        "kafka_controller_kafkacontroller_fencedbrokercount",
        "Brokers that are registered but do not serve.",
        |shared| {
            shared
                .image()
                .brokers()
                .filter(|broker| broker.fenced)
                .count()
        },
    ),
    (
        "klamm_task_panics",
        "Panics of this node's own tasks since its start; each was started again.",
        |shared| {
            let controller = shared.controller.local();
            let coordinators = [
                shared.groups.runtime_metrics(),
                shared.transactions.runtime_metrics(),
                shared.share_states.runtime_metrics(),
            ];
            let all = shared.supervisor.panics()
                + controller.map_or(0, |controller| controller.panics())
                + coordinators.map(|of| of.panics.get()).iter().sum::<u64>();
            usize::try_from(all).unwrap_or(usize::MAX)
        },
    ),
    (
        "kafka_log_logmanager_offlinelogdirectorycount",
        "Data directories of this broker that failed.",
        |shared| {
            let directories = shared.replicas.logs().directories();
            directories
                .iter()
                .filter(|directory| !directory.online)
                .count()
        },
    ),
];

/// Registers all of them. They hold on to nothing: of a broker that is gone they tell zero.
pub(crate) fn register(shared: &Arc<Shared>) {
    let metrics = &shared.metrics;
    for (name, help, test) in PARTITIONS {
        let shared = Arc::downgrade(shared);
        metrics.gauge(name, help, move || {
            count(&shared, |shared| partitions(shared, test))
        });
    }
    for (name, help, read) in WHOLE {
        let shared = Arc::downgrade(shared);
        metrics.gauge(name, help, move || count(&shared, read));
    }
}

fn partitions(shared: &Shared, test: Test) -> usize {
    let image = shared.image();
    let all = image.topics().iter().flat_map(|topic| topic.partitions());
    all.filter(|(_, partition)| test(&image, partition, shared.node_id))
        .count()
}

#[allow(
    clippy::cast_precision_loss,
    reason = "no cluster has 2^52 of anything"
)]
fn count(shared: &Weak<Shared>, read: impl Fn(&Shared) -> usize) -> f64 {
    shared.upgrade().map_or(0, |shared| read(&shared)) as f64
}

/// What is told of compaction: name, help, the number.
type CleanerRead = fn(&Shared, &CleaningStatus) -> f64;

/// The gauges of Kafka's LogCleaner and LogCleanerManager, over all directories.
const CLEANER: [(&str, &str, CleanerRead); 8] = [
    (
        "kafka_log_logcleaner_cleaner_recopy_percent",
        "What the last compaction of a log left of its bytes.",
        |_, status| {
            let report = &status.last_clean;
            100.0 * report.bytes_written as f64 / report.bytes_read.max(1) as f64
        },
    ),
    (
        "kafka_log_logcleaner_max_buffer_utilization_percent",
        "Share of the memory for keys that the last compaction of a log filled.",
        |_, status| 100.0 * status.last_clean.map_utilization,
    ),
    (
        "kafka_log_logcleaner_max_clean_time_secs",
        "Duration of the last compaction of a log.",
        |_, status| status.last_clean_ms as f64 / 1_000.0,
    ),
    (
        "kafka_log_logcleaner_max_compaction_delay_secs",
        "By how much max.compaction.lag.ms is exceeded at most.",
        |_, status| status.overdue_ms as f64 / 1_000.0,
    ),
    (
        "kafka_log_logcleanermanager_max_dirty_percent",
        "The dirty share of the log that has the largest.",
        |_, status| 100.0 * status.dirtiest_ratio,
    ),
    (
        "kafka_log_logcleanermanager_time_since_last_run_ms",
        "Time since a log to compact was last looked for.",
        |shared, status| {
            let now_ms = shared.env.clock.wall_ms();
            let last_ms = match status.last_round_ms {
                0 => shared.metrics.started_ms,
                last_ms => last_ms,
            };
            now_ms.saturating_sub(last_ms) as f64
        },
    ),
    (
        "kafka_log_logcleanermanager_uncleanable_bytes",
        "Bytes that wait in logs that cannot be compacted.",
        |shared, _| shared.replicas.logs().uncleanable_bytes() as f64,
    ),
    (
        "kafka_log_logcleanermanager_uncleanable_partitions_count",
        "Logs that cannot be compacted; they are tried again later.",
        |_, status| status.uncleanable_partitions as f64,
    ),
];

/// Registers what is told of compaction. `dead` counts its threads that died.
pub(crate) fn register_cleaner(
    shared: &Arc<Shared>,
    dead: impl Fn() -> usize + Send + Sync + 'static,
) {
    for (name, help, read) in CLEANER {
        let weak = Arc::downgrade(shared);
        shared.metrics.gauge(name, help, move || {
            weak.upgrade().map_or(0.0, |shared| {
                read(&shared, &shared.replicas.logs().cleaning_status())
            })
        });
    }
    shared.metrics.gauge(
        "kafka_log_logcleaner_deadthreadcount",
        "Threads for compaction that ended with a failure.",
        move || dead() as f64,
    );
}
