//! What a leader does for followers besides sending records: it tells them at once what is
//! committed, and keeps to a bandwidth.

use std::pin::pin;

use super::*;
use crate::fetcher::plan::{FetchLimits, FetchPlan, Round};

const THIRD: i32 = 3;

const FOLLOWER: FetchParams = FetchParams {
    replica_id: OTHER,
    replica_epoch: 9,
    isolation: Isolation::LogEnd,
    ..CONSUMER
};

/// A follower's fetch at `offset` that knows `high_watermark` to be committed.
fn follower_at(offset: i64, high_watermark: i64) -> [(TopicIdPartition, FetchPartition); 1] {
    let wish = FetchPartition {
        log_start_offset: 0,
        high_watermark: Some(high_watermark),
        ..wish(offset)
    };
    [(t(), wish)]
}

fn leader_of_three() -> Broker {
    let mut broker = Broker::new();
    broker.create("t", &[partition(0, &[NODE, OTHER, THIRD])]);
    broker.register(OTHER, 9);
    broker.register(THIRD, 9);
    broker
}

#[test]
fn a_held_fetch_is_answered_when_the_high_watermark_moves() {
    let broker = leader_of_three();
    let pending = broker.produce_acks(&["a"], -1);
    let waiting = follower_at(1, 0);
    let mut held = pin!(broker.manager.fetch(&FOLLOWER, &waiting));
    assert!(poll(&mut held).is_pending());
    assert!(!pending.is_ready());
    let third = FetchParams {
        replica_id: THIRD,
        ..FOLLOWER
    };
    // The one by whose fetch it moves hears of it at once as well.
    let answer = ready(broker.manager.fetch(&third, &follower_at(1, 0))).remove(0);
    assert_eq!((answer.high_watermark, answer.records.len()), (1, 0));
    assert!(pending.is_ready());
    let Poll::Ready(answers) = poll(&mut held) else {
        panic!("it is still held");
    };
    assert_eq!(answers[0].high_watermark, 1);
    // Now that both know, there is something to wait for again.
    let known = follower_at(1, 1);
    let mut held = pin!(broker.manager.fetch(&FOLLOWER, &known));
    assert!(poll(&mut held).is_pending());
}

#[test]
fn a_follower_that_does_not_tell_what_it_knows_is_held() {
    let broker = leader_of_three();
    broker.produce(&["a"]);
    let mut wishes = follower_at(1, 0);
    wishes[0].1.high_watermark = None;
    let mut held = pin!(broker.manager.fetch(&FOLLOWER, &wishes));
    assert!(poll(&mut held).is_pending());
    let third = FetchParams {
        replica_id: THIRD,
        max_wait_ms: 0,
        ..FOLLOWER
    };
    ready(broker.manager.fetch(&third, &wishes));
    assert_eq!(broker.offsets().high_watermark, 1);
    assert!(poll(&mut held).is_pending());
}

#[test]
fn a_throttled_follower_gets_no_more_than_the_bandwidth_unless_it_is_in_sync() {
    let mut broker = Broker::new();
    broker.settings.leader_throttled = ThrottledPartitions::These(vec![0]);
    broker.create(
        "t",
        &[PartitionRecord {
            isr: vec![NODE, THIRD],
            ..partition(0, &[NODE, OTHER, THIRD])
        }],
    );
    let size = broker.produce(&["a"]);
    assert_eq!(size.error, ErrorCode::None);
    broker.produce(&["b"]);
    broker.manager.set_replication_rates(10, i64::MAX);
    broker.sleep_ms(1_000);
    let params = FetchParams {
        max_wait_ms: 0,
        max_bytes: 1,
        ..FOLLOWER
    };
    let fetch = |params: &FetchParams, offset| {
        ready(broker.manager.fetch(params, &follower_at(offset, 0))).remove(0)
    };
    assert!(!fetch(&params, 0).records.is_empty());
    let held_back = fetch(&params, 1);
    assert_eq!(held_back.error, ErrorCode::None);
    assert!(
        held_back.records.is_empty(),
        "a batch is more than 10 bytes"
    );
    let in_sync = FetchParams {
        replica_id: THIRD,
        ..params
    };
    assert!(!fetch(&in_sync, 1).records.is_empty());
    broker.sleep_ms(20_000);
    assert!(!fetch(&params, 1).records.is_empty());
    broker.manager.set_replication_rates(i64::MAX, i64::MAX);
    assert!(!fetch(&params, 1).records.is_empty());
}

/// What broker `OTHER` asks of `NODE` next.
fn asks(follower: &Broker, plan: &mut FetchPlan) -> Round {
    let replicas = &follower.manager;
    plan.next(replicas.now_ms(), 9, &|t| replicas.follower_wish(t, NODE))
}

fn following(settings: impl Fn(&mut TopicSettings)) -> (Broker, FetchPlan) {
    let mut follower = Broker::of_node(OTHER);
    settings(&mut follower.settings);
    follower.create("t", &[partition(0, &[NODE, OTHER])]);
    let mut plan = FetchPlan::new(OTHER, FetchLimits::default());
    plan.follow(TopicPartition::new("t", 0), id("t"));
    (follower, plan)
}

fn takes(follower: &Broker, records: &[&str], high_watermark: i64) {
    let records = batch(records, &BatchOptions::default());
    let data = klamm_protocol::messages::fetch_response::PartitionData {
        high_watermark,
        records: Some(klamm_protocol::Records::Bytes(records)),
        ..Default::default()
    };
    let epoch = follower.offsets().leader_epoch;
    let followed = follower
        .manager
        .follow(&TopicPartition::new("t", 0), epoch, &data);
    assert!(
        matches!(followed, Ok(Followed::Appended(1..))),
        "{followed:?}"
    );
}

#[test]
fn a_follower_asks_for_more_once_what_it_has_is_on_disk() {
    let (follower, mut plan) = following(|settings| settings.log.group_sync = true);
    assert!(matches!(asks(&follower, &mut plan), Round::Fetch(_)));
    takes(&follower, &["a"], 0);
    let synced = follower.manager.follower_synced();
    let mut synced = pin!(synced);
    synced.as_mut().enable();
    assert!(matches!(asks(&follower, &mut plan), Round::AwaitSync));
    while follower.manager.logs().run_sync() {}
    assert!(poll(&mut synced).is_ready());
    assert!(matches!(asks(&follower, &mut plan), Round::Fetch(_)));
}

#[test]
fn partitions_do_not_wait_for_the_disk_of_another_one() {
    let (mut follower, mut plan) = following(|settings| settings.log.group_sync = true);
    follower.settings.log.group_sync = false;
    follower.create("u", &[partition(0, &[NODE, OTHER])]);
    plan.follow(TopicPartition::new("u", 0), id("u"));
    let topics = |round| match round {
        Round::Fetch(request) => {
            let ids: Vec<_> = request.topics.iter().map(|topic| topic.topic_id).collect();
            (ids, request.max_wait_ms)
        }
        round => panic!("{round:?}"),
    };
    let patient = FetchLimits::default().wait_max_ms;
    let (ids, wait) = topics(asks(&follower, &mut plan));
    assert_eq!((ids.len(), wait), (2, patient));
    takes(&follower, &["a"], 0);
    let (ids, wait) = topics(asks(&follower, &mut plan));
    assert_eq!(ids, [id("u")]);
    assert!(wait < patient, "held for {wait} ms");
    while follower.manager.logs().run_sync() {}
    let (ids, wait) = topics(asks(&follower, &mut plan));
    assert_eq!((ids.len(), wait), (2, patient));
}

#[test]
fn a_throttled_follower_fetches_no_faster_than_the_bandwidth_until_it_has_caught_up() {
    let (follower, mut plan) =
        following(|settings| settings.follower_throttled = ThrottledPartitions::All);
    follower.manager.set_replication_rates(i64::MAX, 10);
    follower.sleep_ms(1_000);
    assert!(matches!(asks(&follower, &mut plan), Round::Fetch(_)));
    takes(&follower, &["a"], 5);
    assert!(matches!(asks(&follower, &mut plan), Round::PauseUntil(_)));
    follower.sleep_ms(20_000);
    assert!(matches!(asks(&follower, &mut plan), Round::Fetch(_)));
    follower.manager.set_replication_rates(i64::MAX, 0);
    assert!(matches!(asks(&follower, &mut plan), Round::PauseUntil(_)));
}

#[test]
fn consumers_may_read_from_in_sync_replicas_that_have_the_offset() {
    let broker = leader_of_three();
    broker.produce(&["a", "b"]);
    broker.follow(1);
    let readable = |offset| {
        let topic = TopicRef::Name("t");
        let found = broker.manager.readable_replicas(topic, 0, offset);
        let found = found.unwrap().into_iter();
        found.map(|replica| replica.broker).collect::<Vec<_>>()
    };
    assert_eq!(readable(1), [NODE, OTHER]);
    assert_eq!(readable(2), [NODE]);
    let (follower, _) = following(|_| {});
    let topic = TopicRef::Name("t");
    assert_eq!(follower.manager.readable_replicas(topic, 0, 0), None);
}
