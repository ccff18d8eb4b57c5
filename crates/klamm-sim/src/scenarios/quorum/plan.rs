//! What the seed makes of a quorum: how large it is, how long it remembers, what will go wrong.

use std::time::Duration;

use klamm_controller::MetadataLogOptions;

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
    /// How long a controller may hold a broker's fetch.
    pub(in crate::scenarios) fetch_wait: Duration,
    /// How often controllers look for partitions to be led by others.
    pub(in crate::scenarios) balance: [Duration; 2],
    /// After how long a snapshot is taken in any case, and how many bytes of log and snapshots are
    /// kept.
    pub(in crate::scenarios) snapshots: Option<(Duration, i64)>,
    /// Set where voters come and go.
    pub(in crate::scenarios) dynamic: Option<Dynamic>,
}

/// A quorum whose voters change.
#[derive(Clone, Debug)]
pub(in crate::scenarios) struct Dynamic {
    /// The controllers whose directories are formatted as those of the first voters.
    pub(in crate::scenarios) initial: Vec<i32>,
    /// Whether controllers make themselves voters.
    pub(in crate::scenarios) auto_join: bool,
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
            fetch_wait: Duration::from_millis(500),
            balance: [Duration::from_secs(7), Duration::from_secs(11)],
            snapshots: None,
            dynamic: None,
        }
    }

    /// A plan in which voters come and go.
    pub(super) fn with_voters_that_change(rng: &SimRng, flaw: Flaw) -> Plan {
        let controllers: Vec<i32> = (1..=[4, 5][rng.index(2)]).collect();
        let brokers = FIRST_BROKER..FIRST_BROKER + 3;
        let plan = Plan::of(rng, flaw, controllers, brokers.collect());
        let initial = (1..=[1, 2, 3, 3][rng.index(4)]).collect();
        let auto_join = flaw == Flaw::None && rng.one_in(5);
        Plan {
            dynamic: Some(Dynamic { initial, auto_join }),
            ..plan
        }
    }

    /// The same with all times so many times as long, for brokers that live for days; old snapshots
    /// go, as does what is before them in the log.
    pub(in crate::scenarios) fn stretched(
        self,
        rng: &SimRng,
        brokers: &[Address],
        stretch: u32,
    ) -> Plan {
        let mut faults = self.faults;
        faults.slow_ms *= u64::from(stretch);
        let every = Duration::from_secs([1_800, 3_600, 6 * 3_600][rng.index(3)]);
        Plan {
            brokers: brokers.to_vec(),
            faults,
            snapshot_bytes: self.snapshot_bytes.max(1 << 14),
            heal: self.heal * stretch,
            election: Duration::from_secs(1) * stretch,
            session: self.session * stretch,
            heartbeat: self.heartbeat * stretch,
            request: self.request * stretch,
            fetch_wait: Duration::from_millis(1_500) * stretch,
            balance: self.balance.map(|it| it * stretch * 3),
            snapshots: Some((every, [1 << 16, 1 << 18][rng.index(2)])),
            ..self
        }
    }

    /// How the metadata log is kept.
    pub(in crate::scenarios) fn metadata_log(&self) -> MetadataLogOptions {
        match self.snapshots {
            None => MetadataLogOptions::default(),
            Some((_, retention_bytes)) => MetadataLogOptions {
                segment_bytes: 1 << 13,
                segment_ms: 6 * 3_600_000,
                retention_bytes,
                retention_ms: 24 * 3_600_000,
            },
        }
    }

    /// Whether the plan has snapshots.
    pub(in crate::scenarios) fn has_snapshots(&self) -> bool {
        self.snapshot_bytes < u64::MAX
    }
}
