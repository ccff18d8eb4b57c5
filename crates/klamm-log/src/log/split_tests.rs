//! Segments whose offsets lie too far apart for an index, as Kafka before 1.1 could compact them.

use super::*;
use crate::cleaner::{CleanError, Cleaner, CleanerConfig};
use crate::names::{FileKind, file_name};
use crate::test_support::{TestDir, all_records};
use klamm_env::{FileExt, OpenMode};
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch};

const FAR: i64 = 1 << 31;

fn config() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        index_interval_bytes: 1,
        min_cleanable_dirty_ratio: 0.0,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

/// A batch of one record at an offset.
fn at(offset: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let (key, value) = (format!("key-{offset}"), format!("v{offset}"));
    let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
    builder.append(1_000, key, value, []).unwrap();
    let mut batch = PreparedBatch::trusted(builder.build().unwrap()).unwrap();
    batch.assign(offset, 0, None);
    batch.to_bytes().to_vec()
}

/// A directory whose first segment begins at 0 and holds these offsets; an empty one follows.
fn written(offsets: &[i64]) -> TestDir {
    let dir = TestDir::new();
    let log = dir.log(config());
    log.append_as_follower(&at(0), 0, 0).unwrap();
    log.roll().unwrap();
    log.close().unwrap();
    let fs = &dir.env.fs;
    let path = |base, kind| dir.log_path().join(file_name(base, kind));
    let bytes: Vec<u8> = offsets.iter().flat_map(|&offset| at(offset)).collect();
    let file = fs
        .open(&path(0, FileKind::Log), OpenMode::Truncate)
        .unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    let next = offsets.last().unwrap() + 1;
    // Those of an earlier life say nothing of it.
    for kind in [FileKind::Index, FileKind::TimeIndex] {
        fs.open(&path(0, kind), OpenMode::Truncate).unwrap();
    }
    for kind in [FileKind::Log, FileKind::Index, FileKind::TimeIndex] {
        fs.rename(&path(1, kind), &path(next, kind)).unwrap();
    }
    fs.remove_file(&path(1, FileKind::Snapshot)).unwrap();
    dir
}

fn open(dir: &TestDir, clean: bool, recovery_point: i64) -> Log {
    let log = Log::open(LogOpen {
        clean,
        recovery_point,
        ..dir.open(config())
    })
    .unwrap();
    log.set_high_watermark(i64::MAX);
    log
}

fn offsets(log: &Log) -> Vec<i64> {
    let mut next = log.log_start_offset();
    let mut found = Vec::new();
    while next < log.log_end_offset() {
        let read = log.read(next, 1, i64::MAX, true).unwrap();
        let records = crate::test_support::records_of(&read);
        let Some((offset, value)) = records.into_iter().find(|(offset, _)| *offset >= next) else {
            break;
        };
        assert_eq!(value, format!("v{offset}"));
        found.push(offset);
        next = offset + 1;
    }
    found
}

#[test]
fn recovery_splits_a_segment() {
    let all = [0, 7, FAR - 1, FAR, FAR + 9, 2 * FAR, 2 * FAR + 1];
    let dir = written(&all);
    let log = open(&dir, false, 0);
    assert_eq!(log.segment_base_offsets(), [0, FAR, 2 * FAR, 2 * FAR + 2]);
    assert_eq!(offsets(&log), all);
    assert_eq!(log.recovery_report().damage, []);
    assert_eq!(log.recovery_report().truncation, None);
    assert!(dir.files().iter().all(|name| !name.contains(".swap")));
    assert_eq!(
        all_records(&log).first().map(|(offset, _)| *offset),
        Some(0)
    );
    log.append_as_follower(&at(2 * FAR + 5), 0, 0).unwrap();
    log.close().unwrap();
    let log = open(&dir, true, log.log_end_offset());
    assert_eq!(offsets(&log).len(), all.len() + 1);
}

#[test]
fn a_segment_whose_first_records_are_far_moves() {
    let all = [FAR + 9, FAR + 10];
    let dir = written(&all);
    let log = open(&dir, false, 0);
    assert_eq!(log.segment_base_offsets(), [FAR + 9, FAR + 11]);
    assert_eq!(offsets(&log), all);
}

#[test]
fn a_damaged_offset_does_not_split() {
    // The last one alone is far away from all others.
    let dir = written(&[0, 7, 8, 4 * FAR]);
    let log = open(&dir, false, 0);
    assert_eq!(log.log_end_offset(), 9);
    assert!(log.recovery_report().truncation.is_some());
}

#[test]
fn compaction_splits_a_segment_and_goes_on_with_the_parts() {
    let all = [0, 7, FAR + 9, FAR + 10];
    let dir = written(&all);
    let log = open(&dir, true, FAR + 11);
    assert_eq!(log.segment_base_offsets(), [0, FAR + 11]);
    assert_eq!(offsets(&log), all);
    let mut cleaner = Cleaner::new(CleanerConfig::default(), 9);
    let now_ms = log.env().clock.wall_ms();
    let mut clean = || {
        let target = log.cleanable(now_ms).unwrap();
        cleaner.clean(&log, &target, now_ms, &())
    };
    assert!(matches!(clean(), Err(CleanError::Disturbed)));
    assert_eq!(log.segment_base_offsets(), [0, FAR + 9, FAR + 11]);
    assert_eq!(offsets(&log), all);
    clean().unwrap();
    assert_eq!(offsets(&log), all);
    assert_eq!(log.cleaned_to(), Some(FAR + 11));
    log.close().unwrap();
    let log = open(&dir, false, 0);
    assert_eq!(offsets(&log), all);
}
