//! Topologies over topics that are there, missing or wrong.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::streams_group_heartbeat_request::KeyValue;

use super::*;
use crate::group::testing::{Writes, code};

fn with(topology: Topology) -> StreamsGroupHeartbeatRequest {
    StreamsGroupHeartbeatRequest {
        topology: Some(topology),
        ..joining("p.1")
    }
}

/// A topology of one part that joins topics.
fn join_of(sources: &[&str], internal: Vec<TopicInfo>) -> Topology {
    let places = |count: usize| (0..).take(count).collect();
    Topology {
        subtopologies: vec![Subtopology {
            subtopology_id: "0".into(),
            source_topics: names(sources),
            copartition_groups: vec![CopartitionGroup {
                source_topics: places(sources.len()),
                repartition_source_topics: places(internal.len()),
                ..CopartitionGroup::default()
            }],
            repartition_sink_topics: internal.iter().map(|topic| topic.name.clone()).collect(),
            repartition_source_topics: internal,
            ..Subtopology::default()
        }],
        ..Topology::default()
    }
}

#[test]
fn internal_topics_are_asked_for_until_they_are_there() {
    let mut bench = plain();
    set_topic(&bench, "words", 3);
    let mut topology = word_count();
    let changelog = &mut topology.subtopologies[1].state_changelog_topics[0];
    changelog.replication_factor = 2;
    changelog.topic_configs = vec![KeyValue {
        key: "cleanup.policy".into(),
        value: "compact".into(),
        ..KeyValue::default()
    }];
    let (joined, missing) = beat_and_create(&mut bench, with(topology));
    assert_eq!(statuses(&joined), [status::MISSING_INTERNAL_TOPICS]);
    assert_eq!(active(&joined), Some(vec![]));
    assert_eq!(state(&bench), "NotReady");
    assert_eq!(missing.len(), 2);
    let wanted = |name: &str| missing.iter().find(|topic| topic.name == name).unwrap();
    let changelog = wanted("counts-changelog");
    assert_eq!(
        (changelog.num_partitions, changelog.replication_factor),
        (3, 2)
    );
    assert_eq!(changelog.configs[0].name, "cleanup.policy");
    let repartition = wanted("counts-repartition");
    assert_eq!(
        (repartition.num_partitions, repartition.replication_factor),
        (3, -1)
    );
    let (_, again) = beat_and_create(&mut bench, staying("p.1", 2));
    assert_eq!(again.len(), 2);
    set_topic(&bench, "counts-changelog", 3);
    let (still, one) = beat_and_create(&mut bench, staying("p.1", 2));
    assert_eq!(
        details(&still),
        ["Internal topics are missing: counts-repartition"]
    );
    assert_eq!(one.len(), 1);
    set_topic(&bench, "counts-repartition", 3);
    let (ready, none) = beat_and_create(&mut bench, staying("p.1", still.member_epoch));
    assert_eq!((statuses(&ready), none), (vec![], vec![]));
    assert_eq!(active(&ready).unwrap().len(), 6);
    assert_eq!(state(&bench), "Stable");
    assert_reloads(&bench);
}

#[test]
fn an_internal_topic_that_somebody_made_otherwise_is_in_the_way() {
    let mut bench = bench();
    set_topic(&bench, "counts-changelog", 5);
    let joined = beat(&mut bench, joining("p.1"));
    assert_eq!(statuses(&joined), [status::INCORRECTLY_PARTITIONED_TOPICS]);
    assert_eq!(
        details(&joined),
        ["Existing topic counts-changelog has different number of partitions: expected 2, found 5"]
    );
}

#[test]
fn topics_that_come_and_go_move_the_group() {
    let mut bench = plain();
    let joined = beat(&mut bench, joining("p.1"));
    assert_eq!(statuses(&joined), [status::MISSING_SOURCE_TOPICS]);
    assert_eq!(details(&joined), ["Source topics words are missing."]);
    set_topic(&bench, "words", 2);
    set_topic(&bench, "counts-repartition", 2);
    set_topic(&bench, "counts-changelog", 2);
    let ready = beat(&mut bench, staying("p.1", joined.member_epoch));
    assert_eq!(active(&ready).unwrap().len(), 4);
    let tasks = active(&ready).unwrap();
    // Without a source topic there is nothing to run: all is given up.
    remove_topic(&bench, "words");
    let told = beat(&mut bench, owning("p.1", ready.member_epoch, &tasks, &[]));
    assert_eq!(statuses(&told), [status::MISSING_SOURCE_TOPICS]);
    assert_eq!(active(&told), Some(vec![]));
    assert_eq!(state(&bench), "NotReady");
    // Other topics do not matter.
    let epoch = group(&bench).epoch();
    set_topic(&bench, "other", 1);
    beat(&mut bench, owning("p.1", ready.member_epoch, &[], &[]));
    assert_eq!(group(&bench).epoch(), epoch);
    assert_reloads(&bench);
}

#[test]
fn what_was_seen_by_a_heartbeat_that_was_not_written_is_forgotten() {
    let mut bench = bench();
    let joined = beat(&mut bench, joining("p.1"));
    let tasks = active(&joined).unwrap();
    remove_topic(&bench, "words");
    bench.writes = Writes::Fail(ErrorCode::NotEnoughReplicas);
    let request = owning("p.1", 2, &tasks, &[]);
    let request = GroupRequest::StreamsHeartbeat(RequestContext::default(), Box::new(request));
    assert!(bench.ask(request).is_err());
    bench.writes = Writes::Commit;
    // The topic is back before anybody noticed that it was gone.
    set_topic(&bench, "words", 2);
    let on = beat(&mut bench, owning("p.1", 2, &tasks, &[]));
    assert_eq!((on.member_epoch, statuses(&on)), (2, vec![]));
    assert_eq!(state(&bench), "Stable");
}

#[test]
fn more_than_three_missing_topics_are_counted() {
    let mut bench = plain();
    let joined = beat(
        &mut bench,
        with(join_of(&["e", "d", "c", "b", "a"], vec![])),
    );
    assert_eq!(
        details(&joined),
        ["Source topics a, b, c and 2 additional topics are missing."]
    );
}

#[test]
fn joined_topics_have_as_many_partitions_as_each_other() {
    let mut bench = plain();
    set_topic(&bench, "a", 2);
    set_topic(&bench, "b", 3);
    let joined = beat(&mut bench, with(join_of(&["a", "b"], vec![])));
    assert_eq!(statuses(&joined), [status::INCORRECTLY_PARTITIONED_TOPICS]);
    assert_eq!(
        details(&joined),
        ["Following topics do not have the same number of partitions: [{a=2, b=3}]"]
    );
}

#[test]
fn a_repartition_topic_follows_what_it_is_joined_with() {
    let mut bench = plain();
    set_topic(&bench, "a", 4);
    let topology = join_of(&["a"], vec![topic("r", 0)]);
    let (_, missing) = beat_and_create(&mut bench, with(topology));
    assert_eq!(missing[0].num_partitions, 4);
    let mut bench = plain();
    set_topic(&bench, "a", 4);
    let joined = beat(&mut bench, with(join_of(&["a"], vec![topic("r", 3)])));
    assert_eq!(
        details(&joined),
        [
            "Number of partitions [3] of repartition topic [r] doesn't match number of partitions \
          [4] of the source topic."
        ]
    );
}

#[test]
fn repartition_topics_alone_get_the_most_or_what_is_asked_for() {
    let counts = |internal: Vec<TopicInfo>| {
        let mut bench = plain();
        set_topic(&bench, "a", 2);
        let mut topology = join_of(&["a"], internal);
        topology.subtopologies[0].copartition_groups[0].source_topics = vec![];
        let (joined, missing) = beat_and_create(&mut bench, with(topology));
        let counts = missing
            .iter()
            .map(|t| (t.name.to_string(), t.num_partitions));
        let mut counts: Vec<_> = counts.collect();
        counts.sort();
        (counts, details(&joined))
    };
    let (same, _) = counts(vec![topic("r", 0), topic("s", 0)]);
    assert_eq!(same, [("r".into(), 2), ("s".into(), 2)]);
    let (fixed, _) = counts(vec![topic("r", 5), topic("s", 0)]);
    assert_eq!(fixed, [("r".into(), 5), ("s".into(), 5)]);
    let (none, said) = counts(vec![topic("r", 5), topic("s", 4)]);
    assert_eq!(none, []);
    assert_eq!(
        said,
        ["Following topics do not have the same number of partitions: [{r=5, s=4}]"]
    );
}

#[test]
fn topologies_that_cannot_work_are_refused() {
    let refused = |topology: Topology| {
        let mut bench = bench();
        let response = beat(&mut bench, with(topology));
        assert!(bench.shard.streams_group(GROUP).is_none());
        (
            code(response.error_code),
            response.error_message.unwrap().to_string(),
        )
    };
    let part = |id: &str| Subtopology {
        subtopology_id: id.into(),
        ..Subtopology::default()
    };
    let of = |parts: Vec<Subtopology>| Topology {
        subtopologies: parts,
        ..Topology::default()
    };
    let (error, message) = refused(of(vec![part("0")]));
    assert_eq!(error, ErrorCode::StreamsInvalidTopology);
    assert_eq!(message, "No source topics found for subtopology 0");
    let mut never_written = word_count();
    never_written.subtopologies[0].repartition_sink_topics = vec![];
    assert_eq!(refused(never_written).0, ErrorCode::StreamsInvalidTopology);
    let mut ring = part("0");
    ring.repartition_sink_topics = names(&["r"]);
    ring.repartition_source_topics = vec![topic("r", 0)];
    let (error, message) = refused(of(vec![ring]));
    assert_eq!(error, ErrorCode::StreamsInvalidTopology);
    assert!(message.contains("loops"), "{message}");
    // What Kafka's coordinator stumbles over.
    assert_eq!(
        refused(of(vec![part("0"), part("0")])).0,
        ErrorCode::UnknownServerError
    );
    let mut outside = word_count();
    outside.subtopologies[1].copartition_groups[0].repartition_source_topics = vec![-1];
    assert_eq!(refused(outside).0, ErrorCode::UnknownServerError);
    let mut negative = word_count();
    negative.epoch = -1;
    assert_eq!(refused(negative).0, ErrorCode::UnknownServerError);
    let mut less_than_none = word_count();
    less_than_none.subtopologies[1].repartition_source_topics[0].partitions = -2;
    assert_ne!(refused(less_than_none).0, ErrorCode::None);
}

#[test]
fn the_topology_of_the_first_member_is_that_of_all() {
    let mut bench = bench();
    let mut first = word_count();
    first.epoch = 3;
    beat(&mut bench, with(first.clone()));
    let mut same = joining("q.1");
    same.topology = Some(first.clone());
    assert_eq!(beat(&mut bench, same).error_code, 0);
    let mut older = joining("r.1");
    older.topology = Some(Topology {
        epoch: 2,
        ..word_count()
    });
    let stale = beat(&mut bench, older);
    assert_eq!(
        (stale.error_code, statuses(&stale)),
        (0, vec![status::STALE_TOPOLOGY])
    );
    assert_eq!(
        details(&stale),
        ["The member's topology epoch 2 is behind the group's topology epoch 3."]
    );
    for epoch in [3, 4] {
        let mut other = joining("s.1");
        let mut topology = first.clone();
        topology.epoch = epoch;
        if epoch == 3 {
            topology.subtopologies.pop();
        }
        other.topology = Some(topology);
        let refused = beat(&mut bench, other);
        assert_eq!(code(refused.error_code), ErrorCode::InvalidRequest);
        assert_eq!(
            refused.error_message.unwrap(),
            "Topology updates are not supported yet."
        );
    }
    assert_reloads(&bench);
}
