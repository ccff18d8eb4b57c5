//! Each property can be violated: by a disk that lies, and by a log that is wrong.

use std::sync::Arc;

use super::super::lying::{Lies, LyingFs};
use super::model::{Model, ModelBatch};
use super::observed::{Observed, ObservedBatch};
use super::*;
use crate::{SimFs, SimRng};

/// The properties that a log on such a disk violates, over some seeds.
fn violated(between: super::super::Between) -> Vec<&'static str> {
    let mut all: Vec<&'static str> = (0..40)
        .filter_map(|seed| {
            let run = Run::new(seed);
            driver::Driver::new(&run, Place::Alone, between)
                .and_then(driver::Driver::go)
                .err()
        })
        .map(|violation| violation.property)
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn a_disk_that_does_not_sync_is_caught() {
    let violated = violated(|fs| {
        let lies = Lies {
            syncs: false,
            ..Lies::NONE
        };
        Arc::new(LyingFs { fs, lies })
    });
    assert!(violated.contains(&"durability"), "{violated:?}");
}

#[test]
fn a_disk_that_does_not_sync_names_is_caught() {
    let violated = violated(|fs| {
        let lies = Lies {
            syncs_dirs: false,
            ..Lies::NONE
        };
        Arc::new(LyingFs { fs, lies })
    });
    assert!(violated.contains(&"durability"), "{violated:?}");
}

#[test]
fn a_disk_that_does_not_cut_is_caught() {
    let violated = violated(|fs| {
        let lies = Lies {
            cuts: false,
            ..Lies::NONE
        };
        Arc::new(LyingFs { fs, lies })
    });
    assert!(!violated.is_empty());
}

fn batch(base_offset: i64, values: &[&str], sequence: Option<(i64, i32)>) -> ModelBatch {
    ModelBatch {
        base_offset,
        values: values
            .iter()
            .map(|value| value.as_bytes().to_vec())
            .collect(),
        sequence,
    }
}

fn seen(batch: &ModelBatch) -> ObservedBatch {
    let offsets = batch.base_offset..;
    ObservedBatch {
        base_offset: batch.base_offset,
        next_offset: batch.next_offset(),
        records: Ok(offsets.zip(batch.values.iter().cloned()).collect()),
        sequence: batch.sequence,
    }
}

/// A model of three batches, and a log that holds them.
fn sound() -> (Model, Observed) {
    let batches = vec![
        batch(0, &["a", "b"], Some((1, 0))),
        batch(2, &["c"], None),
        batch(3, &["d", "e"], Some((1, 2))),
    ];
    let observed = Observed {
        start: 0,
        end: 5,
        batches: batches.iter().map(seen).collect(),
        trailing_bytes: 0,
    };
    let model = Model {
        batches,
        flushed_to: 3,
        ..Model::default()
    };
    (model, observed)
}

#[test]
fn a_sound_log_passes() {
    let (model, observed) = sound();
    assert_eq!(durability::check(&model, &observed), Ok(()));
    assert_eq!(integrity::check(&observed), Ok(()));
    assert_eq!(prefix::check(&model, &observed), Ok(model.batches.clone()));
    let producers = idempotence::Producers::from([(1, 3)]);
    assert_eq!(idempotence::check(&model.batches, 0, &producers), Ok(()));
}

#[test]
fn durability_fails_if_a_flushed_batch_is_gone_or_changed() {
    let (model, mut observed) = sound();
    observed.batches[1].records = Ok(vec![(2, b"x".to_vec())]);
    assert!(durability::check(&model, &observed).is_err());
    observed.batches.truncate(1);
    assert!(durability::check(&model, &observed).is_err());
    let (mut model, mut observed) = sound();
    observed.batches.truncate(2);
    assert_eq!(
        durability::check(&model, &observed),
        Ok(()),
        "the last one was not flushed"
    );
    model.flushed_to = 5;
    assert!(durability::check(&model, &observed).is_err());
}

#[test]
fn prefix_fails_on_holes_strangers_and_ghosts() {
    let (model, sound) = sound();
    let mut hole = sound.clone();
    hole.batches.remove(1);
    assert!(prefix::check(&model, &hole).is_err());
    let mut stranger = sound.clone();
    stranger.batches[2].records = Ok(vec![(3, b"d".to_vec()), (4, b"x".to_vec())]);
    assert!(prefix::check(&model, &stranger).is_err());
    let ghost = batch(5, &["f"], None);
    let mut haunted = sound.clone();
    haunted.batches.push(seen(&ghost));
    haunted.end = 6;
    assert!(prefix::check(&model, &haunted).is_err());
    let mut wrong_end = sound;
    wrong_end.end = 9;
    assert!(prefix::check(&model, &wrong_end).is_err());
    // One that was tried may be there, but only at the end.
    let mut model = model;
    model.attempted.insert(5, vec![ghost]);
    assert_eq!(
        prefix::check(&model, &haunted).map(|held| held.len()),
        Ok(4)
    );
    haunted.batches.push(seen(&batch(6, &["g"], None)));
    haunted.end = 7;
    assert!(prefix::check(&model, &haunted).is_err());
}

#[test]
fn integrity_fails_on_damage_gaps_and_leftovers() {
    let (_, sound) = sound();
    let mut damaged = sound.clone();
    damaged.batches[1].records = Err("checksum".to_owned());
    assert!(integrity::check(&damaged).is_err());
    let mut gap = sound.clone();
    gap.batches.remove(1);
    assert!(integrity::check(&gap).is_err());
    let mut offsets = sound.clone();
    offsets.batches[1].records = Ok(vec![(7, b"c".to_vec())]);
    assert!(integrity::check(&offsets).is_err());
    let mut leftover = sound;
    leftover.trailing_bytes = 1;
    assert!(integrity::check(&leftover).is_err());
}

#[test]
fn idempotence_fails_if_a_producer_is_forgotten_or_made_up() {
    let (model, _) = sound();
    for producers in [vec![], vec![(1, 1)], vec![(1, 3), (2, 0)]] {
        let producers = producers.into_iter().collect();
        let forgotten = idempotence::check(&model.batches, 0, &producers);
        let made_up = producers.contains_key(&2);
        assert_eq!(forgotten.is_err(), !made_up, "{producers:?}");
    }
    // A producer whose batches were all deleted may be known or not.
    assert_eq!(
        idempotence::check(&model.batches, 5, &idempotence::Producers::new()),
        Ok(())
    );
}

#[test]
fn lookup_fails_on_a_log_that_answers_with_other_batches() {
    use klamm_log::{AppendOrigin, Log, LogConfig, LogOpen};
    use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch};
    let run = Run::new(1);
    let fs = SimFs::new(SimRng::new(1), run.clock.clone(), run.trace.clone());
    let env = klamm_env::Env {
        clock: Arc::new(run.clock.clone()),
        rng: Arc::new(SimRng::new(2)),
        fs: Arc::new(fs),
    };
    let log = Log::open(LogOpen::standalone("/log", LogConfig::default(), env)).unwrap();
    for value in [&b"a"[..], b"b", b"c"] {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(1, None, Some(value), []).unwrap();
        let batch = PreparedBatch::trusted(builder.build().unwrap()).unwrap();
        log.append_as_leader(&mut [batch], 0, 1, AppendOrigin::Client)
            .unwrap();
    }
    let mut observed = observed::observe(&log).unwrap();
    assert_eq!(lookup::check(&log, &observed, &run.rng), Ok(()));
    observed.batches[1].base_offset = 9;
    assert!((0..9).any(|_| lookup::check(&log, &observed, &run.rng).is_err()));
    observed.end = 2;
    assert!(lookup::check(&log, &observed, &run.rng).is_err());
}
