//! What the coordinators of groups and the share partitions of this broker tell of themselves, under
//! the names that the JMX exporter gives Kafka's metrics.

use std::sync::{Arc, Weak};

use klamm_coordinator::metrics::{GroupCounts, GroupMetrics, GroupProtocol};

use super::metrics::{Samples, labels};
use crate::shared::Shared;
use crate::shares::{ACK_TYPES, Cell, GroupStats};

/// A count of the group coordinator.
type Read = fn(&GroupMetrics) -> u64;

/// What the group coordinator counts: name, help, the number.
const COUNTERS: [(&str, &str, Read); 7] = [
    (
        "kafka_server_groupcoordinatormetrics_offset_commit_count",
        "Offsets committed.",
        |metrics| metrics.offset_commits.get(),
    ),
    (
        "kafka_server_groupcoordinatormetrics_offset_expiration_count",
        "Offsets whose retention was over.",
        |metrics| metrics.offsets_expired.get(),
    ),
    (
        "kafka_server_groupcoordinatormetrics_offset_deletion_count",
        "Offsets deleted on request.",
        |metrics| metrics.offset_deletions.get(),
    ),
    (
        "kafka_server_groupcoordinatormetrics_group_completed_rebalance_count",
        "Generations of classic groups that got their assignment.",
        |metrics| metrics.rebalances_completed.get(),
    ),
    (
        "kafka_server_groupcoordinatormetrics_consumer_group_rebalance_count",
        "New epochs of consumer groups.",
        |metrics| metrics.consumer_rebalances.get(),
    ),
    (
        "kafka_server_groupcoordinatormetrics_share_group_rebalance_count",
        "New epochs of share groups.",
        |metrics| metrics.share_rebalances.get(),
    ),
    (
        "kafka_server_groupcoordinatormetrics_streams_group_rebalance_count",
        "New epochs of streams groups.",
        |metrics| metrics.streams_rebalances.get(),
    ),
];

/// The states of groups by protocol, in the metrics that count groups by them.
const BY_STATE: [(&str, &str, GroupProtocol, &[&str]); 3] = [
    (
        "kafka_server_groupcoordinatormetrics_consumer_group_count",
        "Consumer groups coordinated here, by state.",
        GroupProtocol::Consumer,
        &["Empty", "Assigning", "Reconciling", "Stable", "Dead"],
    ),
    (
        "kafka_server_groupcoordinatormetrics_share_group_count",
        "Share groups coordinated here, by state.",
        GroupProtocol::Share,
        &["Empty", "Stable", "Dead"],
    ),
    (
        "kafka_server_groupcoordinatormetrics_streams_group_count",
        "Streams groups coordinated here, by state.",
        GroupProtocol::Streams,
        &[
            "Empty",
            "NotReady",
            "Assigning",
            "Reconciling",
            "Stable",
            "Dead",
        ],
    ),
];

/// The states of classic groups, each with a metric of its own.
const CLASSIC: [(&str, &str); 5] = [
    (
        "kafka_coordinator_group_groupmetadatamanager_numgroupspreparingrebalance",
        "PreparingRebalance",
    ),
    (
        "kafka_coordinator_group_groupmetadatamanager_numgroupscompletingrebalance",
        "CompletingRebalance",
    ),
    (
        "kafka_coordinator_group_groupmetadatamanager_numgroupsstable",
        "Stable",
    ),
    (
        "kafka_coordinator_group_groupmetadatamanager_numgroupsdead",
        "Dead",
    ),
    (
        "kafka_coordinator_group_groupmetadatamanager_numgroupsempty",
        "Empty",
    ),
];

/// The protocols as the label `protocol` names them.
const PROTOCOLS: [(&str, GroupProtocol); 4] = [
    ("classic", GroupProtocol::Classic),
    ("consumer", GroupProtocol::Consumer),
    ("share", GroupProtocol::Share),
    ("streams", GroupProtocol::Streams),
];

/// Registers all of them. They hold on to nothing: of a broker that is gone they tell nothing.
pub(crate) fn register(shared: &Arc<Shared>) {
    for (name, help, read) in COUNTERS {
        family(shared, name, "counter", help, move |shared| {
            plain(read(shared.groups.metrics()))
        });
    }
    register_counts(shared);
    register_share_state(shared);
    register_share_groups(shared);
    register_share_partitions(shared);
}

fn family(
    shared: &Arc<Shared>,
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    read: impl Fn(&Shared) -> Samples + Send + Sync + 'static,
) {
    let weak: Weak<Shared> = Arc::downgrade(shared);
    shared.metrics.family(name, kind, help, move || {
        weak.upgrade()
            .map(|shared| read(&shared))
            .unwrap_or_default()
    });
}

fn plain(count: u64) -> Samples {
    vec![(String::new(), count as f64)]
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1_000_000.0
}

/// How many groups of a protocol are in a state, or in any.
fn count(counts: &GroupCounts, protocol: GroupProtocol, state: Option<&str>) -> f64 {
    let groups = counts.groups.iter();
    let found = groups.filter(|((of, is), _)| *of == protocol && state.is_none_or(|s| s == *is));
    let found: usize = found.map(|(_, count)| count).sum();
    found as f64
}

fn register_counts(shared: &Arc<Shared>) {
    for (name, help, protocol, states) in BY_STATE {
        family(shared, name, "gauge", help, move |shared| {
            let counts = shared.groups.metrics().groups();
            let by_state = states.iter().map(|state| {
                let count = count(&counts, protocol, Some(*state));
                (labels(&[("state", *state)]), count)
            });
            by_state.collect()
        });
    }
    for (name, state) in CLASSIC {
        let help = "Classic groups coordinated here in one state.";
        family(shared, name, "gauge", help, move |shared| {
            let counts = shared.groups.metrics().groups();
            let count = count(&counts, GroupProtocol::Classic, Some(state));
            vec![(String::new(), count)]
        });
    }
    let name = "kafka_server_groupcoordinatormetrics_group_count";
    let help = "Groups coordinated here, by protocol.";
    family(shared, name, "gauge", help, |shared| {
        let counts = shared.groups.metrics().groups();
        let by_protocol = PROTOCOLS.iter().map(|(name, protocol)| {
            let count = count(&counts, *protocol, None);
            (labels(&[("protocol", *name)]), count)
        });
        by_protocol.collect()
    });
    let name = "kafka_coordinator_group_groupmetadatamanager_numgroups";
    let help = "Classic groups coordinated here.";
    family(shared, name, "gauge", help, |shared| {
        let counts = shared.groups.metrics().groups();
        vec![(String::new(), count(&counts, GroupProtocol::Classic, None))]
    });
    let name = "kafka_coordinator_group_groupmetadatamanager_numoffsets";
    let help = "Committed offsets kept here.";
    family(shared, name, "gauge", help, |shared| {
        let counts = shared.groups.metrics().groups();
        vec![(String::new(), counts.offsets as f64)]
    });
}

fn register_share_state(shared: &Arc<Shared>) {
    let name = "kafka_server_sharecoordinatormetrics_write_total";
    let help = "Writes of share states, by partition.";
    family(shared, name, "counter", help, |shared| {
        plain(shared.share_states.metrics().writes.get())
    });
    let name = "kafka_server_sharecoordinatormetrics_write_latency_seconds_total";
    let help = "How long they took in all, until they were committed.";
    family(shared, name, "counter", help, |shared| {
        let us = shared.share_states.metrics().write_us.get();
        vec![(String::new(), seconds(us))]
    });
    let name = "kafka_server_sharecoordinatormetrics_write_latency_max_seconds";
    let help = "The longest of them.";
    family(shared, name, "gauge", help, |shared| {
        let us = shared.share_states.metrics().write_max_us();
        vec![(String::new(), seconds(us))]
    });
}

/// What is told of each share group.
type GroupRead = fn(&GroupStats) -> f64;

const GROUPS: [(&str, &str, GroupRead); 6] = [
    (
        "kafka_server_sharegroupmetrics_partitionloadtime_count",
        "Share partitions loaded here.",
        |stats| stats.loads.count.get() as f64,
    ),
    (
        "kafka_server_sharegroupmetrics_partitionloadtime_seconds_total",
        "How long that took in all.",
        |stats| seconds(stats.loads.sum_us.get()),
    ),
    (
        "kafka_server_sharegroupmetrics_topicpartitionsacquiretime_count",
        "Times that requests could read for partitions, or had to do without.",
        |stats| stats.acquires.count.get() as f64,
    ),
    (
        "kafka_server_sharegroupmetrics_topicpartitionsacquiretime_seconds_total",
        "How long they waited for that in all.",
        |stats| seconds(stats.acquires.sum_us.get()),
    ),
    (
        "kafka_server_sharegroupmetrics_requesttopicpartitionsfetchratio_count",
        "Requests of members for records.",
        |stats| stats.read_percent.count.get() as f64,
    ),
    (
        "kafka_server_sharegroupmetrics_requesttopicpartitionsfetchratio_percent_total",
        "How many of their partitions could be read for each of them, in percent, added up.",
        |stats| stats.read_percent.sum.get() as f64,
    ),
];

fn register_share_groups(shared: &Arc<Shared>) {
    let name = "kafka_server_sharegroupmetrics_recordacknowledgements_total";
    let help = "Records that members of share groups spoke of, by what they said.";
    family(shared, name, "counter", help, |shared| {
        let mut samples = Vec::new();
        for (group, stats) in shared.shares.group_stats() {
            for (kind, count) in ACK_TYPES.iter().zip(&stats.acknowledged) {
                let labels = labels(&[("group", &*group), ("ackType", *kind)]);
                samples.push((labels, count.get() as f64));
            }
        }
        samples
    });
    for (name, help, read) in GROUPS {
        family(shared, name, "counter", help, move |shared| {
            let groups = shared.shares.group_stats();
            let samples = groups.iter().map(|(group, stats)| {
                let labels = labels(&[("group", &**group)]);
                (labels, read(stats))
            });
            samples.collect()
        });
    }
}

/// What is told of each share partition that is loaded.
type CellRead = fn(&Cell) -> Option<f64>;

const PARTITIONS: [(&str, &str, &str, CellRead); 9] = [
    (
        "kafka_server_sharepartitionmetrics_inflightmessagecount",
        "gauge",
        "Offsets between the first that is not done with and the last that was handed out.",
        |cell| Some(cell.state().partition.as_ref()?.in_flight() as f64),
    ),
    (
        "kafka_server_sharepartitionmetrics_inflightbatchcount",
        "gauge",
        "Ranges of these that were handed out as one.",
        |cell| Some(cell.state().partition.as_ref()?.in_flight_batches() as f64),
    ),
    (
        "kafka_server_sharepartitionmetrics_acquisitionlocktimeout_total",
        "counter",
        "Records that came back because their member took too long.",
        |cell| Some(cell.stats.lock_timeouts.get() as f64),
    ),
    (
        "kafka_server_sharepartitionmetrics_fetchlocktime_count",
        "counter",
        "Requests that read for the partition, one at a time.",
        |cell| Some(cell.stats.reading.count.get() as f64),
    ),
    (
        "kafka_server_sharepartitionmetrics_fetchlocktime_seconds_total",
        "counter",
        "How long these kept others from it in all.",
        |cell| Some(seconds(cell.stats.reading.sum_us.get())),
    ),
    (
        "kafka_server_sharepartitionmetrics_fetchlockratio_count",
        "counter",
        "Those of them that another one was before.",
        |cell| Some(cell.stats.read_percent.count.get() as f64),
    ),
    (
        "kafka_server_sharepartitionmetrics_fetchlockratio_percent_total",
        "counter",
        "Their part of the time since the one before, in percent, added up.",
        |cell| Some(cell.stats.read_percent.sum.get() as f64),
    ),
    (
        "kafka_server_sharepartitionmetrics_inflightbatchmessagecount_count",
        "counter",
        "Ranges of offsets that were handed out for the first time.",
        |cell| Some(cell.stats.batches.count.get() as f64),
    ),
    (
        "kafka_server_sharepartitionmetrics_inflightbatchmessagecount_sum",
        "counter",
        "How many offsets these had in all.",
        |cell| Some(cell.stats.batches.sum.get() as f64),
    ),
];

fn register_share_partitions(shared: &Arc<Shared>) {
    for (name, kind, help, read) in PARTITIONS {
        family(shared, name, kind, help, move |shared| {
            let cells = shared.shares.all();
            let samples = cells.iter().filter_map(|cell| {
                let (group, _, partition) = &cell.key;
                let labels = labels(&[
                    ("group", &**group),
                    ("topic", &*cell.topic),
                    ("partition", &*partition.to_string()),
                ]);
                Some((labels, read(cell)?))
            });
            samples.collect()
        });
    }
}
