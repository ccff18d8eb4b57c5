//! A log whose disk forgets bits of what it had on it for good: in batches, indexes and snapshots,
//! while it is open and while it is not.
//!
//! - [`driver`]: the seed's choice: appends, rolls, flushes, bits that flip, restarts.
//! - [`model`]: what was written, and what was hit.
//! - [`served`]: what a reader may be given.

pub mod model;
pub mod served;

mod driver;

#[cfg(test)]
mod tests;

use super::{Run, Scenario, Violation};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "log-rot",
    about: "a log on a disk that flips bits of what was synced",
    run,
};

fn run(run: &Run) -> Result<(), Violation> {
    driver::Driver::new(run)?.go()
}
