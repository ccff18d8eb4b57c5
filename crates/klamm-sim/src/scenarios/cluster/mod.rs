//! A whole cluster: brokers with the replica managers, fetchers and logs that run in production,
//! on disks that forget and a network that loses, and a controller that decides with the managers
//! of production; clients as unforgiving as Kafka's.
//!
//! ```text
//!  producers, consumers  --network-->  broker: serve -> ReplicaManager -> Log -> SimFs
//!                                        ^  | fetches of followers, over the network
//!                                        |  v
//!                                      controller: managers over the image, one log of updates
//! ```
//!
//! - [`world`]: all of it, and what is known to whom; [`plan`]: what the seed makes of it.
//! - [`controller`]: decides, and tells brokers what has been decided.
//! - [`node`]: a broker's life; [`serve`]: what it answers; [`follow`]: how it follows leaders and
//!   the metadata; [`alter`]: how it tells the controller of replicas in sync.
//! - [`producer`], [`consumer`]: clients; [`history`]: what they were told.
//! - [`nemesis`]: what goes wrong; [`driver`]: from the beginning to the end.
//! - the properties: [`acknowledged`], [`agreement`], [`leaders`], [`reads`], [`idempotence`],
//!   [`healing`]; of the controller those of its own scenario.

pub mod acknowledged;
pub mod agreement;
pub mod healing;
pub mod history;
pub mod idempotence;
pub mod leaders;
pub mod reads;

mod alter;
mod consumer;
mod controller;
mod driver;
mod follow;
mod nemesis;
mod node;
mod plan;
mod producer;
mod serve;
mod view;
mod world;

#[cfg(test)]
mod tests;

use super::{Run, Scenario, Violation};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "cluster",
    about: "brokers, controller and clients on a network and disks that fail",
    run,
};

/// A mistake built in on purpose, for the tests of the properties. They are made where the
/// simulation carries messages between parts that are as they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// None.
    None,
    /// Followers do not tell the epoch of their last record, so that nobody finds where logs part,
    /// and nobody cuts.
    NeverTruncate,
    /// The leader alone acknowledges what all in-sync replicas should.
    AckBeforeReplication,
    /// Leaders drop lagging replicas from the ISR without the controller's word.
    ShrinkAlone,
    /// Replicas that are not in sync are elected.
    AnyoneLeads,
    /// A new leader gets the epoch of the one before.
    EpochReused,
    /// Followers claim to have records that they have not.
    FollowersBoast,
    /// Followers take the end of the leader's log for its high watermark.
    WatermarkAtEnd,
    /// Followers do not say in which epoch they believe themselves, and take over what they get as
    /// if it were of that epoch.
    AppendAcrossEpochs,
    /// A broker that crashed says that it shut down in order.
    CrashesLookClean,
    /// Syncs of the disk do nothing.
    SyncsLie,
    /// Idempotent producers repeat batches without sequence numbers.
    SequencesForgotten,
    /// Consumers are served what is not committed.
    DirtyReads,
}

fn run(run: &Run) -> Result<(), Violation> {
    driver::drive(run, Flaw::None)
}
