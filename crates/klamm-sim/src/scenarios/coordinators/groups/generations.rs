//! **Agreement.** In one generation of a classic group no partition is given to two members, and
//! none gets two assignments.
//!
//! Source: the assignment of a generation is in the log before anybody is told. Only groups all of
//! whose members are classic have generations in this sense. Known and allowed: a static member
//! that comes back within a generation gets the assignment of its name.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::Violation;

/// Who was told what, by generation and member, or its name if it has one.
#[derive(Debug, Default)]
pub(in super::super) struct Generations(BTreeMap<i32, BTreeMap<String, BTreeSet<i32>>>);

impl Generations {
    pub(in super::super) fn told(
        &mut self,
        generation: i32,
        member: String,
        partitions: &BTreeSet<i32>,
    ) -> Result<(), Violation> {
        let violation = |detail: String| Err(Violation::new("agreement", detail));
        let told = self.0.entry(generation).or_default();
        if let Some(before) = told.get(&member) {
            return if before == partitions {
                Ok(())
            } else {
                violation(format!(
                    "{member} has {partitions:?} in {generation}, and had {before:?}"
                ))
            };
        }
        for (other, theirs) in &*told {
            if let Some(both) = theirs.intersection(partitions).next() {
                return violation(format!(
                    "{both} is given to {member} and {other} in {generation}"
                ));
            }
        }
        told.insert(member, partitions.clone());
        Ok(())
    }
}
