//! What the seed makes of a cluster: how large it is, what it promises, what will go wrong.

use std::sync::Arc;
use std::time::Duration;

use klamm_env::Rng as _;
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
    /// The same, for at least and at most so many hours.
    Long(u64, u64),
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
    /// What is due only after hours, in clusters that live for long.
    pub(super) long: Option<Long>,
}

/// A cluster that lives for days: work and trouble in spells, hours of rest between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Long {
    /// How long it lives.
    pub(super) life: Duration,
    /// How far wall clocks may be off, in milliseconds.
    pub(super) skew_ms: i64,
    /// `producer.id.expiration.ms`
    pub(super) producer_expiration_ms: i64,
    /// `offsets.retention.minutes`, in milliseconds.
    pub(super) offsets_retention_ms: i64,
}

/// An hour, in milliseconds.
pub(super) const HOUR_MS: i64 = 3_600_000;

/// Addresses of controllers begin behind this; the first is the first broker's, if they share
/// machines.
const CONTROLLERS: Address = 50;

/// A topic.
#[derive(Clone, Debug)]
pub(super) struct Topic {
    pub(super) name: Arc<str>,
    pub(super) partitions: i32,
    pub(super) replicas: i16,
    pub(super) min_isr: i32,
    /// Whether replicas may lead that are not known to hold all: then records may be lost.
    pub(super) unclean: bool,
    pub(super) keeping: Keeping,
}

/// What becomes of old records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// They stay.
    All,
    /// They go after so many milliseconds.
    Age(i64),
    /// They go when there are more bytes than that.
    Bytes(i64),
    /// Of each key the last one stays.
    Compacted,
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
    /// How much longer all pauses are, and these times with them.
    pub(super) stretch: u32,
}

impl Timing {
    fn new(stretch: u32) -> Timing {
        let ms = |ms: u64| Duration::from_millis(ms) * stretch;
        Timing {
            heartbeat: ms(500),
            session: ms(3_000),
            lag_max_ms: 4_000 * i64::from(stretch),
            fetch_wait_ms: 300 * stretch as i32,
            request: ms(2_000),
            heal: ms(60_000),
            stretch,
        }
    }
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
                name: "orders".into(),
                partitions: 2,
                replicas: 3,
                min_isr: 2,
                unclean: false,
                keeping: Keeping::All,
            },
            Topic {
                name: "clicks".into(),
                partitions: 1,
                replicas: 3,
                min_isr: least,
                unclean: false,
                keeping: Keeping::All,
            },
            Topic {
                name: "guesses".into(),
                partitions: 1,
                replicas: 2,
                min_isr: 1,
                unclean: true,
                keeping: Keeping::All,
            },
        ];
        let offsets = (size != Size::Brokers).then(|| Topic {
            name: CONSUMER_OFFSETS.into(),
            partitions: 1,
            replicas: 3,
            min_isr: least,
            unclean: false,
            keeping: Keeping::All,
        });
        let bad = [0, 2_000, 20_000][rng.index(3)];
        let faults = NetFaults {
            loss: bad,
            duplicates: bad,
            slow: [0, 10_000, 50_000][rng.index(3)],
            slow_ms: [20, 300, 3_000][rng.index(3)],
        };
        let segment_bytes = [1 << 13, 1 << 15, 1 << 20][rng.index(3)];
        let quorum = (size != Size::Brokers).then(|| controllers(rng, flaw, &brokers));
        let combined = match flaw {
            Flaw::AnswersEarly => true,
            Flaw::FaithfulObservers => false,
            _ => quorum.is_some() && rng.one_in(2),
        };
        let plan = Plan {
            quorum,
            combined,
            brokers,
            deaths,
            topics,
            offsets,
            faults,
            trouble: Duration::from_secs(60),
            segment_bytes,
            timing: Timing::new(1),
            long: None,
        };
        match size {
            Size::Long(least, most) => plan.for_hours(rng, least, most),
            Size::Brokers | Size::Whole => plan,
        }
    }

    /// The same cluster with a long life, in which old records go.
    fn for_hours(mut self, rng: &SimRng, least: u64, most: u64) -> Plan {
        // Some times what Kafka has by default: the less often brokers ask each other whether they
        // are still there, the longer they live in a second.
        let stretch = [10, 40, 40, 80][rng.index(4)];
        self.timing = Timing {
            fetch_wait_ms: 1_500 * stretch as i32,
            ..Timing::new(stretch)
        };
        self.faults.slow_ms *= u64::from(stretch);
        // All of them are asked for all the time.
        self.brokers.truncate(5);
        let quorum = self.quorum.take();
        self.quorum = quorum.map(|quorum| quorum.stretched(rng, &self.brokers, stretch));
        self.segment_bytes = [1 << 12, 1 << 13, 1 << 15][rng.index(3)];
        let age_ms = [2, 8, 24, 48][rng.index(4)] * HOUR_MS;
        let bytes = i64::from(self.segment_bytes) * 4;
        for topic in self.topics.iter_mut().chain(&mut self.offsets) {
            topic.keeping = match &*topic.name {
                "orders" => Keeping::Age(age_ms),
                "clicks" => Keeping::Bytes(bytes),
                "guesses" => Keeping::Age(6 * HOUR_MS),
                _ => Keeping::Compacted,
            };
        }
        let state = Topic {
            name: "state".into(),
            keeping: Keeping::Compacted,
            ..self.topics[1].clone()
        };
        self.topics.push(state);
        let skew_ms = [2_000, 60_000, 20 * 60_000][rng.index(3)];
        // What is removed is removed by clocks that may have been set back meanwhile.
        self.timing.heal += Duration::from_millis(600_000 + 2 * skew_ms);
        let hours = least + rng.below(most - least + 1);
        self.long = Some(Long {
            life: Duration::from_secs(hours * 3_600),
            skew_ms: skew_ms as i64,
            producer_expiration_ms: [1, 6, 24][rng.index(3)] * HOUR_MS,
            offsets_retention_ms: [3, 24, 168][rng.index(3)] * HOUR_MS,
        });
        self
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
        let mut configs = vec![
            config("min.insync.replicas", self.min_isr.to_string()),
            config("unclean.leader.election.enable", self.unclean.to_string()),
        ];
        let kept = self.keeping.configs();
        configs.extend(kept.into_iter().map(|(name, value)| config(name, value)));
        CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: (&*self.name).into(),
                num_partitions: self.partitions,
                replication_factor: self.replicas,
                configs,
                ..CreatableTopic::default()
            }],
            timeout_ms: 1_000,
            ..CreateTopicsRequest::default()
        }
    }
}

impl Keeping {
    /// The configs of a topic that say so.
    fn configs(self) -> Vec<(&'static str, String)> {
        match self {
            Keeping::All => Vec::new(),
            Keeping::Age(ms) => vec![
                ("retention.ms", ms.to_string()),
                ("segment.ms", (ms / 4).to_string()),
            ],
            Keeping::Bytes(bytes) => vec![("retention.bytes", bytes.to_string())],
            Keeping::Compacted => vec![
                ("cleanup.policy", "compact".to_owned()),
                ("segment.ms", HOUR_MS.to_string()),
                ("min.cleanable.dirty.ratio", "0.2".to_owned()),
                ("max.compaction.lag.ms", (6 * HOUR_MS).to_string()),
            ],
        }
    }
}
