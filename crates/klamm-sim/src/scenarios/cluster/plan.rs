//! What the seed makes of a cluster: how large it is, what it promises, what will go wrong.

use std::time::Duration;

use super::Flaw;
use crate::{NetFaults, SimRng};

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

/// The plan of a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) brokers: Vec<i32>,
    pub(super) deaths: Deaths,
    pub(super) topics: Vec<Topic>,
    pub(super) faults: NetFaults,
    /// How long things go wrong.
    pub(super) trouble: Duration,
    pub(super) segment_bytes: u32,
    pub(super) timing: Timing,
}

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
    pub(super) fn new(rng: &SimRng, flaw: Flaw) -> Plan {
        let deaths = [Deaths::Kills, Deaths::PowerCuts, Deaths::Blackouts][rng.index(3)];
        let deaths = match flaw {
            // Of no consequence with other deaths.
            Flaw::CrashesLookClean => Deaths::PowerCuts,
            Flaw::SyncsLie => Deaths::Blackouts,
            _ => deaths,
        };
        let brokers = (1..=[3, 3, 4, 5, 7][rng.index(5)]).collect();
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
        let bad = [0, 2_000, 20_000][rng.index(3)];
        let faults = NetFaults {
            loss: bad,
            duplicates: bad,
            slow: [0, 10_000, 50_000][rng.index(3)],
            slow_ms: [20, 300, 3_000][rng.index(3)],
        };
        Plan {
            brokers,
            deaths,
            topics,
            faults,
            trouble: Duration::from_secs(60),
            segment_bytes: [1 << 13, 1 << 15, 1 << 20][rng.index(3)],
            timing: Timing {
                heartbeat: Duration::from_millis(500),
                session: Duration::from_secs(3),
                lag_max_ms: 4_000,
                fetch_wait_ms: 300,
                request: Duration::from_secs(2),
                heal: Duration::from_secs(60),
            },
        }
    }

    /// Whether acknowledged records are on disks.
    pub(super) fn is_durable(&self) -> bool {
        self.deaths == Deaths::Blackouts
    }
}
