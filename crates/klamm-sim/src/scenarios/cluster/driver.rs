//! From the first broker's start to the last record read.

use std::time::Duration;

use klamm_env::Rng as _;

use super::super::{Run, Violation};
use super::controller::Controller;
use super::groups::Group;
use super::nemesis::Nemesis;
use super::plan::Size;
use super::producer::Kind;
use super::view::View;
use super::world::{CONTROLLER, World};
use super::{
    Flaw, acknowledged, agreement, asking, consumer, healing, idempotence, long, producer,
    retention, whole,
};
use crate::Stalled;

/// Longer than any run takes, beside the life of a cluster that lives for long.
const LIMIT: Duration = Duration::from_secs(3_600);

/// Lets a seed decide what happens.
pub(super) fn drive(run: &Run, flaw: Flaw, size: Size) -> Result<(), Violation> {
    let world = World::new(run, flaw, size)?;
    let long = world.plan.long;
    let life = long.map_or(Duration::ZERO, |long| long.life * 2 + long::REST_MAX);
    let limit = LIMIT + life;
    let played = world.executor.block_on(limit, play(world.clone()));
    // Tasks, controllers and the world own each other.
    world.executor.shut_down();
    for node in world.nodes.values() {
        node.die(&world, false);
    }
    if let Some(quorum) = world.quorum() {
        for controller in quorum.nodes.values() {
            controller.die(quorum, false);
        }
    }
    played.unwrap_or_else(|stalled: Stalled| {
        Err(Violation::new(
            "healing",
            format!("it stalled: {stalled:?}"),
        ))
    })
}

async fn play(world: World) -> Result<(), Violation> {
    start(&world).await?;
    let nemesis = Nemesis::new(&world);
    match world.plan.long {
        Some(long) => long::live(&world, &nemesis, &long).await?,
        None => trouble(&world, &nemesis).await?,
    }
    nemesis.relent()?;
    world.calm();
    heal(&world, &nemesis).await?;
    let history = world.history();
    world.note(format_args!(
        "{} records were sent, {} acknowledged, offsets of {} groups",
        history.sent,
        history.told,
        history.commits.groups()
    ));
    Ok(())
}

/// A minute in which one thing after the other goes wrong.
async fn trouble(world: &World, nemesis: &Nemesis) -> Result<(), Violation> {
    world.net.set_faults(world.plan.faults);
    let end = world.now_ms() + world.plan.trouble.as_millis() as i64;
    let mut next_look = world.now_ms();
    while world.now_ms() < end {
        world.sleep_ms(30 + world.rng.below(900)).await;
        nemesis.strike()?;
        if world.now_ms() >= next_look {
            next_look = world.now_ms() + 1_000;
            inspect(world)?;
        }
    }
    Ok(())
}

/// Waits until all is well again.
pub(super) async fn heal(world: &World, nemesis: &Nemesis) -> Result<(), Violation> {
    let end = world.now_ms() + world.plan.timing.heal.as_millis() as i64;
    loop {
        world.sleep_ms(500).await;
        // Who was about to leave in order has left by now.
        nemesis.relent()?;
        let view = inspect(world)?;
        match healing::missing(world, &view) {
            None => return Ok(()),
            Some(missing) if world.now_ms() > end => {
                return Err(Violation::new("healing", missing));
            }
            Some(_) => {}
        }
    }
}

/// Starts controllers and brokers, and makes the topics.
async fn start_nodes(world: &World) -> Result<(), Violation> {
    match world.quorum() {
        Some(quorum) if !world.plan.combined => {
            for controller in quorum.nodes.values() {
                controller.start(quorum);
            }
        }
        Some(_) => {}
        None => start_plain_controller(world),
    }
    for node in world.nodes.values() {
        node.start(world)?;
    }
    for _ in 0..300 {
        world.sleep_ms(100).await;
        if world.truth().cluster().alive_brokers().count() == world.plan.brokers.len() {
            break;
        }
    }
    for topic in world.plan.topics.iter().chain(&world.plan.offsets) {
        asking::administer(world, topic.request()).await;
        while world.truth().topic(&topic.name).is_none() {
            world.sleep_ms(100).await;
            asking::administer(world, topic.request()).await;
        }
    }
    Ok(())
}

fn start_plain_controller(world: &World) {
    let controller = world.executor.new_process();
    world.net.listen(CONTROLLER, controller);
    let expiring = world.clone();
    world.executor.spawn_in(controller, "sessions", async move {
        for round in 0_u64.. {
            expiring.sleep_ms(100).await;
            expiring.control(Controller::expire);
            if round.is_multiple_of(20) {
                expiring.control(Controller::elect_leaderless);
            }
        }
    });
}

async fn start(world: &World) -> Result<(), Violation> {
    start_nodes(world).await?;
    if world.quorum().is_some() {
        let administrating = whole::administrate(world.clone());
        world.executor.spawn("administrator", administrating);
        for id in 0..3 {
            let committing = Group::new(world, id).run();
            world.executor.spawn(format!("group {id}"), committing);
        }
    }
    let partitions = world.partitions();
    let (unclean, clean): (Vec<_>, Vec<_>) = partitions
        .into_iter()
        .partition(|partition| world.is_unclean(partition));
    let kinds = [
        Kind::Idempotent,
        Kind::Idempotent,
        Kind::Idempotent,
        Kind::All,
        Kind::One,
    ];
    for (index, kind) in kinds.iter().copied().enumerate() {
        let partition = clean[index % clean.len()].clone();
        let producing = producer::produce(world.clone(), index as i64, kind, partition);
        world.executor.spawn(format!("producer {index}"), producing);
    }
    for (index, partition) in (kinds.len()..).zip(unclean) {
        let producing = producer::produce(world.clone(), index as i64, Kind::One, partition);
        world.executor.spawn(format!("producer {index}"), producing);
    }
    for id in 0..2 {
        let consuming = consumer::consume(world.clone(), id);
        world.executor.spawn(format!("consumer {id}"), consuming);
    }
    Ok(())
}

/// Looks at all that is, and holds it against the properties.
pub(super) fn inspect(world: &World) -> Result<View, Violation> {
    if let Some(violation) = world.history().violation.take() {
        return Err(violation);
    }
    // A mistake in the controllers is to be seen at what brokers do.
    if !matches!(world.flaw, Flaw::Controllers(_)) {
        whole::inspect(world)?;
    }
    let view = View::take(world)?;
    let image = world.truth();
    let mut history = world.history();
    for (partition, replicas) in &view.0 {
        let known = image.partition(&partition.topic, partition.partition);
        let Some((known, leader)) = known.zip(view.leader_by(&image, partition)) else {
            continue;
        };
        acknowledged::check(&history, partition, leader)?;
        if let Some(topic) = world.topic(&partition.topic) {
            let (plan, now_ms) = (&world.plan, world.now_ms());
            retention::check(plan, topic.keeping, &history, partition, leader, now_ms)?;
        }
        idempotence::check(&history.idempotent, partition, leader)?;
        let is_registered = |replica: &super::view::Replica| {
            let registered = image.broker(replica.broker);
            registered.is_some_and(|broker| broker.epoch == replica.broker_epoch)
        };
        // After an unclean election others may hold what is no longer true.
        let counts = |replica: &&super::view::Replica| {
            !world.is_unclean(partition) || known.isr.contains(&replica.broker)
        };
        let replicas = replicas.values().filter(counts);
        agreement::check(partition, known, leader, replicas, &is_registered)?;
        history.forget_gone(partition, leader);
    }
    drop(history);
    Ok(view)
}
