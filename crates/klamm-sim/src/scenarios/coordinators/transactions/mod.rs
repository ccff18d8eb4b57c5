//! Transactions: consume, transform, produce, exactly once, while instances of one transactional id
//! fence each other and zombies work on.
//!
//! - [`processor`]: an instance; [`requests`]: what it asks, again and again.
//! - [`visible`]: what `read_committed` consumers see of it, and what must hold of that;
//!   [`fences`]: what producers may be told.

pub(super) mod fences;
mod processor;
mod requests;
pub(super) mod visible;

use std::collections::BTreeMap;

use klamm_env::Rng as _;
use klamm_protocol::topic_name;

use super::super::Violation;
use super::partition::Place;
use super::world::{DATA, World};
use crate::Process;

/// A transaction as its client knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transaction {
    pub(super) processor: usize,
    /// The offset that it consumes.
    pub(super) offset: i64,
    /// Which end the client asked for.
    pub(super) asked: Option<bool>,
    /// Which end it was told.
    pub(super) told: Option<bool>,
}

/// An instance of a processor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Instance {
    pub(super) processor: usize,
    process: Process,
    paused: bool,
}

/// What clients did and were told.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) transactions: BTreeMap<u64, Transaction>,
    /// The newest producer that an instance was given, by transactional id.
    fences: BTreeMap<String, (i64, i16)>,
    instances: BTreeMap<usize, Instance>,
    next: usize,
    pub(super) visible: visible::Visible,
    pub(super) asked_for: fences::Fences,
    /// Transactions that each processor committed since peace.
    pub(super) since_peace: BTreeMap<usize, usize>,
}

impl History {
    pub(super) fn begin(&mut self, processor: usize, offset: i64) -> u64 {
        let number = self.transactions.len() as u64;
        let transaction = Transaction {
            processor,
            offset,
            ..Transaction::default()
        };
        self.transactions.insert(number, transaction);
        number
    }

    pub(super) fn asked(&mut self, number: u64, commit: bool) {
        if let Some(transaction) = self.transactions.get_mut(&number) {
            transaction.asked = Some(commit);
        }
    }

    pub(super) fn told(&mut self, number: u64, commit: bool) {
        if let Some(transaction) = self.transactions.get_mut(&number) {
            transaction.told = Some(commit);
        }
    }

    /// An instance was told that it is the producer of its id.
    pub(super) fn fenced(&mut self, id: &str, producer: (i64, i16)) {
        let fence = self.fences.entry(id.to_owned()).or_insert(producer);
        *fence = (*fence).max(producer);
    }

    /// Whether another instance was told that it took over from this producer.
    pub(super) fn is_fenced(&self, id: &str, producer: (i64, i16)) -> bool {
        self.fences.get(id).is_some_and(|fence| *fence > producer)
    }

    pub(super) fn over(&mut self, instance: usize) {
        self.instances.remove(&instance);
    }
}

/// The group of a processor.
pub(super) fn group(processor: usize) -> String {
    format!("eos-{processor}")
}

/// An instance of a processor comes.
fn come(world: &World, processor: usize) {
    let process = world.executor.new_process();
    let number = {
        let mut history = world.transactions();
        history.next += 1;
        let number = history.next;
        let instance = Instance {
            processor,
            process,
            paused: false,
        };
        history.instances.insert(number, instance);
        number
    };
    world.note(format_args!("instance {number} of {processor} comes"));
    let name = format!("instance {number}");
    let running = processor::run(world.clone(), processor, number);
    world.executor.spawn_in(process, name, running);
}

pub(super) fn start(world: &World) {
    (0..world.plan.clients).for_each(|processor| come(world, processor));
}

fn instances(world: &World) -> Vec<(usize, Instance)> {
    let history = world.transactions();
    history.instances.iter().map(|(n, i)| (*n, *i)).collect()
}

/// Something happens to an instance.
pub(super) fn strike(world: &World) {
    let all = instances(world);
    let Some((number, one)) = world.rng.pick(&all).copied() else {
        return;
    };
    match world.rng.below(6) {
        0 => {
            world.note(format_args!("instance {number} vanishes"));
            world.executor.end(one.process);
            world.transactions().over(number);
            come(world, one.processor);
        }
        // Both believe to be the one.
        1 => come(world, one.processor),
        2..4 => pause(world, number, !one.paused),
        _ => {}
    }
    revive(world);
}

/// Every processor has an instance.
fn revive(world: &World) {
    let all = instances(world);
    for processor in 0..world.plan.clients {
        if !all.iter().any(|(_, one)| one.processor == processor) {
            come(world, processor);
        }
    }
}

fn pause(world: &World, number: usize, paused: bool) {
    let mut history = world.transactions();
    let Some(instance) = history.instances.get_mut(&number) else {
        return;
    };
    instance.paused = paused;
    let process = instance.process;
    drop(history);
    world.note(format_args!("instance {number} stands still: {paused}"));
    match paused {
        true => world.executor.pause(process),
        false => world.executor.resume(process),
    }
}

pub(super) fn calm(world: &World) {
    for (number, _) in instances(world) {
        pause(world, number, false);
    }
    revive(world);
}

/// Partitions that take part in transactions.
pub(super) fn places(world: &World) -> Vec<Place> {
    let places = world.partitions.keys().copied();
    places
        .filter(|(topic, _)| *topic == DATA || *topic == topic_name::CONSUMER_OFFSETS)
        .collect()
}

/// What is missing for all to be well: processors go on, and no transaction hangs.
pub(super) fn missing(world: &World) -> Option<String> {
    world.check(visible::look(world));
    revive_undone(world);
    let history = world.transactions();
    for processor in 0..world.plan.clients {
        let done = history.since_peace.get(&processor).copied().unwrap_or(0);
        if done < 2 {
            return Some(format!("processor {processor} does not go on"));
        }
    }
    drop(history);
    for place in places(world) {
        let partition = world.partition(place)?;
        let (end, stable) = (partition.truth().log_end_offset(), partition.stable());
        if stable.as_ref().is_ok_and(|stable| *stable < end) {
            return Some(format!(
                "a transaction hangs in {place:?}: {stable:?} of {end}"
            ));
        }
    }
    None
}

/// Processors that were fenced by an instance that is gone are started again.
fn revive_undone(world: &World) {
    let all = instances(world);
    for processor in 0..world.plan.clients {
        let done = world.transactions().since_peace.get(&processor).copied();
        if done.unwrap_or(0) < 2 && !all.iter().any(|(_, one)| one.processor == processor) {
            come(world, processor);
        }
    }
}

/// At the end, what is visible is what clients were told, and offsets are as far as the output.
pub(super) async fn last_look(world: &World) -> Result<(), Violation> {
    visible::look(world)?;
    for processor in 0..world.plan.clients {
        let mut requests = requests::Requests::new(world, processor, 2);
        let Some(offset) = requests.offset(200).await else {
            let detail = format!("the offset of {processor} cannot be fetched");
            return Err(Violation::new("healing", detail));
        };
        world.transactions().visible.whole(processor, offset)?;
    }
    let history = world.transactions();
    for (number, transaction) in &history.transactions {
        history.visible.as_told(*number, transaction)?;
    }
    Ok(())
}
