//! Partitions on their way from one member to another.

use super::{Beat, given, held};
use crate::group::cluster::ConsumerGroupSettings;
use crate::group::consumer::{ConsumerGroupState, MemberState};
use crate::group::testing::Bench;

fn two_topics() -> Bench {
    let mut bench = Bench::new();
    bench.make_topic("t", 4);
    bench.make_topic("u", 2);
    bench
}

#[test]
fn what_one_gives_up_the_other_gets_and_not_before() {
    let mut bench = two_topics();
    bench.beat(&Beat::join("a", &["t"]));
    bench.advance_ms(1_000);
    let joined = bench.beat(&Beat::join("b", &["t"]));
    assert_eq!(joined.member_epoch, 3);
    assert_eq!(given(&joined, &["t"]), Some(held(&[])));
    let b = bench.consumers().member("b").unwrap();
    assert_eq!(b.state, MemberState::UnreleasedPartitions);
    assert_eq!(bench.consumer_state(), ConsumerGroupState::Reconciling);

    let told = bench.beat(&Beat::stay("a", 2));
    assert_eq!(told.member_epoch, 2);
    let kept = given(&told, &["t"]).unwrap();
    assert_eq!(kept["t"].len(), 2);
    // It does not say what it has: nothing moves.
    assert!(bench.beat(&Beat::stay("a", 2)).assignment.is_none());
    assert!(bench.beat(&Beat::stay("b", 3)).assignment.is_none());
    // It still has some of what it must give up: nothing moves.
    let all = held(&[("t", &[0, 1, 2, 3])]);
    assert_eq!(bench.beat(&Beat::stay("a", 2).owning(&all)).member_epoch, 2);
    assert!(bench.beat(&Beat::stay("b", 3)).assignment.is_none());

    let done = bench.beat(&Beat::stay("a", 2).owning(&kept));
    assert_eq!(done.member_epoch, 3);
    let got = bench.beat(&Beat::stay("b", 3));
    let got = given(&got, &["t"]).unwrap();
    assert_eq!(got["t"].len(), 2);
    assert!(got["t"].is_disjoint(&kept["t"]));
    assert_eq!(bench.consumer_state(), ConsumerGroupState::Stable);
}

#[test]
fn a_member_says_goodbye_at_once_to_what_it_unsubscribes_from() {
    let mut bench = two_topics();
    bench.cluster.set(ConsumerGroupSettings {
        assignment_interval_ms: 60_000,
        ..ConsumerGroupSettings::default()
    });
    bench.beat(&Beat::join("a", &["t", "u"]));
    bench.advance_ms(1_000);
    // The next target is not due yet, but what is not wanted goes now.
    let changed = bench.beat(&Beat::stay("a", 2).subscribed(&["u"]));
    assert_eq!(changed.member_epoch, 2);
    let names = ["t", "u"];
    assert_eq!(given(&changed, &names), Some(held(&[("u", &[0, 1])])));
    assert_eq!(bench.consumer_state(), ConsumerGroupState::Assigning);
    let a = bench.consumers().member("a").unwrap();
    assert_eq!(a.state, MemberState::UnrevokedPartitions);
    bench.advance_ms(40_000);
    bench.beat(&Beat::join("b", &["u"]));
    assert_eq!(bench.consumers().assignment_epoch(), 2);
    bench.beat(&Beat::stay("a", 2).owning(&held(&[("u", &[0, 1])])));
    bench.advance_ms(20_000);
    bench.beat(&Beat::stay("b", 2));
    assert_eq!(
        bench.consumers().assignment_epoch(),
        bench.consumers().epoch()
    );
}

/// Found by the simulator: the target of a coordinator whose clock was ahead kept the next one from
/// making another until its clock was as far.
#[test]
fn a_target_from_the_future_is_replaced() {
    let mut bench = two_topics();
    bench.cluster.set(ConsumerGroupSettings {
        assignment_interval_ms: 1_000,
        ..ConsumerGroupSettings::default()
    });
    bench.beat(&Beat::join("a", &["t"]));
    bench.turn_back_ms(60_000);
    bench.beat(&Beat::join("b", &["t"]));
    let group = bench.consumers();
    assert_eq!(group.assignment_epoch(), group.epoch());
    // By this clock it is too early for another one.
    bench.beat(&Beat::join("c", &["t"]));
    let group = bench.consumers();
    assert_eq!(group.assignment_epoch() + 1, group.epoch());
}

#[test]
fn new_and_deleted_topics_make_a_new_epoch() {
    let mut bench = two_topics();
    let joined = bench.beat(&Beat::join("a", &["t", "later"]));
    assert_eq!(given(&joined, &["t"]), Some(held(&[("t", &[0, 1, 2, 3])])));
    let hash = bench.consumers().metadata_hash();
    bench.advance_ms(1_000);
    bench.make_topic("later", 1);
    let names = ["t", "later"];
    let all = held(&[("later", &[0]), ("t", &[0, 1, 2, 3])]);
    let more = bench.beat(&Beat::stay("a", 2));
    assert_eq!(more.member_epoch, 3);
    assert_eq!(given(&more, &names), Some(all));
    assert_ne!(bench.consumers().metadata_hash(), hash);
    // A topic that nobody subscribes to makes none.
    bench.make_topic("other", 1);
    assert_eq!(bench.beat(&Beat::stay("a", 3)).member_epoch, 3);
    bench.advance_ms(1_000);
    bench.make_topic("t", 5);
    let grown = bench.beat(&Beat::stay("a", 3));
    assert_eq!(given(&grown, &names).unwrap()["t"].len(), 5);
    bench.advance_ms(1_000);
    bench.delete_topic("t");
    let left = held(&[("later", &[0])]);
    let shrunk = bench.beat(&Beat::stay("a", 4));
    assert_eq!(given(&shrunk, &names), Some(left.clone()));
    let done = bench.beat(&Beat::stay("a", shrunk.member_epoch).owning(&left));
    assert_eq!(done.member_epoch, 5);
    assert_eq!(bench.consumer_state(), ConsumerGroupState::Stable);
}

#[test]
fn the_assignor_most_ask_for_wins() {
    let mut bench = two_topics();
    bench.beat(&Beat::join("b", &["t", "u"]).assigned_by("range"));
    bench.advance_ms(1_000);
    bench.beat(&Beat::join("a", &["t", "u"]).assigned_by("range"));
    let target = |bench: &Bench, id: &str| {
        let target = bench.consumers().target(id).unwrap();
        target
            .values()
            .map(|p| p.iter().copied().collect())
            .collect()
    };
    let runs: Vec<Vec<i32>> = target(&bench, "a");
    assert_eq!(runs, [vec![0, 1], vec![0]]);
    let runs: Vec<Vec<i32>> = target(&bench, "b");
    assert_eq!(runs, [vec![2, 3], vec![1]]);
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let mut bench = two_topics();
    bench.beat(&Beat::join("a", &["t", "u"]));
    bench.advance_ms(1_000);
    bench.beat(&Beat::join("b", &["t", "u"]));
    let told = bench.beat(&Beat::stay("a", 2));
    let kept = given(&told, &["t", "u"]).unwrap();
    let mut after = bench.reload();
    let (mut before, now) = (bench.consumers().clone(), after.consumers().clone());
    before.refresh = None;
    assert_eq!(now, before);
    let done = after.beat(&Beat::stay("a", 2).owning(&kept));
    assert_eq!(done.member_epoch, 3);
    let got = given(&after.beat(&Beat::stay("b", 3)), &["t", "u"]).unwrap();
    assert_eq!(got.values().map(|p| p.len()).sum::<usize>(), 3);
    assert_eq!(after.consumer_state(), ConsumerGroupState::Stable);
}

#[test]
fn a_state_of_a_later_version_must_start_over() {
    let mut bench = two_topics();
    bench.beat(&Beat::join("a", &["t"]));
    for record in &mut bench.log {
        if let crate::group::GroupRecord::Consumer(record) = record
            && let crate::group::consumer::ConsumerRecord::Current(_, Some(value)) = &mut **record
        {
            value.state = 77;
        }
    }
    let mut bench = bench.reload();
    let fenced = bench.beat_error(&Beat::stay("a", 2));
    assert_eq!(fenced, klamm_protocol::ErrorCode::FencedMemberEpoch);
    let again = bench.beat(&Beat::join("a", &["t"]));
    assert_eq!(again.member_epoch, 2);
    assert_eq!(given(&again, &["t"]), Some(held(&[("t", &[0, 1, 2, 3])])));
}
