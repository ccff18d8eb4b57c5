//! **It heals.** Once nothing is lost any more and all brokers run, there is a leader, all replicas
//! are in sync and equal, and all that was written is committed.
//!
//! Source: liveness; a state machine that waits for what cannot come fails here. Known false
//! positives: none, given enough rounds.

use super::super::Violation;
use super::world::World;

/// Checks the property.
pub fn check(world: &World) -> Result<(), Violation> {
    let violation = |detail: String| Err(Violation::new("healing", detail));
    let Some(leader) = world.leader() else {
        return violation("there is no leader".to_owned());
    };
    let mut isr = world.controller.current.record.isr.clone();
    isr.sort_unstable();
    if isr != super::world::BROKERS {
        return violation(format!("only {isr:?} are in sync"));
    }
    let end = leader.log.end();
    for broker in world.brokers.values() {
        if broker.log.entries != leader.log.entries {
            return violation(format!(
                "{} is not equal to leader {}",
                broker.id, leader.id
            ));
        }
        if broker.role.high_watermark() != end {
            let high_watermark = broker.role.high_watermark();
            return violation(format!("{} knows of {high_watermark} of {end}", broker.id));
        }
    }
    Ok(())
}
