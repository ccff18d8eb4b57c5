//! Each property can be violated: by a mistake in what the simulation carries between the parts.

use super::super::Run;
use super::plan::Work;
use super::{Flaw, drive};

/// How many seeds a mistake may take to be found.
const SEEDS: u64 = 40;

/// The first violation of a mistake, and the seed that found it.
fn found(work: Work, flaw: Flaw) -> (&'static str, u64) {
    let violated = |seed| Some((drive(&Run::new(seed), work, flaw).err()?.property, seed));
    let found = (0..SEEDS).find_map(violated);
    found.unwrap_or_else(|| panic!("{flaw:?} is not found within {SEEDS} seeds"))
}

#[track_caller]
fn assert_found(work: Work, flaw: Flaw, properties: &[&str]) {
    let (property, seed) = found(work, flaw);
    println!("{flaw:?}: {property}, by seed {seed}");
    assert!(properties.contains(&property), "{flaw:?}: {property}");
}

#[test]
fn answers_before_the_commit_are_found() {
    let flaw = Flaw::AnswersBeforeCommit;
    assert_found(Work::Groups, flaw, &["offsets", "agreement", "ownership"]);
}

#[test]
fn writes_that_vanish_are_found() {
    let flaw = Flaw::WritesVanish;
    assert_found(Work::Groups, flaw, &["offsets", "agreement", "ownership"]);
}

#[test]
fn loads_that_miss_the_end_are_found() {
    let properties = ["offsets", "agreement", "ownership", "healing"];
    assert_found(Work::Groups, Flaw::LoadForgets, &properties);
}

#[test]
fn assignments_before_revocations_are_found() {
    assert_found(Work::Groups, Flaw::AssignBeforeRevoke, &["ownership"]);
}

#[test]
fn offsets_that_expire_early_are_found() {
    assert_found(Work::Groups, Flaw::ExpiresEarly, &["offsets"]);
}

#[test]
fn mistakes_of_streams_groups_are_found() {
    let flaws = [
        Flaw::AnswersBeforeCommit,
        Flaw::WritesVanish,
        Flaw::LoadForgets,
    ];
    for flaw in flaws {
        let properties = ["offsets", "roles", "ownership", "errors"];
        assert_found(Work::Streams, flaw, &properties);
    }
    assert_found(
        Work::Streams,
        Flaw::AssignBeforeRevoke,
        &["ownership", "roles"],
    );
    assert_found(Work::Streams, Flaw::ProcessesMixedUp, &["roles"]);
}

#[test]
fn lost_markers_are_found() {
    let properties = ["healing", "transactions"];
    assert_found(Work::Transactions, Flaw::MarkersLost, &properties);
    assert_found(Work::Transactions, Flaw::OffsetMarkersLost, &properties);
}

#[test]
fn producers_that_are_not_fenced_are_found() {
    let properties = ["transactions", "fencing"];
    assert_found(Work::Transactions, Flaw::ZombiesWrite, &properties);
}

#[test]
fn dirty_reads_are_found() {
    assert_found(Work::Transactions, Flaw::DirtyReads, &["transactions"]);
}

#[test]
fn decisions_that_are_told_before_the_commit_are_found() {
    let properties = ["transactions", "fencing", "healing"];
    assert_found(Work::Transactions, Flaw::AnswersBeforeCommit, &properties);
}

#[test]
fn share_partitions_that_forget_are_found() {
    assert_found(Work::Shares, Flaw::SharesForget, &["delivery"]);
    assert_found(Work::Shares, Flaw::SharesUnwritten, &["delivery"]);
}
