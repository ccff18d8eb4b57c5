//! **The high watermark is true.** No leader's high watermark passes what every member of the ISR
//! has on its disk.
//!
//! Source: KIP-497, where the maximal ISR is what counts. Known false positives: none; leaders
//! that the controller has replaced are not looked at.

use super::super::Violation;
use super::world::World;

/// Checks the property.
pub fn check(world: &World) -> Result<(), Violation> {
    let Some(leader) = world.leader() else {
        return Ok(());
    };
    let high_watermark = leader.role.high_watermark();
    for id in &world.controller.current.record.isr {
        let common = world.brokers[id].log.common_prefix(&leader.log);
        if high_watermark > common {
            return Err(Violation::new(
                "watermark",
                format!(
                    "leader {} says {high_watermark}, {id} is in sync and has {common}",
                    leader.id
                ),
            ));
        }
    }
    Ok(())
}
