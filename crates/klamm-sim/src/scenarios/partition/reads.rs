//! **Reads repeat.** What a consumer read at an offset is there at every later read, whichever
//! broker leads; a leader that does not know that it was replaced included.
//!
//! Source: consumers only see what is committed. Known false positives: none.

use super::super::Violation;
use super::world::World;

/// Checks the property.
pub fn check(world: &World) -> Result<(), Violation> {
    match world.contradictions.first() {
        None => Ok(()),
        Some(contradiction) => Err(Violation::new("reads", contradiction.clone())),
    }
}
