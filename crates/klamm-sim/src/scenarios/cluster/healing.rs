//! **It heals.** Once nothing goes wrong any more, within a minute all brokers are back, every
//! partition has a leader and all its replicas in sync, with the same logs; producers are
//! acknowledged and consumers at the end; and controllers, if they fail, agree and were heard by all.
//!
//! Source: what operators expect of a cluster. Known false positives: none; the minute is many
//! times the timeouts of the plan.

use super::groups;
use super::leftovers;
use super::retention;
use super::view::{Entry, Replica, View};
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
            if !agrees(replica, leader) {
                return Some(format!(
                    "{partition} at {id} ends at {} and {}, at its leader at {}",
                    replica.high_watermark, replica.end, leader.end
                ));
            }
        }
        if let Some(late) = retention::overdue(world, &partition, leader) {
            return Some(late);
        }
        for ((consumer, of), position) in &world.history().positions {
            if *of == partition && *position != leader.end {
                return Some(format!(
                    "consumer {consumer} is at {position} of {partition}"
                ));
            }
        }
    }
    if let Some(missing) = whole::missing(world) {
        return Some(missing);
    }
    if let Some(left) = leftovers::missing(world) {
        return Some(left);
    }
    let mut unfinished = world.history().unfinished.clone();
    if !world.is_over() {
        // Groups finish in the end only.
        unfinished.retain(|id| *id < groups::FIRST);
    }
    if !unfinished.is_empty() {
        return Some(format!("producers {unfinished:?} wait"));
    }
    None
}

/// Whether a replica has all that the leader has, and knows it. Retention and compaction are each
/// one's own business.
fn agrees(replica: &Replica, leader: &Replica) -> bool {
    let start = replica.start.max(leader.start);
    let [one, other] = [replica, leader].map(|it| it.between(start, i64::MAX));
    let is_dense = |entries: &[Entry]| entries.len() as i64 == leader.end - start;
    let same = one == other || !is_dense(one) || !is_dense(other);
    same && replica.high_watermark == leader.end && replica.end == leader.end
}
