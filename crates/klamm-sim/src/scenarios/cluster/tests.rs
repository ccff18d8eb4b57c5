//! That the properties can fail: clusters with a mistake are found out, each by the properties that
//! one would expect, within a few seeds.

use super::super::{Run, guard, quorum};
use super::plan::Size;
use super::{Flaw, driver};

/// Seeds that a mistake may take to be found.
const SEEDS: u64 = 40;

/// Whether one of the properties finds a flaw.
fn is_found(flaw: Flaw, properties: &[&str]) {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        match driver::drive(&Run::new(seed), flaw, Size::Brokers) {
            Err(violation) if properties.contains(&violation.property) => return,
            found => others.extend(found.err()),
        }
    }
    panic!("{flaw:?} is found by none of {properties:?}, but {others:?}");
}

#[test]
fn who_never_cuts_keeps_what_nobody_else_has() {
    is_found(Flaw::NeverTruncate, &["agreement"]);
}

#[test]
fn who_acknowledges_alone_promises_too_much() {
    is_found(Flaw::AckBeforeReplication, &["acknowledged"]);
}

#[test]
fn who_shrinks_the_isr_alone_commits_alone() {
    is_found(Flaw::ShrinkAlone, &["agreement", "acknowledged"]);
}

#[test]
fn who_is_elected_out_of_sync_lacks_records() {
    is_found(Flaw::AnyoneLeads, &["acknowledged", "reads", "agreement"]);
}

#[test]
fn two_leaders_of_an_epoch_are_found() {
    is_found(Flaw::EpochReused, &["leaders", "agreement", "acknowledged"]);
}

#[test]
fn who_boasts_is_believed() {
    // One that is not caught in time has a gap in its log.
    let properties = ["agreement", "acknowledged", "integrity"];
    is_found(Flaw::FollowersBoast, &properties);
}

#[test]
fn a_high_watermark_at_the_end_of_the_log_is_found() {
    is_found(
        Flaw::WatermarkAtEnd,
        &["reads", "agreement", "acknowledged"],
    );
}

#[test]
fn records_under_a_wrong_epoch_are_found() {
    is_found(Flaw::AppendAcrossEpochs, &["agreement"]);
}

#[test]
fn who_hides_a_crash_lacks_records() {
    is_found(
        Flaw::CrashesLookClean,
        &["acknowledged", "agreement", "reads"],
    );
}

#[test]
fn a_disk_that_does_not_sync_is_found() {
    let properties = ["acknowledged", "reads", "agreement", "recovery"];
    is_found(Flaw::SyncsLie, &properties);
}

#[test]
fn who_forgets_sequences_writes_twice() {
    is_found(Flaw::SequencesForgotten, &["idempotence"]);
}

#[test]
fn who_reads_what_is_not_committed_is_found() {
    is_found(Flaw::DirtyReads, &["reads"]);
}

/// The same of whole clusters.
fn is_found_in_whole(flaw: Flaw, properties: &[&str]) {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        match guard(|| driver::drive(&Run::new(seed), flaw, Size::Whole)) {
            Err(violation) if properties.contains(&violation.property) => return,
            found => others.extend(found.err()),
        }
    }
    panic!("{flaw:?} is found by none of {properties:?}, but {others:?}");
}

#[test]
fn a_controller_that_answers_before_raft_has_committed_loses_records() {
    is_found_in_whole(Flaw::AnswersEarly, &["acknowledged", "agreement", "reads"]);
}

#[test]
fn who_never_looks_for_another_controller_is_lost() {
    is_found_in_whole(Flaw::FaithfulObservers, &["healing"]);
}

#[test]
fn a_controller_that_forgets_its_vote_is_found_by_what_brokers_do() {
    let flaw = Flaw::Controllers(quorum::Flaw::VotesForgotten);
    is_found_in_whole(flaw, BROKEN);
}

#[test]
fn a_controller_that_takes_silence_for_consent_is_found_by_what_brokers_do() {
    let flaw = Flaw::Controllers(quorum::Flaw::SilenceConsents);
    // Two who decide soon stumble over each other's log, which openraft finds out by itself.
    let properties = [BROKEN, &["no panic"]].concat();
    is_found_in_whole(flaw, &properties);
}

/// What shows that Raft's rules are broken without a look at the controllers.
const BROKEN: &[&str] = &["acknowledged", "agreement", "leaders", "reads", "healing"];

/// The same of clusters that live for half a day.
fn is_found_in_a_day(flaw: Flaw, property: &str) {
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        match guard(|| driver::drive(&Run::new(seed), flaw, Size::Long(8, 12))) {
            Err(violation) if violation.property == property => return,
            found => others.extend(found.err()),
        }
    }
    panic!("{flaw:?} is not found by {property}, but {others:?}");
}

#[test]
fn retention_that_comes_too_soon_is_found() {
    is_found_in_a_day(Flaw::RetentionTooSoon, "retention");
}

#[test]
fn logs_that_keep_what_should_go_are_found() {
    is_found_in_a_day(Flaw::NothingExpires, "healing");
}
