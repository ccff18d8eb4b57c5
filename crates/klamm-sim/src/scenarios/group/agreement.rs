//! **Agreement.** Within a generation a member has one assignment, no partition is given to two
//! members, and generations only go up.
//!
//! Source: what a consumer group is for. Known false positives: none; the assignment of a
//! generation is written to the log before anyone is told, so that moving the coordinator does not
//! bring a generation back with another one.

use std::collections::BTreeMap;

use super::super::Violation;
use super::member::Assigned;

/// All assignments that members were told.
#[derive(Clone, Debug, Default)]
pub struct Assignments(BTreeMap<i32, BTreeMap<String, Vec<u8>>>);

impl Assignments {
    /// The newest generation of which a member got its assignment.
    pub fn newest(&self) -> i32 {
        self.0
            .last_key_value()
            .map_or(-1, |(generation, _)| *generation)
    }

    /// Takes down an assignment and checks the property.
    pub fn check(&mut self, told: &Assigned) -> Result<(), Violation> {
        let violation = |detail: String| Err(Violation::new("agreement", detail));
        let generation = self.0.entry(told.generation).or_default();
        if let Some(before) = generation.get(&told.member) {
            return if *before == told.partitions {
                Ok(())
            } else {
                violation(format!("{told:?} was told {before:?} before"))
            };
        }
        for (other, partitions) in &*generation {
            if let Some(both) = partitions
                .iter()
                .find(|both| told.partitions.contains(both))
            {
                return violation(format!(
                    "partition {both} is given to {other} and to {} in generation {}",
                    told.member, told.generation
                ));
            }
        }
        generation.insert(told.member.clone(), told.partitions.clone());
        Ok(())
    }
}
