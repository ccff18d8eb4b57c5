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
//! That is the scenario `cluster`, whose controller never fails. In the scenario `whole` there are
//! controllers as in production in its place, those of the scenario [`quorum`]:
//!
//! ```text
//!  broker: registration, heartbeats, AlterPartition  --network or in process-->  the controller
//!            ^                                                                   that leads, Raft
//!            +--- image: of the controller beside it, or by Fetch and FetchSnapshot ----+
//! ```
//!
//! - [`world`]: all of it, and what is known to whom; [`plan`]: what the seed makes of it.
//! - [`controller`]: the one that never fails decides, and tells brokers what has been decided.
//! - [`whole`]: controllers that fail; [`source`]: where brokers have their metadata from then.
//! - [`asking`]: what is asked of the controller that decides, and how it is found.
//! - [`long`]: the same for days, with hours of rest.
//! - [`node`]: a broker's life; [`upkeep`]: what it does now and then; [`serve`]: what it answers; [`follow`]: how it follows leaders and
//!   the metadata; [`alter`]: how it tells the controller of replicas in sync.
//! - [`producer`], [`consumer`], [`groups`]: clients; [`history`]: what they were told.
//! - [`nemesis`]: what goes wrong; [`driver`]: from the beginning to the end.
//! - the properties: [`acknowledged`], [`agreement`], [`leaders`], [`reads`], [`idempotence`],
//!   [`offsets`], [`retention`], [`leftovers`], [`healing`]; of the controller those of its own scenario.

pub mod acknowledged;
pub mod agreement;
pub mod healing;
pub mod history;
pub mod idempotence;
pub mod leaders;
pub mod leftovers;
pub mod offsets;
pub mod reads;
pub mod retention;

mod alter;
mod asking;
mod consumer;
mod controller;
mod driver;
mod follow;
mod groups;
mod long;
mod nemesis;
mod node;
mod plan;
mod producer;
mod serve;
mod source;
mod upkeep;
mod view;
mod whole;
mod world;

#[cfg(test)]
mod tests;

pub use self::long::{DAY, WEEKS};
use self::plan::Size;
pub use self::whole::SCENARIO as WHOLE;
use super::{Run, Scenario, Violation, quorum};

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
    /// Records go when half of the time or half of the bytes that topics keep are over.
    RetentionTooSoon,
    /// Retention and compaction do nothing.
    NothingExpires,
    /// A controller answers that in-sync replicas are changed before Raft has committed it.
    AnswersEarly,
    /// A broker goes on following the controller that it followed first.
    FaithfulObservers,
    /// One of the controllers'.
    Controllers(quorum::Flaw),
}

impl Flaw {
    /// What the controllers make of it.
    fn of_quorum(self) -> quorum::Flaw {
        match self {
            Flaw::Controllers(flaw) => flaw,
            _ => quorum::Flaw::None,
        }
    }
}

fn run(run: &Run) -> Result<(), Violation> {
    driver::drive(run, Flaw::None, Size::Brokers)
}
