use klamm_protocol::ErrorCode;

use super::joining::two_stable;
use crate::group::classic::ClassicState;
use crate::group::testing::{Bench, Join, code};

const OK: ErrorCode = ErrorCode::None;
const UNKNOWN: ErrorCode = ErrorCode::UnknownMemberId;

#[test]
fn each_member_of_the_list_gets_its_own_verdict() {
    let mut bench = Bench::new();
    assert_eq!(bench.leave(&[("m", None)]), [UNKNOWN]);
    let id = bench.stable();
    let verdicts = bench.leave(&[("a", None), ("", Some("i")), ("", None), (&id, Some("i"))]);
    assert_eq!(verdicts, [UNKNOWN; 4]);
    assert_eq!(bench.state(), ClassicState::Stable);
    assert_eq!(bench.leave(&[("a", None), (&id, None)]), [UNKNOWN, OK]);
    assert_eq!(bench.state(), ClassicState::Empty);
    assert_eq!(bench.group().generation(), 2);
}

#[test]
fn the_others_rejoin_once() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    assert_eq!(bench.leave(&[(&leader, None)]), [OK]);
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
    let token = bench.join(Join::old().id(&follower));
    let answer = bench.join_answer(token);
    assert_eq!((answer.generation_id, answer.members.len()), (3, 1));
    assert_eq!(*answer.leader, *follower);
}

#[test]
fn a_static_member_leaves_by_name_and_is_fenced_by_another_id() {
    let mut bench = Bench::new();
    let token = bench.join(Join::named("i"));
    bench.advance_ms(3_000);
    let id = bench.join_answer(token).member_id.to_string();
    assert_eq!(
        bench.leave(&[("x", Some("i"))]),
        [ErrorCode::FencedInstanceId]
    );
    assert_eq!(
        bench.leave(&[("", Some("i")), (&id, Some("i"))]),
        [OK, UNKNOWN]
    );
    assert_eq!(bench.state(), ClassicState::Empty);
}

#[test]
fn a_pending_member_may_leave_and_lets_the_rebalance_go_on() {
    let mut bench = Bench::new();
    let id = bench.stable();
    let token = bench.join(Join::new());
    let pending = bench.join_answer(token).member_id.to_string();
    let rejoined = bench.join(Join::old().id(&id));
    assert!(bench.is_parked(rejoined));
    assert_eq!(bench.leave(&[(&pending, None)]), [OK]);
    assert_eq!(bench.join_answer(rejoined).generation_id, 2);
}

#[test]
fn a_member_that_leaves_while_it_waits_is_answered() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    let joining = bench.join(Join::old().id(&leader));
    assert_eq!(bench.leave(&[(&leader, None)]), [OK]);
    assert_eq!(code(bench.join_answer(joining).error_code), UNKNOWN);
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
    assert_eq!(*bench.group().leader().unwrap(), *follower);
}

#[test]
fn a_follower_that_leaves_while_it_waits_for_its_work_is_answered() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    bench.join(Join::old().id(&leader));
    let token = bench.join(Join::old().id(&follower));
    let generation = bench.join_answer(token).generation_id;
    let syncing = bench.sync(&follower, generation, &[]);
    assert!(bench.is_parked(syncing));
    assert_eq!(bench.leave(&[(&follower, None)]), [OK]);
    assert_eq!(code(bench.sync_answer(syncing).error_code), UNKNOWN);
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
}

#[test]
fn the_initial_delay_is_kept_when_one_of_several_leaves() {
    let mut bench = Bench::new();
    let first = bench.join(Join::old());
    bench.join(Join::named("i"));
    bench.leave(&[("", Some("i"))]);
    assert!(bench.is_parked(first));
    bench.advance_ms(6_000);
    assert_eq!(bench.join_answer(first).generation_id, 1);
}
