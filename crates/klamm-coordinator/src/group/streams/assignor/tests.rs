//! The assignor against its properties and against what Kafka's own answered
//! (`tests/golden/StreamsGolden.java`).

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::group::streams::Tasks;

const GOLDEN: &str = include_str!("../../../../tests/golden/streams-assignor.txt");

fn tasks(text: &str) -> Tasks {
    let mut tasks = Tasks::new();
    for task in text.split(',').filter(|task| *task != "-") {
        let (part, number) = task.split_once('_').unwrap();
        let part = tasks.entry(part.into()).or_default();
        part.insert(number.parse().unwrap());
    }
    tasks
}

fn set(active: &str, standby: &str) -> TaskSet {
    TaskSet {
        active: tasks(active),
        standby: tasks(standby),
        ..TaskSet::default()
    }
}

#[test]
fn gives_what_kafkas_gives() {
    let mut count = 0;
    for case in GOLDEN.split("end\n").filter(|case| !case.is_empty()) {
        let mut standbys = 0;
        let (mut parts, mut workers) = (Vec::new(), Vec::new());
        let mut expected = BTreeMap::new();
        for line in case.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["case", replicas] => standbys = replicas.parse().unwrap(),
                ["part", id, count, stateful] => parts.push(Part {
                    id: id.into(),
                    task_count: count.parse().unwrap(),
                    is_stateful: stateful == "true",
                }),
                ["member", id, process, active, standby] => workers.push(Worker {
                    id: id.into(),
                    process_id: process.into(),
                    assigned: set(active, standby),
                }),
                ["gets", id, active, standby] => {
                    expected.insert(ByteStr::from(id), set(active, standby));
                }
                _ => panic!("{line}"),
            }
        }
        assert_eq!(assign(&workers, &parts, standbys), expected, "{case}");
        count += 1;
    }
    assert!(count > 100, "{count} cases");
}

fn part(id: usize, task_count: i32, is_stateful: bool) -> Part {
    Part {
        id: id.to_string().into(),
        task_count,
        is_stateful,
    }
}

/// Members of so many processes with so many threads each, with what they had.
fn workers(threads: &[usize], before: &BTreeMap<ByteStr, TaskSet>) -> Vec<Worker> {
    let mut workers = Vec::new();
    for (process, threads) in threads.iter().enumerate() {
        for thread in 0..*threads {
            let id = ByteStr::from(format!("p{process}-{thread}"));
            workers.push(Worker {
                assigned: before.get(&id).cloned().unwrap_or_default(),
                id,
                process_id: format!("p{process}").into(),
            });
        }
    }
    workers
}

fn count(tasks: &Tasks) -> usize {
    tasks.values().map(BTreeSet::len).sum()
}

fn check(shares: &BTreeMap<ByteStr, TaskSet>, workers: &[Worker], parts: &[Part], standbys: usize) {
    let mut active = BTreeSet::new();
    let mut held = BTreeSet::new();
    let mut copies: BTreeMap<(&ByteStr, i32), usize> = BTreeMap::new();
    for worker in workers {
        let share = &shares[&worker.id];
        for (part, tasks) in &share.active {
            for task in tasks {
                assert!(active.insert((part, *task)), "given twice");
                assert!(held.insert((&worker.process_id, part, *task)));
            }
        }
        for (part, tasks) in &share.standby {
            for task in tasks {
                assert!(held.insert((&worker.process_id, part, *task)), "two roles");
                *copies.entry((part, *task)).or_default() += 1;
            }
        }
    }
    let wanted: i32 = parts.iter().map(|part| part.task_count).sum();
    assert_eq!(i32::try_from(active.len()).unwrap(), wanted);
    let processes: BTreeSet<_> = workers.iter().map(|worker| &worker.process_id).collect();
    let most = standbys.min(processes.len().saturating_sub(1));
    for part in parts.iter().filter(|part| part.is_stateful) {
        for task in 0..part.task_count {
            let copies = copies.get(&(&part.id, task)).copied().unwrap_or(0);
            assert_eq!(copies, most, "copies of {}-{task}", part.id);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_task_is_given_once_and_copied_as_often_as_can_be(
        threads in proptest::collection::vec(1_usize..4, 1..5),
        later in proptest::collection::vec(1_usize..4, 1..5),
        counts in proptest::collection::vec((1_i32..6, any::<bool>()), 1..4),
        standbys in 0_usize..3,
    ) {
        let parts: Vec<Part> = counts
            .iter()
            .enumerate()
            .map(|(id, (count, stateful))| part(id, *count, *stateful))
            .collect();
        let first = workers(&threads, &BTreeMap::new());
        let shares = assign(&first, &parts, standbys);
        check(&shares, &first, &parts, standbys);
        // Whoever asks again keeps what they have.
        let again = workers(&threads, &shares);
        if standbys == 0 {
            prop_assert_eq!(&assign(&again, &parts, standbys), &shares);
        }
        // Members come and go.
        let second = workers(&later, &shares);
        let moved = assign(&second, &parts, standbys);
        check(&moved, &second, &parts, standbys);
        if standbys == 0 {
            let total: usize = parts.iter().map(|p| p.task_count as usize).sum();
            let most = total.div_ceil(second.len());
            for share in moved.values() {
                prop_assert!(count(&share.active) <= most + 1);
            }
        }
    }
}
