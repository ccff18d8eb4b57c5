//! The whole cluster: the same brokers under controllers as in production, one or three, on their
//! machines or on their own. What the scenario `quorum` checks holds, too.

use klamm_env::{Clock as _, Rng as _};
use klamm_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use klamm_protocol::messages::{AllocateProducerIdsRequest, AlterClientQuotasRequest};

use super::super::quorum::{self, promises::QUOTA};
use super::super::{Run, Scenario, Violation};
use super::Flaw;
use super::asking;
use super::driver;
use super::node::{Broker, Node};
use super::plan::Size;
use super::world::World;
use crate::{Address, SimRng};

/// The scenario.
pub const SCENARIO: Scenario = Scenario {
    name: "whole",
    about: "brokers that replicate under a quorum of controllers, all of which fail",
    run,
};

fn run(run: &Run) -> Result<(), Violation> {
    driver::drive(run, Flaw::None, Size::Whole)
}

/// What goes wrong with controllers.
pub(super) struct Nemesis {
    world: World,
    rng: SimRng,
    controllers: quorum::Nemesis,
}

impl Nemesis {
    pub(super) fn new(world: &World) -> Option<Nemesis> {
        Some(Nemesis {
            controllers: quorum::Nemesis::new(world.quorum()?),
            rng: world.rng.fork("controllers"),
            world: world.clone(),
        })
    }

    /// Whether it is the turn of controllers: then one thing goes wrong with one, or gets better.
    /// Returns for how long nothing should be mended.
    pub(super) fn strike(&self) -> Option<u64> {
        if !self.rng.one_in(3) {
            return None;
        }
        if self.rng.one_in(4) {
            return Some(self.isolate());
        }
        // What shares a machine with a broker dies with it.
        self.controllers
            .strike_controller(!self.world.plan.combined);
        Some(0)
    }

    pub(super) fn relent(&self) {
        self.controllers.relent();
    }

    /// The controller that decides and a broker, that of its machine if there is one, are cut off
    /// from all other nodes, but not from clients. Returns for how long.
    fn isolate(&self) -> u64 {
        let world = &self.world;
        let Some(decider) = decider(world) else {
            return 0;
        };
        let beside = world.plan.broker_beside(decider);
        let Some(broker) = beside.or_else(|| self.rng.pick(&world.plan.brokers).copied()) else {
            return 0;
        };
        world.note(format_args!("{decider} and {broker} are alone"));
        let nodes = world.plan.brokers.iter().chain(world.controllers());
        for &other in nodes.filter(|other| ![decider, broker].contains(other)) {
            world.net.cut(decider, other, true);
            world.net.cut(broker, other, true);
        }
        2_000 + self.rng.below(8_000)
    }
}

/// The controller that decides, or believes so.
fn decider(world: &World) -> Option<Address> {
    let quorum = world.quorum()?;
    let decides = |id: &&Address| quorum.controller(**id).is_some_and(|it| it.is_active());
    world.controllers().iter().find(decides).copied()
}

/// A change of in-sync replicas has come to the controller that decides: now and then it loses its
/// lead in the middle of it.
pub(super) fn ambush(world: &World, controller: Address) {
    let rng = &world.rng;
    if world.is_calm() || !rng.one_in(12) {
        return;
    }
    let Some(quorum) = world.quorum() else {
        return;
    };
    world.note(format_args!("{controller} is ambushed"));
    let others = world.controllers().iter();
    let others: Vec<Address> = others.copied().filter(|id| *id != controller).collect();
    for &other in &others {
        world.net.cut(controller, other, true);
    }
    let dies = !world.plan.combined && (others.is_empty() || rng.one_in(2));
    if let Some(node) = quorum.nodes.get(&controller).filter(|_| dies) {
        node.die(quorum, rng.one_in(2));
    }
    let (world, ms) = (world.clone(), 100 + rng.below(3_000));
    world.clone().executor.spawn("nemesis", async move {
        world.sleep_ms(ms).await;
        for &other in &others {
            world.net.splice(controller, other);
        }
        if let (true, Some(quorum)) = (dies, world.quorum())
            && let Some(node) = quorum.nodes.get(&controller)
        {
            node.start(quorum);
        }
    });
}

/// An administrator who sets quotas, each once, so that what was answered must stay.
pub(super) async fn administrate(world: World) {
    for count in 0_u64.. {
        world.sleep_ms(200 + world.rng.below(1_500)).await;
        if !world.at_work().await {
            return;
        }
        if world.plan.long.is_some() && !world.rng.one_in(20) {
            continue;
        }
        let (user, value) = (format!("user-{count}"), 1.0 + world.rng.below(1_000) as f64);
        let request = AlterClientQuotasRequest {
            entries: vec![EntryData {
                entity: vec![EntityData {
                    entity_type: "user".into(),
                    entity_name: Some(user.as_str().into()),
                    ..EntityData::default()
                }],
                ops: vec![OpData {
                    key: QUOTA.into(),
                    value,
                    ..OpData::default()
                }],
                ..EntryData::default()
            }],
            ..AlterClientQuotasRequest::default()
        };
        let reply = asking::administer(&world, request).await;
        let is_set = reply.is_some_and(|reply| reply.entries.iter().all(|it| it.error_code == 0));
        if let Some(quorum) = world.quorum().filter(|_| is_set) {
            quorum.known().promises.quota(&user, value);
        }
    }
}

/// A broker that asks for producer ids now and then.
pub(super) async fn producer_ids(world: World, broker: Broker) {
    let limit = world.plan.timing.request;
    while world.at_work().await {
        world.sleep_ms(500 + broker.rng.below(3_000)).await;
        if world.plan.long.is_some() && !broker.rng.one_in(20) {
            continue;
        }
        let request = AllocateProducerIdsRequest {
            broker_id: broker.id,
            broker_epoch: broker.epoch(),
            ..AllocateProducerIdsRequest::default()
        };
        let asked = world.clock.monotonic();
        let reply = asking::ask(&world, &broker, request, limit).await;
        if let (Some(quorum), Ok(reply)) = (world.quorum(), reply) {
            let (first, now) = (reply.producer_id_start, world.clock.monotonic());
            let mut known = quorum.known();
            let checked = known.promises.block(first, asked, now);
            known.check(checked);
        }
    }
}

/// Holds the controllers against their properties.
pub(super) fn inspect(world: &World) -> Result<(), Violation> {
    world.quorum().map_or(Ok(()), quorum::inspect)
}

/// What is missing with controllers and what they told; nothing once all is well.
pub(super) fn missing(world: &World) -> Option<String> {
    let quorum = world.quorum()?;
    let behind = |node: &Node| {
        let at = node.broker()?.image().offset();
        let end = world.truth().offset();
        (at != end).then(|| format!("broker {} is at {at} of {end}", node.id))
    };
    let brokers = || world.nodes.values().find_map(behind);
    quorum::healing::controllers(quorum).or_else(brokers)
}
