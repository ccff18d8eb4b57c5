//! The whole cluster for days: spells of work and trouble as in the scenario `whole`, each with
//! hours of rest after it, in which some of the trouble stays. So what is due only after a long time
//! comes: retention and compaction, producers and offsets that expire, snapshots of the metadata
//! and what is removed behind them. Topics are made and deleted.
//!
//! All times are longer than Kafka's defaults (as the plan says), as are the pauses in which one
//! thing after the other goes wrong, so that a day of it takes seconds.

use std::time::Duration;

use klamm_env::{Clock as _, Rng as _};
use klamm_protocol::messages::DeleteTopicsRequest;
use klamm_protocol::messages::delete_topics_request::DeleteTopicState;

use super::super::{Run, Scenario, Violation};
use super::nemesis::Nemesis;
use super::plan::{HOUR_MS, Keeping, Long, Size, Topic};
use super::producer::{self, Kind};
use super::world::{Tide, World};
use super::{Flaw, asking, driver};
use crate::NetFaults;

/// Half a day at most: the short form, for every run of the tests.
pub const DAY: Scenario = Scenario {
    name: "day",
    about: "a whole cluster for six to twelve hours, with rests between what goes wrong",
    run: |run: &Run| driver::drive(run, Flaw::None, Size::Long(6, 12)),
};

/// Weeks, which take minutes.
pub const WEEKS: Scenario = Scenario {
    name: "weeks",
    about: "a whole cluster for one to six weeks",
    run: |run: &Run| driver::drive(run, Flaw::None, Size::Long(168, 1_008)),
};

/// Topics that come and go, at most, at a time.
const PASSING_MAX: usize = 3;

/// How long the last rest may go on behind the end of the life.
pub(super) const REST_MAX: Duration = Duration::from_secs(60 * (256 + 512));

/// From the first spell to the last rest.
pub(super) async fn live(world: &World, nemesis: &Nemesis, long: &Long) -> Result<(), Violation> {
    let end = world.clock.monotonic() + long.life;
    let mut topics = 0;
    while world.clock.monotonic() < end {
        world.set_tide(Tide::Work);
        change_topics(world, &mut topics);
        spell(world, nemesis).await?;
        if world.rng.one_in(2) {
            world.set_tide(Tide::Settle);
            nemesis.relent()?;
            driver::heal(world, nemesis).await?;
            note_load(world);
        }
        world.set_tide(Tide::Rest);
        if world.rng.one_in(2) {
            world.net.set_faults(NetFaults::default());
        }
        // From a minute to half a day ([`REST_MAX`]), as often short as long.
        let minute_ms = 60_000_u64 << world.rng.below(9);
        let ms = minute_ms + world.rng.below(2 * minute_ms);
        world.executor.sleep(Duration::from_millis(ms)).await;
        driver::inspect(world)?;
    }
    Ok(())
}

/// Work, and one thing after the other that goes wrong, or nothing at all.
async fn spell(world: &World, nemesis: &Nemesis) -> Result<(), Violation> {
    let is_calm = world.rng.one_in(4);
    if !is_calm {
        world.net.set_faults(world.plan.faults);
    }
    for strike in 1..=5 + world.rng.below(40) {
        world.sleep_ms(30 + world.rng.below(900)).await;
        if !is_calm {
            nemesis.strike()?;
        }
        if strike % 16 == 0 {
            driver::inspect(world)?;
        }
    }
    driver::inspect(world).map(drop)
}

fn note_load(world: &World) {
    let (tasks, timers) = world.executor.load();
    let disks = world.nodes.values().map(|node| node.usage());
    let disks: Vec<_> = disks.collect();
    world.note(format_args!(
        "{tasks} tasks, {timers} timers, disks {disks:?}"
    ));
}

/// Has an administrator make a topic, or delete one.
fn change_topics(world: &World, made: &mut u64) {
    let passing: Vec<Topic> = {
        let topics = world.topics();
        topics
            .iter()
            .skip(world.plan.topics.len())
            .cloned()
            .collect()
    };
    let there = world.clone();
    match world.rng.index(4) {
        0 if passing.len() < PASSING_MAX => {
            *made += 1;
            let number = *made;
            world
                .executor
                .spawn("administrator", async move { make(&there, number).await });
        }
        1 => {
            if let Some(topic) = world.rng.pick(&passing).cloned() {
                world
                    .executor
                    .spawn("administrator", async move { delete(&there, &topic).await });
            }
        }
        _ => {}
    }
}

/// Makes a topic, and begins to write to it.
async fn make(world: &World, number: u64) {
    let keeping = [
        Keeping::All,
        Keeping::Age(2 * HOUR_MS),
        Keeping::Bytes(2 * i64::from(world.plan.segment_bytes)),
        Keeping::Compacted,
    ];
    let topic = Topic {
        name: format!("passing-{number}").into(),
        partitions: 1 + world.rng.index(2) as i32,
        keeping: keeping[world.rng.index(4)],
        ..world.plan.topics[1].clone()
    };
    while world.truth().topic(&topic.name).is_none() {
        asking::administer(world, topic.request()).await;
        world.sleep_ms(100).await;
    }
    let name = topic.name.clone();
    world.topics().push(topic);
    let partition = world.partitions().into_iter().find(|it| it.topic == name);
    if let Some(partition) = partition {
        let id = world.history().new_producer();
        let producing = producer::produce(world.clone(), id, Kind::Idempotent, partition);
        world.executor.spawn(format!("producer {id}"), producing);
    }
}

/// Deletes a topic.
async fn delete(world: &World, topic: &Topic) {
    world.topics().retain(|it| it.name != topic.name);
    while world.truth().topic(&topic.name).is_some() {
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: Some((&*topic.name).into()),
                ..DeleteTopicState::default()
            }],
            timeout_ms: 1_000,
            ..DeleteTopicsRequest::default()
        };
        asking::administer(world, request).await;
        world.sleep_ms(100).await;
    }
    world.history().forget_topic(&topic.name);
}
