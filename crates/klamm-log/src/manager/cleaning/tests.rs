use std::ops::ControlFlow;
use std::path::PathBuf;

use klamm_env::FsExt;
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch};

use super::*;
use crate::checkpoints;
use crate::cleaner::CleanerConfig;
use crate::manager::LogManagerConfig;
use crate::test_support::TestDir;
use crate::{AppendOrigin, LogConfig};

fn compacted() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        ..LogConfig::default()
    }
}

struct Fixture {
    dir: TestDir,
    log_dir: PathBuf,
}

impl Fixture {
    fn new() -> Fixture {
        let dir = TestDir::new();
        let log_dir = dir.path().join("d");
        Fixture { dir, log_dir }
    }

    /// As at a start, when topics' own configurations are not known yet.
    fn open(&self) -> LogManager {
        let config = LogManagerConfig::new(vec![self.log_dir.clone()], "cluster", 1);
        LogManager::open(config, self.dir.env.clone(), |_| LogConfig::default()).unwrap()
    }

    fn checkpoint(&self) -> String {
        let path = self.log_dir.join(checkpoints::CLEANER);
        String::from_utf8(self.dir.env.fs.read(&path).unwrap()).unwrap()
    }
}

fn partition(topic: &str) -> TopicPartition {
    TopicPartition::new(topic, 0)
}

fn create(manager: &LogManager, topic: &str, config: LogConfig) -> Arc<Log> {
    let log = manager.create(&partition(topic), None, config, None);
    log.unwrap()
}

/// One segment that holds a new value for each key.
fn put(log: &Log, keys: &[&str]) {
    put_at(log, keys, 1_000);
}

fn put_at(log: &Log, keys: &[&str], timestamp_ms: i64) {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for key in keys {
        builder
            .append(timestamp_ms, Some(key.as_bytes()), Some(b"value"), [])
            .unwrap();
    }
    let mut batches = [PreparedBatch::trusted(builder.build().unwrap()).unwrap()];
    log.append_as_leader(&mut batches, 0, 0, AppendOrigin::Client)
        .unwrap();
    log.set_high_watermark(i64::MAX);
    log.roll().unwrap();
}

fn cleaner() -> Cleaner {
    Cleaner::new(CleanerConfig::default(), 1)
}

fn cleaned(round: &CleanRound) -> Option<(&str, i64)> {
    let (partition, result) = round.cleaned.as_ref()?;
    Some((&partition.topic, result.as_ref().unwrap().cleaned_to))
}

#[test]
fn cleans_the_dirtiest_first_and_notes_how_far() {
    let f = Fixture::new();
    let manager = f.open();
    let (a, b) = (
        create(&manager, "a", compacted()),
        create(&manager, "b", compacted()),
    );
    create(&manager, "c", LogConfig::default());
    for log in [&a, &b] {
        put(log, &["k", "l"]);
    }
    a.set_cleaned_to(2);
    put(&a, &["k", "m"]);
    put(&a, &["k", "m"]);
    let mut cleaner = cleaner();
    assert_eq!(
        cleaned(&manager.clean_next(&mut cleaner, &())),
        Some(("b", 2))
    );
    assert!((manager.cleaning_status().dirtiest_ratio - 1.0).abs() < 1e-9);
    assert_eq!(
        cleaned(&manager.clean_next(&mut cleaner, &())),
        Some(("a", 6))
    );
    assert!(manager.clean_next(&mut cleaner, &()).cleaned.is_none());
    assert_eq!(f.checkpoint(), "0\n2\na 0 6\nb 0 2\n");
    assert_eq!(manager.cleaning_status().last_clean.records_read, 6);
}

#[test]
fn a_start_goes_on_where_the_last_one_was() {
    let f = Fixture::new();
    let manager = f.open();
    let log = create(&manager, "a", compacted());
    put(&log, &["k"]);
    put(&log, &["k"]);
    manager.clean_next(&mut cleaner(), &());
    manager.shutdown(1).unwrap();
    drop((log, manager));
    let manager = f.open();
    let log = manager.get(&partition("a")).unwrap();
    assert_eq!(log.cleaned_to(), Some(2));
    log.update_config(compacted());
    assert!(manager.clean_next(&mut cleaner(), &()).cleaned.is_none());
}

#[test]
fn gaps_are_no_damage_to_a_start_that_does_not_know_the_topic() {
    let f = Fixture::new();
    let manager = f.open();
    let log = create(&manager, "a", compacted());
    // Segments large enough that they are not joined.
    log.update_config(LogConfig {
        segment_bytes: 100,
        ..compacted()
    });
    put(&log, &["k", "l"]);
    put(&log, &["m", "n"]);
    put(&log, &["l", "n"]);
    manager.clean_next(&mut cleaner(), &());
    let end = log.log_end_offset();
    assert!(log.segment_base_offsets().len() > 2);
    // The process dies; no recovery point was written.
    drop((log, manager));
    let manager = f.open();
    let log = manager.get(&partition("a")).unwrap();
    assert_eq!(log.recovery_report().truncation, None);
    assert_eq!(log.log_end_offset(), end);
    assert!(log.recovery_report().recovered_segments > 2);
}

#[test]
fn a_truncation_reaches_the_checkpoint() {
    let f = Fixture::new();
    let manager = f.open();
    let log = create(&manager, "a", compacted());
    put(&log, &["k"]);
    put(&log, &["l"]);
    manager.clean_next(&mut cleaner(), &());
    assert_eq!(f.checkpoint(), "0\n1\na 0 2\n");
    log.truncate_to(1).unwrap();
    manager.tick(0);
    assert!(["0\n1\na 0 1\n", "0\n1\na 0 0\n"].contains(&f.checkpoint().as_str()));
}

#[test]
fn a_new_log_has_nothing_of_a_deleted_one() {
    let f = Fixture::new();
    let manager = f.open();
    let log = create(&manager, "a", compacted());
    put(&log, &["k"]);
    manager.clean_next(&mut cleaner(), &());
    manager.delete(&partition("a")).unwrap();
    let log = create(&manager, "a", compacted());
    assert_eq!(log.cleaned_to(), Some(0));
    manager.tick(0);
    assert_eq!(f.checkpoint(), "0\n1\na 0 0\n");
}

#[test]
fn a_damaged_log_waits_and_the_others_go_on() {
    let f = Fixture::new();
    let manager = f.open();
    let (bad, good) = (
        create(&manager, "bad", compacted()),
        create(&manager, "good", compacted()),
    );
    put(&bad, &["k"]);
    let path = bad.dir().join("00000000000000000000.log");
    let file = f
        .dir
        .env
        .fs
        .open(&path, klamm_env::OpenMode::Write)
        .unwrap();
    klamm_env::FileExt::write_all_at(&*file, &[0xff], 65).unwrap();
    put(&good, &["k"]);
    let mut cleaner = cleaner();
    let round = manager.clean_next(&mut cleaner, &());
    let (partition_of_round, result) = round.cleaned.unwrap();
    assert_eq!(partition_of_round, partition("bad"));
    assert!(matches!(
        result,
        Err(CleanError::Log(LogError::Corrupt { .. }))
    ));
    assert!(round.failed_directories.is_empty());
    assert_eq!(manager.cleaning_status().uncleanable_partitions, 1);
    assert!(manager.uncleanable_bytes() > 0);
    assert_eq!(
        cleaned(&manager.clean_next(&mut cleaner, &())),
        Some(("good", 1))
    );
    assert!(manager.clean_next(&mut cleaner, &()).cleaned.is_none());
    // It is tried again, ever more seldom, and counts again once it can be compacted.
    f.dir.clock.advance_ms(RETRY_MS[0] as u32);
    assert!(manager.clean_next(&mut cleaner, &()).cleaned.is_some());
    f.dir.clock.advance_ms(RETRY_MS[0] as u32);
    assert!(manager.clean_next(&mut cleaner, &()).cleaned.is_none());
    bad.truncate_to(0).unwrap();
    put(&bad, &["k"]);
    f.dir.clock.advance_ms(RETRY_MS[0] as u32);
    assert_eq!(
        cleaned(&manager.clean_next(&mut cleaner, &())),
        Some(("bad", 1))
    );
    assert_eq!(manager.cleaning_status().uncleanable_partitions, 0);
}

#[test]
fn compacted_logs_are_cut_by_retention_when_they_say_delete_too() {
    let f = Fixture::new();
    let manager = f.open();
    let both = LogConfig {
        delete: true,
        retention_ms: 1_000,
        ..compacted()
    };
    let (both, only) = (
        create(&manager, "both", both),
        create(&manager, "only", compacted()),
    );
    for log in [&both, &only] {
        put(log, &["k"]);
    }
    let mut cleaner = cleaner();
    while manager.clean_next(&mut cleaner, &()).cleaned.is_some() {}
    assert_eq!(both.log_start_offset(), 1, "its records are of 1970");
    assert_eq!(only.log_start_offset(), 0);
    put(&only, &["k"]);
    only.delete_records_before(2).unwrap();
    manager.clean_next(&mut cleaner, &());
    assert_eq!(only.segment_base_offsets(), [2]);
}

#[test]
fn a_log_that_is_being_compacted_is_left_to_its_thread() {
    struct Nested<'a>(&'a LogManager);
    impl Pace for Nested<'_> {
        fn after_io(&self, _: u64) -> ControlFlow<()> {
            let round = self.0.clean_next(&mut cleaner(), &());
            assert!(round.cleaned.is_none());
            ControlFlow::Continue(())
        }
    }
    let f = Fixture::new();
    let manager = f.open();
    let log = create(&manager, "a", compacted());
    put(&log, &["k"]);
    let round = manager.clean_next(&mut cleaner(), &Nested(&manager));
    assert_eq!(cleaned(&round), Some(("a", 1)));
}

#[test]
fn a_log_deleted_meanwhile_ends_its_clean_and_nothing_else() {
    struct Deletes<'a>(&'a LogManager);
    impl Pace for Deletes<'_> {
        fn after_io(&self, _: u64) -> ControlFlow<()> {
            self.0.delete(&partition("a")).unwrap();
            ControlFlow::Continue(())
        }
    }
    let f = Fixture::new();
    let manager = f.open();
    let log = create(&manager, "a", compacted());
    put(&log, &["k"]);
    put(&log, &["k"]);
    let round = manager.clean_next(&mut cleaner(), &Deletes(&manager));
    let (_, result) = round.cleaned.unwrap();
    assert!(matches!(result, Err(CleanError::Disturbed)), "{result:?}");
    assert!(round.failed_directories.is_empty());
    assert_eq!(manager.cleaning_status().uncleanable_partitions, 0);
}

#[test]
fn retention_leaves_a_log_alone_that_is_being_compacted() {
    struct Retains<'a>(&'a LogManager, &'a Log);
    impl Pace for Retains<'_> {
        fn after_io(&self, _: u64) -> ControlFlow<()> {
            self.1.update_config(LogConfig {
                delete: true,
                retention_ms: 1_000,
                ..compacted()
            });
            self.0.tick(i64::MAX);
            self.0.clean_next(&mut cleaner(), &());
            ControlFlow::Continue(())
        }
    }
    let f = Fixture::new();
    let manager = f.open();
    let log = create(&manager, "a", compacted());
    for _ in 0..3 {
        put(&log, &["k"]);
    }
    let round = manager.clean_next(&mut cleaner(), &Retains(&manager, &log));
    assert_eq!(cleaned(&round), Some(("a", 3)));
    assert_eq!(log.log_start_offset(), 0);
    manager.clean_next(&mut cleaner(), &());
    assert_eq!(log.log_start_offset(), 3, "its turn comes after");
}

#[test]
fn what_retention_takes_is_not_compacted_into_what_stays() {
    let f = Fixture::new();
    let manager = f.open();
    let log = create(&manager, "a", compacted());
    let now_ms = f.dir.env.clock.wall_ms();
    put(&log, &["old"]);
    put_at(&log, &["new"], now_ms);
    put_at(&log, &["new"], now_ms);
    log.update_config(LogConfig {
        delete: true,
        retention_ms: 5_000,
        ..compacted()
    });
    manager.clean_next(&mut cleaner(), &());
    assert_eq!(log.log_start_offset(), 1);
}

#[test]
fn a_log_that_loses_segments_meanwhile_is_no_damaged_one() {
    struct Removes<'a>(&'a Log);
    impl Pace for Removes<'_> {
        fn after_io(&self, _: u64) -> ControlFlow<()> {
            self.0.delete_records_before(2).unwrap();
            self.0.apply_retention(0, i64::MAX).unwrap();
            self.0.tick(i64::MAX).unwrap();
            self.0.tick(i64::MAX).unwrap();
            ControlFlow::Continue(())
        }
    }
    let f = Fixture::new();
    let manager = f.open();
    let log = create(&manager, "a", compacted());
    for _ in 0..4 {
        put(&log, &["k"]);
    }
    let round = manager.clean_next(&mut cleaner(), &Removes(&log));
    let (_, result) = round.cleaned.unwrap();
    assert!(matches!(result, Err(CleanError::Disturbed)), "{result:?}");
    assert_eq!(manager.cleaning_status().uncleanable_partitions, 0);
    let round = manager.clean_next(&mut cleaner(), &());
    assert_eq!(cleaned(&round), Some(("a", 4)));
}
