//! How long nobody decides when the controller that does is gone, and how one goes that is left alone.

use std::time::Duration;

use super::super::Run;
use super::Flaw;
use super::plan::Plan;
use super::voters::quota;
use super::world::{Pace, World};
use crate::{Executor, Network};

/// How long a leader may be silent.
const SILENCE: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_secs(600);

/// Three controllers on a network that is whole.
fn world(seed: u64) -> World {
    let run = Run::new(seed);
    let rng = run.rng.fork("quorum");
    let plan = Plan {
        election: SILENCE,
        ..Plan::of(&rng, Flaw::None, vec![1, 2, 3], Vec::new())
    };
    let executor = Executor::new(
        run.rng.fork("executor"),
        run.clock.clone(),
        run.trace.clone(),
    );
    let net = Network::new(executor.clone(), run.rng.fork("network"), run.trace.clone());
    World::within(
        &run,
        (rng, plan, Flaw::None),
        executor,
        net,
        Pace::default(),
    )
    .unwrap()
}

/// Has something happen to the controller that decides, and says how long it takes until another one
/// does.
fn until_another_decides(seed: u64, ends: impl Fn(&World, i32) + Send + 'static) -> Duration {
    let world = world(seed);
    let at = world.clone();
    let played = world.executor.block_on(LIMIT, async move {
        for node in at.nodes.values() {
            node.start(&at);
        }
        let first = decider(&at, 0).await;
        // All have heard of it, and of each other.
        at.sleep_ms(3_000).await;
        let begun = at.now();
        ends(&at, first);
        decider(&at, first).await;
        at.now() - begun
    });
    world.executor.shut_down();
    for node in world.nodes.values() {
        node.die(&world, false);
    }
    played.unwrap()
}

/// Waits until somebody else than `but` decides, and has somebody who follows.
async fn decider(world: &World, but: i32) -> i32 {
    loop {
        world.sleep_ms(10).await;
        let running = || world.nodes.values().filter_map(|node| node.controller());
        let active = running().find(|it| it.is_active() && it.node_id() != but);
        if let Some(active) = active {
            let id = active.node_id();
            if running().filter(|it| it.leader() == Some(id)).count() > 1 {
                return id;
            }
        }
    }
}

#[test]
fn a_controller_whose_process_ends_is_followed_by_another_at_once() {
    for seed in 0..20 {
        let took = until_another_decides(seed, |world, id| world.nodes[&id].die(world, false));
        assert!(took < SILENCE / 4, "seed {seed}: {took:?}");
    }
}

#[test]
fn a_controller_that_falls_silent_is_followed_by_another_after_as_long_as_was_said() {
    for seed in 0..20 {
        let took = until_another_decides(seed, |world, id| {
            for other in (1..=3).filter(|other| *other != id) {
                world.net.cut(id, other, true);
            }
        });
        // It counts from the last sign of life; who stands is spread over a quarter more.
        assert!(took > SILENCE / 2, "seed {seed}: {took:?}");
        assert!(took < SILENCE * 3 / 2, "seed {seed}: {took:?}");
    }
}

#[test]
fn a_controller_that_is_left_alone_stops_without_waiting_for_the_others() {
    for seed in 0..5 {
        let world = world(seed);
        let at = world.clone();
        let played = world.executor.block_on(LIMIT, async move {
            for node in at.nodes.values() {
                node.start(&at);
            }
            let id = decider(&at, 0).await;
            for other in (1..=3).filter(|other| *other != id) {
                at.net.cut(id, other, true);
            }
            let controller = at.nodes[&id].controller().unwrap();
            let asked = controller.clone();
            let (answered, answer) = tokio::sync::oneshot::channel();
            at.executor.spawn("client", async move {
                let _ = answered.send(asked.alter_client_quotas(quota("alone")).await);
            });
            at.sleep_ms(10).await;
            let begun = at.now();
            controller.shutdown().await.unwrap();
            // Who asked knows that it has to ask again.
            assert!(answer.await.unwrap().is_err());
            at.now() - begun
        });
        world.executor.shut_down();
        for node in world.nodes.values() {
            node.die(&world, false);
        }
        let took = played.unwrap();
        assert!(took < SILENCE * 2, "seed {seed}: {took:?}");
    }
}
