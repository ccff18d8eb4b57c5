//! **It heals.** Once nothing goes wrong any more, within a minute all controllers agree who leads
//! and have the same image, every broker has registered, was answered and has that image, too.
//!
//! Source: what operators expect of a quorum. Known false positives: none; the minute is many times
//! the timeouts of the plan.

use super::driver::describe;
use super::world::World;

/// What controllers are missing; nothing once all is well.
pub(in crate::scenarios) fn controllers(world: &World) -> Option<String> {
    let last = world.known().images.last();
    let mut leaders = Vec::new();
    for id in &world.plan.controllers {
        let Some(controller) = world.controller(*id) else {
            return Some(format!("{id} does not run"));
        };
        let Some((leader, epoch)) = describe(&controller) else {
            return Some(format!("{id} does not know who leads"));
        };
        leaders.push((leader, epoch));
        let image = controller.image();
        if *image != *last {
            let (at, end) = (image.offset(), last.offset());
            return Some(format!("{id} is at {at} and not at {end}"));
        }
    }
    leaders.dedup();
    if leaders.len() != 1 {
        return Some(format!("it is not settled who leads: {leaders:?}"));
    }
    None
}

/// What brokers are missing.
pub(super) fn brokers(world: &World) -> Option<String> {
    let last = world.known().images.last();
    for id in &world.plan.brokers {
        let Some((replica, answered)) = world.brokers.get(*id) else {
            return Some(format!("broker {id} does not run"));
        };
        if !answered {
            return Some(format!("broker {id} is not answered"));
        }
        if replica.image().offset() != last.offset() {
            let (at, end) = (replica.image().offset(), last.offset());
            return Some(format!("broker {id} is at {at} and not at {end}"));
        }
        if last.broker(*id).is_none_or(|broker| broker.fenced) {
            return Some(format!("broker {id} is fenced"));
        }
    }
    None
}
