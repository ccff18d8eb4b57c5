//! What the seed makes of a quorum: how large it is, how long it remembers, what will go wrong.

use std::time::Duration;

use super::Flaw;
use crate::{Address, NetFaults, SimRng};

/// Address of the first broker.
const FIRST_BROKER: Address = 101;

/// The plan of a run.
#[derive(Clone, Debug)]
pub(in crate::scenarios) struct Plan {
    pub(in crate::scenarios) controllers: Vec<i32>,
    pub(in crate::scenarios) brokers: Vec<i32>,
    pub(in crate::scenarios) faults: NetFaults,
    /// Entries kept behind a snapshot.
    pub(in crate::scenarios) entries_kept: u64,
    /// Bytes of the Raft log after which a snapshot is taken.
    pub(in crate::scenarios) snapshot_bytes: u64,
    /// Whether disks may be slow and fail.
    pub(in crate::scenarios) bad_disks: bool,
    /// How long things go wrong.
    pub(in crate::scenarios) trouble: Duration,
    /// How long it may take until all is well again.
    pub(in crate::scenarios) heal: Duration,
    pub(in crate::scenarios) election: Duration,
    pub(in crate::scenarios) session: Duration,
    pub(in crate::scenarios) heartbeat: Duration,
    /// How long a broker waits for an answer.
    pub(in crate::scenarios) request: Duration,
}

impl Plan {
    pub(super) fn new(rng: &SimRng, flaw: Flaw) -> Plan {
        let controllers = [3, 3, 3, 5][rng.index(4)];
        let brokers = FIRST_BROKER..FIRST_BROKER + 3;
        Plan::of(rng, flaw, (1..=controllers).collect(), brokers.collect())
    }

    /// The plan of these controllers and brokers.
    pub(in crate::scenarios) fn of(
        rng: &SimRng,
        flaw: Flaw,
        controllers: Vec<Address>,
        brokers: Vec<Address>,
    ) -> Plan {
        let bad = [0, 2_000, 20_000][rng.index(3)];
        let faults = NetFaults {
            loss: bad,
            duplicates: bad,
            slow: [0, 10_000, 50_000][rng.index(3)],
            slow_ms: [20, 300, 3_000][rng.index(3)],
        };
        let snapshot_bytes = match flaw {
            // Where the log begins is in the file that is forgotten.
            Flaw::VotesForgotten | Flaw::EpochsReused => u64::MAX,
            Flaw::SnapshotsLose => 1 << 11,
            _ => [1 << 11, 1 << 14, u64::MAX][rng.index(3)],
        };
        Plan {
            controllers,
            brokers,
            faults,
            entries_kept: [0, 5, 100][rng.index(3)],
            snapshot_bytes,
            bad_disks: rng.one_in(2),
            trouble: Duration::from_secs(60),
            heal: Duration::from_secs(60),
            election: Duration::from_millis([300, 1_000][rng.index(2)]),
            session: Duration::from_secs(3),
            heartbeat: Duration::from_millis(500),
            request: Duration::from_secs(2),
        }
    }

    /// Whether the plan has snapshots.
    pub(in crate::scenarios) fn has_snapshots(&self) -> bool {
        self.snapshot_bytes < u64::MAX
    }
}
