use klamm_protocol::ErrorCode;

use super::joining::two_stable;
use crate::group::classic::ClassicState;
use crate::group::testing::{Bench, Join, code};

#[test]
fn a_heartbeat_is_refused_to_strangers_and_old_generations() {
    let mut bench = Bench::new();
    assert_eq!(bench.heartbeat("m", 1), ErrorCode::UnknownMemberId);
    let id = bench.stable();
    assert_eq!(bench.heartbeat("m", 1), ErrorCode::UnknownMemberId);
    assert_eq!(bench.heartbeat(&id, 0), ErrorCode::IllegalGeneration);
    assert_eq!(
        bench.heartbeat_as(&id, Some("i"), 1),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(bench.heartbeat(&id, 1), ErrorCode::None);
}

#[test]
fn a_heartbeat_tells_of_a_rebalance_and_keeps_the_session() {
    let mut bench = Bench::new();
    let id = bench.stable();
    bench.join(Join::old());
    for _ in 0..6 {
        bench.advance_ms(9_000);
        assert_eq!(bench.heartbeat(&id, 1), ErrorCode::RebalanceInProgress);
    }
    assert!(bench.group().member(&id).is_some());
}

#[test]
fn a_heartbeat_is_fine_while_the_leader_assigns() {
    let mut bench = Bench::new();
    let (id, _) = bench.first_member();
    assert_eq!(bench.heartbeat(&id, 1), ErrorCode::None);
}

#[test]
fn a_silent_member_goes_after_its_session_and_the_others_rejoin() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    bench.advance_ms(9_000);
    assert_eq!(bench.heartbeat(&leader, 2), ErrorCode::None);
    bench.advance_ms(1_000);
    assert!(bench.group().member(&follower).is_none());
    assert_eq!(bench.metrics.members_expired.get(), 1);
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
    assert_eq!(bench.heartbeat(&leader, 2), ErrorCode::RebalanceInProgress);
    let token = bench.join(Join::old().id(&leader));
    let answer = bench.join_answer(token);
    assert_eq!(answer.generation_id, 3);
    assert_eq!(answer.members.len(), 1);
}

#[test]
fn a_group_whose_last_member_falls_silent_becomes_empty_and_says_so() {
    let mut bench = Bench::new();
    let id = bench.stable();
    let before = bench.log.len();
    bench.advance_ms(10_000);
    assert_eq!(bench.state(), ClassicState::Empty);
    assert_eq!(bench.group().generation(), 2);
    assert_eq!(bench.group().protocol_type().unwrap(), "consumer");
    assert_eq!(bench.group().leader(), None);
    assert_eq!(bench.log.len(), before + 1);
    assert_eq!(bench.heartbeat(&id, 2), ErrorCode::UnknownMemberId);
    let reloaded = bench.reload();
    assert_eq!(reloaded.group().generation(), 2);
    assert_eq!(reloaded.state(), ClassicState::Empty);
}

#[test]
fn a_member_that_waits_for_an_answer_is_not_silent() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    let token = bench.join(Join::old().id(&leader));
    for _ in 0..5 {
        bench.advance_ms(9_000);
        bench.heartbeat(&follower, 2);
    }
    assert!(bench.is_parked(token));
    assert!(bench.group().member(&leader).is_some());
}

#[test]
fn a_member_that_does_not_rejoin_in_time_is_left_behind() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    let token = bench.join(Join::old().id(&follower).subscribed(&["t", "u"]));
    for _ in 0..7 {
        bench.advance_ms(8_500);
        assert_eq!(bench.heartbeat(&leader, 2), ErrorCode::RebalanceInProgress);
    }
    bench.advance_ms(500);
    let answer = bench.join_answer(token);
    assert_eq!(answer.generation_id, 3);
    assert_eq!(*answer.leader, *follower);
    assert_eq!(answer.members.len(), 1);
    assert!(bench.group().member(&leader).is_none());
}

#[test]
fn a_pending_member_holds_up_a_rebalance_until_it_joins_or_expires() {
    let mut bench = Bench::new();
    let id = bench.stable();
    let token = bench.join(Join::new());
    let pending = bench.join_answer(token).member_id;
    assert_eq!(bench.state(), ClassicState::Stable);
    let rejoined = bench.join(Join::old().id(&id));
    assert!(bench.is_parked(rejoined));
    let joined = bench.join(Join::new().id(&pending));
    assert_eq!(bench.join_answer(rejoined).generation_id, 2);
    assert_eq!(bench.join_answer(joined).generation_id, 2);

    let mut bench = Bench::new();
    let id = bench.stable();
    bench.join(Join::new());
    let rejoined = bench.join(Join::old().id(&id));
    bench.advance_ms(9_999);
    assert!(bench.is_parked(rejoined));
    bench.advance_ms(1);
    assert_eq!(bench.join_answer(rejoined).generation_id, 2);
}

#[test]
fn a_new_member_whose_first_rebalance_takes_too_long_is_told_to_start_over() {
    let mut bench = Bench::new();
    let id = bench.stable();
    let mut patient = Join::old().id(&id);
    patient.rebalance_timeout_ms = 1_000_000;
    let token = bench.join(patient);
    let generation = bench.join_answer(token).generation_id;
    let joining = bench.join(Join::old());
    for _ in 0..33 {
        bench.advance_ms(9_000);
        bench.heartbeat(&id, generation);
    }
    assert!(bench.is_parked(joining));
    bench.advance_ms(3_000);
    let answer = bench.join_answer(joining);
    assert_eq!(code(answer.error_code), ErrorCode::UnknownMemberId);
    assert_eq!(answer.member_id, "");
}

#[test]
fn loaded_members_have_their_session_to_come_back() {
    let mut bench = Bench::new();
    let id = bench.stable();
    let mut reloaded = bench.reload();
    assert_eq!(reloaded.state(), ClassicState::Stable);
    let token = reloaded.sync(&id, 1, &[]);
    assert_eq!(reloaded.sync_answer(token).assignment, "work");
    reloaded.advance_ms(9_999);
    assert_eq!(reloaded.heartbeat(&id, 1), ErrorCode::None);
    reloaded.advance_ms(10_000);
    assert_eq!(reloaded.state(), ClassicState::Empty);
}
