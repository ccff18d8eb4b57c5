//! **It heals.** Once nothing goes wrong any more, within a minute all brokers are back, every
//! partition has a leader and all its replicas in sync, with the same logs; producers are
//! acknowledged and consumers at the end; and controllers, if they fail, agree and were heard by all.
//!
//! Source: what operators expect of a cluster. Known false positives: none; the minute is many
//! times the timeouts of the plan.

use super::view::View;
use super::whole;
use super::world::World;

/// What is missing; nothing once all is well.
pub(super) fn missing(world: &World, view: &View) -> Option<String> {
    let image = world.truth();
    for id in &world.plan.brokers {
        if image.broker(*id).is_none_or(|broker| !broker.is_active()) {
            return Some(format!("broker {id} is not back"));
        }
    }
    for partition in world.partitions() {
        let known = image.partition(&partition.topic, partition.partition);
        let Some(known) = known else {
            return Some(format!("{partition} is gone"));
        };
        let Some(leader) = view.leader(world, &partition) else {
            return Some(format!("{partition} has no leader: {known:?}"));
        };
        if known.isr.len() != known.replicas.len() || !known.adding_replicas.is_empty() {
            return Some(format!("{partition} is not in sync: {known:?}"));
        }
        let replicas = view.0.get(&partition).into_iter().flatten();
        for (id, replica) in replicas.filter(|(id, _)| known.replicas.contains(id)) {
            if replica.entries != leader.entries || replica.high_watermark != leader.end() {
                return Some(format!(
                    "{partition} at {id} ends at {} and {}, at its leader at {}",
                    replica.high_watermark,
                    replica.end(),
                    leader.end()
                ));
            }
        }
        for ((consumer, of), position) in &world.history().positions {
            if *of == partition && *position != leader.end() {
                return Some(format!(
                    "consumer {consumer} is at {position} of {partition}"
                ));
            }
        }
    }
    if let Some(missing) = whole::missing(world) {
        return Some(missing);
    }
    let unfinished = world.history().unfinished.clone();
    if !unfinished.is_empty() {
        return Some(format!("producers {unfinished:?} wait"));
    }
    None
}
