//! The property is violated by what it must not allow.

use std::sync::Arc;

use klamm_env::{Env, Fs as _};
use klamm_log::{AppendOrigin, Log, LogConfig, LogOpen};
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch};

use super::model::{Model, Written};
use super::*;
use crate::{SimFs, SimRng};

/// A log of three batches and the model of it.
fn log() -> (SimFs, Log, Model) {
    let run = Run::new(1);
    let fs = SimFs::new(SimRng::new(1), run.clock.clone(), run.trace.clone());
    let env = Env {
        clock: Arc::new(run.clock),
        rng: Arc::new(SimRng::new(2)),
        fs: Arc::new(fs.clone()),
    };
    let log = Log::open(LogOpen::standalone("/log", LogConfig::default(), env)).unwrap();
    let mut model = Model::default();
    for value in [&b"a"[..], b"b", b"c"] {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(1, None, Some(value), []).unwrap();
        let mut batch = [PreparedBatch::trusted(builder.build().unwrap()).unwrap()];
        let info = log
            .append_as_leader(&mut batch, 0, 1, AppendOrigin::Client)
            .unwrap();
        model.end = info.last_offset + 1;
        model.batches.push(Written {
            base: info.first_offset,
            next: info.last_offset + 1,
            bytes: batch[0].to_bytes().to_vec(),
            records: vec![(info.first_offset, 1)],
            transactional: false,
        });
    }
    (fs, log, model)
}

#[test]
fn a_change_of_what_was_not_hit_is_seen() {
    let (fs, log, mut model) = log();
    assert_eq!(served::batches(&log, &model), Ok(()));
    let names = fs.read_dir(std::path::Path::new("/log")).unwrap();
    let file = names.iter().find(|entry| entry.name.ends_with(".log"));
    let path = std::path::Path::new("/log").join(&file.unwrap().name);
    fs.rot(&path, 65, 1).unwrap();
    assert!(served::batches(&log, &model).is_err());
    model.hit.insert(0);
    assert_eq!(served::batches(&log, &model), Ok(()));
}

#[test]
fn another_batch_with_a_checksum_that_holds_is_seen() {
    let (_, log, mut model) = log();
    // What was written at 1 is not what the log gives there.
    model.batches[1].bytes = model.batches[0].bytes.clone();
    model.hit.insert(1);
    assert!(served::batches(&log, &model).is_err());
}

#[test]
fn a_batch_that_was_hit_may_stand_in_the_place_of_another() {
    let (fs, log, mut model) = log();
    let names = fs.read_dir(std::path::Path::new("/log")).unwrap();
    let file = names.iter().find(|entry| entry.name.ends_with(".log"));
    let path = std::path::Path::new("/log").join(&file.unwrap().name);
    let second = model.batches[0].bytes.len() as u64;
    // The second gets the base offset of the third, which is not a batch any more.
    fs.rot(&path, second + 7, 1 ^ 2).unwrap();
    fs.rot(&path, 2 * second + 16, 1).unwrap();
    model.hit.insert(2);
    assert!(
        served::batches(&log, &model).is_err(),
        "the second was not hit"
    );
    model.hit.insert(1);
    assert_eq!(served::batches(&log, &model), Ok(()));
}

#[test]
fn wrong_times_and_transactions_are_seen() {
    let (_, log, mut model) = log();
    let rng = SimRng::new(3);
    assert_eq!(served::timestamps(&log, &model, &rng), Ok(()));
    assert_eq!(served::aborted(&log, &model), Ok(()));
    model.batches[0].records[0].1 = 0;
    assert!((0..9).any(|_| served::timestamps(&log, &model, &rng).is_err()));
    model.aborted.push((7, 0, 1));
    assert!(served::aborted(&log, &model).is_err());
}
