//! Thousands of members that join at once: what that takes must grow with their number, not with
//! its square.

use super::*;
use crate::group::GroupRecord;
use crate::group::streams::StreamsRecord;

/// What it took until all had what is theirs.
#[derive(Debug)]
struct Took {
    heartbeats: usize,
    records: usize,
    assignments: usize,
}

/// So many members join at the same moment, each a process of its own, and go on until the group is
/// stable.
fn crowd(members: usize) -> Took {
    let mut bench = plain();
    configure(&bench, |settings| {
        settings.initial_rebalance_delay_ms = 3_000;
        settings.assignment_interval_ms = 1_000;
    });
    for topic in ["words", "counts-repartition", "counts-changelog"] {
        set_topic(&bench, topic, members);
    }
    let ids: Vec<String> = (0..members).map(|at| format!("process-{at}.1")).collect();
    let mut running: Vec<Ids> = vec![Vec::new(); members];
    let mut epochs = vec![0; members];
    let mut took = Took {
        heartbeats: 0,
        records: 0,
        assignments: 0,
    };
    for round in 0..6 {
        for (at, id) in ids.iter().enumerate() {
            let request = match epochs[at] {
                0 => joining(id),
                epoch => owning(id, epoch, &running[at], &[]),
            };
            let answer = beat(&mut bench, request);
            took.heartbeats += 1;
            assert_eq!(answer.error_code, 0, "{answer:?}");
            epochs[at] = answer.member_epoch;
            if let Some(given) = active(&answer) {
                running[at] = given;
            }
        }
        if state(&bench) == "Stable" {
            break;
        }
        assert!(round < 5, "it is not stable after {took:?}");
        bench.advance_ms(5_000);
    }
    assert!(running.iter().all(|tasks| tasks.len() == 2));
    took.records = bench.log.len();
    let is_assignment = |record: &&GroupRecord| match record {
        GroupRecord::Streams(record) => matches!(**record, StreamsRecord::Assignment(..)),
        _ => false,
    };
    took.assignments = bench.log.iter().filter(is_assignment).count();
    took
}

#[test]
fn thousands_join_at_once() {
    let (few, many) = (crowd(200), crowd(2_000));
    assert!(many.heartbeats <= 10 * few.heartbeats, "{few:?} {many:?}");
    assert!(many.records <= 10 * few.records, "{few:?} {many:?}");
    // All wait for the first.
    assert_eq!((few.assignments, many.assignments), (1, 1));
}
