//! The coordinators of a cluster: groups, transactions and share groups, whose partitions move
//! between brokers while clients of all kinds work.
//!
//! ```text
//!  members, producers, share consumers --network--> broker: GroupCoordinator,
//!                                                     TransactionCoordinator,
//!                                                     ShareStateCoordinator, SharePartition
//!                                                       | runtime: append, high watermark, load
//!                                                       v
//!                                                     partition: klamm-log, replication modelled
//! ```
//!
//! Real are the coordinators of `klamm-coordinator` with their runtime, state machines and records,
//! and the log with its producers, sequences, verifications and aborted transactions. Modelled is
//! what replicas do: see [`partition`]. What a broker adds between them is written here once more,
//! as small as it goes: [`markers`] and `shares::cells`.
//!
//! - [`world`], [`plan`], [`broker`]: who is there; [`nemesis`]: what goes wrong; [`driver`]: from
//!   beginning to end: trouble, then peace in which all must be well again; [`append_notes`]: what
//!   its trace tells of appends.
//! - [`groups`], [`transactions`], [`shares`]: the scenarios, each with its clients and what must
//!   hold of what they were told; streams groups are among the first. [`topics`]: what there is
//!   to read.

pub mod groups;
pub mod shares;
pub mod transactions;

mod append_notes;
mod broker;
mod driver;
mod markers;
mod nemesis;
mod partition;
mod plan;
mod topics;
mod world;

#[cfg(test)]
mod tests;

use super::{Run, Scenario, Violation};
use plan::Work;

/// Consumer groups.
pub const GROUPS: Scenario = Scenario {
    name: "groups",
    about: "groups of classic, consumer and mixed members while their coordinator moves",
    run: |run| drive(run, Work::Groups, Flaw::None),
};

/// Transactions.
pub const TRANSACTIONS: Scenario = Scenario {
    name: "txn",
    about: "consume, transform, produce in transactions while coordinators and leaders move",
    run: |run| drive(run, Work::Transactions, Flaw::None),
};

/// Share groups.
pub const SHARES: Scenario = Scenario {
    name: "share",
    about: "share groups while share coordinators and leaders move",
    run: |run| drive(run, Work::Shares, Flaw::None),
};

/// Streams groups.
pub const STREAMS: Scenario = Scenario {
    name: "streams",
    about: "streams groups: tasks, processes, internal topics, while their coordinator moves",
    run: |run| drive(run, Work::Streams, Flaw::None),
};

/// A mistake built in on purpose, for the tests of the properties. They are made where the
/// simulation carries something between parts that are as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None.
    None,
    /// Coordinators take for committed what is only in the leader's log.
    AnswersBeforeCommit,
    /// Appends succeed and are nowhere, so that nothing is rolled back.
    WritesVanish,
    /// Who loads a partition misses its end.
    LoadForgets,
    /// Members say that they gave partitions or tasks up before they did.
    AssignBeforeRevoke,
    /// Members of one process tell the coordinator of different ones.
    ProcessesMixedUp,
    /// Offsets are kept for a tenth of their time.
    ExpiresEarly,
    /// Some markers are not written.
    MarkersLost,
    /// Markers are not written into the groups' partitions.
    OffsetMarkersLost,
    /// Producers' epochs and transactions are not looked at by partitions.
    ZombiesWrite,
    /// Consumers read what is not decided, and what was aborted.
    DirtyReads,
    /// A share partition that moves forgets who has what and what is done.
    SharesForget,
    /// Acknowledgements of share consumers are answered and not written.
    SharesUnwritten,
}

fn drive(run: &Run, work: Work, flaw: Flaw) -> Result<(), Violation> {
    driver::drive(run, work, flaw)
}
