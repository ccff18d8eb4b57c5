use klamm_protocol::ErrorCode;

use crate::group::GroupRecord;
use crate::group::classic::ClassicState;
use crate::group::testing::{Bench, Join, Writes, code, sync_request};
use crate::runtime::WriteOutcome;

/// A stable group of one static member, and its id.
fn stable_static(bench: &mut Bench) -> String {
    let token = bench.join(Join::named("i"));
    bench.advance_ms(3_000);
    let id = bench.join_answer(token).member_id.to_string();
    assert!(id.starts_with("i-"), "{id}");
    let token = bench.send(sync_request(&id, Some("i"), 1, &[(&id, "work")]));
    assert_eq!(bench.sync_answer(token).assignment, "work");
    id
}

#[test]
fn needs_no_second_request_to_join() {
    let mut bench = Bench::new();
    let token = bench.join(Join::named("i"));
    assert!(bench.is_parked(token));
    assert_eq!(bench.group().member_count(), 1);
}

#[test]
fn comes_back_under_a_new_id_without_a_rebalance() {
    let mut bench = Bench::new();
    let old = stable_static(&mut bench);
    let written = bench.log.len();
    let token = bench.join(Join::named("i"));
    let answer = bench.join_answer(token);
    let new = answer.member_id.to_string();
    assert_ne!(new, old);
    assert_eq!(answer.generation_id, 1);
    assert_eq!(*answer.leader, *new);
    assert!(answer.skip_assignment);
    assert_eq!(answer.members.len(), 1);
    assert_eq!(bench.state(), ClassicState::Stable);
    assert_eq!(bench.log.len(), written + 1);
    // The old one is fenced by name, and unknown without.
    assert_eq!(
        bench.heartbeat_as(&old, Some("i"), 1),
        ErrorCode::FencedInstanceId
    );
    assert_eq!(bench.heartbeat(&old, 1), ErrorCode::UnknownMemberId);
    assert_eq!(bench.heartbeat_as(&new, Some("i"), 1), ErrorCode::None);
    let token = bench.send(sync_request(&new, Some("i"), 1, &[]));
    assert_eq!(bench.sync_answer(token).assignment, "work");
    let reloaded = bench.reload();
    assert_eq!(*reloaded.group().static_member_id("i").unwrap(), *new);
}

#[test]
fn an_old_leader_that_comes_back_becomes_a_follower() {
    let mut bench = Bench::new();
    let old = stable_static(&mut bench);
    let token = bench.join(Join::named("i").version(8));
    let answer = bench.join_answer(token);
    assert_eq!(*answer.leader, *old);
    assert_ne!(*answer.member_id, *old);
    assert!(!answer.skip_assignment);
    assert!(answer.members.is_empty());
}

#[test]
fn the_old_id_and_other_names_are_fenced_from_joining() {
    let mut bench = Bench::new();
    let old = stable_static(&mut bench);
    let token = bench.join(Join::named("i"));
    let new = bench.join_answer(token).member_id.to_string();
    let token = bench.join(Join::named("i").id(&old));
    let answer = bench.join_answer(token);
    assert_eq!(code(answer.error_code), ErrorCode::FencedInstanceId);
    assert_eq!(*answer.member_id, *old);
    let token = bench.join(Join::named("other").id(&new));
    assert_eq!(
        code(bench.join_answer(token).error_code),
        ErrorCode::UnknownMemberId
    );
}

#[test]
fn stays_a_member_through_a_rebalance_it_misses() {
    let mut bench = Bench::new();
    let id = stable_static(&mut bench);
    let token = bench.join(Join::old());
    let mut waited_ms = 0;
    while bench.is_parked(token) {
        bench.heartbeat_as(&id, Some("i"), 1);
        bench.advance_ms(5_000);
        waited_ms += 5_000;
    }
    assert_eq!(waited_ms, 60_000);
    let answer = bench.join_answer(token);
    assert_eq!(answer.generation_id, 2);
    // The one who came leads, and assigns to both.
    assert_eq!(answer.leader, answer.member_id);
    assert_eq!(answer.members.len(), 2);
}

#[test]
fn a_rebalance_without_anybody_waits_for_absent_static_members() {
    let mut bench = Bench::new();
    let id = stable_static(&mut bench);
    let token = bench.join(Join::named("j"));
    // The one who joined gives up, the one who stayed away keeps its session.
    assert!(bench.is_parked(token));
    bench.leave(&[("", Some("j"))]);
    for _ in 0..12 {
        bench.heartbeat_as(&id, Some("i"), 1);
        bench.advance_ms(5_000);
    }
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
    assert_eq!(bench.group().member_count(), 1);
    bench.advance_ms(10_000);
    assert_eq!(bench.state(), ClassicState::Empty);
}

#[test]
fn a_return_while_the_leader_assigns_starts_over() {
    let mut bench = Bench::new();
    let token = bench.join(Join::named("i"));
    bench.advance_ms(3_000);
    let old = bench.join_answer(token).member_id.to_string();
    let token = bench.join(Join::named("i"));
    let answer = bench.join_answer(token);
    assert_eq!(answer.generation_id, 2);
    assert_ne!(*answer.member_id, *old);
}

#[test]
fn a_return_fences_the_requests_of_the_former_self() {
    let mut bench = Bench::new();
    stable_static(&mut bench);
    bench.join(Join::old());
    let first = bench.join(Join::named("j"));
    let second = bench.join(Join::named("j"));
    let answer = bench.join_answer(first);
    assert_eq!(code(answer.error_code), ErrorCode::FencedInstanceId);
    assert!(bench.is_parked(second));
}

#[test]
fn a_return_that_changes_the_vote_makes_a_rebalance() {
    let mut bench = Bench::new();
    let both = ["range", "roundrobin"];
    let first = bench.join(Join::named("i").protocols(&both));
    let second = bench.join(Join::named("j").protocols(&both));
    bench.advance_ms(6_000);
    let ids = [first, second].map(|token| bench.join_answer(token).member_id.to_string());
    let leader = bench.group().leader().unwrap().to_string();
    for (id, name) in ids.iter().zip(["i", "j"]) {
        if *id != leader {
            bench.send(sync_request(id, Some(name), 1, &[]));
        }
    }
    let name = if leader == ids[0] { "i" } else { "j" };
    bench.send(sync_request(&leader, Some(name), 1, &[]));
    assert_eq!(bench.state(), ClassicState::Stable);
    bench.join(Join::named("i").protocols(&["roundrobin"]));
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
}

#[test]
fn a_single_member_that_changes_its_protocols_entirely_is_refused() {
    let mut bench = Bench::new();
    stable_static(&mut bench);
    let token = bench.join(Join::named("i").protocols(&["roundrobin"]));
    let error = bench.join_answer(token).error_code;
    assert_eq!(code(error), ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn a_return_that_is_not_written_leaves_the_old_id_in_place() {
    let mut bench = Bench::new();
    let old = stable_static(&mut bench);
    bench.writes = Writes::Fail(ErrorCode::KafkaStorageError);
    let token = bench.join(Join::named("i").subscribed(&["u"]));
    let answer = bench.join_answer(token);
    assert_eq!(code(answer.error_code), ErrorCode::NotCoordinator);
    assert_eq!(answer.member_id, "");
    assert_eq!(*bench.group().static_member_id("i").unwrap(), *old);
    assert_eq!(bench.heartbeat_as(&old, Some("i"), 1), ErrorCode::None);
    assert_eq!(bench.state(), ClassicState::Stable);
    assert_eq!(bench.group().join_waiters(), 0);
    // It still expires like any other.
    bench.advance_ms(10_000);
    assert_eq!(bench.group().member_count(), 0);
}

#[test]
fn a_return_is_answered_when_it_is_committed() {
    let mut bench = Bench::new();
    stable_static(&mut bench);
    bench.writes = Writes::Hold;
    let token = bench.join(Join::named("i"));
    assert!(bench.is_parked(token));
    bench.settle(WriteOutcome::Committed);
    assert_eq!(code(bench.join_answer(token).error_code), ErrorCode::None);
    let last = bench.log.last().unwrap();
    let GroupRecord::GroupMetadata {
        value: Some(value), ..
    } = last
    else {
        panic!("a group, not {last:?}");
    };
    assert_eq!(value.members[0].assignment, "work");
}

#[test]
fn expires_like_any_member() {
    let mut bench = Bench::new();
    stable_static(&mut bench);
    bench.advance_ms(10_000);
    assert_eq!(bench.state(), ClassicState::Empty);
    assert!(bench.group().static_member_id("i").is_none());
}
