//! Share groups: members that acquire records, accept, release, reject or forget them, while the
//! leaders that hand out and the coordinators that remember move.
//!
//! - [`cells`]: share partitions at their leaders; [`persister`]: the way to share coordinators.
//! - [`member`]: a share consumer.
//! - [`delivery`]: what must hold of what was handed out.

mod cells;
mod delivery;
mod member;
mod persister;

use std::collections::BTreeMap;

use klamm_env::Rng as _;
use klamm_log::AppendOrigin;
use klamm_protocol::topic_name;
use klamm_records::{BatchBuilder, BatchOptions};

use super::super::Violation;
use super::partition::Place;
use super::world::{DATA, World};
use crate::Process;
pub(super) use cells::{Cells, expire_locks};
pub(super) use delivery::History;
pub(super) use persister::{NoPruning, Persister};

/// The group.
const GROUP: &str = "share";

/// Where its members are coordinated.
fn place() -> Place {
    World::place_of(topic_name::CONSUMER_OFFSETS, GROUP)
}

/// A member that runs.
#[derive(Clone, Copy, Debug)]
struct Live {
    process: Process,
    paused: bool,
}

fn come(world: &World) {
    let process = world.executor.new_process();
    let id = world.shares().came(Live {
        process,
        paused: false,
    });
    world.note(format_args!("sharer {id} comes"));
    let consuming = member::consume(world.clone(), id);
    world
        .executor
        .spawn_in(process, format!("sharer {id}"), consuming);
}

pub(super) fn start(world: &World) {
    (0..world.plan.clients).for_each(|_| come(world));
    let producing = produce(world.clone());
    world.executor.spawn("producer", producing);
}

/// Records for the group, as long as there is trouble.
async fn produce(world: World) {
    while !world.is_calm() {
        world.sleep_ms(world.rng.below(400)).await;
        let number = world
            .rng
            .range(0, i64::from(world.plan.data_partitions.min(3))) as i32;
        let Some(partition) = world.partition((DATA, number)) else {
            continue;
        };
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for _ in 0..=world.rng.index(6) {
            let _ = builder.append(1, None, Some(b"shared"), []);
        }
        if let Ok(batch) = builder.build() {
            let term = partition.term();
            let _ = partition.append(&term, batch, AppendOrigin::Client).await;
        }
    }
}

/// Something happens to a member.
pub(super) fn strike(world: &World) {
    let live: Vec<(usize, Live)> = world.shares().live.iter().map(|(i, l)| (*i, *l)).collect();
    let Some((id, one)) = world.rng.pick(&live).copied() else {
        return come(world);
    };
    match world.rng.below(6) {
        0 if live.len() < 6 => come(world),
        1 => {
            world.note(format_args!("sharer {id} vanishes"));
            world.executor.end(one.process);
            world.shares().live.remove(&id);
        }
        2..5 => pause(world, id, !one.paused),
        _ => {}
    }
}

fn pause(world: &World, id: usize, paused: bool) {
    let mut history = world.shares();
    let Some(live) = history.live.get_mut(&id) else {
        return;
    };
    live.paused = paused;
    let process = live.process;
    drop(history);
    match paused {
        true => world.executor.pause(process),
        false => world.executor.resume(process),
    }
}

pub(super) fn calm(world: &World) {
    let live: BTreeMap<usize, Live> = world.shares().live.clone();
    live.keys().for_each(|id| pause(world, *id, false));
    if live.is_empty() {
        come(world);
    }
}

/// How far the group is in each partition, at its leader.
fn starts(world: &World) -> Vec<(i32, Option<i64>, i64)> {
    let data = world.partitions.values().filter(|p| p.place.0 == DATA);
    data.map(|partition| {
        let term = partition.term();
        let leader = world.nodes.get(&term.leader).and_then(|node| node.broker());
        let number = partition.place.1;
        let start = leader.and_then(|leader| leader.cells.start_offset(number, term.epoch));
        (number, start, partition.truth().log_end_offset())
    })
    .collect()
}

/// What is missing for all to be well: the group is done with everything.
pub(super) fn missing(world: &World) -> Option<String> {
    world.check(last_look(world));
    let left = starts(world).into_iter();
    let mut left =
        left.filter(|(_, start, end)| start.is_none_or(|start| start < *end) && *end > 0);
    left.next()
        .map(|(number, start, end)| format!("{number} is read up to {start:?} of {end}"))
}

/// Nothing is done with that nobody was done with.
pub(super) fn last_look(world: &World) -> Result<(), Violation> {
    for (number, start, _) in starts(world) {
        world.shares().skipped(number, start.unwrap_or(0))?;
    }
    Ok(())
}
