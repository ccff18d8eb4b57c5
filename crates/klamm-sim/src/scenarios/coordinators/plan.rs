//! What the seed makes of a run.

use std::time::Duration;

use crate::{NetFaults, SimRng};

/// How long offsets are kept, where that ends within a run.
const RETENTION_MS: i64 = 15_000;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Consumer groups.
    Groups,
    /// Transactions.
    Transactions,
    /// Share groups.
    Shares,
    /// Streams groups.
    Streams,
}

/// The protocols that the members of a group speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    /// Classic: all is given up before each rebalance.
    Eager,
    /// Classic: only what goes elsewhere is given up.
    Cooperative,
    /// The consumer protocol.
    Consumer,
    /// Members of all of them, which turns the group up and down.
    Mixed,
    /// The streams protocol, in a group of its own.
    Streams,
}

/// What goes wrong, and how often, in cases per thousand strikes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trouble {
    pub(super) kills: u64,
    pub(super) pauses: u64,
    pub(super) moves: u64,
    pub(super) stalls: u64,
    pub(super) clocks: u64,
    pub(super) clients: u64,
}

/// A run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) work: Work,
    pub(super) speech: Speech,
    pub(super) brokers: i32,
    /// Clients that come at first.
    pub(super) clients: usize,
    pub(super) data_partitions: i32,
    pub(super) net: NetFaults,
    pub(super) trouble: Trouble,
    pub(super) lasts: Duration,
    /// Between two strikes, at most, in milliseconds.
    pub(super) every_ms: u64,
    /// Copies of each task with state.
    pub(super) standbys: i32,
    /// A second topic comes and goes, to which members subscribe by name or by a pattern.
    pub(super) second_topic: bool,
    /// All members leave now and then, and the group is deleted.
    pub(super) deletes: bool,
    /// How long offsets are kept, if not for longer than the run takes.
    pub(super) retention_ms: Option<i64>,
    /// How long a new streams group waits for more members.
    pub(super) initial_delay_ms: i32,
}

impl Plan {
    pub(super) fn new(work: Work, rng: &SimRng) -> Plan {
        let speech = [
            Speech::Eager,
            Speech::Cooperative,
            Speech::Consumer,
            Speech::Consumer,
            Speech::Mixed,
            Speech::Mixed,
        ];
        let speech = match (speech[rng.index(speech.len())], work) {
            (_, Work::Streams) => Speech::Streams,
            (speech, _) => speech,
        };
        // Now and then many come at once.
        let clients = match (work, rng.index(40)) {
            (Work::Groups | Work::Streams, 0) => 60,
            (Work::Groups | Work::Streams, _) => 2 + rng.index(5),
            (Work::Transactions, _) => 1 + rng.index(3),
            (Work::Shares, _) => 2 + rng.index(3),
        };
        let heavy = |of: u64, cases: u64| if rng.one_in(of) { cases } else { 0 };
        let mut plan = Plan {
            work,
            speech,
            brokers: 3,
            clients,
            data_partitions: if clients > 20 {
                40
            } else {
                2 + rng.range(0, 5) as i32
            },
            net: NetFaults {
                loss: heavy(2, 20_000) as u32,
                duplicates: heavy(2, 30_000) as u32,
                slow: heavy(2, 50_000) as u32,
                slow_ms: 1_500,
            },
            trouble: Trouble {
                kills: heavy(2, 120),
                pauses: heavy(2, 100),
                moves: 60 + heavy(2, 300),
                stalls: heavy(2, 150),
                clocks: heavy(3, 40),
                clients: 250,
            },
            lasts: Duration::from_secs(if clients > 20 { 15 } else { 30 }),
            every_ms: if rng.one_in(3) { 200 } else { 1_000 },
            standbys: rng.range(0, 3) as i32,
            second_topic: false,
            deletes: false,
            retention_ms: None,
            initial_delay_ms: if rng.one_in(2) { 0 } else { 500 },
        };
        if matches!(work, Work::Groups | Work::Streams) {
            plan.second_topic = speech == Speech::Consumer && rng.one_in(2);
            plan.deletes = rng.one_in(4);
            plan.retention_ms = rng.one_in(4).then_some(RETENTION_MS);
        }
        if plan.retention_ms.is_some() {
            // By clocks that are off, offsets expire that are not old.
            plan.trouble.clocks = 0;
        }
        plan
    }
}
