//! **Logs match.** Below the high watermarks that two brokers know of, their logs are the same.
//!
//! Source: what followers' high watermarks are for (they serve reads and start elections).
//! Known false positives: none.

use super::super::Violation;
use super::world::World;

/// Checks the property.
pub fn check(world: &World) -> Result<(), Violation> {
    for one in world.brokers.values() {
        for other in world.brokers.values().filter(|other| other.id > one.id) {
            let known = one.role.high_watermark().min(other.role.high_watermark());
            let common = one.log.common_prefix(&other.log);
            if common < known {
                return Err(Violation::new(
                    "matching",
                    format!(
                        "{} and {} differ at {common}, below {known}",
                        one.id, other.id
                    ),
                ));
            }
        }
    }
    Ok(())
}
