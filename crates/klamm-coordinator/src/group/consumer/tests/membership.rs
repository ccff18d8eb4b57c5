//! Joining, staying, leaving and being fenced.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::consumer_group_describe_response::DescribedGroup;

use super::{Beat, given, held};
use crate::group::cluster::ConsumerGroupSettings;
use crate::group::consumer::{ConsumerGroupState, MemberState, check_request};
use crate::group::testing::{Bench, GROUP, Join, Writes, code};
use crate::group::{GroupCoordinatorConfig, GroupRequest, GroupResponse};

fn with_topic() -> Bench {
    let mut bench = Bench::new();
    bench.make_topic("t", 4);
    bench
}

#[test]
fn the_first_member_gets_everything_in_epoch_2() {
    let mut bench = with_topic();
    let joined = bench.beat(&Beat::join("a", &["t"]));
    assert_eq!(joined.error_code, 0);
    assert_eq!(joined.member_id.as_deref(), Some("a"));
    assert_eq!(joined.member_epoch, 2);
    assert_eq!(joined.heartbeat_interval_ms, 5_000);
    assert_eq!(given(&joined, &["t"]), Some(held(&[("t", &[0, 1, 2, 3])])));
    assert_eq!(bench.consumer_state(), ConsumerGroupState::Stable);
    // Member, group epoch, target of the member and of the group, what the member has.
    let kinds: Vec<i16> = bench
        .log
        .iter()
        .map(|record| match record {
            crate::group::GroupRecord::Consumer(record) => record.kind(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(kinds, [5, 3, 7, 6, 8]);
    let stayed = bench.beat(&Beat::stay("a", 2));
    assert_eq!((stayed.error_code, stayed.member_epoch), (0, 2));
    assert!(stayed.assignment.is_none());
    assert_eq!(bench.log.len(), 5);
}

#[test]
fn a_full_heartbeat_is_answered_with_the_whole_assignment() {
    let mut bench = with_topic();
    bench.beat(&Beat::join("a", &["t"]));
    let mut full = Beat::stay("a", 2).subscribed(&["t"]);
    full.request.rebalance_timeout_ms = 10_000;
    let all = held(&[("t", &[0, 1, 2, 3])]);
    let answer = bench.beat(&full.owning(&all));
    assert_eq!(given(&answer, &["t"]), Some(all));
}

#[test]
fn epochs_that_are_not_the_members_are_fenced() {
    let mut bench = with_topic();
    bench.beat(&Beat::join("a", &["t"]));
    assert_eq!(
        bench.beat_error(&Beat::stay("a", 3)),
        ErrorCode::FencedMemberEpoch
    );
    assert_eq!(
        bench.beat_error(&Beat::stay("b", 2)),
        ErrorCode::UnknownMemberId
    );
    // The epoch before is taken from a member that owns nothing it was not given since.
    bench.advance_ms(1_000);
    bench.beat(&Beat::join("b", &["t"]));
    let own = held(&[("t", &[0, 1, 2, 3])]);
    let revoked = bench.beat(&Beat::stay("a", 2));
    let left = given(&revoked, &["t"]).unwrap();
    let reconciled = bench.beat(&Beat::stay("a", 2).owning(&left));
    assert_eq!(reconciled.member_epoch, 3);
    assert_eq!(
        bench.beat_error(&Beat::stay("a", 2)),
        ErrorCode::FencedMemberEpoch
    );
    assert_eq!(
        bench.beat_error(&Beat::stay("a", 2).owning(&own)),
        ErrorCode::FencedMemberEpoch
    );
    let again = bench.beat(&Beat::stay("a", 2).owning(&left));
    assert_eq!((again.error_code, again.member_epoch), (0, 3));
}

#[test]
fn leaving_gives_the_partitions_to_the_others() {
    let mut bench = with_topic();
    bench.beat(&Beat::join("a", &["t"]));
    bench.advance_ms(1_000);
    bench.beat(&Beat::join("b", &["t"]));
    let left = bench.beat(&Beat::leave("b"));
    assert_eq!((left.error_code, left.member_epoch), (0, -1));
    assert!(left.assignment.is_none());
    assert_eq!(bench.consumers().member_count(), 1);
    assert_eq!(
        bench.beat_error(&Beat::stay("b", 3)),
        ErrorCode::UnknownMemberId
    );
    bench.advance_ms(1_000);
    let answer = bench.beat(&Beat::stay("a", 2));
    assert_eq!(answer.member_epoch, 4);
    assert_eq!(bench.consumer_state(), ConsumerGroupState::Stable);
    bench.beat(&Beat::leave("a"));
    assert_eq!(bench.consumer_state(), ConsumerGroupState::Empty);
}

#[test]
fn a_silent_member_is_removed_when_its_session_ends() {
    let mut bench = with_topic();
    bench.cluster.set(ConsumerGroupSettings {
        session_timeout_ms: 50_000,
        heartbeat_interval_ms: 7_000,
        ..ConsumerGroupSettings::default()
    });
    let joined = bench.beat(&Beat::join("a", &["t"]));
    assert_eq!(joined.heartbeat_interval_ms, 7_000);
    bench.advance_ms(49_999);
    bench.beat(&Beat::stay("a", 2));
    bench.advance_ms(49_999);
    assert_eq!(bench.consumers().member_count(), 1);
    bench.advance_ms(1);
    assert_eq!(bench.consumer_state(), ConsumerGroupState::Empty);
    // A restart starts the session anew.
    bench.beat(&Beat::join("b", &["t"]));
    bench.advance_ms(49_999);
    let mut bench = bench.reload();
    bench.advance_ms(49_999);
    assert_eq!(bench.consumers().member_count(), 1);
    bench.advance_ms(1);
    assert_eq!(bench.consumers().member_count(), 0);
}

#[test]
fn a_member_that_does_not_give_up_in_time_is_removed() {
    let mut bench = with_topic();
    bench.beat(&Beat::join("a", &["t"]));
    bench.advance_ms(1_000);
    bench.beat(&Beat::join("b", &["t"]));
    bench.beat(&Beat::stay("a", 2));
    let member = bench.consumers().member("a").unwrap();
    assert_eq!(member.state, MemberState::UnrevokedPartitions);
    bench.advance_ms(9_999);
    bench.beat(&Beat::stay("a", 2));
    assert!(bench.consumers().member("a").is_some());
    bench.advance_ms(1);
    assert!(bench.consumers().member("a").is_none());
    bench.advance_ms(1_000);
    let answer = bench.beat(&Beat::stay("b", 3));
    assert_eq!(given(&answer, &["t"]), Some(held(&[("t", &[0, 1, 2, 3])])));
}

#[test]
fn a_group_takes_no_more_members_than_it_may() {
    let mut bench = Bench::with(GroupCoordinatorConfig {
        consumer_max_size: 1,
        ..GroupCoordinatorConfig::default()
    });
    bench.make_topic("t", 1);
    bench.beat(&Beat::join("a", &["t"]));
    let refused = bench.beat(&Beat::join("b", &["t"]));
    assert_eq!(code(refused.error_code), ErrorCode::GroupMaxSizeReached);
    let message = refused.error_message.unwrap();
    assert_eq!(
        message,
        "The consumer group has reached its maximum capacity of 1 members."
    );
    assert_eq!(bench.beat(&Beat::join("a", &["t"])).error_code, 0);
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut bench = with_topic();
    let joined = bench.beat(&Beat::join("a", &["t"]).named("n"));
    let all = given(&joined, &["t"]);
    assert_eq!(
        bench.beat_error(&Beat::join("a2", &["t"]).named("n")),
        ErrorCode::UnreleasedInstanceId
    );
    let away = bench.beat(&Beat::stay("a", -2).named("n"));
    assert_eq!((away.error_code, away.member_epoch), (0, -2));
    let epoch = bench.consumers().epoch();
    let mut bench = bench.reload();
    let back = bench.beat(&Beat::join("a2", &["t"]).named("n"));
    assert_eq!((back.error_code, back.member_epoch), (0, epoch));
    assert_eq!(given(&back, &["t"]), all);
    assert_eq!(bench.consumers().epoch(), epoch);
    assert!(bench.consumers().member("a").is_none());
    for (beat, error) in [
        (Beat::stay("a", 2).named("n"), ErrorCode::FencedInstanceId),
        (Beat::stay("a2", 2).named("m"), ErrorCode::UnknownMemberId),
        (Beat::stay("a", -1).named("n"), ErrorCode::FencedInstanceId),
        (Beat::stay("a2", 2).named("n"), ErrorCode::None),
    ] {
        assert_eq!(bench.beat_error(&beat), error, "{beat:?}");
    }
    // One that does not come back is removed when its session ends.
    bench.beat(&Beat::stay("a2", -2).named("n"));
    bench.advance_ms(45_000);
    assert_eq!(bench.consumer_state(), ConsumerGroupState::Empty);
}

#[test]
fn what_is_not_in_the_log_did_not_happen() {
    let mut bench = with_topic();
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    let request = GroupRequest::ConsumerHeartbeat(
        crate::group::RequestContext::default(),
        Box::new(Beat::join("a", &["t"]).request),
    );
    assert_eq!(
        bench.ask(request).unwrap_err(),
        ErrorCode::NotEnoughReplicas
    );
    assert!(bench.shard.consumer_group(GROUP).is_none());
    bench.writes = Writes::Commit;
    bench.beat(&Beat::join("a", &["t"]));
    let before = bench.consumers().clone();
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    for beat in [
        Beat::join("b", &["t"]),
        Beat::leave("a"),
        Beat::stay("a", 2).matching("t.*"),
    ] {
        let request = GroupRequest::ConsumerHeartbeat(
            crate::group::RequestContext::default(),
            Box::new(beat.request),
        );
        assert!(bench.ask(request).is_err());
        let mut after = bench.consumers().clone();
        after.refresh = before.refresh;
        assert_eq!(after, before);
    }
}

#[test]
fn a_removal_that_is_not_written_is_tried_again() {
    let mut bench = with_topic();
    bench.beat(&Beat::join("a", &["t"]));
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    bench.advance_ms(45_000);
    assert_eq!(bench.consumers().member_count(), 1);
    bench.writes = Writes::Commit;
    bench.advance_ms(500);
    assert_eq!(bench.consumers().member_count(), 0);
    // Who cannot leave stays until the session ends.
    bench.beat(&Beat::join("b", &["t"]));
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    let context = crate::group::RequestContext::default();
    let leave = Beat::leave("b").request;
    let leave = GroupRequest::ConsumerHeartbeat(context, Box::new(leave));
    assert!(bench.ask(leave).is_err());
    bench.writes = Writes::Commit;
    bench.advance_ms(44_999);
    assert_eq!(bench.consumers().member_count(), 1);
    bench.advance_ms(1);
    assert_eq!(bench.consumers().member_count(), 0);
}

#[test]
fn heartbeats_are_checked_before_anything_else() {
    let assignors = GroupCoordinatorConfig::default().consumer_assignors;
    let check = |beat: &Beat| check_request(&beat.request, 1, &assignors);
    assert_eq!(check(&Beat::join("a", &["t"])), Ok(()));
    let join = || Beat::join("a", &["t"]);
    let mut cases = Vec::new();
    let mut bad = |change: fn(&mut Beat), error: ErrorCode, message: &'static str| {
        let mut beat = join();
        change(&mut beat);
        cases.push((beat, error, message));
    };
    let invalid = ErrorCode::InvalidRequest;
    bad(
        |b| b.request.member_id = " ".into(),
        invalid,
        "MemberId can't be empty.",
    );
    bad(
        |b| b.request.group_id = "".into(),
        invalid,
        "GroupId can't be empty.",
    );
    bad(
        |b| b.request.instance_id = Some("".into()),
        invalid,
        "InstanceId can't be empty.",
    );
    bad(
        |b| b.request.rack_id = Some("".into()),
        invalid,
        "RackId can't be empty.",
    );
    bad(
        |b| b.request.rebalance_timeout_ms = -1,
        invalid,
        "RebalanceTimeoutMs must be provided in first request.",
    );
    bad(
        |b| b.request.topic_partitions = None,
        invalid,
        "TopicPartitions must be empty when (re-)joining.",
    );
    bad(
        |b| b.request.subscribed_topic_names = None,
        invalid,
        "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.",
    );
    bad(
        |b| b.request.member_epoch = -2,
        invalid,
        "InstanceId can't be null.",
    );
    bad(
        |b| b.request.member_epoch = -3,
        invalid,
        "MemberEpoch is invalid.",
    );
    bad(
        |b| b.request.server_assignor = Some("best".into()),
        ErrorCode::UnsupportedAssignor,
        "ServerAssignor best is not supported. Supported assignors: uniform, range.",
    );
    for (beat, error, message) in cases {
        let refusal = check(&beat).unwrap_err();
        assert_eq!((refusal.error, refusal.message.as_str()), (error, message));
    }
    let mut old = join();
    old.request.member_id = "".into();
    assert_eq!(check_request(&old.request, 0, &assignors), Ok(()));
}

#[test]
fn members_of_version_0_are_given_an_id() {
    let mut bench = with_topic();
    let joined = bench.beat(&Beat::join("", &["t"]));
    let id = joined.member_id.unwrap();
    assert_eq!(id.len(), 22);
    assert_eq!(bench.beat_error(&Beat::stay(&id, 2)), ErrorCode::None);
}

#[test]
fn a_group_that_is_not_there_is_called_so() {
    let mut bench = with_topic();
    let refused = bench.beat(&Beat::stay("a", 3));
    assert_eq!(code(refused.error_code), ErrorCode::GroupIdNotFound);
    let message = refused.error_message.unwrap();
    assert_eq!(message, "Consumer group g not found.");
    let refused = bench.beat(&Beat::leave("a"));
    assert_eq!(refused.error_message.unwrap(), "Group g not found.");
    let described: DescribedGroup = bench.describe();
    assert_eq!(code(described.error_code), ErrorCode::GroupIdNotFound);
    bench.join(Join::new());
    let message = bench.describe().error_message.unwrap();
    assert_eq!(message, "Group g is not a consumer group.");
}

#[test]
fn a_description_tells_what_members_have_and_are_to_have() {
    let mut bench = with_topic();
    bench.beat(&Beat::join("a", &["t"]).assigned_by("range"));
    bench.advance_ms(1_000);
    bench.beat(&Beat::join("b", &["t", "missing"]).named("n"));
    bench.beat(&Beat::stay("a", 2));
    let group = bench.describe();
    assert_eq!(group.group_state, "Reconciling");
    assert_eq!((group.group_epoch, group.assignment_epoch), (3, 3));
    assert_eq!(group.assignor_name, "range");
    let [a, b] = &group.members[..] else {
        panic!("{group:?}");
    };
    assert_eq!((a.member_epoch, b.member_epoch), (2, 3));
    assert_eq!(b.instance_id.as_deref(), Some("n"));
    assert_eq!(a.client_host, "/127.0.0.1");
    assert_eq!(b.subscribed_topic_names, ["missing", "t"]);
    assert_eq!(a.subscribed_topic_regex.as_deref(), Some(""));
    assert_eq!((a.member_type, b.member_type), (1, 1));
    let partitions =
        |a: &klamm_protocol::messages::consumer_group_describe_response::Assignment| {
            let topics = a.topic_partitions.iter();
            topics.map(|t| t.partitions.len()).sum::<usize>()
        };
    // What it must give up is still its own.
    assert_eq!(
        (partitions(&a.assignment), partitions(&b.assignment)),
        (4, 0)
    );
    let targets = (
        partitions(&a.target_assignment),
        partitions(&b.target_assignment),
    );
    assert_eq!(targets, (2, 2));
}

#[test]
fn an_empty_group_is_deleted_with_all_its_records() {
    let mut bench = with_topic();
    bench.beat(&Beat::join("a", &["t"]).matching("t.*"));
    bench.advance_ms(1);
    let delete = || GroupRequest::DeleteGroups(vec![GROUP.into()]);
    let deleted = |bench: &mut Bench| match bench.ask(delete()) {
        Ok(GroupResponse::DeleteGroups(results)) => code(results[0].error_code),
        other => panic!("{other:?}"),
    };
    assert_eq!(deleted(&mut bench), ErrorCode::NonEmptyGroup);
    bench.beat(&Beat::leave("a"));
    assert_eq!(deleted(&mut bench), ErrorCode::None);
    assert!(bench.shard.consumer_group(GROUP).is_none());
    let bench = bench.reload();
    assert_eq!(bench.shard.group_ids().count(), 0);
}
