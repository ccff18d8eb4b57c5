//! What the seed makes of a cluster: how large it is, what it promises, what will go wrong.

use std::time::Duration;

use klamm_protocol::messages::CreateTopicsRequest;
use klamm_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use klamm_protocol::topic_name::CONSUMER_OFFSETS;

use super::super::quorum;
use super::Flaw;
use crate::{Address, NetFaults, SimRng};

/// How brokers die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deaths {
    /// Processes are killed, any number of them at any time; the page cache stays. No acknowledged
    /// record may be lost.
    Kills,
    /// Machines lose power, and with it what was not synced: one at a time, and while nobody else
    /// is dead or has yet to catch up, which is what Kafka's promise is worth with two replicas
    /// that must be in sync.
    PowerCuts,
    /// Machines lose power, any number of them at any time, but the topics are flushed in groups:
    /// nothing that was acknowledged is only in memory.
    Blackouts,
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// A controller that never fails.
    Brokers,
    /// Controllers as in production.
    Whole,
}

/// The plan of a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) brokers: Vec<i32>,
    pub(super) deaths: Deaths,
    pub(super) topics: Vec<Topic>,
    /// The topic of committed offsets, in whole clusters.
    pub(super) offsets: Option<Topic>,
    pub(super) faults: NetFaults,
    /// How long things go wrong.
    pub(super) trouble: Duration,
    pub(super) segment_bytes: u32,
    pub(super) timing: Timing,
    /// The controllers, if they are as in production.
    pub(super) quorum: Option<quorum::Plan>,
    /// Whether controllers are on brokers' machines.
    pub(super) combined: bool,
}

/// Addresses of controllers begin behind this; the first is the first broker's, if they share
/// machines.
const CONTROLLERS: Address = 50;

/// A topic.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: &'static str,
    pub(super) partitions: i32,
    pub(super) replicas: i16,
    pub(super) min_isr: i32,
    /// Whether replicas may lead that are not known to hold all: then records may be lost.
    pub(super) unclean: bool,
}

/// Kafka's timeouts, shorter, so that a run need not take hours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) heartbeat: Duration,
    pub(super) session: Duration,
    pub(super) lag_max_ms: i64,
    pub(super) fetch_wait_ms: i32,
    pub(super) request: Duration,
    pub(super) heal: Duration,
}

impl Plan {
    pub(super) fn new(rng: &SimRng, flaw: Flaw, size: Size) -> Plan {
        let deaths = [Deaths::Kills, Deaths::PowerCuts, Deaths::Blackouts][rng.index(3)];
        let deaths = match flaw {
            // Of no consequence with other deaths.
            Flaw::CrashesLookClean => Deaths::PowerCuts,
            Flaw::SyncsLie => Deaths::Blackouts,
            _ => deaths,
        };
        let brokers: Vec<i32> = (1..=[3, 3, 4, 5, 7][rng.index(5)]).collect();
        // With one replica that must be in sync, that one's power cut is a loss.
        let least = if deaths == Deaths::PowerCuts { 2 } else { 1 };
        let topics = vec![
            Topic {
                name: "orders",
                partitions: 2,
                replicas: 3,
                min_isr: 2,
                unclean: false,
            },
            Topic {
                name: "clicks",
                partitions: 1,
                replicas: 3,
                min_isr: least,
                unclean: false,
            },
            Topic {
                name: "guesses",
                partitions: 1,
                replicas: 2,
                min_isr: 1,
                unclean: true,
            },
        ];
        let offsets = (size == Size::Whole).then_some(Topic {
            name: CONSUMER_OFFSETS,
            partitions: 1,
            replicas: 3,
            min_isr: least,
            unclean: false,
        });
        let bad = [0, 2_000, 20_000][rng.index(3)];
        let faults = NetFaults {
            loss: bad,
            duplicates: bad,
            slow: [0, 10_000, 50_000][rng.index(3)],
            slow_ms: [20, 300, 3_000][rng.index(3)],
        };
        let timing = Timing {
            heartbeat: Duration::from_millis(500),
            session: Duration::from_secs(3),
            lag_max_ms: 4_000,
            fetch_wait_ms: 300,
            request: Duration::from_secs(2),
            heal: Duration::from_secs(60),
        };
        let segment_bytes = [1 << 13, 1 << 15, 1 << 20][rng.index(3)];
        let quorum = (size == Size::Whole).then(|| controllers(rng, flaw, &brokers));
        let combined = match flaw {
            Flaw::AnswersEarly => true,
            Flaw::FaithfulObservers => false,
            _ => quorum.is_some() && rng.one_in(2),
        };
        Plan {
            quorum,
            combined,
            brokers,
            deaths,
            topics,
            offsets,
            faults,
            trouble: Duration::from_secs(60),
            segment_bytes,
            timing,
        }
    }

    /// The controller on a broker's machine.
    pub(super) fn beside(&self, broker: i32) -> Option<Address> {
        let controllers = &self.quorum.as_ref().filter(|_| self.combined)?.controllers;
        let address = CONTROLLERS + broker;
        controllers.contains(&address).then_some(address)
    }

    /// The broker on a controller's machine.
    pub(super) fn broker_beside(&self, controller: Address) -> Option<i32> {
        self.combined.then_some(controller - CONTROLLERS)
    }

    /// Whether acknowledged records are on disks.
    pub(super) fn is_durable(&self) -> bool {
        self.deaths == Deaths::Blackouts
    }
}

/// The controllers of these brokers: one or three.
fn controllers(rng: &SimRng, flaw: Flaw, brokers: &[i32]) -> quorum::Plan {
    let count = match flaw {
        Flaw::None => [1, 3, 3, 3][rng.index(4)],
        _ => 3,
    };
    let controllers = (1..=count).map(|n| CONTROLLERS + n).collect();
    quorum::Plan::of(rng, flaw.of_quorum(), controllers, brokers.to_vec())
}

impl Topic {
    /// What an administrator makes it with.
    pub(super) fn request(&self) -> CreateTopicsRequest {
        let config = |name: &str, value: String| CreatableTopicConfig {
            name: name.into(),
            value: Some(value.as_str().into()),
            ..CreatableTopicConfig::default()
        };
        CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: self.name.into(),
                num_partitions: self.partitions,
                replication_factor: self.replicas,
                configs: vec![
                    config("min.insync.replicas", self.min_isr.to_string()),
                    config("unclean.leader.election.enable", self.unclean.to_string()),
                ],
                ..CreatableTopic::default()
            }],
            timeout_ms: 1_000,
            ..CreateTopicsRequest::default()
        }
    }
}
