//! **One leader an epoch.** Whoever is asked, in whatever way, names the same controller as the
//! leader of an epoch.
//!
//! Source: Raft's election safety; KIP-595. Known false positives: none.

use std::collections::BTreeMap;

use super::super::Violation;

/// Checks the property for what `who` says.
pub fn check(
    leaders: &mut BTreeMap<i32, i32>,
    who: i32,
    epoch: i32,
    leader: i32,
) -> Result<(), Violation> {
    let known = *leaders.entry(epoch).or_insert(leader);
    if known == leader {
        return Ok(());
    }
    let detail = format!("{who} says that {leader} leads in epoch {epoch}, where {known} leads");
    Err(Violation::new("leaders", detail))
}
