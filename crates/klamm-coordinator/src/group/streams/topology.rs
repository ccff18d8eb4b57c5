//! The topology of an application as the coordinator knows it: which topics each of its parts reads
//! and writes. It comes with the first member and stays as long as the group.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::group_records::StreamsGroupTopologyValue as Value;
use klamm_protocol::group_records::streams_group_topology_value::{
    CopartitionGroup, Subtopology, TopicConfig, TopicInfo,
};
use klamm_protocol::messages::streams_group_heartbeat_request as request;
use klamm_protocol::{ByteStr, ErrorCode};

use crate::group::consumer::Refusal;

/// A topology.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// Its version, which the application counts.
    pub epoch: i32,
    /// Its parts by their ids.
    pub subtopologies: BTreeMap<ByteStr, Subtopology>,
}

impl Topology {
    /// The topology of a record. Of two parts with the same id the last counts.
    pub fn from_record(value: &Value) -> Self {
        let subtopologies = value.subtopologies.iter().map(detached);
        Topology {
            epoch: value.epoch,
            subtopologies: subtopologies
                .map(|part| (part.subtopology_id.clone(), part))
                .collect(),
        }
    }

    /// The topology of a request and its record.
    ///
    /// # Errors
    /// `UNKNOWN_SERVER_ERROR` for one that Kafka's coordinator fails over: a negative epoch, or two
    /// parts with one id.
    pub(super) fn from_request(topology: &request::Topology) -> Result<(Self, Value), Refusal> {
        let value = Value {
            epoch: topology.epoch,
            subtopologies: topology.subtopologies.iter().map(record_of).collect(),
            ..Value::default()
        };
        let read = Topology::from_record(&value);
        if topology.epoch < 0 || read.subtopologies.len() != value.subtopologies.len() {
            return Err(Refusal::new(
                ErrorCode::UnknownServerError,
                "Topology epoch must be non-negative and subtopology ids must be unique.",
            ));
        }
        Ok((read, value))
    }

    /// Every topic that must be there before there are tasks.
    pub(super) fn required_topics(&self) -> BTreeSet<ByteStr> {
        let mut topics = BTreeSet::new();
        for part in self.subtopologies.values() {
            topics.extend(part.source_topics.iter().cloned());
            topics.extend(
                part.repartition_source_topics
                    .iter()
                    .map(|t| t.name.clone()),
            );
            topics.extend(part.state_changelog_topics.iter().map(|t| t.name.clone()));
        }
        topics
    }

    /// The part that reads a topic; the last one, if several do.
    pub fn reader_of(&self, topic: &str) -> Option<&ByteStr> {
        let mut parts = self.subtopologies.iter().rev();
        let reader = parts.find(|(_, part)| {
            part.source_topics.iter().any(|name| *name == topic)
                || part
                    .repartition_source_topics
                    .iter()
                    .any(|source| source.name == topic)
        });
        reader.map(|(id, _)| id)
    }
}

/// The names of the topics that a part reads.
pub(super) fn inputs(part: &Subtopology) -> impl Iterator<Item = &ByteStr> {
    let repartitioned = part.repartition_source_topics.iter();
    part.source_topics
        .iter()
        .chain(repartitioned.map(|source| &source.name))
}

fn record_of(part: &request::Subtopology) -> Subtopology {
    let groups = part
        .copartition_groups
        .iter()
        .map(|group| CopartitionGroup {
            source_topics: group.source_topics.clone(),
            source_topic_regex: group.source_topic_regex.clone(),
            repartition_source_topics: group.repartition_source_topics.clone(),
            ..CopartitionGroup::default()
        });
    Subtopology {
        subtopology_id: part.subtopology_id.clone(),
        source_topics: part.source_topics.clone(),
        source_topic_regex: part.source_topic_regex.clone(),
        state_changelog_topics: part.state_changelog_topics.iter().map(topic_of).collect(),
        repartition_sink_topics: part.repartition_sink_topics.clone(),
        repartition_source_topics: part
            .repartition_source_topics
            .iter()
            .map(topic_of)
            .collect(),
        copartition_groups: groups.collect(),
        ..Subtopology::default()
    }
}

fn topic_of(topic: &request::TopicInfo) -> TopicInfo {
    let configs = topic.topic_configs.iter().map(|config| TopicConfig {
        key: config.key.clone(),
        value: config.value.clone(),
        ..TopicConfig::default()
    });
    TopicInfo {
        name: topic.name.clone(),
        partitions: topic.partitions,
        replication_factor: topic.replication_factor,
        topic_configs: configs.collect(),
        ..TopicInfo::default()
    }
}

/// A copy that does not hold on to the buffer that it was read from.
fn detached(part: &Subtopology) -> Subtopology {
    let all = |names: &[ByteStr]| names.iter().map(ByteStr::detached).collect();
    let topic = |topic: &TopicInfo| {
        let configs = topic.topic_configs.iter().map(|config| TopicConfig {
            key: config.key.detached(),
            value: config.value.detached(),
            ..TopicConfig::default()
        });
        TopicInfo {
            name: topic.name.detached(),
            topic_configs: configs.collect(),
            ..topic.clone()
        }
    };
    Subtopology {
        subtopology_id: part.subtopology_id.detached(),
        source_topics: all(&part.source_topics),
        source_topic_regex: all(&part.source_topic_regex),
        state_changelog_topics: part.state_changelog_topics.iter().map(topic).collect(),
        repartition_sink_topics: all(&part.repartition_sink_topics),
        repartition_source_topics: part.repartition_source_topics.iter().map(topic).collect(),
        copartition_groups: part.copartition_groups.clone(),
        ..Subtopology::default()
    }
}
