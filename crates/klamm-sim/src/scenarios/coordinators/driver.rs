//! From the brokers' start to the last look.

use std::time::Duration;

use klamm_env::Rng as _;

use super::super::{Run, Violation};
use super::nemesis::Nemesis;
use super::plan::Work;
use super::world::World;
use super::{Flaw, groups, shares, transactions};
use crate::Stalled;

/// Longer than any run takes.
const LIMIT: Duration = Duration::from_secs(3_600);
/// How long it may take until all is well again.
const HEALS_MS: i64 = 90_000;

/// Lets a seed decide what happens.
pub(super) fn drive(run: &Run, work: Work, flaw: Flaw) -> Result<(), Violation> {
    let world = World::new(run, work, flaw)?;
    let played = world.executor.block_on(LIMIT, play(world.clone()));
    // Tasks and the world own each other.
    world.end();
    played.unwrap_or_else(|stalled: Stalled| {
        let detail = format!("it stalled: {stalled:?}");
        Err(Violation::new("healing", detail))
    })
}

async fn play(world: World) -> Result<(), Violation> {
    for node in world.nodes.values() {
        node.start(&world);
    }
    world.sleep_ms(50).await;
    match world.plan.work {
        Work::Groups | Work::Streams => groups::start(&world),
        Work::Transactions => transactions::start(&world),
        Work::Shares => shares::start(&world),
    }
    world.net.set_faults(world.plan.net);
    let mut nemesis = Nemesis::new(&world);
    let end = world.now_ms() + world.plan.lasts.as_millis() as i64;
    while world.now_ms() < end {
        world
            .sleep_ms(5 + world.rng.below(world.plan.every_ms))
            .await;
        nemesis.strike()?;
        look(&world)?;
    }
    nemesis.relent()?;
    let end = world.now_ms() + HEALS_MS;
    loop {
        world.sleep_ms(500).await;
        nemesis.relent()?;
        look(&world)?;
        let missing = match world.plan.work {
            Work::Groups | Work::Streams => groups::missing(&world),
            Work::Transactions => transactions::missing(&world),
            Work::Shares => shares::missing(&world),
        };
        match missing {
            None => break,
            Some(missing) if world.now_ms() > end => {
                return Err(Violation::new("healing", missing));
            }
            Some(_) => {}
        }
    }
    match world.plan.work {
        Work::Groups | Work::Streams => groups::last_look(&world).await,
        Work::Transactions => transactions::last_look(&world).await,
        Work::Shares => shares::last_look(&world),
    }
}

/// What can be seen at any time.
fn look(world: &World) -> Result<(), Violation> {
    world.violation()?;
    for partition in world.partitions.values() {
        partition.stable()?;
    }
    match world.plan.work {
        Work::Groups | Work::Streams => Ok(()),
        Work::Transactions => transactions::visible::look(world),
        Work::Shares => shares::last_look(world),
    }
}
