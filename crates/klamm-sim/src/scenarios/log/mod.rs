//! One partition's log on a disk that forgets: appends, flushes, rolls, truncations, deletions,
//! crashes of process and machine, failing calls, a full disk.
//!
//! - [`model`]: what the log must hold, kept beside it;
//! - [`observed`]: what it does hold, read back through its public calls;
//! - the properties: [`durability`], [`prefix`], [`integrity`], [`lookup`], [`idempotence`].

pub mod durability;
pub mod idempotence;
pub mod integrity;
pub mod lookup;
pub mod model;
pub mod observed;
pub mod prefix;

mod driver;
mod group;

#[cfg(test)]
mod tests;

use self::driver::Place;
use super::{Run, Scenario, Violation};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "log",
    about: "a log under crashes, failing calls and a full disk",
    run,
};

/// The same for a log in a broker's log directory.
pub const MANAGED: Scenario = Scenario {
    name: "log-manager",
    about: "a log manager under crashes, failing calls and a full disk",
    run: run_managed,
};

fn run(run: &Run) -> Result<(), Violation> {
    driver::Driver::new(run, Place::Alone, super::honest)?.go()
}

fn run_managed(run: &Run) -> Result<(), Violation> {
    driver::Driver::new(run, Place::Managed, super::honest)?.go()
}
