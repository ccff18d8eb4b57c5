use klamm_env::{FsExt, Rng as _, SplitMix64};

use super::*;
use crate::checkpoints::{self, read_offsets};
use crate::manager::tests::{Fixture, create, partition};
use crate::test_support::{append, batch};
use crate::{LogConfig, LogManagerConfig};

fn on_disk(f: &Fixture, dir: usize, name: &str) -> PartitionOffsets {
    read_offsets(&*f.dir.env.fs, &f.dirs[dir].join(name)).unwrap()
}

/// Rounds as the upkeep thread makes them, until a moment.
fn tick_until(f: &Fixture, manager: &LogManager, ms: u32) {
    let mut now_ms = f.now_ms();
    while now_ms < f.now_ms() + i64::from(ms) {
        now_ms += 1_000;
        assert!(manager.tick(now_ms).is_empty());
    }
    f.dir.clock.advance_ms(ms);
}

#[test]
fn idle_logs_are_not_looked_at() {
    let f = Fixture::new(1);
    let manager = f.open();
    for n in 0..30 {
        let log = create(&manager, &format!("t{n}"));
        append(&log, batch(f.now_ms(), &["a"])).unwrap();
    }
    assert!(manager.open_files() >= 30);
    // Long enough for the syncs of what nobody asked to sync.
    tick_until(&f, &manager, 130_000);
    while manager.run_sync() {}
    manager.directories[0].flusher().stop();
    tick_until(&f, &manager, 3_000);
    assert_eq!(manager.open_files(), 0);
    assert_eq!(manager.agenda.len(), 0, "nothing is due at any time");
    for log in manager.logs() {
        assert_eq!(log.durable_offset(), 1);
    }
    // One that is used is looked at again.
    let log = manager.get(&partition("t7")).unwrap();
    log.read(0, 100, i64::MAX, true).unwrap();
    assert_eq!(manager.agenda.len(), 1);
    assert_eq!(manager.open_files(), 1);
    tick_until(&f, &manager, 3_000);
    assert_eq!((manager.agenda.len(), manager.open_files()), (0, 0));
}

#[test]
fn what_an_idle_log_waits_for_comes_in_its_time() {
    let f = Fixture::new(1);
    let manager = f.open();
    let config = LogConfig {
        retention_ms: 600_000,
        file_delete_delay_ms: 30_000,
        ..LogConfig::default()
    };
    let log = manager.create(&partition("t"), None, config, None).unwrap();
    append(&log, batch(f.now_ms(), &["a"])).unwrap();
    log.roll().unwrap();
    log.set_high_watermark(1);
    tick_until(&f, &manager, 590_000);
    assert_eq!(log.log_start_offset(), 0);
    // Retention is looked at every five minutes.
    tick_until(&f, &manager, 320_000);
    assert_eq!(log.log_start_offset(), 1);
    let deleted = || {
        let names = f.dir.env.fs.read_dir(&f.dirs[0].join("t-0")).unwrap();
        names.iter().any(|entry| entry.name.ends_with(".deleted"))
    };
    tick_until(&f, &manager, 40_000);
    assert!(!deleted());
    assert_eq!(manager.agenda.len(), 0);
}

#[test]
fn a_truncation_is_noted_before_anything_is_appended() {
    let f = Fixture::new(1);
    let manager = f.open();
    let log = create(&manager, "t");
    append(&log, batch(f.now_ms(), &["1", "2"])).unwrap();
    append(&log, batch(f.now_ms(), &["3", "4"])).unwrap();
    log.flush(i64::MAX).unwrap();
    tick_until(&f, &manager, 61_000);
    let noted = || on_disk(&f, 0, checkpoints::RECOVERY_POINT)[&partition("t")];
    assert_eq!(noted(), 3, "the last batch is looked at in any case");
    assert!(log.truncate_to(2).unwrap());
    manager.note_truncation(&log);
    assert!(noted() < 2);
}

#[test]
fn what_is_compacted_elsewhere_may_have_gaps_from_the_start() {
    let f = Fixture::new(1);
    let manager = f.open();
    let config = LogConfig {
        compact: true,
        ..LogConfig::default()
    };
    let log = manager.create(&partition("t"), None, config, None).unwrap();
    assert_eq!(log.cleaned_to(), Some(0));
    tick_until(&f, &manager, 2_000);
    let noted = on_disk(&f, 0, checkpoints::CLEANER);
    assert_eq!(noted[&partition("t")], 0);
}

#[test]
fn a_clock_that_is_set_back_delays_nothing() {
    let f = Fixture::new(1);
    let manager = f.open();
    let [kept, deleted] = ["kept", "deleted"].map(|topic| create(&manager, topic));
    append(&kept, batch(f.now_ms(), &["1", "2"])).unwrap();
    let hour_ms = 3_600_000;
    // An hour ahead, until somebody sees it.
    manager.tick(f.now_ms() + hour_ms);
    f.dir.clock.advance_ms(hour_ms as u32);
    assert!(manager.delete(deleted.topic_partition()).unwrap());
    f.dir.clock.set_wall_ms(f.now_ms() - hour_ms);
    kept.set_high_watermark(1);
    tick_until(&f, &manager, 70_000);
    let written = on_disk(&f, 0, checkpoints::HIGH_WATERMARK);
    assert_eq!(written.get(&partition("kept")), Some(&1));
    let names = f.dir.env.fs.read_dir(&f.dirs[0]).unwrap();
    assert!(!names.iter().any(|it| it.name.ends_with("-delete")));
}

#[test]
fn checkpoints_are_written_only_when_something_has_changed() {
    let f = Fixture::new(1);
    let manager = f.open();
    for topic in ["a", "b"] {
        let log = create(&manager, topic);
        append(&log, batch(f.now_ms(), &["1", "2"])).unwrap();
        log.set_high_watermark(1);
    }
    tick_until(&f, &manager, 61_000);
    let path = f.dirs[0].join(checkpoints::HIGH_WATERMARK);
    let written = on_disk(&f, 0, checkpoints::HIGH_WATERMARK);
    assert_eq!(written[&partition("a")], 1);
    // What is not written again stays away.
    f.dir.env.fs.remove_file(&path).unwrap();
    tick_until(&f, &manager, 61_000);
    assert!(!f.dir.env.fs.exists(&path).unwrap());
    manager.get(&partition("b")).unwrap().set_high_watermark(2);
    tick_until(&f, &manager, 6_000);
    let written = on_disk(&f, 0, checkpoints::HIGH_WATERMARK);
    assert_eq!((written[&partition("a")], written[&partition("b")]), (1, 2));
    // One that is gone is not named any more.
    manager.delete(&partition("a")).unwrap();
    tick_until(&f, &manager, 61_000);
    for name in [checkpoints::HIGH_WATERMARK, checkpoints::RECOVERY_POINT] {
        let written = on_disk(&f, 0, name);
        assert!(written.keys().eq([&partition("b")]), "{name}");
    }
}

/// Whatever happens to the logs, what the checkpoints say after a round is what the logs say.
#[test]
fn checkpoints_that_are_amended_say_what_whole_ones_would() {
    for seed in 0..15 {
        let f = Fixture::new(2);
        // Nothing happens in the background, between a round and the look at what it wrote.
        let config = LogManagerConfig {
            sync_threads: 0,
            ..f.config()
        };
        let env = f.dir.env.clone();
        let manager = LogManager::open(config, env, |_| LogConfig::default()).unwrap();
        let rng = SplitMix64::new(seed);
        for step in 0..60 {
            let topic = ["a", "b", "c", "d"][rng.below(4) as usize];
            let Some(log) = manager.get(&partition(topic)) else {
                create(&manager, topic);
                continue;
            };
            let offset = rng.below(20) as i64;
            match rng.below(9) {
                0..3 => drop(append(&log, batch(step, &["1", "2"])).unwrap()),
                3 => drop(log.set_high_watermark(offset)),
                4 => drop(log.truncate_to(offset).unwrap()),
                5 => drop(log.delete_records_before(offset)),
                6 => log.flush(offset).unwrap(),
                7 => log.roll().unwrap(),
                _ => drop(manager.delete(&partition(topic)).unwrap()),
            }
            if rng.below(4) == 0 {
                // Every checkpoint is due.
                f.dir.clock.advance_ms(61_000);
                assert!(manager.tick(f.now_ms()).is_empty());
                for index in 0..2 {
                    let here = || {
                        manager
                            .placed_in(index)
                            .into_iter()
                            .map(|placed| placed.log)
                    };
                    let points = present(here().map(|log| recovery_point_of(&log)));
                    let starts = present(here().map(|log| log_start_of(&log)));
                    let marks = present(here().map(|log| high_watermark_of(&log)));
                    for (name, expected) in [
                        (checkpoints::RECOVERY_POINT, points),
                        (checkpoints::LOG_START, starts),
                        (checkpoints::HIGH_WATERMARK, marks),
                    ] {
                        assert_eq!(on_disk(&f, index, name), expected, "{name}, seed {seed}");
                    }
                }
            }
        }
    }
}
