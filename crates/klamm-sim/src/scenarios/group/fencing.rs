//! **Fencing.** A commit from an older generation than one whose assignment was already told is
//! refused: a zombie cannot overwrite what its successor did.
//!
//! Source: the generation id in OffsetCommit. Known false positives: none.

use super::super::Violation;

/// Checks the property for a commit that was accepted: `newest` is the newest generation that was
/// told when the commit was sent.
pub fn check(generation: i32, newest: i32) -> Result<(), Violation> {
    if generation < newest {
        return Err(Violation::new(
            "fencing",
            format!("a commit of generation {generation} was accepted after {newest} was told"),
        ));
    }
    Ok(())
}
