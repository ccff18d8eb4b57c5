//! **Committed records stay.** Whoever leads holds every record that a client was told is safe
//! (`acks=all`), at its offset.
//!
//! Source: KIP-101, KIP-279, KIP-497; Kafka's promise for clean elections. Known false positives:
//! none while brokers keep their logs when they restart.

use super::super::Violation;
use super::world::World;

/// Checks the property.
pub fn check(world: &World) -> Result<(), Violation> {
    let Some(leader) = world.leader() else {
        return Ok(());
    };
    for (&offset, &value) in &world.acknowledged {
        let held = leader
            .log
            .entries
            .get(offset as usize)
            .map(|entry| entry.value);
        if held != Some(value) {
            return Err(Violation::new(
                "committed",
                format!(
                    "leader {} holds {held:?} at {offset}, {value} was acknowledged",
                    leader.id
                ),
            ));
        }
    }
    Ok(())
}
