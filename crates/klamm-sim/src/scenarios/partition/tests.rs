//! Each property can be violated: by brokers and controllers with a mistake built in.

use super::super::Run;
use super::driver::drive;
use super::world::Flaw;

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
fn followers_that_boast_are_caught() {
    let violated = violated(Flaw::FollowersBoast);
    assert!(violated.contains(&"watermark"), "{violated:?}");
}

#[test]
fn followers_that_never_cut_are_caught() {
    let violated = violated(Flaw::FollowersNeverCut);
    assert!(!violated.is_empty(), "{violated:?}");
    assert!(violated.contains(&"healing"), "{violated:?}");
}

#[test]
fn brokers_that_forget_are_caught() {
    let violated = violated(Flaw::RestartsForget);
    assert!(
        violated.contains(&"committed") || violated.contains(&"watermark"),
        "{violated:?}"
    );
}

#[test]
fn unclean_elections_are_caught() {
    let violated = violated(Flaw::UncleanElections);
    assert!(violated.contains(&"committed"), "{violated:?}");
    assert!(violated.contains(&"reads"), "{violated:?}");
}
