//! From the first voters to the last.

use klamm_env::Rng as _;
use tokio::sync::oneshot;

use super::super::super::{Run, Violation};
use super::super::driver::{self, describe, describe_voters};
use super::super::nemesis::Nemesis;
use super::super::plan::Plan;
use super::super::world::World;
use super::super::{Flaw, healing};
use super::deposed::Deposed;
use super::operator::Operator;

/// Lets a seed decide what happens.
pub(super) fn drive(run: &Run, flaw: Flaw) -> Result<(), Violation> {
    let rng = run.rng.fork("voters");
    let plan = Plan::with_voters_that_change(&rng, flaw);
    let world = World::of(run, rng, plan, flaw)?;
    driver::run_to_the_end(&world, play(world.clone()))
}

async fn play(world: World) -> Result<(), Violation> {
    driver::start_all(&world);
    world.sleep_ms(world.rng.below(3_000)).await;
    let nemesis = Nemesis::new(&world);
    let mut deposed = Deposed::default();
    world.net.set_faults(world.plan.faults);
    let (done, operator) = oneshot::channel();
    let operates = Operator::new(&world).run();
    world.executor.spawn("operator", async move {
        let _ = done.send(operates.await);
    });
    let end = world.now() + world.plan.trouble;
    while world.now() < end {
        world.sleep_ms(20 + world.rng.below(900)).await;
        nemesis.strike();
        inspect(&world, &mut deposed)?;
    }
    nemesis.relent();
    world.calm();
    let (done, mut settled) = oneshot::channel();
    let in_peace = world.clone();
    world.executor.spawn("operator", async move {
        if let Ok(operator) = operator.await {
            let settled = operator.settle().await;
            in_peace.note(format_args!("the operator is done: {settled:?}"));
            let _ = done.send(settled);
        }
    });
    // The operator gives up by itself.
    loop {
        world.sleep_ms(300).await;
        nemesis.relent();
        inspect(&world, &mut deposed)?;
        match settled.try_recv() {
            Ok(settled) => {
                settled.map_err(|detail| Violation::new("healing", detail))?;
                break;
            }
            Err(oneshot::error::TryRecvError::Empty) => {}
            Err(oneshot::error::TryRecvError::Closed) => {
                return Err(Violation::new("healing", "there is no operator any more"));
            }
        }
    }
    let end = world.now() + world.plan.heal;
    loop {
        world.sleep_ms(300).await;
        nemesis.relent();
        inspect(&world, &mut deposed)?;
        let missing = healing::controllers(&world)
            .or_else(|| healing::brokers(&world))
            .or_else(|| votes(&world));
        match missing {
            None => break,
            Some(missing) if world.now() > end => {
                return Err(Violation::new("healing", missing));
            }
            Some(_) => {}
        }
    }
    driver::check_the_end(&world)?;
    let known = world.known();
    world.note(format_args!(
        "{:?} steps, answers {:?}",
        known.sets.steps()?.len(),
        known.changes.answers
    ));
    Ok(())
}

/// The same as in `quorum`, and what is said of voters.
fn inspect(world: &World, deposed: &mut Deposed) -> Result<(), Violation> {
    driver::inspect(world)?;
    let known = world.known();
    known.changes.check(&known.sets, world.makes_voters())?;
    let Some(voters) = known.sets.last() else {
        return Ok(());
    };
    for node in world.nodes.values() {
        let controller = node.controller();
        let decides = controller.is_some_and(|controller| controller.is_active());
        let votes = voters.get(&node.id) == Some(&node.directory_id());
        deposed.check(node.id, decides && !votes, world.now())?;
    }
    Ok(())
}

/// What is missing until all controllers vote as the log says.
fn votes(world: &World) -> Option<String> {
    let known = world.known();
    let Some(voters) = known.sets.last() else {
        return Some("nobody has read who votes".to_owned());
    };
    for (id, directory_id) in voters {
        let node = world.nodes.get(id);
        if node.is_none_or(|node| node.directory_id() != *directory_id) {
            return Some(format!("{id} votes with a disk that it has not got"));
        }
    }
    for id in &world.plan.controllers {
        let controller = world.controller(*id)?;
        let has = describe_voters(&controller);
        if has != *voters {
            return Some(format!(
                "{id} has {has:?} as voters, and the log {voters:?}"
            ));
        }
        let leader = describe(&controller).map(|(leader, _)| leader);
        if leader.is_none_or(|leader| !voters.contains_key(&leader)) {
            return Some(format!("{leader:?} leads and does not vote"));
        }
    }
    None
}
