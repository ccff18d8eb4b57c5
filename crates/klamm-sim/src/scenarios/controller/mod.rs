//! The controller's managers over a cluster that is never at rest: brokers come, go, crash and
//! shut down; topics are made, grown, moved and deleted; leaders ask for other ISRs. Each decision
//! is a list of records, which is replayed as the driver does.
//!
//! - [`cluster`]: brokers, the image, the log of records;
//! - the properties: [`replay`], [`partitions`], [`elections`], [`ids`].

pub mod cluster;
pub mod elections;
pub mod ids;
pub mod partitions;
pub mod replay;

mod driver;
mod requests;

#[cfg(test)]
mod tests;

use super::{Run, Scenario, Violation};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "controller",
    about: "the controller's managers over brokers that come and go",
    run,
};

/// A mistake built in on purpose, for the tests of the properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None.
    None,
    /// The log misses a record that was decided.
    RecordLost,
    /// Elections choose any replica.
    AnyoneLeads,
    /// The ISR names a broker that holds no replica.
    StrangerInSync,
    /// Random ids are not.
    IdsRepeat,
}

fn run(run: &Run) -> Result<(), Violation> {
    driver::drive(run, Flaw::None)
}
