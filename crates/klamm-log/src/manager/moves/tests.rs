use klamm_env::{FsExt, OpenMode};
use klamm_records::{BatchOptions, PreparedBatch};

use super::*;
use crate::LogConfig;
use crate::checkpoints;
use crate::error::LogError;
use crate::manager::tests::{Fixture, create, partition};
use crate::test_support::{all_records, append, batch, batch_with, records_of};

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 400,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

fn ids(manager: &LogManager) -> Vec<Uuid> {
    manager.directories().iter().map(|d| d.id).collect()
}

/// A log of `count` batches in the first directory.
fn filled(manager: &LogManager, count: i64) -> Arc<Log> {
    let (first, id) = (ids(manager)[0], Some(Uuid::from_bytes([7; 16])));
    let log = manager
        .create(&partition("a"), id, config(), Some(first))
        .unwrap();
    for n in 0..count {
        append(&log, batch(n, &[&format!("v{n}")])).unwrap();
    }
    log.set_high_watermark(count);
    log
}

fn values(log: &Log) -> Vec<String> {
    all_records(log)
        .into_iter()
        .map(|(_, value)| value)
        .collect()
}

fn expected(numbers: std::ops::Range<i64>) -> Vec<String> {
    numbers.map(|n| format!("v{n}")).collect()
}

/// Copies until nothing is left to copy.
fn copy_all(future: &Log, source: &Log) {
    let mut steps = 0;
    while future
        .copy_from(source, 150, &mut Vec::new(), 0)
        .unwrap()
        .lag
        > 0
    {
        steps += 1;
        assert!(steps < 1000);
    }
}

fn move_to(manager: &LogManager, directory: Uuid) {
    let log = manager.get(&partition("a")).unwrap();
    let future = manager
        .create_future(&partition("a"), config(), directory)
        .unwrap();
    copy_all(&future, &log);
    assert!(manager.replace_with_future(&partition("a")).unwrap());
}

#[test]
fn a_log_moves_while_it_is_written_and_read() {
    let f = Fixture::new(2);
    let manager = f.open();
    let log = filled(&manager, 40);
    let target = ids(&manager)[1];
    let before = log.read(3, 100, i64::MAX, true).unwrap();
    let future = manager
        .create_future(&partition("a"), config(), target)
        .unwrap();
    assert!(f.names(1).iter().any(|name| name.ends_with("-future")));
    let step = future.copy_from(&log, 150, &mut Vec::new(), 0).unwrap();
    assert!(step.bytes > 0 && step.lag > 0, "{step:?}");
    assert!(!manager.replace_with_future(&partition("a")).unwrap());
    append(&log, batch(40, &["v40"])).unwrap();
    copy_all(&future, &log);
    append(&log, batch(41, &["v41"])).unwrap();
    assert!(!manager.replace_with_future(&partition("a")).unwrap());
    assert_eq!(manager.future_directory_of(&partition("a")), Some(target));
    copy_all(&future, &log);
    log.set_high_watermark(42);
    assert!(manager.replace_with_future(&partition("a")).unwrap());

    assert_eq!(manager.directory_of(&partition("a")), Some(target));
    assert!(manager.future(&partition("a")).is_none());
    assert!(log.dir().starts_with(&f.dirs[1]) && log.dir().ends_with("a-0"));
    // Whoever holds the log goes on with it, and a read that found its place before is good.
    assert_eq!(records_of(&before)[0].0, 3);
    append(&log, batch(42, &["v42"])).unwrap();
    assert_eq!(values(&log), expected(0..43));
    assert_eq!(log.high_watermark(), 42);
    let waiting = |f: &Fixture| f.names(0).iter().filter(|n| n.ends_with("-delete")).count();
    assert_eq!(waiting(&f), 1);
    f.dir.clock.advance_ms(60_000);
    assert!(manager.tick(f.now_ms()).is_empty());
    assert_eq!(waiting(&f), 0);
    drop((manager, log, future));

    let manager = f.open();
    let log = manager.get(&partition("a")).unwrap();
    assert_eq!(manager.directory_of(&partition("a")), Some(target));
    assert_eq!(values(&log), expected(0..43));
    assert_eq!(log.topic_id(), Some(Uuid::from_bytes([7; 16])));
    // And back again, to a directory that had it before.
    move_to(&manager, ids(&manager)[0]);
    manager.shutdown(1).unwrap();
    drop((manager, log));
    let log = f.open().get(&partition("a")).unwrap();
    assert!(log.dir().starts_with(&f.dirs[0]));
    assert_eq!(values(&log), expected(0..43));
}

#[test]
fn what_was_durable_stays_so_and_is_not_read_again() {
    let f = Fixture::new(2);
    let manager = f.open();
    let log = filled(&manager, 20);
    log.flush(i64::MAX).unwrap();
    move_to(&manager, ids(&manager)[1]);
    assert_eq!(log.recovery_point(), 20);
    append(&log, batch(20, &["v20"])).unwrap();
    f.dir.clock.advance_ms(60_000);
    manager.tick(f.now_ms());
    drop((manager, log));
    let log = f.open().get(&partition("a")).unwrap();
    assert_eq!(log.recovery_report().recovered_segments, 1);
    assert_eq!(values(&log), expected(0..21));
}

#[test]
fn a_move_goes_on_after_a_restart() {
    let f = Fixture::new(2);
    let manager = f.open();
    let log = filled(&manager, 40);
    let target = ids(&manager)[1];
    let future = manager
        .create_future(&partition("a"), config(), target)
        .unwrap();
    future.copy_from(&log, 500, &mut Vec::new(), 0).unwrap();
    let copied = future.log_end_offset();
    assert!(copied > 0 && copied < 40);
    f.dir.clock.advance_ms(60_000);
    manager.tick(f.now_ms());
    drop((manager, log, future));

    let manager = f.open();
    let future = manager.future(&partition("a")).unwrap();
    assert_eq!(future.log_end_offset(), copied);
    assert_eq!(manager.future_directory_of(&partition("a")), Some(target));
    let log = manager.get(&partition("a")).unwrap();
    copy_all(&future, &log);
    assert!(manager.replace_with_future(&partition("a")).unwrap());
    assert_eq!(values(&log), expected(0..40));
}

/// The source is out of the way, its copy not yet in its place.
#[test]
fn a_crash_between_the_renames_leaves_the_copy() {
    let f = Fixture::new(2);
    let manager = f.open();
    let log = filled(&manager, 10);
    let future = manager
        .create_future(&partition("a"), config(), ids(&manager)[1])
        .unwrap();
    copy_all(&future, &log);
    future.flush(i64::MAX).unwrap();
    let doomed = log.dir().with_file_name("a-0.00-delete");
    f.dir.env.fs.rename(&log.dir(), &doomed).unwrap();
    drop((manager, log, future));

    let manager = f.open();
    assert!(manager.get(&partition("a")).is_none());
    let log = manager.promote_future(&partition("a")).unwrap().unwrap();
    assert!(manager.promote_future(&partition("a")).unwrap().is_none());
    assert_eq!(values(&log), expected(0..10));
    append(&log, batch(10, &["v10"])).unwrap();
    manager.shutdown(1).unwrap();
    drop((manager, log));
    let manager = f.open();
    assert_eq!(
        values(&manager.get(&partition("a")).unwrap()),
        expected(0..11)
    );
}

#[test]
fn the_copy_follows_what_is_cut_off_at_both_ends() {
    let f = Fixture::new(2);
    let manager = f.open();
    let log = filled(&manager, 40);
    let future = manager
        .create_future(&partition("a"), config(), ids(&manager)[1])
        .unwrap();
    copy_all(&future, &log);
    // The end is taken back and written anew in another epoch.
    log.truncate_to(30).unwrap();
    let other = batch(0, &["w30"]);
    log.append_as_leader(&mut [other], 1, 0, crate::AppendOrigin::Client)
        .unwrap();
    copy_all(&future, &log);
    assert_eq!(values(&future).last().unwrap(), "w30");
    assert_eq!(future.log_end_offset(), 31);
    // Then the start.
    log.set_high_watermark(31);
    log.delete_records_before(25).unwrap();
    copy_all(&future, &log);
    assert_eq!(future.log_start_offset(), 25);
    // All of it goes, and the log goes on further up.
    log.truncate_fully_and_start_at(100, None).unwrap();
    append(&log, batch(0, &["v100"])).unwrap();
    copy_all(&future, &log);
    assert!(manager.replace_with_future(&partition("a")).unwrap());
    assert_eq!(all_records(&log), [(100, "v100".to_owned())]);
}

#[test]
fn a_log_that_begins_within_a_batch_moves() {
    let f = Fixture::new(2);
    let manager = f.open();
    let log = filled(&manager, 0);
    append(&log, batch(0, &["a", "b", "c"])).unwrap();
    append(&log, batch(0, &["d"])).unwrap();
    log.set_high_watermark(4);
    log.delete_records_before(1).unwrap();
    move_to(&manager, ids(&manager)[1]);
    assert_eq!(log.log_start_offset(), 1);
    assert_eq!(values(&log), ["b", "c", "d"]);
    // The checkpoint that says so has moved, too.
    let starts = checkpoints::read_offsets(&*f.dir.env.fs, &f.dirs[1].join(checkpoints::LOG_START));
    assert_eq!(starts.unwrap(), [(partition("a"), 1)].into());
    drop((manager, log));
    let log = f.open().get(&partition("a")).unwrap();
    assert_eq!(values(&log), ["b", "c", "d"]);
}

fn idempotent(f: &Fixture, sequence: i32) -> PreparedBatch {
    let options = BatchOptions {
        producer_id: 9,
        producer_epoch: 0,
        base_sequence: sequence,
        ..BatchOptions::default()
    };
    batch_with(options, f.now_ms(), &[&format!("v{sequence}")])
}

#[test]
fn producers_are_known_after_a_move() {
    let f = Fixture::new(2);
    let manager = f.open();
    let log = filled(&manager, 0);
    for sequence in 0..5 {
        append(&log, idempotent(&f, sequence)).unwrap();
    }
    move_to(&manager, ids(&manager)[1]);
    assert!(append(&log, idempotent(&f, 4)).unwrap().duplicate);
    let error = append(&log, idempotent(&f, 7)).unwrap_err();
    assert!(
        matches!(error, LogError::OutOfOrderSequence { .. }),
        "{error}"
    );
    append(&log, idempotent(&f, 5)).unwrap();
    // Those whose batches are gone are not in the copy, and known all the same.
    log.roll().unwrap();
    append(&log, batch(0, &["v6"])).unwrap();
    log.set_high_watermark(7);
    log.delete_records_before(6).unwrap();
    log.apply_retention(0, 7).unwrap();
    move_to(&manager, ids(&manager)[0]);
    assert!(append(&log, idempotent(&f, 5)).unwrap().duplicate);
    manager.shutdown(1).unwrap();
    drop((manager, log));
    let log = f.open().get(&partition("a")).unwrap();
    assert!(append(&log, idempotent(&f, 5)).unwrap().duplicate);
}

#[test]
fn a_cancelled_move_leaves_nothing() {
    let f = Fixture::new(3);
    let manager = f.open();
    let log = filled(&manager, 10);
    let ids = ids(&manager);
    let future = |directory| manager.create_future(&partition("a"), config(), directory);
    assert!(matches!(future(ids[0]), Err(ManagerError::NotMovable(_))));
    let first = future(ids[1]).unwrap();
    assert!(Arc::ptr_eq(&first, &future(ids[1]).unwrap()), "it goes on");
    assert!(matches!(future(ids[2]), Err(ManagerError::NotMovable(_))));
    assert!(manager.delete_future(&partition("a")).unwrap());
    assert!(!manager.delete_future(&partition("a")).unwrap());
    assert!(matches!(
        first.copy_from(&log, 1, &mut Vec::new(), 0),
        Err(MoveError {
            side: MoveSide::Target,
            error: LogError::Closed { .. }
        })
    ));
    assert!(matches!(
        manager.replace_with_future(&partition("a")),
        Err(ManagerError::NoSuchLog(_))
    ));
    future(ids[2]).unwrap();
    // The topic goes, and what moves goes with it.
    manager.delete(&partition("a")).unwrap();
    assert!(manager.future_logs().is_empty());
    f.dir.clock.advance_ms(60_000);
    manager.tick(f.now_ms());
    for dir in 0..3 {
        assert!(!f.names(dir).iter().any(|name| name.starts_with("a-0")));
    }
}

#[test]
fn a_target_that_fails_ends_the_move_and_nothing_else() {
    let f = Fixture::new(2);
    let manager = f.open();
    let log = filled(&manager, 10);
    create(&manager, "b");
    let ids = ids(&manager);
    let future = manager
        .create_future(&partition("a"), config(), ids[1])
        .unwrap();
    copy_all(&future, &log);
    manager.set_directory_offline(ids[1]);
    assert!(manager.future(&partition("a")).is_none());
    assert!(matches!(
        manager.replace_with_future(&partition("a")),
        Err(ManagerError::NoSuchLog(_))
    ));
    append(&log, batch(10, &["v10"])).unwrap();
    assert_eq!(values(&log), expected(0..11));
}

#[test]
fn damaged_batches_are_not_copied() {
    let f = Fixture::new(2);
    let manager = f.open();
    let log = filled(&manager, 3);
    let file = log.dir().join("00000000000000000000.log");
    let file = f.dir.env.fs.open(&file, OpenMode::Write).unwrap();
    klamm_env::FileExt::write_all_at(&*file, b"x", 66).unwrap();
    let future = manager
        .create_future(&partition("a"), config(), ids(&manager)[1])
        .unwrap();
    let failed = future
        .copy_from(&log, 1000, &mut Vec::new(), 0)
        .unwrap_err();
    assert_eq!(failed.side, MoveSide::Source);
    assert!(
        matches!(failed.error, LogError::InvalidBatch { .. }),
        "{failed}"
    );
    assert_eq!(future.log_end_offset(), 0);
    assert!(f.dir.env.fs.exists(&log.dir()).unwrap());
}
