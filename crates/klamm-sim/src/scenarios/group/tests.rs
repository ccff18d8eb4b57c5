//! Each property can be violated: by coordinators and members with a mistake built in.

use super::super::Run;
use super::Flaw;
use super::agreement::Assignments;
use super::driver::drive;
use super::member::Assigned;
use super::{answers, healing};

/// The properties that a flaw violates, over some seeds.
fn violated(flaw: Flaw) -> Vec<&'static str> {
    let mut all: Vec<&'static str> = (0..60)
        .filter_map(|seed| drive(&Run::new(seed), flaw).err())
        .map(|violation| violation.property)
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn a_log_that_forgets_is_caught() {
    let violated = violated(Flaw::LogForgets);
    assert!(violated.contains(&"offsets"), "{violated:?}");
}

#[test]
fn zombies_that_pass_are_caught() {
    let violated = violated(Flaw::ZombiesPass);
    assert!(violated.contains(&"fencing"), "{violated:?}");
}

#[test]
fn leaders_that_share_are_caught() {
    let violated = violated(Flaw::LeadersShare);
    assert!(violated.contains(&"agreement"), "{violated:?}");
}

#[test]
fn requests_without_answers_are_caught() {
    let violated = violated(Flaw::AnswersLost);
    assert!(violated.contains(&"answers"), "{violated:?}");
    assert!(answers::check(&std::collections::BTreeMap::new()).is_ok());
}

#[test]
fn a_group_that_does_not_heal_is_caught() {
    let run = Run::new(1);
    let host = super::host::Host::new(run.rng.fork("host"), run.trace);
    assert!(healing::check(host.shard(), &[]).is_err());
}

#[test]
fn a_generation_that_changes_its_mind_is_caught() {
    let told = |partitions: &[u8]| Assigned {
        generation: 1,
        member: "a".to_owned(),
        partitions: partitions.to_vec(),
    };
    let mut assignments = Assignments::default();
    assert!(assignments.check(&told(&[1, 2])).is_ok());
    assert!(assignments.check(&told(&[1, 2])).is_ok());
    assert!(assignments.check(&told(&[1])).is_err());
}
