//! Members of the classic protocol in consumer groups, and groups that change their protocol.

use bytes::Bytes;
use klamm_protocol::ErrorCode;
use klamm_protocol::consumer_protocol::ConsumerProtocolAssignment;
use klamm_protocol::consumer_protocol::consumer_protocol_assignment::TopicPartition;
use klamm_protocol::record_frame::encode_versioned;

use super::super::convert::decode_versioned;
use super::{Beat, Held, given, held};
use crate::group::classic::ClassicState;
use crate::group::consumer::{ConsumerGroupState, MigrationPolicy};
use crate::group::testing::{Bench, Commit, GROUP, Join, Writes, code, subscription, sync_request};
use crate::group::{GroupCoordinatorConfig, GroupRequest, GroupResponse};

fn bench_with(policy: MigrationPolicy) -> Bench {
    let mut bench = Bench::with(GroupCoordinatorConfig {
        consumer_migration_policy: policy,
        ..GroupCoordinatorConfig::default()
    });
    bench.make_topic("t", 4);
    bench
}

fn bench() -> Bench {
    bench_with(MigrationPolicy::Bidirectional)
}

fn assignment(held: &[(&str, &[i32])]) -> Bytes {
    let topics = held.iter().map(|(topic, partitions)| TopicPartition {
        topic: (*topic).into(),
        partitions: partitions.to_vec(),
    });
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: topics.collect(),
        user_data: None,
    };
    encode_versioned(&assignment, 0).unwrap()
}

fn read(bytes: &Bytes) -> Held {
    let assignment: ConsumerProtocolAssignment = decode_versioned(bytes).unwrap();
    let topics = assignment.assigned_partitions.into_iter();
    topics
        .map(|t| (t.topic.to_string(), t.partitions.into_iter().collect()))
        .collect()
}

/// A stable classic group of one consumer that has all of topic `t`; its member id.
fn classic(bench: &mut Bench, join: Join) -> String {
    let token = bench.join(join);
    bench.advance_ms(3_000);
    let joined = bench.join_answer(token);
    assert_eq!(joined.error_code, 0);
    let id = joined.member_id.to_string();
    let GroupRequest::SyncGroup(mut sync) =
        sync_request(&id, None, joined.generation_id, &[(&id, "")])
    else {
        unreachable!();
    };
    sync.assignments[0].assignment = assignment(&[("t", &[0, 1, 2, 3])]);
    let token = bench.send(GroupRequest::SyncGroup(sync));
    assert_eq!(bench.sync_answer(token).error_code, 0);
    assert_eq!(bench.state(), ClassicState::Stable);
    id
}

fn sync(bench: &mut Bench, id: &str, generation: i32) -> Result<Held, ErrorCode> {
    match bench.ask(sync_request(id, None, generation, &[])) {
        Ok(GroupResponse::SyncGroup(answer)) => Ok(read(&answer.assignment)),
        Err(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

/// The group goes up, a second member comes, partitions move, and it goes down again.
#[test]
fn a_group_goes_up_and_down_while_it_works() {
    let mut bench = bench();
    let old = classic(&mut bench, Join::old());
    assert_eq!(bench.commit_error(Commit::by(&old, 1, 5)), ErrorCode::None);
    let joined = bench.beat(&Beat::join("new", &["t"]));
    assert_eq!((joined.error_code, joined.member_epoch), (0, 2));
    assert_eq!(given(&joined, &["t"]), Some(held(&[])));
    assert_eq!(bench.consumers().classic_member_count(), 1);
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    let mut bench = bench.reload();
    assert_eq!(bench.describe().members.len(), 2);

    // The classic member learns that it must rejoin, and gives up before the other gets.
    assert_eq!(bench.heartbeat(&old, 1), ErrorCode::RebalanceInProgress);
    assert_eq!(
        sync(&mut bench, &old, 1),
        Err(ErrorCode::RebalanceInProgress)
    );
    let mut owning = Join::old().id(&old);
    owning.protocols = vec![("range".into(), owned(&["t"], &[0, 1, 2, 3]))];
    let token = bench.join(owning.clone());
    let answer = bench.join_answer(token);
    assert_eq!((answer.error_code, answer.generation_id), (0, 1));
    let kept = sync(&mut bench, &old, 1).unwrap();
    assert_eq!(kept["t"].len(), 2);
    assert_eq!(bench.heartbeat(&old, 1), ErrorCode::RebalanceInProgress);
    let kept_list: Vec<i32> = kept["t"].iter().copied().collect();
    owning.protocols = vec![("range".into(), owned(&["t"], &kept_list))];
    let token = bench.join(owning);
    assert_eq!(bench.join_answer(token).generation_id, 2);
    assert_eq!(sync(&mut bench, &old, 2).unwrap(), kept);
    assert_eq!(bench.heartbeat(&old, 2), ErrorCode::None);
    let got = given(&bench.beat(&Beat::stay("new", 2)), &["t"]).unwrap();
    assert!(got["t"].len() == 2 && got["t"].is_disjoint(&kept["t"]));
    assert_eq!(bench.commit_error(Commit::by(&old, 2, 6)), ErrorCode::None);
    assert_eq!(
        bench.commit_error(Commit::by(&old, 3, 6)),
        ErrorCode::IllegalGeneration
    );

    // The last member of the consumer protocol goes.
    bench.beat(&Beat::leave("new"));
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
    assert_eq!(bench.group().generation(), 2);
    assert_eq!(bench.heartbeat(&old, 2), ErrorCode::RebalanceInProgress);
    assert_eq!(bench.fetch(false), Some(Ok(6)));
    let after = bench.reload();
    assert_eq!(after.state(), ClassicState::Stable);
    assert_eq!(after.group().member_count(), 1);
    let member = after.group().members().next().unwrap();
    assert_eq!(read(&member.assignment), kept);
}

fn owned(topics: &[&str], partitions: &[i32]) -> Bytes {
    let mut bytes = subscription(topics).to_vec();
    bytes[1] = 1;
    bytes.extend(1_i32.to_be_bytes());
    bytes.extend(1_i16.to_be_bytes());
    bytes.extend(b"t");
    bytes.extend((partitions.len() as i32).to_be_bytes());
    for partition in partitions {
        bytes.extend(partition.to_be_bytes());
    }
    bytes.into()
}

#[test]
fn policies_say_which_way_groups_may_go() {
    for policy in [MigrationPolicy::Disabled, MigrationPolicy::Downgrade] {
        let mut bench = bench_with(policy);
        classic(&mut bench, Join::old());
        let refused = bench.beat(&Beat::join("new", &["t"]));
        assert_eq!(code(refused.error_code), ErrorCode::GroupIdNotFound);
        assert_eq!(
            refused.error_message.unwrap(),
            "Cannot upgrade classic group g to consumer group because online upgrade is disabled."
        );
        assert_eq!(bench.state(), ClassicState::Stable);
    }
    let mut bench = bench_with(MigrationPolicy::Disabled);
    bench.beat(&Beat::join("new", &["t"]));
    let token = bench.join(Join::old());
    let refused = bench.join_answer(token);
    assert_eq!(
        code(refused.error_code),
        ErrorCode::InconsistentGroupProtocol
    );
    let mut bench = bench_with(MigrationPolicy::Upgrade);
    let old = classic(&mut bench, Join::old());
    bench.beat(&Beat::join("new", &["t"]));
    bench.beat(&Beat::leave("new"));
    assert_eq!(bench.consumers().member_count(), 1);
    assert!(bench.consumers().member(&old).is_some());
}

#[test]
fn classic_members_come_and_go_in_a_consumer_group() {
    let mut bench = bench();
    bench.beat(&Beat::join("new", &["t"]));
    let token = bench.join(Join::new());
    let required = bench.join_answer(token);
    assert_eq!(code(required.error_code), ErrorCode::MemberIdRequired);
    let id = required.member_id.to_string();
    bench.advance_ms(1_000);
    let token = bench.join(Join::new().id(&id));
    let joined = bench.join_answer(token);
    assert_eq!((joined.error_code, joined.generation_id), (0, 3));
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    assert!(joined.leader.is_empty() && joined.members.is_empty());
    assert_eq!(sync(&mut bench, &id, 3), Ok(held(&[])));
    assert_eq!(sync(&mut bench, &id, 2), Err(ErrorCode::IllegalGeneration));
    assert_eq!(bench.heartbeat("new", 2), ErrorCode::UnknownMemberId);
    // It waits for what the other still has, and is told as soon as it is free.
    assert_eq!(bench.heartbeat(&id, 3), ErrorCode::None);
    let told = bench.beat(&Beat::stay("new", 2));
    let kept = given(&told, &["t"]).unwrap();
    bench.beat(&Beat::stay("new", 2).owning(&kept));
    assert_eq!(bench.heartbeat(&id, 3), ErrorCode::RebalanceInProgress);
    let token = bench.join(Join::new().id(&id));
    assert_eq!(bench.join_answer(token).generation_id, 3);
    assert_eq!(sync(&mut bench, &id, 3).unwrap()["t"].len(), 2);
    assert_eq!(bench.consumer_state(), ConsumerGroupState::Stable);
    let other = Join::old().protocols(&["sticky"]);
    let token = bench.join(other);
    let refused = code(bench.join_answer(token).error_code);
    assert_eq!(refused, ErrorCode::InconsistentGroupProtocol);
    assert_eq!(
        bench.leave(&[(&id, None), ("nobody", None)]),
        [ErrorCode::None, ErrorCode::UnknownMemberId]
    );
    assert_eq!(bench.consumers().member_count(), 1);
}

#[test]
fn a_classic_member_that_is_told_to_rejoin_and_does_not_is_removed() {
    let mut bench = bench();
    let mut join = Join::old();
    join.rebalance_timeout_ms = 5_000;
    let old = classic(&mut bench, join);
    bench.beat(&Beat::join("new", &["t"]));
    for _ in 0..5 {
        let error = bench.heartbeat(&old, 1);
        assert_eq!(error, ErrorCode::RebalanceInProgress);
        bench.advance_ms(1_000);
    }
    assert!(bench.consumers().member(&old).is_none());
    let answer = bench.beat(&Beat::stay("new", 2));
    let all = held(&[("t", &[0, 1, 2, 3])]);
    assert_eq!(given(&answer, &["t"]), Some(all));
}

#[test]
fn a_static_member_takes_the_group_down_by_coming_back_with_the_classic_protocol() {
    let mut bench = bench();
    bench.beat(&Beat::join("new", &["t"]).named("n"));
    bench.beat(&Beat::stay("new", -2).named("n"));
    let token = bench.join(Join::named("n"));
    let joined = bench.join_answer(token);
    assert_eq!((joined.error_code, joined.generation_id), (0, 2));
    assert_eq!(bench.state(), ClassicState::Stable);
    let member = bench.group().members().next().unwrap();
    assert_eq!(member.id, joined.member_id);
    assert_eq!(read(&member.assignment), held(&[("t", &[0, 1, 2, 3])]));
    let after = bench.reload();
    assert_eq!(after.state(), ClassicState::Stable);
    assert_eq!(after.shard.group_ids().count(), 1);
}

#[test]
fn a_static_member_that_takes_the_group_down_gets_nothing_that_others_still_have() {
    let mut bench = bench();
    let old = classic(&mut bench, Join::old());
    bench.beat(&Beat::join("new", &["t"]).named("n"));
    let target = bench.consumers().target("new").unwrap();
    assert_eq!(target.values().map(|of| of.len()).sum::<usize>(), 2);

    let token = bench.join(Join::named("n"));
    let joined = bench.join_answer(token);
    assert_eq!(joined.error_code, 0);
    assert_eq!(bench.state(), ClassicState::PreparingRebalance);
    let held_now = |bench: &Bench| -> Vec<(String, Held)> {
        let members = bench.group().members();
        let mut held: Vec<_> = members
            .map(|member| (member.id.to_string(), read(&member.assignment)))
            .collect();
        held.sort_by_key(|(id, _)| *id != old);
        held
    };
    let all = held(&[("t", &[0, 1, 2, 3])]);
    let expected = vec![
        (old.clone(), all),
        (joined.member_id.to_string(), held(&[])),
    ];
    assert_eq!(held_now(&bench), expected);
    assert_eq!(held_now(&bench.reload()), expected);
    // Who has everything hears that it is to begin anew.
    assert_eq!(bench.heartbeat(&old, 1), ErrorCode::IllegalGeneration);
}

#[test]
fn a_static_member_that_takes_the_group_up_brings_a_new_assignment() {
    let mut bench = bench();
    let token = bench.join(Join::named("n"));
    bench.advance_ms(3_000);
    let joined = bench.join_answer(token);
    let id = joined.member_id.to_string();
    // So the group looks whose coordinator moved before partitions of one that left were given out.
    let GroupRequest::SyncGroup(mut sync) =
        sync_request(&id, Some("n"), joined.generation_id, &[(&id, "")])
    else {
        unreachable!();
    };
    sync.assignments[0].assignment = assignment(&[("t", &[0])]);
    let token = bench.send(GroupRequest::SyncGroup(sync));
    assert_eq!(bench.sync_answer(token).error_code, 0);
    let up = bench.beat(&Beat::join("new", &["t"]).named("n"));
    assert_eq!((up.error_code, up.member_epoch), (0, 2));
    let all = held(&[("t", &[0, 1, 2, 3])]);
    assert_eq!(given(&up, &["t"]), Some(all));
}

#[test]
fn empty_groups_change_their_protocol_at_will() {
    let mut bench = bench();
    let old = classic(&mut bench, Join::old());
    bench.commit_error(Commit::by(&old, 1, 5));
    bench.leave(&[(&old, None)]);
    assert_eq!(bench.state(), ClassicState::Empty);
    let joined = bench.beat(&Beat::join("new", &["t"]));
    assert_eq!((joined.error_code, joined.member_epoch), (0, 2));
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    bench.beat(&Beat::leave("new"));
    let token = bench.join(Join::old());
    bench.advance_ms(3_000);
    assert_eq!(bench.join_answer(token).error_code, 0);
    assert_eq!(bench.state(), ClassicState::CompletingRebalance);
    assert_eq!(bench.fetch(false), Some(Ok(5)));
    let after = bench.reload();
    assert!(after.shard.classic_group(GROUP).is_some());
}

#[test]
fn a_change_that_is_not_written_did_not_happen() {
    let mut bench = bench();
    let old = classic(&mut bench, Join::old());
    let before = bench.group().clone();
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    let up = |beat: Beat| {
        let context = crate::group::RequestContext::default();
        GroupRequest::ConsumerHeartbeat(context, Box::new(beat.request))
    };
    assert!(bench.ask(up(Beat::join("new", &["t"]))).is_err());
    assert_eq!(*bench.group(), before);
    // Its session still runs.
    bench.advance_ms(9_000);
    assert_eq!(bench.group().member_count(), 1);
    assert_eq!(bench.heartbeat(&old, 1), ErrorCode::None);
    bench.writes = Writes::Commit;
    bench.beat(&Beat::join("new", &["t"]));
    let before = bench.consumers().clone();
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    assert!(bench.ask(up(Beat::leave("new"))).is_err());
    assert_eq!(*bench.consumers(), before);
    bench.advance_ms(9_000);
    assert_eq!(bench.consumers().member_count(), 2);
    bench.advance_ms(50_000);
    bench.writes = Writes::Commit;
    bench.advance_ms(0);
}

#[test]
fn groups_that_are_not_of_consumers_or_cannot_be_read_stay_classic() {
    let mut bench = bench();
    let mut join = Join::old();
    join.protocol_type = "connect".into();
    let token = bench.join(join);
    let refused = bench.beat(&Beat::join("new", &["t"]));
    assert!(refused.error_message.unwrap().contains("embedded protocol"));
    bench.advance_ms(3_000);
    assert_eq!(bench.join_answer(token).error_code, 0);

    let mut bench = bench_with(MigrationPolicy::Bidirectional);
    let mut join = Join::old();
    join.protocols[0].1 = Bytes::from_static(b"\0");
    bench.join(join);
    bench.advance_ms(3_000);
    let refused = bench.beat(&Beat::join("new", &["t"]));
    assert_eq!(
        refused.error_message.unwrap(),
        "Cannot upgrade classic group g to consumer group because the embedded consumer protocol \
         is malformed."
    );
}
