//! The controllers' quorum as it runs in production: Raft, its log and snapshots, the task that
//! decides, on disks that forget and a network that loses; with brokers that register, ask for
//! things and follow the metadata.
//!
//! ```text
//!  brokers  --network-->  Controller: queue -> managers -> Raft --network--> other controllers
//!     ^                                                     |
//!     |  Fetch, FetchSnapshot of the metadata log           v
//!     +----------------------------------- projection <- state machine -> SimFs
//! ```
//!
//! - [`world`]: all of it; [`plan`]: what the seed makes of it.
//! - [`node`]: a machine with a controller; [`transport`]: how controllers reach each other.
//! - [`broker`]: what brokers ask for; [`observer`]: how they follow.
//! - [`nemesis`]: what goes wrong; [`spoil`]: the mistakes of which [`Flaw`] tells.
//! - [`voters`]: the scenario of that name, in which voters come and go.
//! - the properties: [`history`], [`leaders`], [`promises`], [`healing`]; and those of the scenario
//!   of the [`controller`](super::controller), for each image.
//!
//! Controllers, observers and what goes wrong with them are those of the scenario `whole`, too.

pub mod healing;
pub mod history;
pub mod leaders;
pub mod promises;

mod broker;
mod driver;
mod nemesis;
mod node;
mod observer;
mod plan;
mod spoil;
mod transport;
pub mod voters;
mod world;

// The controllers, for the cluster whose brokers hold records.
pub(super) use self::driver::inspect;
pub(super) use self::nemesis::Nemesis;
pub(super) use self::node::Node;
pub(super) use self::observer::Observer;
pub(super) use self::plan::Plan;
pub(super) use self::world::{Pace, World};

#[cfg(test)]
mod succession_tests;
#[cfg(test)]
mod tests;

use super::{Run, Scenario, Violation};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "quorum",
    about: "controllers with their Raft log, and brokers that follow, on a network and disks that fail",
    run,
};

/// The scenario in which voters come and go.
pub const VOTERS: Scenario = voters::SCENARIO;

/// A mistake built in on purpose, for the tests of the properties. They are made where the
/// simulation carries bytes between parts that are as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None.
    None,
    /// Who starts again does not know whom it voted for.
    VotesForgotten,
    /// Who starts again has its vote as it was a life ago: epochs since then may be used again.
    EpochsReused,
    /// A leader takes a follower's silence for its consent.
    SilenceConsents,
    /// Syncs of the disk do nothing.
    SyncsLie,
    /// Snapshots lack a record.
    SnapshotsLose,
    /// Brokers are told that what was refused is done.
    RefusalsSucceed,
    /// A controller with a new disk gets the calls that were meant for the one that lost it.
    DirectoriesIgnored,
    /// Who starts again has what its directory was formatted with, and nothing else.
    LogsForgotten,
    /// A leader believes that all who were let in later have whatever it sent them.
    LearnersConsent,
    /// Some controllers are not told of changes of the voters.
    ChangesUntold,
    /// An operator is told that a change of the voters is done, whatever came of it.
    ChangesSucceed,
}

fn run(run: &Run) -> Result<(), Violation> {
    driver::drive(run, Flaw::None)
}
