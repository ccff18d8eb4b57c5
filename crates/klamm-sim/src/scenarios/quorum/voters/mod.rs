//! Voters that come and go: an operator adds controllers to the quorum and removes them, also the one
//! that decides, one that is down, one that has lost its disk; while all goes wrong that does so in
//! `quorum`.
//!
//! ```text
//!  operator --AddRaftVoter, RemoveRaftVoter--> controllers: voters and those who follow
//!     |                                            |
//!     `- takes disks away                          `- their log, with the voters --> brokers
//! ```
//!
//! - [`operator`]: what is asked for; [`driver`]: the run.
//! - the properties: [`sets`], [`changes`], [`deposed`]; and all those of `quorum`.

pub mod changes;
pub mod deposed;
#[cfg(test)]
mod disks_tests;
mod driver;
mod operator;
pub mod sets;
#[cfg(test)]
mod tests;

pub(super) use self::changes::Changes;
#[cfg(test)]
pub(super) use self::operator::quota;
pub(super) use self::sets::Sets;

use super::super::{Run, Scenario, Violation};
use super::Flaw;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "voters",
    about: "controllers whose voters change: added, removed, with new disks, while all goes wrong",
    run,
};

fn run(run: &Run) -> Result<(), Violation> {
    driver::drive(run, Flaw::None)
}
