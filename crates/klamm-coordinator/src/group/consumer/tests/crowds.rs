//! Thousands of members that join at once: what that takes must grow with their number, not with
//! its square.

use super::*;
use crate::group::consumer::ConsumerRecord;
use crate::group::record::GroupRecord;

/// What it took until all had what is theirs.
#[derive(Debug)]
struct Took {
    heartbeats: usize,
    records: usize,
    assignments: usize,
}

/// So many members join at the same moment, and go on until the group is stable.
fn crowd(members: usize) -> Took {
    let mut bench = Bench::new();
    bench.make_topic("t", 2 * members);
    let ids: Vec<String> = (0..members).map(|at| format!("member-{at}")).collect();
    let mut held = vec![Held::new(); members];
    let mut epochs = vec![0; members];
    let mut took = Took {
        heartbeats: 0,
        records: 0,
        assignments: 0,
    };
    for round in 0..6 {
        for (at, id) in ids.iter().enumerate() {
            let beat = match epochs[at] {
                0 => Beat::join(id, &["t"]),
                epoch => Beat::stay(id, epoch).owning(&held[at]),
            };
            let answer = bench.beat(&beat);
            took.heartbeats += 1;
            assert_eq!(answer.error_code, 0, "{answer:?}");
            epochs[at] = answer.member_epoch;
            if let Some(given) = given(&answer, &["t"]) {
                held[at] = given;
            }
        }
        if bench.consumer_state() == ConsumerGroupState::Stable {
            break;
        }
        assert!(round < 5, "it is not stable after {took:?}");
        bench.advance_ms(5_000);
    }
    assert!(held.iter().all(|held| held["t"].len() == 2));
    let all: BTreeSet<i32> = held.iter().flat_map(|held| &held["t"]).copied().collect();
    assert_eq!(all.len(), 2 * members);
    took.records = bench.log.len();
    let is_assignment = |record: &&GroupRecord| match record {
        GroupRecord::Consumer(record) => matches!(**record, ConsumerRecord::Assignment(..)),
        _ => false,
    };
    took.assignments = bench.log.iter().filter(is_assignment).count();
    took
}

#[test]
fn thousands_join_at_once() {
    let (few, many) = (crowd(300), crowd(3_000));
    assert!(many.heartbeats <= 10 * few.heartbeats, "{few:?} {many:?}");
    assert!(many.records <= 10 * few.records, "{few:?} {many:?}");
    // One for whoever was first, one for all the others.
    assert_eq!((few.assignments, many.assignments), (2, 2));
    // What each says of itself, its epoch, and what it has, twice.
    assert!(many.records <= 6 * 3_000 + 3, "{many:?}");
}
