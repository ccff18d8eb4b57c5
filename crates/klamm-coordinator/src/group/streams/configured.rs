//! A topology over the topics that there are: how many tasks each part has, which internal topics
//! have to be made and how, or what is in the way.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::group_records::streams_group_topology_value::{Subtopology, TopicInfo};
use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use klamm_protocol::{ByteStr, ErrorCode};

use super::topology::{Topology, inputs};
use super::{copartition, repartition, status};
use crate::group::cluster::TopicsView;
use crate::group::consumer::Refusal;
use crate::group::java;

/// How many topics are named where some are missing.
const NAMED_MAX: usize = 3;

/// A topology over topics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfiguredTopology {
    /// The hash of the topics that it was made over.
    pub metadata_hash: i64,
    /// Its parts by their ids; none if their tasks cannot be told.
    pub subtopologies: Option<BTreeMap<ByteStr, ConfiguredSubtopology>>,
    /// Internal topics that are to be made.
    pub missing: Vec<CreatableTopic>,
    /// Why no tasks can be given out: a status and its words.
    pub problem: Option<(i8, String)>,
}

/// A part of a topology over topics.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfiguredSubtopology {
    /// How many tasks it has: as many as the topic with the most partitions.
    pub task_count: i32,
    /// Topics of others that it reads.
    pub source_topics: BTreeSet<ByteStr>,
    /// Internal topics that it reads.
    pub repartition_source_topics: BTreeMap<ByteStr, InternalTopic>,
    /// Internal topics that it writes for another part.
    pub repartition_sink_topics: BTreeSet<ByteStr>,
    /// Internal topics with its state.
    pub state_changelog_topics: BTreeMap<ByteStr, InternalTopic>,
}

/// A topic that belongs to an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternalTopic {
    /// How many partitions it has or will have.
    pub partition_count: i32,
    /// How many replicas it is to have; 0 leaves that to the brokers.
    pub replication_factor: i16,
    /// Its configurations.
    pub configs: BTreeMap<ByteStr, ByteStr>,
}

/// What is wrong with a topology.
pub(super) enum Fault {
    /// With the topics: a status of the answer, which the application may wait out.
    Topics(i8, String),
    /// With the topology: the request fails.
    Topology(Refusal),
}

impl Fault {
    pub(super) fn incorrectly_partitioned(message: String) -> Fault {
        Fault::Topics(status::INCORRECTLY_PARTITIONED_TOPICS, message)
    }

    pub(super) fn invalid(message: impl Into<String>) -> Fault {
        Fault::Topology(Refusal::new(ErrorCode::StreamsInvalidTopology, message))
    }

    /// What Kafka's coordinator takes for a fault of its own.
    pub(super) fn unexpected(message: impl Into<String>) -> Fault {
        Fault::Topology(Refusal::new(ErrorCode::UnknownServerError, message))
    }
}

impl ConfiguredTopology {
    /// Whether tasks can be given out.
    pub fn is_ready(&self) -> bool {
        self.problem.is_none()
    }
}

/// Partition counts: of topics that exist, else as decided.
pub(super) struct Counts<'a> {
    pub topics: &'a dyn TopicsView,
    pub decided: BTreeMap<ByteStr, i32>,
}

impl Counts<'_> {
    pub(super) fn get(&self, topic: &str) -> Option<i32> {
        let present = self.topics.partition_count(topic);
        present.or_else(|| self.decided.get(topic).copied())
    }
}

/// Configures a topology.
///
/// # Errors
/// `STREAMS_INVALID_TOPOLOGY` for one that cannot work with any topics; `UNKNOWN_SERVER_ERROR` where
/// Kafka's coordinator fails.
pub(super) fn configure(
    topology: &Topology,
    topics: &dyn TopicsView,
    metadata_hash: i64,
) -> Result<ConfiguredTopology, Refusal> {
    let configured = match try_configure(topology, topics) {
        Ok(configured) => configured,
        Err(Fault::Topology(refusal)) => return Err(refusal),
        Err(Fault::Topics(status, detail)) => ConfiguredTopology {
            problem: Some((status, detail)),
            ..ConfiguredTopology::default()
        },
    };
    Ok(ConfiguredTopology {
        metadata_hash,
        ..configured
    })
}

fn try_configure(
    topology: &Topology,
    topics: &dyn TopicsView,
) -> Result<ConfiguredTopology, Fault> {
    check_sources(topology, topics)?;
    let counts = decide_counts(topology, topics)?;
    let mut subtopologies = BTreeMap::new();
    for (id, part) in &topology.subtopologies {
        subtopologies.insert(id.clone(), configure_part(part, &counts)?);
    }
    let missing = missing_topics(&subtopologies, topics)?;
    let names: Vec<&str> = missing.iter().map(|topic| &*topic.name).collect();
    let problem = (!missing.is_empty()).then(|| {
        let detail = format!("Internal topics are missing: {}", summary(&names));
        (status::MISSING_INTERNAL_TOPICS, detail)
    });
    Ok(ConfiguredTopology {
        subtopologies: Some(subtopologies),
        problem,
        missing,
        ..ConfiguredTopology::default()
    })
}

fn check_sources(topology: &Topology, topics: &dyn TopicsView) -> Result<(), Fault> {
    let parts = topology.subtopologies.values();
    let missing: BTreeSet<&str> = parts
        .flat_map(|part| &part.source_topics)
        .filter(|name| topics.topic_id(name).is_none())
        .map(|name| &**name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.into_iter().collect();
    let message = format!("Source topics {} are missing.", summary(&names));
    Err(Fault::Topics(status::MISSING_SOURCE_TOPICS, message))
}

fn summary(names: &[&str]) -> String {
    let named = names.get(..NAMED_MAX).unwrap_or(names).join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => named,
        more => format!("{named} and {more} additional topics"),
    }
}

fn decide_counts<'a>(topology: &Topology, topics: &'a dyn TopicsView) -> Result<Counts<'a>, Fault> {
    let mut counts = Counts {
        topics,
        decided: BTreeMap::new(),
    };
    let repartitioned = repartition::decide(topology, &counts)?;
    counts.decided.extend(repartitioned);
    copartition::enforce(topology, &mut counts)?;
    let mut changelogs = BTreeMap::new();
    for part in topology.subtopologies.values() {
        let count = task_count(part, &counts)?.ok_or_else(|| {
            Fault::invalid(format!(
                "No source topics found for subtopology {}",
                part.subtopology_id
            ))
        })?;
        let names = part.state_changelog_topics.iter();
        changelogs.extend(names.map(|topic| (topic.name.clone(), count)));
    }
    counts.decided.extend(changelogs);
    Ok(counts)
}

/// The most partitions that a topic of the part's inputs has; none if it has no inputs.
fn task_count(part: &Subtopology, counts: &Counts<'_>) -> Result<Option<i32>, Fault> {
    let mut most = None;
    for topic in inputs(part) {
        let count = counts.get(topic).ok_or_else(|| {
            Fault::unexpected(format!("No partition count for source topic {topic}"))
        })?;
        most = most.max(Some(count));
    }
    Ok(most)
}

fn configure_part(part: &Subtopology, counts: &Counts<'_>) -> Result<ConfiguredSubtopology, Fault> {
    let task_count = task_count(part, counts)?.unwrap_or(0);
    if task_count <= 0 {
        return Err(Fault::unexpected("Number of tasks must be positive"));
    }
    let internal = |topics: &[TopicInfo]| -> Result<BTreeMap<ByteStr, InternalTopic>, Fault> {
        let topics = topics.iter().map(|topic| {
            let configured = internal_topic(topic, counts)?;
            Ok((topic.name.clone(), configured))
        });
        topics.collect()
    };
    Ok(ConfiguredSubtopology {
        task_count,
        source_topics: part.source_topics.iter().cloned().collect(),
        repartition_source_topics: internal(&part.repartition_source_topics)?,
        repartition_sink_topics: part.repartition_sink_topics.iter().cloned().collect(),
        state_changelog_topics: internal(&part.state_changelog_topics)?,
    })
}

fn internal_topic(topic: &TopicInfo, counts: &Counts<'_>) -> Result<InternalTopic, Fault> {
    let partition_count = match topic.partitions {
        0 => counts.decided.get(&topic.name).copied().ok_or_else(|| {
            let name = &topic.name;
            Fault::unexpected(format!("Number of partitions must be set for topic {name}"))
        })?,
        count => count,
    };
    if partition_count < 1 {
        return Err(Fault::unexpected(
            "Number of partitions must be at least 1.",
        ));
    }
    let configs = topic.topic_configs.iter();
    Ok(InternalTopic {
        partition_count,
        replication_factor: topic.replication_factor,
        configs: configs
            .map(|config| (config.key.clone(), config.value.clone()))
            .collect(),
    })
}

/// The internal topics that do not exist, in the order in which Kafka names them.
fn missing_topics(
    subtopologies: &BTreeMap<ByteStr, ConfiguredSubtopology>,
    topics: &dyn TopicsView,
) -> Result<Vec<CreatableTopic>, Fault> {
    let mut wanted: BTreeMap<&ByteStr, &InternalTopic> = BTreeMap::new();
    let mut names: Vec<&ByteStr> = Vec::new();
    for part in subtopologies.values() {
        for internal in [
            &part.repartition_source_topics,
            &part.state_changelog_topics,
        ] {
            for (name, topic) in internal {
                if wanted.insert(name, topic).is_none() {
                    names.push(name);
                }
            }
        }
    }
    for (name, topic) in &wanted {
        let present = topics.partition_count(name);
        if let Some(present) = present.filter(|present| *present != topic.partition_count) {
            return Err(Fault::incorrectly_partitioned(format!(
                "Existing topic {name} has different number of partitions: expected {}, found \
                 {present}",
                topic.partition_count
            )));
        }
    }
    let names = java::hash_map_order(names, java::HASH_MAP_CAPACITY, |n| java::string_hash(n));
    let missing = names
        .into_iter()
        .filter(|name| topics.partition_count(name).is_none());
    let missing = missing.filter_map(|name| {
        let topic = wanted.get(name)?;
        let configs = topic
            .configs
            .iter()
            .map(|(key, value)| CreatableTopicConfig {
                name: key.clone(),
                value: Some(value.clone()),
                ..CreatableTopicConfig::default()
            });
        Some(CreatableTopic {
            name: name.clone(),
            num_partitions: topic.partition_count,
            replication_factor: match topic.replication_factor {
                0 => -1,
                factor => factor,
            },
            configs: configs.collect(),
            ..CreatableTopic::default()
        })
    });
    Ok(missing.collect())
}
