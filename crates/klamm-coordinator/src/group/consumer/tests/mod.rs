//! The consumer protocol: requests into a shard, answers and records out of it.

mod classics;
mod crowds;
mod golden;
mod histories;
mod membership;
mod offsets;
mod reconciling;
mod regexes;

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::messages::consumer_group_describe_response::DescribedGroup;
use klamm_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use klamm_protocol::messages::{ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use super::{ConsumerGroup, ConsumerGroupState};
use crate::group::cluster::ListedTopic;
use crate::group::testing::{Bench, GROUP};
use crate::group::{GroupRequest, GroupResponse, RequestContext};

/// The id of a topic of these tests.
pub(super) fn topic_id(name: &str) -> Uuid {
    let mut bytes = [0x11; 16];
    for (place, byte) in bytes.iter_mut().skip(2).zip(name.bytes()) {
        *place = byte;
    }
    Uuid::from_bytes(bytes)
}

/// Partitions of topics by their names.
pub(super) type Held = BTreeMap<String, BTreeSet<i32>>;

pub(super) fn held(topics: &[(&str, &[i32])]) -> Held {
    let topic = |(name, partitions): &(&str, &[i32])| {
        ((*name).to_owned(), partitions.iter().copied().collect())
    };
    topics.iter().map(topic).collect()
}

impl Bench {
    pub(super) fn make_topic(&mut self, name: &str, partition_count: usize) {
        self.cluster.change(|topics| {
            topics.version += 1;
            topics.newest_topic_version = topics.version;
            let topic = ListedTopic {
                id: topic_id(name),
                partitions: vec![Vec::new(); partition_count],
            };
            topics.topics.insert(name.into(), topic);
        });
    }

    pub(super) fn delete_topic(&mut self, name: &str) {
        self.cluster.change(|topics| {
            topics.version += 1;
            topics.topics.remove(name);
        });
    }

    pub(super) fn beat(&mut self, beat: &Beat) -> ConsumerGroupHeartbeatResponse {
        let context = RequestContext {
            api_version: 1,
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
        };
        let request = GroupRequest::ConsumerHeartbeat(context, Box::new(beat.request.clone()));
        match self.ask(request) {
            Ok(GroupResponse::ConsumerHeartbeat(response)) => *response,
            other => panic!("no heartbeat answer but {other:?}"),
        }
    }

    pub(super) fn beat_error(&mut self, beat: &Beat) -> ErrorCode {
        crate::group::testing::code(self.beat(beat).error_code)
    }

    pub(super) fn consumers(&self) -> &ConsumerGroup {
        self.shard.consumer_group(GROUP).expect("the group")
    }

    pub(super) fn consumer_state(&self) -> ConsumerGroupState {
        self.consumers().state()
    }

    pub(super) fn describe(&mut self) -> DescribedGroup {
        let request = GroupRequest::DescribeConsumerGroups(vec![GROUP.into()]);
        match self.ask(request) {
            Ok(GroupResponse::DescribeConsumerGroups(mut groups)) => groups.remove(0),
            other => panic!("no description but {other:?}"),
        }
    }
}

/// A heartbeat to be.
#[derive(Clone, Debug)]
pub(super) struct Beat {
    pub(super) request: ConsumerGroupHeartbeatRequest,
}

impl Beat {
    /// The first heartbeat of a member.
    pub(super) fn join(member_id: &str, topics: &[&str]) -> Beat {
        Beat {
            request: ConsumerGroupHeartbeatRequest {
                group_id: GROUP.into(),
                member_id: member_id.into(),
                member_epoch: 0,
                rebalance_timeout_ms: 10_000,
                subscribed_topic_names: Some(topics.iter().map(|t| ByteStr::from(*t)).collect()),
                topic_partitions: Some(Vec::new()),
                ..ConsumerGroupHeartbeatRequest::default()
            },
        }
    }

    /// A heartbeat with nothing new to say.
    pub(super) fn stay(member_id: &str, epoch: i32) -> Beat {
        Beat {
            request: ConsumerGroupHeartbeatRequest {
                group_id: GROUP.into(),
                member_id: member_id.into(),
                member_epoch: epoch,
                ..ConsumerGroupHeartbeatRequest::default()
            },
        }
    }

    pub(super) fn leave(member_id: &str) -> Beat {
        Beat::stay(member_id, -1)
    }

    pub(super) fn named(mut self, instance_id: &str) -> Beat {
        self.request.instance_id = Some(instance_id.into());
        self
    }

    pub(super) fn matching(mut self, regex: &str) -> Beat {
        self.request.subscribed_topic_regex = Some(regex.into());
        self
    }

    pub(super) fn subscribed(mut self, topics: &[&str]) -> Beat {
        let topics = topics.iter().map(|topic| ByteStr::from(*topic));
        self.request.subscribed_topic_names = Some(topics.collect());
        self
    }

    pub(super) fn owning(mut self, held: &Held) -> Beat {
        let topics = held.iter().map(|(name, partitions)| TopicPartitions {
            topic_id: topic_id(name),
            partitions: partitions.iter().copied().collect(),
            ..TopicPartitions::default()
        });
        self.request.topic_partitions = Some(topics.collect());
        self
    }

    pub(super) fn assigned_by(mut self, assignor: &str) -> Beat {
        self.request.server_assignor = Some(assignor.into());
        self
    }
}

/// What an answer gives, by the topics' names; none if it says nothing of it.
pub(super) fn given(response: &ConsumerGroupHeartbeatResponse, topics: &[&str]) -> Option<Held> {
    let assignment = response.assignment.as_ref()?;
    let name = |id: Uuid| topics.iter().find(|name| topic_id(name) == id);
    let by_name = assignment.topic_partitions.iter().map(|topic| {
        let name = name(topic.topic_id).expect("a known topic");
        (
            (*name).to_owned(),
            topic.partitions.iter().copied().collect(),
        )
    });
    Some(by_name.collect())
}
