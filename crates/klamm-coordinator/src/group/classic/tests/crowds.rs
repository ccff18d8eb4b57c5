//! Thousands of members that join at once: one generation for all of them, and one record.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::JoinGroupResponse;

use crate::group::classic::ClassicState;
use crate::group::testing::{Bench, Join};

/// So many members join an empty group, and then as many more a stable one.
fn crowd(members: usize) {
    let mut bench = Bench::new();
    let first = joined(&mut bench, &vec![None; members]);
    assert_eq!((bench.log.len(), bench.group().generation()), (2, 1));
    let ids: Vec<Option<String>> = first.into_iter().map(Some).collect();
    for id in ids.iter().flatten() {
        assert_eq!(bench.heartbeat(id, 1), ErrorCode::None);
    }
    // Whoever comes makes all join again, once.
    let mut again = vec![None; members];
    again.extend(ids);
    let all = joined(&mut bench, &again);
    assert_eq!(all.len(), 2 * members);
    assert_eq!((bench.log.len(), bench.group().generation()), (3, 2));
}

/// All of these join, new ones without an id, and get what the leader gives them.
fn joined(bench: &mut Bench, ids: &[Option<String>]) -> Vec<String> {
    let join = |id: &Option<String>| match id {
        None => Join::old(),
        Some(id) => Join::old().id(id),
    };
    let tokens: Vec<_> = ids.iter().map(|id| bench.join(join(id))).collect();
    bench.advance_ms(9_000);
    let answers: Vec<_> = tokens
        .into_iter()
        .map(|token| bench.join_answer(token))
        .collect();
    let generation = bench.group().generation();
    let is_in =
        |answer: &JoinGroupResponse| answer.error_code == 0 && answer.generation_id == generation;
    assert!(answers.iter().all(is_in));
    let all: Vec<String> = answers
        .iter()
        .map(|answer| answer.member_id.to_string())
        .collect();
    let leader = answers
        .iter()
        .position(|answer| answer.leader == answer.member_id);
    let leader = leader.expect("a leader");
    assert_eq!(answers[leader].members.len(), ids.len());
    let followers: Vec<_> = (0..all.len())
        .filter(|at| *at != leader)
        .map(|at| (at, bench.sync(&all[at], generation, &[])))
        .collect();
    let given: Vec<(&str, &str)> = all.iter().map(|id| (&**id, &**id)).collect();
    let token = bench.sync(&all[leader], generation, &given);
    assert_eq!(bench.sync_answer(token).assignment, all[leader].as_bytes());
    for (at, token) in followers {
        assert_eq!(bench.sync_answer(token).assignment, all[at].as_bytes());
    }
    assert_eq!(bench.state(), ClassicState::Stable);
    all
}

#[test]
fn thousands_join_at_once() {
    crowd(3_000);
}
