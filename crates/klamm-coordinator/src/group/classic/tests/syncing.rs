use klamm_protocol::ErrorCode;
use klamm_protocol::messages::SyncGroupRequest;

use super::joining::two_stable;
use crate::group::classic::ClassicState;
use crate::group::testing::{Bench, GROUP, Join, Writes, code, sync_request};
use crate::group::{GroupRequest, GroupResponse};
use crate::runtime::WriteOutcome;

fn refused(bench: &mut Bench, request: GroupRequest) -> ErrorCode {
    match bench.ask(request) {
        Ok(GroupResponse::SyncGroup(answer)) => code(answer.error_code),
        Err(error) => error,
        other => panic!("no SyncGroup answer but {other:?}"),
    }
}

#[test]
fn refuses_strangers_old_generations_and_other_protocols() {
    let mut bench = Bench::new();
    let unknown = refused(&mut bench, sync_request("m", None, 1, &[]));
    assert_eq!(unknown, ErrorCode::UnknownMemberId);
    let (id, _) = bench.first_member();
    let unknown = refused(&mut bench, sync_request("zz", None, 1, &[]));
    assert_eq!(unknown, ErrorCode::UnknownMemberId);
    let unknown = refused(&mut bench, sync_request(&id, Some("i"), 1, &[]));
    assert_eq!(unknown, ErrorCode::UnknownMemberId);
    let outdated = refused(&mut bench, sync_request(&id, None, 2, &[]));
    assert_eq!(outdated, ErrorCode::IllegalGeneration);
    for (kind, name) in [("consumer", "sticky"), ("connect", "range")] {
        let request = SyncGroupRequest {
            group_id: GROUP.into(),
            generation_id: 1,
            member_id: id.as_str().into(),
            protocol_type: Some(kind.into()),
            protocol_name: Some(name.into()),
            ..SyncGroupRequest::default()
        };
        let other = refused(&mut bench, GroupRequest::SyncGroup(Box::new(request)));
        assert_eq!(other, ErrorCode::InconsistentGroupProtocol);
    }
    assert_eq!(bench.state(), ClassicState::CompletingRebalance);
}

#[test]
fn followers_wait_for_the_leader_and_forgotten_members_get_nothing() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    bench.join(Join::old().id(&leader));
    let token = bench.join(Join::old().id(&follower));
    let generation = bench.join_answer(token).generation_id;
    let waiting = bench.sync(&follower, generation, &[]);
    assert!(bench.is_parked(waiting));
    let before = bench.log.len();
    let token = bench.sync(&leader, generation, &[(&leader, "all"), ("ghost", "x")]);
    let answer = bench.sync_answer(token);
    assert_eq!(answer.assignment, "all");
    assert_eq!(answer.protocol_name.unwrap(), "range");
    assert_eq!(bench.sync_answer(waiting).assignment, "");
    assert_eq!(bench.log.len(), before + 1);
    assert_eq!(bench.metrics.rebalances_completed.get(), 3);
}

#[test]
fn a_stable_group_repeats_the_assignment() {
    let mut bench = Bench::new();
    let id = bench.stable();
    let token = bench.sync(&id, 1, &[]);
    assert_eq!(bench.sync_answer(token).assignment, "work");
    assert_eq!(bench.log.len(), 2);
}

#[test]
fn a_late_member_has_its_whole_session_from_when_it_is_told() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    bench.join(Join::old().id(&leader));
    let token = bench.join(Join::old().id(&follower));
    let generation = bench.join_answer(token).generation_id;
    bench.sync(&leader, generation, &[(&follower, "work")]);
    bench.advance_ms(9_000);
    assert_eq!(bench.heartbeat(&leader, generation), ErrorCode::None);
    let token = bench.sync(&follower, generation, &[]);
    assert_eq!(bench.sync_answer(token).assignment, "work");
    bench.advance_ms(9_000);
    assert_eq!(bench.heartbeat(&leader, generation), ErrorCode::None);
    assert_eq!(bench.heartbeat(&follower, generation), ErrorCode::None);
}

#[test]
fn refuses_while_members_rejoin() {
    let mut bench = Bench::new();
    let id = bench.stable();
    let token = bench.join(Join::old());
    assert!(bench.is_parked(token));
    let error = refused(&mut bench, sync_request(&id, None, 1, &[]));
    assert_eq!(error, ErrorCode::RebalanceInProgress);
}

#[test]
fn the_assignment_shows_when_it_is_committed() {
    let mut bench = Bench::new();
    let (id, _) = bench.first_member();
    bench.writes = Writes::Hold;
    let token = bench.sync(&id, 1, &[(&id, "work")]);
    assert!(bench.is_parked(token));
    assert_eq!(bench.state(), ClassicState::CompletingRebalance);
    bench.settle(WriteOutcome::Committed);
    assert_eq!(bench.sync_answer(token).assignment, "work");
    assert_eq!(bench.state(), ClassicState::Stable);
}

#[test]
fn a_lost_assignment_is_an_error_to_all_and_a_new_rebalance() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    bench.join(Join::old().id(&leader));
    let token = bench.join(Join::old().id(&follower));
    let generation = bench.join_answer(token).generation_id;
    let waiting = bench.sync(&follower, generation, &[]);
    bench.writes = Writes::Fail(ErrorCode::NotLeaderOrFollower);
    let token = bench.sync(&leader, generation, &[(&leader, "all")]);
    for token in [token, waiting] {
        let error = bench.sync_answer(token).error_code;
        assert_eq!(code(error), ErrorCode::NotCoordinator);
    }
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
    // Nobody keeps what was not written.
    assert!(
        bench
            .group()
            .members()
            .all(|member| member.assignment.is_empty())
    );
}

#[test]
fn an_assignment_that_comes_late_does_not_matter() {
    let mut bench = Bench::new();
    let (id, _) = bench.first_member();
    bench.writes = Writes::Hold;
    let token = bench.sync(&id, 1, &[(&id, "work")]);
    // Somebody else joins: the generation is over.
    let joining = bench.join(Join::old());
    assert_eq!(
        code(bench.sync_answer(token).error_code),
        ErrorCode::RebalanceInProgress
    );
    bench.settle(WriteOutcome::Committed);
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
    assert!(bench.is_parked(joining));
}

#[test]
fn an_assignment_that_times_out_makes_a_rebalance() {
    let mut bench = Bench::new();
    let (id, _) = bench.first_member();
    bench.writes = Writes::Hold;
    let token = bench.sync(&id, 1, &[(&id, "work")]);
    bench.settle(WriteOutcome::TimedOut);
    let error = bench.sync_answer(token).error_code;
    assert_eq!(code(error), ErrorCode::CoordinatorNotAvailable);
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
}

#[test]
fn members_that_never_sync_are_removed_after_the_rebalance_timeout() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    bench.join(Join::old().id(&leader));
    let token = bench.join(Join::old().id(&follower));
    assert_eq!(bench.join_answer(token).generation_id, 3);
    let waiting = bench.sync(&follower, 3, &[]);
    // The leader keeps its session alive but never assigns.
    for _ in 0..12 {
        assert!(bench.is_parked(waiting));
        assert_eq!(bench.heartbeat(&leader, 3), ErrorCode::None);
        bench.advance_ms(5_000);
    }
    assert!(bench.group().member(&leader).is_none());
    let error = bench.sync_answer(waiting).error_code;
    assert_eq!(code(error), ErrorCode::RebalanceInProgress);
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
}

#[test]
fn a_second_sync_of_the_same_member_answers_the_first() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    bench.join(Join::old().id(&leader));
    bench.join(Join::old().id(&follower));
    let first = bench.sync(&follower, 3, &[]);
    let second = bench.sync(&follower, 3, &[]);
    assert_eq!(
        code(bench.sync_answer(first).error_code),
        ErrorCode::RebalanceInProgress
    );
    assert!(bench.is_parked(second));
}
