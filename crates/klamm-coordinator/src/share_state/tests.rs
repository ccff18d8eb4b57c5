//! The share coordinator's state over one partition of its topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::ErrorCode;
use klamm_records::Uuid;
use proptest::prelude::*;

use super::shard::StateChange;
use super::{
    ShareCoordinatorConfig, ShareStateAction, ShareStateKey, ShareStateRecord, ShareStateRequest,
    ShareStateResponse, ShareStateShard, ShareStateUndo, StateBatch, combine,
};
use crate::group::{FixedCluster, ListedTopic};
use crate::runtime::{CoordinatorRecord, Now, RecordOrigin, ReplyToken, Shard};

struct Bench {
    shard: ShareStateShard,
    cluster: Arc<FixedCluster>,
    log: Vec<ShareStateRecord>,
    now: Now,
    actions: Vec<ShareStateAction>,
}

fn config() -> Arc<ShareCoordinatorConfig> {
    Arc::new(ShareCoordinatorConfig {
        updates_per_snapshot: 3,
        ..ShareCoordinatorConfig::default()
    })
}

fn key(partition: i32) -> ShareStateKey {
    ShareStateKey {
        group_id: "g".into(),
        topic_id: Uuid::ONE,
        partition,
    }
}

fn batch(
    first_offset: i64,
    last_offset: i64,
    delivery_state: i8,
    delivery_count: i16,
) -> StateBatch {
    StateBatch {
        first_offset,
        last_offset,
        delivery_state,
        delivery_count,
    }
}

fn change(start_offset: i64, batches: &[StateBatch]) -> StateChange {
    StateChange {
        state_epoch: 0,
        leader_epoch: 5,
        start_offset,
        delivery_complete_count: 1,
        batches: batches.to_vec(),
    }
}

impl Bench {
    fn new() -> Self {
        let cluster = Arc::new(FixedCluster::default());
        cluster.change(|topics| {
            let topic = ListedTopic {
                id: Uuid::ONE,
                partitions: vec![Vec::new(); 2],
            };
            topics.topics.insert("t".into(), topic);
            topics.version = 1;
        });
        let now = Now {
            wall_ms: 1_000_000,
            monotonic_ms: 0,
        };
        let mut shard = ShareStateShard::new(config(), cluster.clone());
        shard.loaded(now);
        Bench {
            shard,
            cluster,
            log: Vec::new(),
            now,
            actions: Vec::new(),
        }
    }

    fn absorb(&mut self, effects: super::ShareStateEffects) -> Option<ShareStateResponse> {
        let mut undos = Vec::new();
        for record in effects.records {
            let encoded = record.encode().unwrap();
            let decoded = ShareStateRecord::decode(Some(encoded.key), encoded.value).unwrap();
            assert_eq!(decoded, record);
            let origin = RecordOrigin {
                offset: i64::try_from(self.log.len()).unwrap(),
                producer_id: -1,
            };
            undos.push(self.shard.replay(origin, &record, self.now));
            self.log.push(record);
        }
        for undo in undos {
            self.shard.commit(undo);
        }
        self.actions.extend(effects.actions);
        effects.deferred.map(|(_, response)| response)
    }

    fn ask(&mut self, request: ShareStateRequest) -> ShareStateResponse {
        let effects = self.shard.handle(request, ReplyToken(0), self.now);
        self.absorb(effects).unwrap()
    }

    fn initialize(&mut self, partition: i32, state_epoch: i32) -> ShareStateResponse {
        self.initialize_at(partition, state_epoch, 0)
    }

    fn initialize_at(
        &mut self,
        partition: i32,
        state_epoch: i32,
        start_offset: i64,
    ) -> ShareStateResponse {
        self.ask(ShareStateRequest::Initialize {
            key: key(partition),
            state_epoch,
            start_offset,
        })
    }

    fn pass(&mut self, ms: i64) {
        self.now.wall_ms += ms;
        self.now.monotonic_ms += u64::try_from(ms).unwrap();
        while let Some(effects) = self.shard.tick(self.now) {
            self.absorb(effects);
        }
    }

    fn reloaded(&self) -> ShareStateShard {
        let mut shard = ShareStateShard::new(config(), self.cluster.clone());
        for (offset, record) in (0..).zip(&self.log) {
            let origin = RecordOrigin {
                offset,
                producer_id: -1,
            };
            shard.replay_committed(origin, record, self.now);
        }
        shard
    }
}

fn is_refused(response: ShareStateResponse, error: ErrorCode) -> bool {
    matches!(response, ShareStateResponse::Refused(actual, _) if actual == error)
}

#[test]
fn updates_are_put_over_the_state_and_a_snapshot_follows_some_of_them() {
    let mut bench = Bench::new();
    assert_eq!(bench.initialize(0, 0), ShareStateResponse::Done);
    for offset in 0..4 {
        let written = change(0, &[batch(offset, offset, 2, 1)]);
        let answer = bench.ask(ShareStateRequest::Write(key(0), written));
        assert_eq!(answer, ShareStateResponse::Done);
    }
    let kinds: Vec<bool> = bench
        .log
        .iter()
        .map(|record| matches!(record, ShareStateRecord::Snapshot(..)))
        .collect();
    assert_eq!(kinds, [true, false, false, false, true]);
    let state = bench.shard.state(&key(0)).unwrap().clone();
    assert_eq!(state.batches, [batch(0, 3, 2, 1)]);
    assert_eq!((state.snapshot_epoch, state.snapshot_offset), (1, 4));
    assert_eq!(bench.reloaded().state(&key(0)), Some(&state));
    // What is below the start is forgotten.
    bench.ask(ShareStateRequest::Write(
        key(0),
        change(2, &[batch(5, 6, 0, 2)]),
    ));
    let state = bench.shard.state(&key(0)).unwrap();
    assert_eq!(state.batches, [batch(2, 3, 2, 1), batch(5, 6, 0, 2)]);
    assert_eq!(state.start_offset, 2);
}

#[test]
fn a_read_by_a_new_leader_fences_the_one_before() {
    let mut bench = Bench::new();
    let read = |epoch| ShareStateRequest::Read(key(0), epoch);
    assert!(is_refused(bench.ask(read(5)), ErrorCode::InvalidRequest));
    bench.initialize(0, 0);
    let ShareStateResponse::State(Some(state)) = bench.ask(read(6)) else {
        panic!("a state");
    };
    assert_eq!((state.start_offset, state.leader_epoch), (0, 0));
    let logged = bench.log.len();
    assert!(matches!(
        bench.ask(read(6)),
        ShareStateResponse::State(Some(_))
    ));
    assert_eq!(bench.log.len(), logged, "known already");
    let written = bench.ask(ShareStateRequest::Write(key(0), change(0, &[])));
    assert!(is_refused(written, ErrorCode::FencedLeaderEpoch));
    assert!(is_refused(bench.ask(read(5)), ErrorCode::FencedLeaderEpoch));
}

#[test]
fn a_state_made_anew_fences_those_who_know_the_old_one() {
    let mut bench = Bench::new();
    bench.initialize(0, 3);
    assert!(is_refused(
        bench.initialize(0, 2),
        ErrorCode::FencedStateEpoch
    ));
    let written = bench.ask(ShareStateRequest::Write(key(0), change(0, &[])));
    assert!(is_refused(written, ErrorCode::FencedStateEpoch));
    let unknown = bench.initialize(7, 0);
    assert!(is_refused(unknown, ErrorCode::UnknownTopicOrPartition));
    assert!(is_refused(
        bench.initialize(-1, 0),
        ErrorCode::InvalidRequest
    ));
}

#[test]
fn a_state_that_is_asked_for_again_keeps_what_was_written() {
    let mut bench = Bench::new();
    assert_eq!(bench.initialize_at(0, 0, -1), ShareStateResponse::Done);
    let written = change(0, &[batch(0, 4, 2, 1)]);
    bench.ask(ShareStateRequest::Write(key(0), written));
    let state = bench.shard.state(&key(0)).unwrap().clone();
    let logged = bench.log.len();
    for state_epoch in [0, 1] {
        let again = bench.initialize_at(0, state_epoch, -1);
        assert_eq!(again, ShareStateResponse::Done);
    }
    assert_eq!(bench.shard.state(&key(0)), Some(&state));
    assert_eq!(bench.log.len(), logged);
    // An administrator says where to go on.
    assert_eq!(bench.initialize_at(0, 1, 3), ShareStateResponse::Done);
    let state = bench.shard.state(&key(0)).unwrap();
    assert_eq!((state.start_offset, state.state_epoch), (3, 1));
    assert!(state.batches.is_empty());
}

#[test]
fn deleted_states_are_gone_and_deleting_them_again_is_fine() {
    let mut bench = Bench::new();
    bench.initialize(0, 0);
    let delete = || ShareStateRequest::Delete(key(0));
    assert_eq!(bench.ask(delete()), ShareStateResponse::Done);
    let logged = bench.log.len();
    assert_eq!(bench.ask(delete()), ShareStateResponse::Done);
    assert_eq!(bench.log.len(), logged);
    let summary = bench.ask(ShareStateRequest::Summary(key(0)));
    assert_eq!(summary, ShareStateResponse::State(None));
    bench.initialize(1, 0);
    bench.ask(ShareStateRequest::TopicsDeleted([Uuid::ONE].into()));
    assert_eq!(bench.shard.state(&key(1)), None);
}

#[test]
fn the_log_is_pruned_up_to_the_oldest_snapshot_and_cold_states_do_not_hold_it() {
    let mut bench = Bench::new();
    bench.initialize(0, 0);
    bench.initialize(1, 0);
    for offset in 0..4 {
        let written = change(0, &[batch(offset, offset, 2, 1)]);
        bench.ask(ShareStateRequest::Write(key(0), written));
    }
    // The state of partition 1 rests at offset 1 until it gets a snapshot of its own.
    bench.pass(300_000);
    bench.pass(300_000);
    let pruned: Vec<i64> = bench
        .actions
        .iter()
        .map(|ShareStateAction::Prune { before_offset }| *before_offset)
        .collect();
    let last = *pruned.last().unwrap();
    assert!(pruned.is_sorted());
    let needed = bench.shard.state(&key(0)).unwrap().snapshot_offset;
    let needed = needed.min(bench.shard.state(&key(1)).unwrap().snapshot_offset);
    assert!(
        last > 1 && last <= needed,
        "{pruned:?}, needed from {needed}"
    );
    assert_eq!(bench.reloaded().state(&key(1)), bench.shard.state(&key(1)));
    let logged = bench.log.len();
    bench.pass(300_000);
    assert_eq!(bench.log.len(), logged, "cold states get one snapshot");
}

#[test]
fn what_cannot_be_written_is_taken_back() {
    let mut bench = Bench::new();
    bench.initialize(0, 0);
    let before = bench.shard.state(&key(0)).unwrap().clone();
    let request = ShareStateRequest::Write(key(0), change(0, &[batch(0, 9, 2, 1)]));
    let effects = bench.shard.handle(request, ReplyToken(0), bench.now);
    let origin = RecordOrigin {
        offset: 1,
        producer_id: -1,
    };
    let undos: Vec<ShareStateUndo> = effects
        .records
        .iter()
        .map(|record| bench.shard.replay(origin, record, bench.now))
        .collect();
    assert_ne!(bench.shard.state(&key(0)), Some(&before));
    for undo in undos.into_iter().rev() {
        bench.shard.undo(undo);
    }
    assert_eq!(bench.shard.state(&key(0)), Some(&before));
}

#[test]
fn keys_are_found_by_group_topic_and_partition() {
    assert_eq!(key(3).coordinator_key(), "g:AAAAAAAAAAAAAAAAAAAAAQ:3");
}

fn any_batch() -> impl Strategy<Value = StateBatch> {
    (0..40_i64, 0..8_i64, 0..3_usize, 1..4_i16)
        .prop_map(|(first, len, state, count)| batch(first, first + len, [0, 2, 4][state], count))
}

proptest! {
    #[test]
    fn batches_over_each_other_say_of_each_record_what_weighs_most(
        older in prop::collection::vec(any_batch(), 0..8),
        newer in prop::collection::vec(any_batch(), 0..8),
        start_offset in 0..20_i64,
    ) {
        let combined = combine(&older, &newer, start_offset);
        let mut expected: BTreeMap<i64, (i16, i8)> = BTreeMap::new();
        for batch in older.iter().chain(&newer) {
            for offset in batch.first_offset.max(start_offset)..=batch.last_offset {
                let says = (batch.delivery_count, batch.delivery_state);
                let known = expected.entry(offset).or_insert(says);
                *known = says.max(*known);
            }
        }
        let mut actual = BTreeMap::new();
        for batch in &combined {
            for offset in batch.first_offset..=batch.last_offset {
                let says = (batch.delivery_count, batch.delivery_state);
                prop_assert!(actual.insert(offset, says).is_none());
            }
        }
        prop_assert_eq!(actual, expected);
        for pair in combined.windows(2) {
            let alike = pair[0].delivery_state == pair[1].delivery_state
                && pair[0].delivery_count == pair[1].delivery_count;
            prop_assert!(pair[0].last_offset + 1 < pair[1].first_offset || !alike);
        }
    }
}
