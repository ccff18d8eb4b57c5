//! A classic consumer group: members that join, sync, heartbeat, commit, fall silent, come back,
//! linger as zombies; a coordinator whose writes are slow or fail and which moves to another
//! broker. The coordinator is `klamm_coordinator`'s group shard.
//!
//! - [`host`]: runs the shard as the runtime does, over a log that may lose its end;
//! - [`member`]: a consumer as a client library would write it;
//! - the properties: [`agreement`], [`fencing`], [`offsets`], [`answers`], [`healing`].

pub mod agreement;
pub mod answers;
pub mod fencing;
pub mod healing;
pub mod host;
pub mod member;
pub mod offsets;

mod driver;

#[cfg(test)]
mod tests;

use super::{Run, Scenario, Violation};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "group",
    about: "a classic group with zombies, slow writes and a coordinator that moves",
    run,
};

/// A mistake built in on purpose, for the tests of the properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None.
    None,
    /// The coordinator forgets committed records when it moves.
    LogForgets,
    /// Zombies commit under the newest generation, not the one they were in.
    ZombiesPass,
    /// Leaders give the same partition to two members.
    LeadersShare,
    /// Parked requests are dropped.
    AnswersLost,
}

fn run(run: &Run) -> Result<(), Violation> {
    driver::drive(run, Flaw::None)
}
