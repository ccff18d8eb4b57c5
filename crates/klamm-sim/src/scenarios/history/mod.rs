//! Histories of a log against a reference model: everything that may happen to a partition's log,
//! in an order that the seed decides, on a disk that fails and forgets.
//!
//! - [`batch`], [`mod@reference`], [`producers`]: the model, which knows nothing of files.
//! - [`work`]: appends of plain, idempotent and transactional producers, of coordinators and of
//!   followers; elections, truncations, deletions, retention, changes of the configuration.
//! - [`driver`]: the seed's choice, crashes, reopening.
//! - [`compaction`]: what a clean must leave; a third of the logs are compacted, by keys, and perhaps
//!   subject to retention, too. Those have no producers: what these leave in a compacted log is the
//!   subject of the crate's test `compaction`.
//! - [`answers`], [`retention`]: what the log must say, from the model alone.
//! - [`subject`]: the log, with mistakes that the tests put in.

pub mod answers;
pub mod batch;
pub mod compaction;
pub mod producers;
pub mod reference;
pub mod retention;
pub mod subject;

mod driver;
mod work;

#[cfg(test)]
mod tests;

use super::{Run, Scenario, Violation};
use subject::Bug;

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "log-history",
    about: "a log against a reference model, under crashes and failing calls",
    run,
};

fn run(run: &Run) -> Result<(), Violation> {
    driver::Driver::new(run, super::honest, Bug::None)?.go()
}
