//! Each property can be violated: by a controller with a mistake built in.

use super::super::Run;
use super::driver::drive;
use super::{Flaw, ids};

/// The properties that a flaw violates, over some seeds.
fn violated(flaw: Flaw) -> Vec<&'static str> {
    let mut all: Vec<&'static str> = (0..12)
        .filter_map(|seed| drive(&Run::new(seed), flaw).err())
        .map(|violation| violation.property)
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn a_log_that_misses_a_record_is_caught() {
    assert_eq!(violated(Flaw::RecordLost), ["replay"]);
}

#[test]
fn elections_of_anyone_are_caught() {
    assert!(violated(Flaw::AnyoneLeads).contains(&"elections"));
}

#[test]
fn strangers_in_the_isr_are_caught() {
    assert_eq!(violated(Flaw::StrangerInSync), ["partitions"]);
}

#[test]
fn ids_that_repeat_are_caught() {
    let violated = violated(Flaw::IdsRepeat);
    assert!(
        violated.contains(&"ids") || violated.contains(&"replay"),
        "{violated:?}"
    );
    let mut ids = ids::Ids::default();
    assert!(ids.check_block(0, 1000).is_ok());
    assert!(ids.check_block(1000, 1000).is_ok());
    assert!(ids.check_block(1999, 1000).is_err());
}
