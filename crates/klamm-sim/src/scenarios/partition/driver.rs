use std::time::Duration;

use super::super::{Run, Violation};
use super::world::{BROKERS, Flaw, World};
use super::{committed, healing, matching, reads, watermark};

const STEPS: usize = 400;
const HEALING_ROUNDS: usize = 60;

/// Lets a seed decide what happens, then lets it heal.
pub(super) fn drive(run: &Run, flaw: Flaw) -> Result<(), Violation> {
    let mut world = World::new(
        run.rng.fork("partition"),
        run.clock.clone(),
        run.trace.clone(),
        flaw,
    );
    // How bad the network is, differs from run to run.
    let loss = [0, 20_000, 200_000][world.rng.index(3)];
    for _ in 0..STEPS {
        step(&mut world, loss);
        check(&world)?;
    }
    for _ in 0..HEALING_ROUNDS {
        heal(&mut world);
        check(&world)?;
    }
    healing::check(&world)
}

fn check(world: &World) -> Result<(), Violation> {
    reads::check(world)?;
    committed::check(world)?;
    watermark::check(world)?;
    matching::check(world)
}

fn step(world: &mut World, loss: u32) {
    let id = BROKERS[world.rng.index(BROKERS.len())];
    match world.rng.index(100) {
        0..14 => world.produce(id),
        14..36 => {
            let give_up = world.rng.one_in(8);
            world.fetch(id, give_up);
        }
        36..66 => deliver_one(world, loss),
        66..80 => world.hear_news(id),
        80..84 => world.check_lag(id),
        84..90 => world
            .clock
            .advance(Duration::from_millis(world.rng.index(400) as u64)),
        90..92 => world.checkpoint(id),
        92 => world.kill(id),
        93..95 => {
            // A session can end though the broker lives, and goes on believing that it leads.
            if !world.brokers[&id].up || world.rng.one_in(4) {
                world.controller.fence(id);
                world.publish();
            }
        }
        95..98 => {
            world.restart(id);
            unfence(world, id);
        }
        _ => {
            world.controller.elect(Some(id));
            world.publish();
        }
    }
    world.maybe_elect_uncleanly();
}

fn unfence(world: &mut World, id: i32) {
    if world.brokers[&id].up && !world.controller.is_alive(id) {
        world.controller.unfence(id);
        world.publish();
    }
}

fn deliver_one(world: &mut World, loss: u32) {
    if world.messages.is_empty() {
        return;
    }
    let index = world.rng.index(world.messages.len());
    let message = world.messages.swap_remove(index);
    if world.rng.chance(loss) {
        world.note("a message is lost");
        world.lose(message);
    } else {
        world.deliver(message);
    }
}

/// A round in which all goes well.
fn heal(world: &mut World) {
    world.clock.advance(Duration::from_millis(50));
    for id in BROKERS {
        if !world.brokers[&id].up {
            if world.controller.is_alive(id) {
                world.controller.fence(id);
                world.publish();
            }
            world.restart(id);
        }
        unfence(world, id);
        for _ in 0..50 {
            world.hear_news(id);
        }
        world.fetch(id, true);
        world.check_lag(id);
    }
    while !world.messages.is_empty() {
        let message = world.messages.remove(0);
        world.deliver(message);
        if world.messages.len() > 100 {
            break;
        }
    }
}
