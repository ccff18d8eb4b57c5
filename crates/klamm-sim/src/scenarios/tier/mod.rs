//! A log with a remote tier: uploads that fail halfway, segments that leave the local disk, total
//! retention, truncations, crashes of process and machine.
//!
//! - [`driver`]: the seed's choice, and the model: the batches that were written.
//! - [`remote`]: the tier, in memory or in a directory of a disk that fails and crashes, too;
//! - [`whole`]: every offset from the start of the log on can be read, here or there.

pub mod whole;

mod driver;
mod remote;

#[cfg(test)]
mod tests;

use super::{Run, Scenario, Violation};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "log-tier",
    about: "a log and its remote tier, which fails now and then",
    run,
};

fn run(run: &Run) -> Result<(), Violation> {
    driver::Driver::new(run)?.go()
}
