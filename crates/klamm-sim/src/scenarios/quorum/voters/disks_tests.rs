//! What a controller does that has lost its disk, or is left alone.

use std::time::Duration;

use klamm_controller::Controller;
use klamm_protocol::ErrorCode;

use super::super::super::Run;
use super::super::Flaw;
use super::super::driver::describe_voters;
use super::super::node::directory_id;
use super::super::plan::{Dynamic, Plan};
use super::super::world::World;
use super::operator::{addition, quota, removal};

const LIMIT: Duration = Duration::from_secs(600);
/// More than go in one message.
const ENTRIES: usize = 300;

/// Controllers on a network that is whole, the first of which votes.
fn world(seed: u64, controllers: i32) -> World {
    let run = Run::new(seed);
    let rng = run.rng.fork("voters");
    let dynamic = Dynamic {
        initial: vec![1],
        auto_join: false,
    };
    let plan = Plan {
        dynamic: Some(dynamic),
        snapshot_bytes: u64::MAX,
        ..Plan::of(&rng, Flaw::None, (1..=controllers).collect(), Vec::new())
    };
    World::of(&run, rng, plan, Flaw::None).unwrap()
}

/// Plays, and ends all.
fn play(world: &World, play: impl Future<Output = ()> + Send + 'static) {
    world.executor.block_on(LIMIT, play).unwrap();
    world.executor.shut_down();
    for node in world.nodes.values() {
        node.die(world, false);
    }
    assert_eq!(world.known().violation, None);
}

async fn until<T>(world: &World, test: impl Fn() -> Option<T>) -> T {
    loop {
        if let Some(found) = test() {
            return found;
        }
        world.executor.sleep(Duration::from_micros(100)).await;
    }
}

/// The one that decides.
async fn decider(world: &World) -> Controller {
    let running = || world.nodes.values().filter_map(|node| node.controller());
    until(world, || running().find(Controller::is_active)).await
}

async fn start_all(world: &World) {
    for node in world.nodes.values() {
        node.start(world);
    }
    for id in world.nodes.keys() {
        until(world, || {
            world.controller(*id).filter(|it| it.image().offset() > 0)
        })
        .await;
    }
}

#[test]
fn a_new_disk_does_not_stand_for_the_one_that_was_lost() {
    for seed in 0..5 {
        let at = world(seed, 3);
        let world = at.clone();
        play(&at, async move {
            start_all(&world).await;
            let first = decider(&world).await;
            for id in [2, 3] {
                let key = (id, world.nodes[&id].directory_id());
                first.add_raft_voter(&addition(key, 5_000)).await.unwrap();
            }
            for count in 0..ENTRIES {
                let user = format!("user-{count}");
                first.alter_client_quotas(quota(&user)).await.unwrap();
            }
            let own = (1, world.nodes[&1].directory_id());
            first.remove_raft_voter(&removal(own)).await.unwrap();
            drop(first);
            until(&world, || {
                let others = [2, 3].map(|id| world.controller(id).unwrap());
                others.iter().any(Controller::is_active).then_some(())
            })
            .await;
            let node = &world.nodes[&1];
            node.lose_disk(&world);
            node.start(&world);
            // It has got the beginning of the log, where it is alone.
            until(&world, || {
                world.controller(1).filter(|it| it.image().offset() > 0)
            })
            .await;
            for other in [2, 3] {
                world.net.cut(1, other, true);
            }
            let behind = world.controller(1).unwrap();
            assert!(behind.image().offset() < ENTRIES as i64 / 2, "seed {seed}");
            for _ in 0..100 {
                world.sleep_ms(100).await;
                assert!(!behind.is_active(), "seed {seed}");
            }
            world.net.mend();
            until(&world, || {
                let end = world.controller(2)?.image().offset();
                (behind.image().offset() >= end).then_some(())
            })
            .await;
        });
    }
}

#[test]
fn the_only_voter_decides_whoever_follows() {
    let at = world(0, 2);
    let world = at.clone();
    play(&at, async move {
        start_all(&world).await;
        world.nodes[&2].die(&world, false);
        for _ in 0..100 {
            world.sleep_ms(100).await;
            assert!(world.controller(1).unwrap().is_active());
        }
    });
}

#[test]
fn a_disk_that_is_lost_does_not_count_as_one_that_has_all() {
    for seed in 0..5 {
        let at = world(seed, 2);
        let world = at.clone();
        play(&at, async move {
            start_all(&world).await;
            let first = decider(&world).await;
            let lost = (2, world.nodes[&2].directory_id());
            until(&world, || {
                let end = first.image().offset();
                world.controller(2).filter(|it| it.image().offset() == end)
            })
            .await;
            // All that it had is known to the one that decides.
            world.sleep_ms(1_000).await;
            world.nodes[&2].lose_disk(&world);
            let added = first.add_raft_voter(&addition(lost, 5_000)).await;
            assert_eq!(
                added.unwrap_err().code,
                ErrorCode::RequestTimedOut,
                "seed {seed}"
            );
            assert_eq!(describe_voters(&first).len(), 1, "seed {seed}");
        });
    }
}

#[test]
fn a_leader_without_a_vote_does_not_let_a_wrong_directory_in() {
    for seed in 0..5 {
        let at = world(seed, 2);
        let world = at.clone();
        play(&at, async move {
            start_all(&world).await;
            let first = decider(&world).await;
            let key = (2, world.nodes[&2].directory_id());
            first.add_raft_voter(&addition(key, 5_000)).await.unwrap();
            let own = (1, world.nodes[&1].directory_id());
            first.remove_raft_voter(&removal(own)).await.unwrap();
            // It hands the lead over, but has it yet.
            assert!(first.is_active(), "seed {seed}");
            let nowhere = (1, directory_id(1, 9));
            let added = first.add_raft_voter(&addition(nowhere, 5_000)).await;
            assert_eq!(
                added.unwrap_err().code,
                ErrorCode::NotController,
                "seed {seed}"
            );
            for _ in 0..100 {
                world.sleep_ms(100).await;
                let voters = describe_voters(&world.controller(2).unwrap());
                assert_ne!(voters.get(&1), Some(&nowhere.1), "seed {seed}");
            }
        });
    }
}
