//! Members that join, stay, give tasks up and go.

use std::collections::BTreeSet;

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::streams_group_heartbeat_request::Endpoint;

use super::*;
use crate::group::testing::{Join, Writes, code};

#[test]
fn a_member_alone_gets_all_tasks() {
    let mut bench = bench();
    let joined = beat(&mut bench, joining("p.1"));
    assert_eq!((joined.error_code, joined.member_epoch), (0, 2));
    let all = of(&[("0", 0), ("0", 1), ("1", 0), ("1", 1)]);
    assert_eq!(active(&joined), Some(all));
    assert_eq!(standby(&joined), Some(vec![]));
    assert_eq!(statuses(&joined), []);
    assert_eq!(joined.heartbeat_interval_ms, 5_000);
    assert_eq!(state(&bench), "Stable");
    let quiet = beat(&mut bench, staying("p.1", 2));
    assert_eq!((quiet.member_epoch, active(&quiet)), (2, None));
    assert_eq!(group(&bench).epoch(), 2);
    assert_reloads(&bench);
}

#[test]
fn tasks_are_given_up_before_another_gets_them() {
    let mut bench = bench();
    let first = beat(&mut bench, joining("p.1"));
    let all = active(&first).unwrap();
    let second = beat(&mut bench, joining("q.1"));
    assert_eq!((second.member_epoch, active(&second)), (3, Some(vec![])));
    assert_eq!(state(&bench), "Reconciling");
    // The first is told what it keeps, and stays in its epoch until it gave up the rest.
    let told = beat(&mut bench, owning("p.1", 2, &all, &[]));
    let keeps = active(&told).unwrap();
    assert_eq!((told.member_epoch, keeps.len()), (2, 2));
    let waits = beat(&mut bench, staying("q.1", 3));
    assert_eq!(active(&waits), None);
    let still = beat(&mut bench, owning("p.1", 2, &all, &[]));
    assert_eq!(still.member_epoch, 2);
    let gave_up = beat(&mut bench, owning("p.1", 2, &keeps, &[]));
    assert_eq!((gave_up.member_epoch, active(&gave_up)), (3, None));
    let got = beat(&mut bench, staying("q.1", 3));
    let mut both = active(&got).unwrap();
    assert_eq!(both.len(), 2);
    both.extend(keeps);
    both.sort();
    assert_eq!(both, all);
    assert_eq!(state(&bench), "Stable");
    assert_reloads(&bench);
}

#[test]
fn what_a_member_that_left_had_goes_to_the_others() {
    let mut bench = bench();
    beat(&mut bench, joining("p.1"));
    beat(&mut bench, joining("q.1"));
    let left = beat(&mut bench, staying("p.1", -1));
    assert_eq!((left.error_code, left.member_epoch), (0, -1));
    assert_eq!(left.member_id, "p.1");
    let got = beat(&mut bench, staying("q.1", 3));
    assert_eq!((got.member_epoch, active(&got).unwrap().len()), (4, 4));
    let unknown = beat(&mut bench, staying("p.1", 2));
    assert_eq!(code(unknown.error_code), ErrorCode::UnknownMemberId);
    beat(&mut bench, staying("q.1", -1));
    assert_eq!(state(&bench), "Empty");
    assert_reloads(&bench);
}

#[test]
fn a_session_ends_without_heartbeats() {
    let mut bench = bench();
    beat(&mut bench, joining("p.1"));
    bench.advance_ms(44_000);
    assert_eq!(beat(&mut bench, staying("p.1", 2)).error_code, 0);
    bench.advance_ms(44_999);
    assert!(group(&bench).member("p.1").is_some());
    // A restart starts sessions anew.
    let mut reloaded = bench.reload();
    reloaded.advance_ms(44_999);
    assert!(group(&reloaded).member("p.1").is_some());
    bench.advance_ms(1);
    assert!(group(&bench).is_empty());
    assert_eq!(bench.metrics.members_expired.get(), 1);
}

#[test]
fn a_removal_that_is_not_written_is_tried_again() {
    let mut bench = bench();
    beat(&mut bench, joining("p.1"));
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    bench.advance_ms(45_000);
    assert!(group(&bench).member("p.1").is_some());
    bench.writes = Writes::Commit;
    bench.advance_ms(500);
    assert!(group(&bench).is_empty());
}

#[test]
fn who_does_not_give_tasks_up_in_time_is_removed() {
    let mut bench = bench();
    let first = beat(&mut bench, joining("p.1"));
    let all = active(&first).unwrap();
    beat(&mut bench, joining("q.1"));
    beat(&mut bench, owning("p.1", 2, &all, &[]));
    for _ in 0..5 {
        bench.advance_ms(11_000);
        assert_eq!(beat(&mut bench, owning("p.1", 2, &all, &[])).error_code, 0);
        assert_eq!(beat(&mut bench, staying("q.1", 3)).error_code, 0);
    }
    bench.advance_ms(5_000);
    let fenced = beat(&mut bench, staying("p.1", 2));
    assert_eq!(code(fenced.error_code), ErrorCode::UnknownMemberId);
    let got = beat(&mut bench, staying("q.1", 3));
    assert_eq!(active(&got).unwrap().len(), 4);
}

#[test]
fn epochs_of_others_times_are_fenced() {
    let mut bench = bench();
    let first = beat(&mut bench, joining("p.1"));
    let all = active(&first).unwrap();
    let ahead = beat(&mut bench, staying("p.1", 3));
    assert_eq!(code(ahead.error_code), ErrorCode::FencedMemberEpoch);
    assert_eq!(
        ahead.error_message.unwrap(),
        "The streams group member has a greater member epoch (3) than the one known by the group \
         coordinator (2). The member must abandon all its partitions and rejoin."
    );
    // The answer that brought the member to its epoch was lost: fine, if it has no more than that.
    beat(&mut bench, joining("q.1"));
    beat(&mut bench, staying("q.1", -1));
    let on = beat(&mut bench, owning("p.1", 2, &all, &[]));
    assert_eq!(on.member_epoch, 4);
    let again = beat(&mut bench, owning("p.1", 2, &all, &[]));
    assert_eq!((again.error_code, again.member_epoch), (0, 4));
    let silent = beat(&mut bench, staying("p.1", 2));
    assert_eq!(code(silent.error_code), ErrorCode::FencedMemberEpoch);
    let long_ago = beat(&mut bench, owning("p.1", 1, &all, &[]));
    assert_eq!(code(long_ago.error_code), ErrorCode::FencedMemberEpoch);
}

#[test]
fn tasks_are_told_again_if_the_answer_was_lost() {
    let mut bench = plain();
    beat(&mut bench, joining("p.1"));
    set_topic(&bench, "words", 2);
    set_topic(&bench, "counts-repartition", 2);
    set_topic(&bench, "counts-changelog", 2);
    let lost = beat(&mut bench, owning("p.1", 2, &[], &[]));
    assert_eq!((lost.member_epoch, active(&lost).unwrap().len()), (3, 4));
    let again = beat(&mut bench, owning("p.1", 2, &[], &[]));
    assert_eq!((again.member_epoch, active(&again)), (3, active(&lost)));
    let all = active(&again).unwrap();
    let quiet = beat(&mut bench, owning("p.1", 3, &all, &[]));
    assert_eq!(active(&quiet), None);
}

#[test]
fn tasks_to_be_given_up_are_told_again_if_the_answer_was_lost() {
    let mut bench = bench();
    let all = active(&beat(&mut bench, joining("p.1"))).unwrap();
    beat(&mut bench, joining("q.1"));
    let lost = beat(&mut bench, owning("p.1", 2, &all, &[]));
    let kept = active(&lost).unwrap();
    assert_eq!((lost.member_epoch, kept.len()), (2, 2));
    let again = beat(&mut bench, owning("p.1", 2, &all, &[]));
    assert_eq!(active(&again), Some(kept.clone()));
    assert_eq!(active(&beat(&mut bench, staying("p.1", 2))), None);
    let on = beat(&mut bench, owning("p.1", 2, &kept, &[]));
    assert_eq!((on.member_epoch, active(&on)), (3, None));
}

#[test]
fn tasks_that_there_are_not_are_refused() {
    let mut bench = bench();
    beat(&mut bench, joining("p.1"));
    for (tasks, message) in [
        (
            of(&[("7", 0)]),
            "Subtopology 7 does not exist in the topology.",
        ),
        (
            of(&[("1", 2)]),
            "Task 2 for subtopology 1 is invalid. Number of tasks for this subtopology: 2",
        ),
    ] {
        let refused = beat(&mut bench, owning("p.1", 2, &tasks, &[]));
        assert_eq!(code(refused.error_code), ErrorCode::InvalidRequest);
        assert_eq!(refused.error_message.unwrap(), message);
    }
}

#[test]
fn a_group_has_only_so_many_members() {
    let mut bench = Bench::with(crate::group::GroupCoordinatorConfig {
        streams_max_size: 1,
        ..crate::group::GroupCoordinatorConfig::default()
    });
    configure(&bench, |_| ());
    set_topic(&bench, "words", 1);
    beat(&mut bench, joining("p.1"));
    let refused = beat(&mut bench, joining("q.1"));
    assert_eq!(code(refused.error_code), ErrorCode::GroupMaxSizeReached);
    // Not even one that is a member already may join again, as in Kafka.
    let again = beat(&mut bench, joining("p.1"));
    assert_eq!(code(again.error_code), ErrorCode::GroupMaxSizeReached);
}

/// A coordinator whose clock is behind that of the one before makes targets all the same.
#[test]
fn a_target_from_the_future_is_replaced() {
    let mut bench = bench();
    configure(&bench, |settings| settings.assignment_interval_ms = 1_000);
    beat(&mut bench, joining("p.1"));
    bench.turn_back_ms(60_000);
    beat(&mut bench, joining("q.1"));
    assert_eq!(group(&bench).assignment_epoch(), group(&bench).epoch());
    // By this clock it is too early for another one.
    let third = beat(&mut bench, joining("r.1"));
    assert_eq!(statuses(&third), [status::ASSIGNMENT_DELAYED]);
}

#[test]
fn the_first_assignment_waits_for_more_members() {
    let mut bench = bench();
    configure(&bench, |settings| {
        settings.initial_rebalance_delay_ms = 3_000
    });
    let joined = beat(&mut bench, joining("p.1"));
    assert_eq!((joined.member_epoch, active(&joined)), (1, Some(vec![])));
    assert_eq!(statuses(&joined), [status::ASSIGNMENT_DELAYED]);
    let second = beat(&mut bench, joining("q.1"));
    assert_eq!(
        details(&second),
        ["Assignment delayed due to the configured initial rebalance delay."]
    );
    assert_eq!(state(&bench), "Assigning");
    bench.advance_ms(3_000);
    assert_eq!(group(&bench).assignment_epoch(), group(&bench).epoch());
    let got = beat(&mut bench, staying("p.1", 1));
    assert_eq!((got.member_epoch, active(&got).unwrap().len()), (3, 2));
    let got = beat(&mut bench, staying("q.1", 1));
    assert_eq!(active(&got).unwrap().len(), 2);
    assert_reloads(&bench);
}

#[test]
fn assignments_keep_their_distance() {
    let mut bench = bench();
    configure(&bench, |settings| settings.assignment_interval_ms = 1_000);
    beat(&mut bench, joining("p.1"));
    let second = beat(&mut bench, joining("q.1"));
    assert_eq!(
        details(&second),
        ["Assignment delayed due to the configured assignment interval."]
    );
    assert_eq!(second.member_epoch, 2);
    bench.advance_ms(1_000);
    let later = beat(&mut bench, staying("q.1", 2));
    assert_eq!((statuses(&later), later.member_epoch), (vec![], 3));
}

#[test]
fn standby_tasks_are_in_other_processes() {
    let mut bench = bench();
    configure(&bench, |settings| settings.num_standby_replicas = 1);
    let alone = beat(&mut bench, joining("p.1"));
    assert_eq!(standby(&alone), Some(vec![]));
    let all = active(&alone).unwrap();
    beat(&mut bench, joining("q.1"));
    let told = beat(&mut bench, owning("p.1", 2, &all, &[]));
    let keeps = active(&told).unwrap();
    // Only part 1 has state.
    beat(&mut bench, owning("p.1", 2, &keeps, &[]));
    beat(&mut bench, staying("p.1", 3));
    beat(&mut bench, staying("q.1", 3));
    let target = |member: &str| group(&bench).target(member).unwrap().clone();
    for (one, other) in [("p.1", "q.1"), ("q.1", "p.1")] {
        for (part, tasks) in &target(one).standby {
            assert_eq!(*part, "1");
            assert!(tasks.is_subset(&target(other).active[part]));
        }
    }
    let count: usize = ["p.1", "q.1"]
        .iter()
        .flat_map(|member| {
            target(member)
                .standby
                .values()
                .map(BTreeSet::len)
                .collect::<Vec<_>>()
        })
        .sum();
    assert_eq!(count, 2);
    // A change of the configuration moves the group on.
    configure(&bench, |settings| settings.num_standby_replicas = 0);
    let epoch = group(&bench).epoch();
    beat(&mut bench, staying("q.1", 3));
    assert_eq!(group(&bench).epoch(), epoch + 1);
    assert!(group(&bench).target("q.1").unwrap().standby.is_empty());
}

#[test]
fn one_member_ends_the_whole_application() {
    let mut bench = bench();
    beat(&mut bench, joining("p.1"));
    beat(&mut bench, joining("q.1"));
    let mut fatal = staying("p.1", 2);
    fatal.shutdown_application = true;
    beat(&mut bench, fatal);
    let told = beat(&mut bench, staying("q.1", 3));
    assert_eq!(statuses(&told), [status::SHUTDOWN_APPLICATION]);
    assert_eq!(
        details(&told),
        [
            "Streams group member p.1 encountered a fatal error and requested a shutdown for the \
          entire application."
        ]
    );
    beat(&mut bench, staying("p.1", -1));
    beat(&mut bench, staying("q.1", -1));
    // It is over with the last member.
    let anew = beat(&mut bench, joining("r.1"));
    assert_eq!(statuses(&anew), []);
}

#[test]
fn members_learn_where_the_others_answer_queries() {
    let mut bench = bench();
    let mut first = joining("p.1");
    first.user_endpoint = Some(Endpoint {
        host: "one".into(),
        port: 8_080,
        ..Endpoint::default()
    });
    let joined = beat(&mut bench, first);
    let told = joined.partitions_by_user_endpoint.unwrap();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].user_endpoint.host, "one");
    let topics: Vec<&str> = told[0]
        .active_partitions
        .iter()
        .map(|t| &*t.topic)
        .collect();
    assert_eq!(topics, ["words", "counts-repartition"]);
    assert_eq!(told[0].active_partitions[0].partitions, [0, 1]);
    // A new group counts from 0 again, and nothing is told twice.
    assert_eq!(joined.endpoint_information_epoch, 0);
    let quiet = beat(&mut bench, staying("p.1", 2));
    assert_eq!(quiet.partitions_by_user_endpoint, None);
    beat(&mut bench, joining("q.1"));
    let all = of(&[("0", 0), ("0", 1), ("1", 0), ("1", 1)]);
    let told = beat(&mut bench, owning("p.1", 2, &all, &[]));
    assert_eq!(told.endpoint_information_epoch, 1);
    let told = beat(&mut bench, staying("q.1", 3));
    let partitions = told.partitions_by_user_endpoint.unwrap();
    assert_eq!(partitions[0].user_endpoint.port, 8_080);
}

#[test]
fn requests_are_checked_for_their_form() {
    let refused = |change: &dyn Fn(&mut StreamsGroupHeartbeatRequest)| {
        let mut request = joining("p.1");
        change(&mut request);
        let refusal = check_streams_request(&request).unwrap_err();
        (refusal.error, refusal.message)
    };
    let invalid = |message: &str| (ErrorCode::InvalidRequest, message.to_owned());
    assert_eq!(
        refused(&|r| r.member_id = " ".into()),
        invalid("MemberId can't be empty.")
    );
    assert_eq!(
        refused(&|r| r.instance_id = Some("i".into())),
        invalid("Static membership is not yet supported.")
    );
    assert_eq!(
        refused(&|r| r.task_offsets = Some(vec![])),
        invalid("TaskOffsets are not supported yet.")
    );
    assert_eq!(
        refused(&|r| r.rebalance_timeout_ms = -1),
        invalid("RebalanceTimeoutMs must be provided in first request.")
    );
    assert_eq!(
        refused(&|r| r.active_tasks = None),
        invalid("ActiveTasks must be empty when (re-)joining.")
    );
    assert_eq!(
        refused(&|r| r.topology = None),
        invalid("Topology must be non-null when (re-)joining.")
    );
    assert_eq!(
        refused(&|r| r.member_epoch = 1),
        invalid("Topology can only be provided when (re-)joining.")
    );
    assert_eq!(
        refused(&|r| r.member_epoch = -3),
        invalid("MemberEpoch is -3, but must be greater than or equal to -2.")
    );
    assert_eq!(
        refused(&|r| {
            r.member_epoch = 1;
            r.topology = None;
            r.standby_tasks = None;
        }),
        invalid("If one task-type is non-null, all must be non-null.")
    );
    let counted = refused(&|r| {
        let parts = &mut r.topology.as_mut().unwrap().subtopologies;
        parts[1].state_changelog_topics[0].partitions = 3;
    });
    assert_eq!(counted.0, ErrorCode::StreamsInvalidTopology);
}

#[test]
fn the_name_of_another_kind_of_group_is_refused() {
    let mut bench = bench();
    let lost = beat(&mut bench, staying("p.1", 1));
    assert_eq!(code(lost.error_code), ErrorCode::GroupIdNotFound);
    assert_eq!(lost.error_message.unwrap(), "Streams group g not found.");
    let classic = bench.stable();
    let refused = beat(&mut bench, joining("p.1"));
    assert_eq!(code(refused.error_code), ErrorCode::GroupIdNotFound);
    assert_eq!(
        refused.error_message.unwrap(),
        "Group g is not a streams group."
    );
    // An empty classic group gives way, and comes back.
    assert_eq!(bench.leave(&[(&classic, None)]), [ErrorCode::None]);
    let joined = beat(&mut bench, joining("p.1"));
    assert_eq!((joined.error_code, joined.member_epoch), (0, 2));
    assert_reloads(&bench);
    let token = bench.join(Join::new());
    let refused = bench.join_answer(token);
    assert_eq!(
        code(refused.error_code),
        ErrorCode::InconsistentGroupProtocol
    );
    beat(&mut bench, staying("p.1", -1));
    bench.stable();
    assert!(bench.shard.streams_group(GROUP).is_none());
    assert!(bench.reload().shard.classic_group(GROUP).is_some());
}

#[test]
fn a_heartbeat_that_is_not_written_did_not_happen() {
    let mut bench = bench();
    beat(&mut bench, joining("p.1"));
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    let request =
        GroupRequest::StreamsHeartbeat(RequestContext::default(), Box::new(joining("q.1")));
    assert!(bench.ask(request).is_err());
    assert_eq!(group(&bench).members().len(), 1);
    assert_eq!(group(&bench).epoch(), 2);
    assert_reloads(&bench);
    bench.writes = Writes::Commit;
    assert_eq!(beat(&mut bench, joining("q.1")).member_epoch, 3);
}
