use klamm_protocol::ErrorCode;

use crate::group::GroupCoordinatorConfig;
use crate::group::classic::ClassicState;
use crate::group::testing::{Bench, GROUP, Join, code};

fn refused(bench: &mut Bench, join: Join) -> (ErrorCode, String) {
    let token = bench.join(join);
    let answer = bench.join_answer(token);
    assert_eq!(answer.generation_id, -1);
    assert_eq!(answer.protocol_name, None);
    (code(answer.error_code), answer.member_id.to_string())
}

#[test]
fn refuses_an_id_that_no_group_gave() {
    let mut bench = Bench::new();
    let refusal = refused(&mut bench, Join::new().id("x-1"));
    assert_eq!(refusal, (ErrorCode::UnknownMemberId, "x-1".into()));
    assert!(bench.shard.classic_group(GROUP).is_none());
    bench.stable();
    let refusal = refused(&mut bench, Join::new().id("x-1"));
    assert_eq!(refusal, (ErrorCode::UnknownMemberId, "x-1".into()));
}

#[test]
fn refuses_a_join_without_protocols_or_type_but_knows_the_group_then() {
    let mut bench = Bench::new();
    let refusal = refused(&mut bench, Join::new().protocols(&[]));
    assert_eq!(refusal.0, ErrorCode::InconsistentGroupProtocol);
    assert_eq!(bench.state(), ClassicState::Empty);
    assert_eq!(bench.log.len(), 1);
    let mut untyped = Join::new();
    untyped.protocol_type.clear();
    let refusal = refused(&mut bench, untyped);
    assert_eq!(refusal.0, ErrorCode::InconsistentGroupProtocol);
    assert_eq!(bench.log.len(), 1);
}

#[test]
fn gives_an_id_first_and_counts_the_member_as_pending_until_it_comes_back() {
    let mut bench = Bench::new();
    let (error, id) = refused(&mut bench, Join::new());
    assert_eq!(error, ErrorCode::MemberIdRequired);
    assert!(id.starts_with("c-") && id.len() == 2 + 36, "{id}");
    assert!(bench.group().is_pending(&id));
    assert_eq!(bench.state(), ClassicState::Empty);
    let token = bench.join(Join::new().id(&id));
    assert!(!bench.group().is_pending(&id));
    bench.advance_ms(2_999);
    assert!(bench.is_parked(token));
    bench.advance_ms(1);
    let answer = bench.join_answer(token);
    assert_eq!(answer.generation_id, 1);
    assert_eq!(answer.protocol_type.unwrap(), "consumer");
    assert_eq!(answer.protocol_name.unwrap(), "range");
    assert_eq!((&*answer.leader, &*answer.member_id), (&*id, &*id));
    assert_eq!(answer.members.len(), 1);
    assert!(!answer.skip_assignment);
}

#[test]
fn forgets_a_pending_member_after_its_session() {
    let mut bench = Bench::new();
    let (_, id) = refused(&mut bench, Join::new());
    bench.advance_ms(9_999);
    assert!(bench.group().is_pending(&id));
    bench.advance_ms(1);
    assert!(!bench.group().is_pending(&id));
    let refusal = refused(&mut bench, Join::new().id(&id));
    assert_eq!(refusal.0, ErrorCode::UnknownMemberId);
}

#[test]
fn refuses_a_pending_id_under_a_static_name() {
    let mut bench = Bench::new();
    let (_, id) = refused(&mut bench, Join::new());
    let refusal = refused(&mut bench, Join::named("i").id(&id));
    assert_eq!(refusal, (ErrorCode::UnknownServerError, String::new()));
}

#[test]
fn does_not_ask_old_clients_to_come_back() {
    let mut bench = Bench::new();
    let token = bench.join(Join::old().version(3));
    assert!(bench.is_parked(token));
    assert_eq!(bench.group().member_count(), 1);
    let token = bench.join(Join::old().version(4));
    assert_eq!(
        code(bench.join_answer(token).error_code),
        ErrorCode::MemberIdRequired
    );
}

#[test]
fn the_initial_delay_grows_while_members_come_up_to_the_rebalance_timeout() {
    let mut bench = Bench::new();
    let mut first = Join::old();
    first.rebalance_timeout_ms = 7_000;
    let first = bench.join(first);
    bench.advance_ms(2_000);
    let mut second = Join::old();
    second.rebalance_timeout_ms = 7_000;
    let second = bench.join(second);
    // 3 s are over, but somebody came: 3 s more.
    bench.advance_ms(1_000);
    assert!(bench.is_parked(first));
    bench.advance_ms(1_000);
    let mut third = Join::old();
    third.rebalance_timeout_ms = 7_000;
    let third = bench.join(third);
    // Of the 7 s one is left.
    bench.advance_ms(2_000);
    assert!(bench.is_parked(first));
    bench.advance_ms(1_000);
    let answers = [first, second, third].map(|token| bench.join_answer(token));
    assert!(answers.iter().all(|answer| answer.generation_id == 1));
    let leaders = answers.iter().filter(|answer| !answer.members.is_empty());
    assert_eq!(leaders.count(), 1);
}

#[test]
fn the_initial_delay_ends_on_time_if_nobody_else_comes() {
    let mut bench = Bench::new();
    let token = bench.join(Join::old());
    bench.advance_ms(3_000);
    assert_eq!(bench.join_answer(token).generation_id, 1);
}

#[test]
fn refuses_another_type_and_protocols_that_not_all_support() {
    let mut bench = Bench::new();
    bench.stable();
    let mut connect = Join::new();
    connect.protocol_type = "connect".into();
    assert_eq!(
        refused(&mut bench, connect).0,
        ErrorCode::InconsistentGroupProtocol
    );
    let sticky = Join::new().protocols(&["sticky"]);
    assert_eq!(
        refused(&mut bench, sticky).0,
        ErrorCode::InconsistentGroupProtocol
    );
}

#[test]
fn repeats_the_answer_to_a_member_that_lost_it() {
    let mut bench = Bench::new();
    let (id, first) = bench.first_member();
    let token = bench.join(Join::old().id(&id));
    assert_eq!(bench.join_answer(token), first);
    assert_eq!(bench.state(), ClassicState::CompletingRebalance);
}

#[test]
fn a_follower_that_rejoins_a_stable_group_unchanged_disturbs_nobody() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    let token = bench.join(Join::old().id(&follower));
    let answer = bench.join_answer(token);
    assert_eq!(answer.generation_id, 2);
    assert_eq!(*answer.leader, *leader);
    assert!(answer.members.is_empty());
    assert_eq!(bench.state(), ClassicState::Stable);
}

#[test]
fn a_follower_with_new_metadata_and_a_leader_in_any_case_make_a_rebalance() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    let token = bench.join(Join::old().id(&follower).subscribed(&["t", "u"]));
    assert!(bench.is_parked(token));
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
    let token = bench.join(Join::old().id(&leader));
    let answer = bench.join_answer(token);
    assert_eq!(answer.generation_id, 3);

    let mut bench = Bench::new();
    let (leader, _) = two_stable(&mut bench);
    let token = bench.join(Join::old().id(&leader));
    assert!(bench.is_parked(token));
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
}

#[test]
fn a_second_join_of_the_same_member_answers_the_first() {
    let mut bench = Bench::new();
    let (leader, follower) = two_stable(&mut bench);
    let first = bench.join(Join::old().id(&leader));
    let second = bench.join(Join::old().id(&leader));
    let answer = bench.join_answer(first);
    assert_eq!(code(answer.error_code), ErrorCode::RebalanceInProgress);
    assert!(bench.is_parked(second));
    bench.join(Join::old().id(&follower));
    assert_eq!(bench.join_answer(second).generation_id, 3);
}

#[test]
fn most_votes_choose_the_protocol_among_those_that_all_support() {
    let mut bench = Bench::new();
    let first = bench.join(Join::old().protocols(&["a", "b", "c"]));
    bench.join(Join::old().protocols(&["b", "c", "a"]));
    bench.join(Join::old().protocols(&["d", "c", "b"]));
    bench.advance_ms(6_000);
    // "a" is not common. Votes: b, b, c.
    assert_eq!(bench.join_answer(first).protocol_name.unwrap(), "b");
}

#[test]
fn a_tie_of_votes_falls_as_in_kafka() {
    for (ours, theirs, winner) in [
        (["range", "roundrobin"], ["roundrobin", "range"], "range"),
        (
            ["cooperative-sticky", "range"],
            ["range", "cooperative-sticky"],
            "range",
        ),
        (["sticky", "range"], ["range", "sticky"], "sticky"),
    ] {
        let mut bench = Bench::new();
        let first = bench.join(Join::old().protocols(&ours));
        bench.join(Join::old().protocols(&theirs));
        bench.advance_ms(6_000);
        assert_eq!(bench.join_answer(first).protocol_name.unwrap(), winner);
    }
}

#[test]
fn a_full_group_refuses_new_members() {
    let mut bench = Bench::with(GroupCoordinatorConfig {
        max_size: 1,
        ..GroupCoordinatorConfig::default()
    });
    let id = bench.stable();
    let refusal = refused(&mut bench, Join::old());
    assert_eq!(refusal, (ErrorCode::GroupMaxSizeReached, String::new()));
    // While it rejoins, whoever comes first counts.
    let token = bench.join(Join::old().id(&id));
    assert_eq!(bench.join_answer(token).generation_id, 2);
    bench.leave(&[(&id, None)]);
    assert_eq!(bench.state(), ClassicState::Empty);
    let kept = bench.join(Join::old());
    let refusal = refused(&mut bench, Join::old());
    assert_eq!(refusal.0, ErrorCode::GroupMaxSizeReached);
    assert!(bench.is_parked(kept));
}

#[test]
fn a_lowered_limit_makes_loaded_groups_rejoin() {
    let mut bench = Bench::new();
    two_stable(&mut bench);
    let mut smaller = Bench::with(GroupCoordinatorConfig {
        max_size: 1,
        ..GroupCoordinatorConfig::default()
    });
    smaller.log = bench.log.clone();
    let reloaded = smaller.reload();
    assert_eq!(reloaded.state(), ClassicState::PreparingRebalance);
    assert_eq!(bench.reload().state(), ClassicState::Stable);
}

#[test]
fn a_group_that_was_not_written_never_was() {
    use crate::group::testing::Writes;
    let mut bench = Bench::new();
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    let token = bench.join(Join::old());
    let answer = bench.join_answer(token);
    assert_eq!(code(answer.error_code), ErrorCode::CoordinatorNotAvailable);
    assert!(bench.shard.classic_group(GROUP).is_none());
    bench.advance_ms(400_000);
    assert!(bench.log.is_empty());
}

/// A stable group of two: the leader's id, then the follower's. Generation 2.
pub(super) fn two_stable(bench: &mut Bench) -> (String, String) {
    let first = bench.stable();
    let second = bench.join(Join::old());
    let rejoined = bench.join(Join::old().id(&first));
    let answers = [bench.join_answer(rejoined), bench.join_answer(second)];
    assert!(answers.iter().all(|answer| answer.generation_id == 2));
    let leader = answers[0].leader.to_string();
    let second = answers[1].member_id.to_string();
    let follower = if leader == first {
        second.clone()
    } else {
        first.clone()
    };
    let waiting = bench.sync(&follower, 2, &[]);
    assert!(bench.is_parked(waiting));
    let done = bench.sync(&leader, 2, &[(&first, "one"), (&second, "two")]);
    assert_eq!(code(bench.sync_answer(done).error_code), ErrorCode::None);
    assert_eq!(code(bench.sync_answer(waiting).error_code), ErrorCode::None);
    assert_eq!(bench.state(), ClassicState::Stable);
    (leader, follower)
}
