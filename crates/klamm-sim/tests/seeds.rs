//! Determinism first: a run that cannot be repeated proves nothing. Then every scenario over as
//! many seeds as fit into some seconds; `cargo xtask sim --seeds N` runs more.

use klamm_sim::scenarios::{SCENARIOS, Scenario, run_seed};

/// Seeds of each scenario: the log's are many and short.
fn seeds(scenario: &Scenario) -> u64 {
    match scenario.name {
        "log" | "log-manager" => 400,
        "log-history" | "log-rot" | "log-tier" => 500,
        // A minute of a cluster's life takes about a second.
        "cluster" => 8,
        "groups" | "txn" | "share" => 70,
        "quorum" => 6,
        "voters" | "whole" => 4,
        "day" => 1,
        _ => 100,
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for scenario in SCENARIOS {
        let mut hashes = Vec::new();
        // A cluster's runs are long; the next test repeats another one.
        let repeated = match scenario.name {
            "quorum" | "voters" | "whole" => 2,
            "day" => 1,
            "cluster" => 3,
            _ => 8,
        };
        for seed in 0..repeated {
            let (first, second) = (run_seed(scenario, seed), run_seed(scenario, seed));
            // Not the traces themselves: nobody could read the difference.
            assert_eq!(
                (first.trace_hash, first.trace_len, &first.result),
                (second.trace_hash, second.trace_len, &second.result),
                "{} seed {seed} does not repeat itself",
                scenario.name
            );
            assert!(
                first.trace_len > 50,
                "{} seed {seed} does next to nothing",
                scenario.name
            );
            hashes.push(first.trace_hash);
        }
        hashes.sort_unstable();
        hashes.dedup();
        let different = hashes.len() as u64;
        assert_eq!(
            different, repeated,
            "{}: seeds do not matter",
            scenario.name
        );
    }
}

/// What long runs have found, beyond the seeds that are always run.
#[test]
fn seeds_that_once_failed_do_not_again() {
    let found = [
        // A last known leader outside of the replicas was elected.
        ("cluster", vec![1442]),
        // Share state was not asked for again; tasks to be given up were not told again.
        ("share", vec![5086]),
        ("streams", vec![84, 194]),
        // A producer snapshot that could not be renamed was believed by a later start.
        ("log-history", vec![100_083, 100_135, 100_407]),
        // A clean that failed halfway left an old segment with the indexes of its successor.
        ("log-history", vec![40_111_482, 40_321_414]),
        // A crash left a segment without records, whose age the model cannot know.
        ("log-history", vec![40_931_095]),
        // What names a log's topic was torn where there were batches.
        ("log-manager", vec![143, 60_010_258, 60_011_991]),
        // A tier forgot what it had said to have; what a crash brought back had been given up.
        ("log-tier", vec![20_007_908, 40_104_022, 40_412_429]),
        // A controller was elected that had lost its vote before, and led on.
        ("voters", vec![3140, 4032]),
        // A snapshot took the place of a newer one; a disk that was lost spoke for a new voter.
        ("voters", vec![6022, 6982]),
        // A static name went from one protocol to the other.
        ("groups", vec![300_468]),
        // Two headers damaged so that one batch is taken for the other: nobody can tell.
        ("log-rot", vec![112_506]),
        // So it is with a damaged offset between damaged batches.
        ("log-rot", vec![40_003_337]),
    ];
    for (name, seeds) in found {
        for scenario in SCENARIOS.iter().filter(|scenario| scenario.name == name) {
            for &seed in &seeds {
                assert_eq!(run_seed(scenario, seed).result, Ok(()), "{name} {seed}");
            }
        }
    }
}

#[test]
fn every_property_holds_on_every_seed() {
    let mut failures = Vec::new();
    for scenario in SCENARIOS {
        // Half a day of a cluster is repeated in the test above.
        if scenario.name != "day" {
            assert_eq!(
                run_seed(scenario, 0),
                run_seed(scenario, 0),
                "{}",
                scenario.name
            );
        }
        for seed in 0..seeds(scenario) {
            if let Err(violation) = run_seed(scenario, seed).result {
                failures.push(format!(
                    "{violation}\n  cargo xtask sim --scenario {} --seed {seed}",
                    scenario.name
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
