//! That the properties can fail: quorums with a mistake about voters are found out within a few seeds.

use super::super::super::{Run, guard};
use super::super::Flaw;
use super::driver;

/// Seeds that a mistake may take to be found.
const SEEDS: u64 = 40;

/// What shows that Raft's own rules are broken, as in `quorum`.
const BROKEN: &[&str] = &[
    "leaders", "history", "promises", "recovery", "sets", "changes", "no panic",
];

/// Whether one of the properties finds a flaw.
fn is_found(flaw: Flaw, properties: &[&str]) {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        match guard(|| driver::drive(&Run::new(seed), flaw)) {
            Err(violation) if properties.contains(&violation.property) => {
                return;
            }
            found => others.extend(found.err()),
        }
    }
    panic!("{flaw:?} is found by none of {properties:?}, but {others:?}");
}

#[test]
fn a_new_disk_that_passes_for_the_old_one_is_found() {
    is_found(Flaw::DirectoriesIgnored, BROKEN);
}

#[test]
fn who_goes_back_to_the_voters_it_was_formatted_with_is_found() {
    is_found(Flaw::LogsForgotten, BROKEN);
}

#[test]
fn who_counts_before_it_has_caught_up_is_found() {
    is_found(Flaw::LearnersConsent, BROKEN);
}

#[test]
fn who_goes_on_with_the_voters_of_before_is_found() {
    is_found(Flaw::ChangesUntold, BROKEN);
}

#[test]
fn a_change_that_is_told_to_be_done_and_is_not_is_found() {
    is_found(Flaw::ChangesSucceed, &["changes"]);
}
