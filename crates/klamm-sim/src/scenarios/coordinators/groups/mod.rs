//! Consumer groups: members of the classic protocol, of the consumer protocol, and of both in one
//! group, which moves up and down between them; and streams groups.
//!
//! - [`classic`], [`consumer`], [`streams`]: members, as Kafka's clients behave; [`client`]: what
//!   they share; `end`: what takes topics, groups and offsets away.
//! - [`ownership`], [`offsets`], [`generations`], [`roles`]: the properties, over what members were
//!   told.

pub(super) mod classic;
pub(super) mod client;
pub(super) mod consumer;
mod end;
pub(super) mod generations;
pub(super) mod offsets;
pub(super) mod ownership;
pub(super) mod roles;
pub(super) mod streams;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use klamm_env::Rng as _;
use klamm_protocol::topic_name;

use super::super::Violation;
use super::partition::Place;
use super::plan::{Speech, Work};
use super::world::World;
use crate::Process;
use client::Client;

/// The group.
pub(super) const GROUP: &str = "group";
/// The topic that comes and goes.
const SECOND: &str = "data-more";

/// Where it is coordinated.
pub(super) fn place() -> Place {
    World::place_of(topic_name::CONSUMER_OFFSETS, GROUP)
}

/// A client that runs.
#[derive(Clone, Debug)]
pub(super) struct Live {
    process: Process,
    pub(super) instance: Option<String>,
    paused: bool,
    /// It is to leave in order.
    leaving: Arc<AtomicBool>,
    /// When its last heartbeat was answered well.
    pub(super) well_ms: i64,
    /// Whether it has what it was told to have.
    pub(super) settled: bool,
}

/// What clients did and were told.
#[derive(Debug, Default)]
pub(super) struct History {
    next: usize,
    pub(super) live: BTreeMap<usize, Live>,
    pub(super) ownership: ownership::Ownership,
    pub(super) offsets: offsets::Offsets,
    pub(super) generations: generations::Generations,
    pub(super) roles: roles::Roles,
}

impl History {
    /// A client has come to its end.
    pub(super) fn over(&mut self, id: usize) {
        self.live.remove(&id);
        self.ownership.gone(id);
        self.roles.gone(id);
    }
}

/// A client comes.
pub(super) fn come(world: &World, instance: Option<String>) {
    // Streams groups have no static members.
    let instance = instance.filter(|_| world.plan.work != Work::Streams);
    let process = world.executor.new_process();
    let speech = match world.plan.speech {
        Speech::Mixed if world.rng.one_in(2) => Speech::Consumer,
        // All classic members of a group must agree on a way to rebalance.
        Speech::Mixed if world.plan.clients.is_multiple_of(2) => Speech::Eager,
        Speech::Mixed => Speech::Cooperative,
        speech => speech,
    };
    let leaving: Arc<AtomicBool> = Arc::default();
    let id = {
        let mut history = world.groups();
        history.next += 1;
        let id = history.next;
        let live = Live {
            process,
            instance: instance.clone(),
            paused: false,
            leaving: Arc::clone(&leaving),
            well_ms: -1,
            settled: false,
        };
        history.live.insert(id, live);
        id
    };
    world.note(format_args!("member {id} comes: {speech:?} {instance:?}"));
    let client = Client::new(world, id, instance, leaving);
    let name = format!("member {id}");
    match speech {
        Speech::Consumer => {
            world
                .executor
                .spawn_in(process, name, consumer::consume(client));
        }
        Speech::Streams => {
            let working = streams::work(client);
            world.executor.spawn_in(process, name, working);
        }
        speech => {
            let cooperative = speech == Speech::Cooperative;
            let consuming = classic::consume(client, cooperative);
            world.executor.spawn_in(process, name, consuming);
        }
    }
}

pub(super) fn start(world: &World) {
    world.groups().offsets.keep_for(world.plan.retention_ms);
    for number in 0..world.plan.clients {
        let named = number % 4 == 3;
        come(world, named.then(|| format!("static-{number}")));
    }
}

/// Something happens to a client.
pub(super) fn strike(world: &World) {
    let live: Vec<(usize, Live)> = {
        let history = world.groups();
        let live = history.live.iter();
        live.map(|(id, live)| (*id, live.clone())).collect()
    };
    let Some((id, one)) = world.rng.pick(&live).cloned() else {
        if world.plan.deletes && world.rng.one_in(2) {
            end::delete_group(world);
        }
        return come(world, None);
    };
    match world.rng.below(10) {
        0..2 if live.len() < world.plan.clients + 2 => {
            let named = world.rng.one_in(3);
            come(
                world,
                named.then(|| format!("static-{}", world.rng.below(3))),
            );
        }
        2 => vanish(world, id, &one),
        3 => {
            // The machine starts anew, under its name if it has one.
            vanish(world, id, &one);
            come(world, one.instance);
        }
        4 => one.leaving.store(true, Ordering::SeqCst),
        5..7 => pause(world, id, !one.paused),
        7 if world.plan.second_topic => end::toggle_topic(world),
        8 if world.plan.deletes && world.rng.one_in(3) => leave_all(world),
        9 if world.plan.deletes => end::delete_group(world),
        _ => {}
    }
}

fn leave_all(world: &World) {
    world.note("all are to leave");
    for live in world.groups().live.values() {
        live.leaving.store(true, Ordering::SeqCst);
    }
}

fn vanish(world: &World, id: usize, live: &Live) {
    world.note(format_args!("member {id} vanishes"));
    world.executor.end(live.process);
    world.groups().over(id);
}

fn pause(world: &World, id: usize, paused: bool) {
    let mut history = world.groups();
    if let Some(live) = history.live.get_mut(&id) {
        live.paused = paused;
        let process = live.process;
        drop(history);
        world.note(format_args!("member {id} stands still: {paused}"));
        match paused {
            true => world.executor.pause(process),
            false => world.executor.resume(process),
        }
    }
}

/// Nothing happens to clients any more, and there are some.
pub(super) fn calm(world: &World) {
    let live: Vec<(usize, Live)> = {
        let history = world.groups();
        let live = history.live.iter();
        live.map(|(id, live)| (*id, live.clone())).collect()
    };
    for (id, one) in &live {
        // Of those that share a name all but one would be refused for ever.
        let is_newest = |other: &(usize, Live)| other.1.instance != one.instance || other.0 <= *id;
        if one.instance.is_some() && !live.iter().all(is_newest) {
            vanish(world, *id, one);
        } else {
            pause(world, *id, false);
        }
    }
    let ids: Vec<usize> = world.groups().live.keys().copied().collect();
    for _ in ids.len()..2 {
        come(world, None);
    }
}

/// What is missing for the group to be well: every partition has one owner, and all members are
/// counted in.
pub(super) fn missing(world: &World) -> Option<String> {
    if world.groups().live.is_empty() {
        // Those who were about to leave have left.
        come(world, None);
    }
    let history = world.groups();
    let partitions = streams::all_tasks(world);
    if let Some(partition) = history.ownership.without_owner(&partitions) {
        return Some(format!("partition {partition} has no owner"));
    }
    let tasks = streams::tasks_with_state(world);
    let standbys = world.plan.standbys as usize;
    if let Some(task) = history.roles.without_copy(&tasks, standbys) {
        return Some(format!("task {task} has not {standbys} copies"));
    }
    if world.plan.work == Work::Streams && tasks.is_empty() {
        return Some("there are no internal topics".to_owned());
    }
    let now_ms = world.now_ms();
    let late = history
        .live
        .iter()
        .find(|(_, live)| !live.settled || live.well_ms + 3_000 < now_ms);
    late.map(|(id, live)| format!("member {id} is not well: {live:?}"))
}

/// At the end, every offset that was acknowledged is there.
pub(super) async fn last_look(world: &World) -> Result<(), Violation> {
    let mut client = Client::new(world, 0, None, Arc::default());
    let partitions = streams::all_tasks(world).into_iter().collect();
    client.fetch(&partitions, true).await;
    world.violation()?;
    if world.plan.retention_ms.is_some() {
        end::all_expires(world, &mut client).await;
    }
    world.violation()
}
