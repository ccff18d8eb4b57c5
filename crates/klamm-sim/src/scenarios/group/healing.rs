//! **It heals.** Once all goes well, the group is stable, all consumers are in its generation, and
//! together they have every partition.
//!
//! Source: liveness. Known false positives: none, given enough time.

use klamm_coordinator::group::GroupShard;
use klamm_coordinator::group::classic::ClassicState;

use super::super::Violation;
use super::member::{GROUP, Member, PARTITIONS, Phase};

/// Checks the property.
pub fn check(shard: &GroupShard, members: &[Member]) -> Result<(), Violation> {
    let violation = |detail: String| Err(Violation::new("healing", detail));
    let Some(group) = shard.classic_group(GROUP) else {
        return violation("there is no group".to_owned());
    };
    if group.state() != ClassicState::Stable || group.member_count() != members.len() {
        return violation(format!(
            "{:?} with {} members",
            group.state(),
            group.member_count()
        ));
    }
    let mut partitions: Vec<u8> = Vec::new();
    for member in members {
        let stable = matches!(member.phase, Phase::Stable | Phase::Beating(_));
        if !stable || member.generation != group.generation() {
            return violation(format!(
                "{member:?} is not in generation {}",
                group.generation()
            ));
        }
        partitions.extend(&member.partitions);
    }
    partitions.sort_unstable();
    if !partitions.iter().copied().eq(0..PARTITIONS as u8) {
        return violation(format!("partitions {partitions:?} are assigned"));
    }
    Ok(())
}
