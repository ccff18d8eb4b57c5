//! **Nothing piles up.** Once a cluster that lives for long is well, brokers have no logs but of
//! partitions that they replicate, directories of deleted partitions are gone, producers that have
//! been silent for long are forgotten; and tasks, timers, files and bytes are as many as there were
//! on the first day.
//!
//! Source: what operators expect of brokers that run for years. Known false positives: none; the
//! bounds are some times what is seen.

use klamm_metadata::MetadataImage;

use super::node::{Broker, Node};
use super::plan::HOUR_MS;
use super::world::World;

/// Tasks and timers that there may be.
const TASKS_MAX: usize = 1_000;
/// Files on a broker's disk, beside those of full segments, and bytes.
const DISK_MAX: (u64, u64) = (500, 16 << 20);
/// Files of a segment, twice as many as there are.
const SEGMENT_FILES: u64 = 8;

/// What is there and should not be; nothing if all is well.
pub(super) fn missing(world: &World) -> Option<String> {
    world.plan.long?;
    let (tasks, timers) = world.executor.load();
    if tasks.max(timers) > TASKS_MAX {
        return Some(format!("there are {tasks} tasks and {timers} timers"));
    }
    let image = world.truth();
    world.nodes.values().find_map(|node| {
        let broker = node.broker()?;
        superfluous_logs(node, &broker, &image)
            .or_else(|| forgotten_producers(world, &broker))
            .or_else(|| too_much(world, node))
    })
}

fn superfluous_logs(node: &Node, broker: &Broker, image: &MetadataImage) -> Option<String> {
    let logs = broker.replicas.logs().logs();
    let stray = logs.iter().map(|log| log.topic_partition()).find(|it| {
        let known = image.partition(&it.topic, it.partition);
        known.is_none_or(|known| !known.replicas.contains(&broker.id))
    });
    if let Some(stray) = stray {
        return Some(format!("{} still has {stray}", node.id));
    }
    let names = node.log_dirs();
    let deleted = names.iter().find(|name| name.ends_with("-delete"))?;
    Some(format!("{} still has {deleted}", node.id))
}

/// Producers that should have been forgotten. They are looked for every ten minutes, by clocks that
/// are off.
fn forgotten_producers(world: &World, broker: &Broker) -> Option<String> {
    let long = world.plan.long?;
    let kept_ms = long.producer_expiration_ms + long.skew_ms + HOUR_MS;
    let since_ms = world.now_ms() - kept_ms;
    broker.replicas.logs().logs().iter().find_map(|log| {
        let producers = log.active_producers();
        let old = producers.iter().find(|it| it.last_timestamp < since_ms)?;
        let (id, partition) = (broker.id, log.topic_partition());
        Some(format!("{partition} at {id} still knows {old:?}"))
    })
}

fn too_much(world: &World, node: &Node) -> Option<String> {
    let usage = node.usage();
    let files: u64 = usage.values().map(|(files, _)| files).sum();
    let bytes: u64 = usage.values().map(|(_, bytes)| bytes).sum();
    let (files_max, bytes_max) = DISK_MAX;
    let segments = bytes / u64::from(world.plan.segment_bytes);
    let too_much = files > files_max + SEGMENT_FILES * segments || bytes > bytes_max;
    too_much.then(|| format!("{} has {files} files and {bytes} bytes: {usage:?}", node.id))
}
