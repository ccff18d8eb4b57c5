//! One partition on three brokers over a network that delays, reorders and loses: elections,
//! fenced and restarted brokers, stale leaders, stale metadata. The replicas run the state
//! machines of `klamm_replication::partition`; their logs and the controller are models.
//!
//! - [`replica_log`]: a log of values with their epochs;
//! - [`world`]: brokers, controller, network and client; what a delivery does is in `delivery`;
//! - the properties: [`committed`], [`watermark`], [`matching`], [`reads`], [`healing`].

pub mod committed;
pub mod healing;
pub mod matching;
pub mod reads;
pub mod replica_log;
pub mod watermark;
pub mod world;

mod controller;
mod delivery;
mod driver;

#[cfg(test)]
mod tests;

use super::{Run, Scenario, Violation};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "partition",
    about: "three replicas over a lossy network, with elections and restarts",
    run,
};

fn run(run: &Run) -> Result<(), Violation> {
    driver::drive(run, world::Flaw::None)
}
