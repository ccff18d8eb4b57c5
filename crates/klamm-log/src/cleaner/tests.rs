//! Cleans of whole logs.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

use klamm_env::{FsExt, Rng, SplitMix64};
use klamm_records::control::EndTransactionMarker;
use klamm_records::{
    BatchBuilder, BatchOptions, Codec, Compression, PreparedBatch, Scratch, batches,
};

use super::*;
use crate::log::Log;
use crate::names::{FileKind, file_name};
use crate::test_support::{TestDir, bytes_of};
use crate::{AppendOrigin, LogConfig, LogOpen};

const NOW_MS: i64 = 1_700_000_000_000;
const HOUR_MS: i64 = 3_600_000;

/// Offset, key, value.
type Kept = (i64, String, Option<String>);

fn compacted() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: HOUR_MS,
        segment_bytes: 1 << 20,
        index_interval_bytes: 100,
        ..LogConfig::default()
    }
}

fn keyed(options: BatchOptions, records: &[(&str, Option<&str>)]) -> PreparedBatch {
    let mut builder = BatchBuilder::new(options);
    for (key, value) in records {
        let (key, value) = (key.as_bytes(), value.map(str::as_bytes));
        builder.append(NOW_MS, Some(key), value, []).unwrap();
    }
    PreparedBatch::trusted(builder.build().unwrap()).unwrap()
}

fn put_with(log: &Log, options: BatchOptions, records: &[(&str, Option<&str>)]) {
    let mut batches = [keyed(options, records)];
    let origin = AppendOrigin::Client;
    log.append_as_leader(&mut batches, 3, NOW_MS, origin)
        .unwrap();
    log.set_high_watermark(i64::MAX);
}

fn put(log: &Log, records: &[(&str, Option<&str>)]) {
    put_with(log, BatchOptions::default(), records);
}

fn producer(producer_id: i64, base_sequence: i32, transactional: bool) -> BatchOptions {
    BatchOptions {
        producer_id,
        producer_epoch: 0,
        base_sequence,
        transactional,
        ..BatchOptions::default()
    }
}

fn end_txn(log: &Log, producer_id: i64, committed: bool) {
    let marker = EndTransactionMarker {
        committed,
        coordinator_epoch: 1,
    };
    let bytes = marker.to_batch(producer_id, 0, NOW_MS).unwrap();
    let mut batches = [PreparedBatch::trusted(bytes).unwrap()];
    let origin = AppendOrigin::TxnMarkers {
        transaction_version: 1,
    };
    log.append_as_leader(&mut batches, 3, NOW_MS, origin)
        .unwrap();
    log.set_high_watermark(i64::MAX);
}

fn clean_at(log: &Log, now_ms: i64) -> CleanReport {
    let target = log.cleanable(now_ms).unwrap();
    let mut cleaner = Cleaner::new(CleanerConfig::default(), 9);
    cleaner.clean(log, &target, now_ms, &()).unwrap()
}

fn clean(log: &Log) -> CleanReport {
    clean_at(log, NOW_MS)
}

fn all_bytes(log: &Log) -> Vec<u8> {
    let read = log.read(log.log_start_offset(), usize::MAX, i64::MAX, true);
    bytes_of(&read.unwrap())
}

/// All records that are no markers.
fn records(log: &Log) -> Vec<Kept> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut found = Vec::new();
    for batch in batches(&all_bytes(log)) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        if batch.header().attributes.is_control() {
            continue;
        }
        for record in batch.records(&mut Scratch::new()).unwrap() {
            let record = record.unwrap();
            let key = text(record.key.unwrap());
            found.push((record.offset, key, record.value.map(text)));
        }
    }
    found
}

fn pairs(records: &[Kept]) -> Vec<(i64, &str, Option<&str>)> {
    records
        .iter()
        .map(|(offset, key, value)| (*offset, key.as_str(), value.as_deref()))
        .collect()
}

#[test]
fn keeps_the_last_record_of_each_key() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    put(&log, &[("a", Some("1")), ("b", Some("1"))]);
    log.roll().unwrap();
    put(&log, &[("a", Some("2")), ("c", Some("1"))]);
    put(&log, &[("d", Some("1"))]);
    log.roll().unwrap();
    put(&log, &[("a", Some("3"))]);
    let report = clean(&log);
    let kept = records(&log);
    assert_eq!(
        pairs(&kept),
        [
            (1, "b", Some("1")),
            (2, "a", Some("2")),
            (3, "c", Some("1")),
            (4, "d", Some("1")),
            (5, "a", Some("3")),
        ],
        "the active segment is left alone and not asked"
    );
    assert_eq!((report.first_dirty_offset, report.cleaned_to), (0, 5));
    assert_eq!((report.segments_read, report.segments_written), (2, 1));
    assert_eq!((report.records_read, report.records_written), (5, 4));
    assert_eq!(log.cleaned_to(), Some(5));
    assert_eq!(log.log_end_offset(), 6);
    assert_eq!(log.segment_base_offsets(), [0, 5]);
}

#[test]
fn batches_of_which_all_stays_are_copied_as_they_are() {
    for compression in Compression::ALL {
        let dir = TestDir::new();
        let log = dir.log(compacted());
        let options = BatchOptions {
            codec: Codec::from(compression),
            ..BatchOptions::default()
        };
        put_with(&log, options, &[("a", Some("1")), ("b", Some("1"))]);
        put_with(&log, options, &[("c", Some("1")), ("a", Some("2"))]);
        log.roll().unwrap();
        let before = all_bytes(&log);
        clean(&log);
        let after = all_bytes(&log);
        let (whole, part) = (
            batches(&after).nth(1).unwrap().unwrap(),
            batches(&after).next().unwrap().unwrap(),
        );
        let original = batches(&before).nth(1).unwrap().unwrap();
        assert_eq!(whole.bytes(), original.bytes());
        // What is left of the other has its place, its codec and its epoch.
        let header = part.header();
        assert_eq!((header.base_offset, header.last_offset()), (0, 1));
        assert_eq!(header.compression().unwrap(), compression);
        assert_eq!((header.partition_leader_epoch, header.record_count), (3, 1));
    }
}

#[test]
fn a_second_clean_changes_nothing() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    for n in 0..50 {
        put(&log, &[(&format!("k{}", n % 7), Some(&n.to_string()))]);
        if n % 10 == 9 {
            log.roll().unwrap();
        }
    }
    clean(&log);
    let once = all_bytes(&log);
    log.set_cleaned_to(0);
    clean(&log);
    assert_eq!(all_bytes(&log), once);
}

#[test]
fn tombstones_go_when_their_time_is_over() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    put(&log, &[("a", Some("1")), ("b", Some("1"))]);
    put(&log, &[("a", None)]);
    put(&log, &[("z", Some("1"))]);
    log.roll().unwrap();
    clean_at(&log, NOW_MS);
    let kept = records(&log);
    assert_eq!(
        pairs(&kept),
        [(1, "b", Some("1")), (2, "a", None), (3, "z", Some("1"))]
    );
    let bytes = all_bytes(&log);
    let marked = batches(&bytes).nth(1).unwrap().unwrap();
    assert_eq!(marked.header().delete_horizon_ms(), Some(NOW_MS + HOUR_MS));
    let mut scratch = Scratch::new();
    let record = marked.records(&mut scratch).unwrap().next().unwrap();
    assert_eq!(
        record.unwrap().timestamp,
        NOW_MS,
        "the record keeps its time"
    );

    // Not before its time, and the horizon stays where it was.
    put(&log, &[("y", Some("1"))]);
    log.roll().unwrap();
    clean_at(&log, NOW_MS + HOUR_MS - 1);
    assert_eq!(records(&log)[1], (2, "a".into(), None));
    put(&log, &[("y", Some("2"))]);
    log.roll().unwrap();
    clean_at(&log, NOW_MS + HOUR_MS);
    let kept = records(&log);
    let keys: Vec<_> = kept.iter().map(|(_, key, _)| key.as_str()).collect();
    assert_eq!(keys, ["b", "z", "y"]);
}

#[test]
fn records_without_a_key_go() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    crate::test_support::append(&log, crate::test_support::batch(NOW_MS, &["x", "y"])).unwrap();
    put(&log, &[("a", Some("1"))]);
    log.roll().unwrap();
    let report = clean(&log);
    assert_eq!(report.records_without_key, 2);
    assert_eq!(pairs(&records(&log)), [(2, "a", Some("1"))]);
}

#[test]
fn the_end_of_the_clean_part_keeps_its_offset() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    put(&log, &[("a", None)]);
    log.roll().unwrap();
    clean_at(&log, NOW_MS);
    // The tombstone is gone; an empty batch tells where the segment ends.
    put(&log, &[("b", Some("1"))]);
    put(&log, &[("b", Some("2"))]);
    log.roll().unwrap();
    clean_at(&log, NOW_MS + 2 * HOUR_MS);
    assert_eq!(pairs(&records(&log)), [(2, "b", Some("2"))]);
    assert_eq!(log.log_end_offset(), 3);
    let dir_again = reopen(&dir, &log, true);
    assert_eq!(dir_again.log_end_offset(), 3);
}

/// Closes a log and opens it again, after an unclean end if so told.
fn reopen(dir: &TestDir, log: &Log, clean: bool) -> Log {
    if clean {
        log.close().unwrap();
    }
    Log::open(LogOpen {
        clean,
        recovery_point: 0,
        ..dir.open(compacted())
    })
    .unwrap()
}

/// As a crash leaves the log, with an older recovery point on disk.
fn crashed(dir: &TestDir, recovery_point: i64) -> Log {
    Log::open(LogOpen {
        recovery_point,
        ..dir.open(compacted())
    })
    .unwrap()
}

#[test]
fn a_recovery_point_where_compaction_left_a_gap_is_no_damage() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    for value in ["1", "2", "3", "4", "5", "6"] {
        put(&log, &[("a", Some(value))]);
    }
    log.roll().unwrap();
    put(&log, &[("b", Some("1"))]);
    clean(&log);
    log.flush(i64::MAX).unwrap();
    for recovery_point in 0..=6 {
        drop(crashed(&dir, recovery_point));
        let log = crashed(&dir, recovery_point);
        assert_eq!(log.recovery_report().damage, []);
        assert_eq!(log.log_end_offset(), 7);
        // By the indexes, which recovery has made anew.
        let found = log.offset_for_timestamp(NOW_MS).unwrap().unwrap();
        assert_eq!(found.offset, 5, "recovery point {recovery_point}");
        assert_eq!(log.max_timestamp_offset().unwrap().unwrap().offset, 5);
    }
}

#[test]
fn one_batch_is_read_behind_a_gap_though_there_is_room_for_none() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    for key in ["b", "a", "a", "a"] {
        put(&log, &[(key, Some("1"))]);
    }
    log.roll().unwrap();
    clean(&log);
    // What is left of 1 and 2 is a gap at the end of the first segment.
    log.truncate_to(3).unwrap();
    put(&log, &[("c", Some("1"))]);
    assert_eq!(log.segment_base_offsets(), [0, 3]);
    for max_bytes in [0, 1, 1000] {
        let read = log.read(1, max_bytes, i64::MAX, true).unwrap();
        assert_eq!(read.first_offset, 3);
        assert!(read.len > 0);
        assert_eq!(log.read(1, 0, i64::MAX, false).unwrap().len, 0);
    }
}

#[test]
fn what_is_appended_behind_a_gap_is_no_damage_after_a_crash() {
    // With the segment that the truncation began, and cut off before that.
    for rolled in [true, false] {
        let dir = TestDir::new();
        let log = dir.log(compacted());
        for value in ["1", "2", "3", "4", "5", "6"] {
            put(&log, &[("a", Some(value))]);
        }
        log.roll().unwrap();
        clean(&log);
        // What compaction has left lies above, so that the log is empty and ends in a gap.
        log.truncate_to(3).unwrap();
        drop(log);
        let path = dir.log_path().join(file_name(3, FileKind::Log));
        if !rolled {
            dir.env.fs.remove_file(&path).unwrap();
        }
        let log = crashed(&dir, 2);
        assert_eq!((log.log_start_offset(), log.log_end_offset()), (0, 3));
        put(&log, &[("a", Some("7"))]);
        // A crash keeps the length of a file and not what was written.
        let len = dir.env.fs.metadata(&path).unwrap().len;
        assert!(len > 0);
        drop(log);
        dir.truncate(&path, 0);
        dir.truncate(&path, len);
        let log = crashed(&dir, 2);
        assert_eq!(log.recovery_report().damage, []);
        assert_eq!(log.log_end_offset(), 3);
        put(&log, &[("a", Some("8"))]);
        assert_eq!(pairs(&records(&log)), [(3, "a", Some("8"))]);
        log.close().unwrap();
        let log = Log::open(LogOpen {
            recovery_point: 4,
            clean: true,
            ..dir.open(compacted())
        });
        assert_eq!(log.unwrap().log_end_offset(), 4);
    }
}

#[test]
fn a_truncation_that_fails_leaves_no_gap() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    for key in ["a", "b", "c"] {
        put(&log, &[(key, Some("1"))]);
        log.roll().unwrap();
    }
    // The name that the last segment with records would get is taken.
    let name = format!("{}.deleted", file_name(2, FileKind::Log));
    let taken = dir.log_path().join(name);
    dir.env.fs.create_dir_all(&taken).unwrap();
    log.truncate_to(1).unwrap_err();
    drop(log);
    dir.env.fs.remove_dir_all(&taken).unwrap();
    let kept = records(&crashed(&dir, 0));
    let offsets: Vec<i64> = kept.iter().map(|record| record.0).collect();
    assert_eq!(offsets, [0, 1, 2]);
}

#[test]
fn a_producers_last_batch_stays_without_its_records() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    put_with(&log, producer(7, 0, false), &[("a", Some("1"))]);
    put_with(
        &log,
        producer(7, 1, false),
        &[("a", Some("2")), ("b", Some("2"))],
    );
    put(&log, &[("a", Some("3")), ("b", Some("3"))]);
    log.roll().unwrap();
    clean(&log);
    let bytes = all_bytes(&log);
    let first = batches(&bytes).next().unwrap().unwrap();
    let header = first.header();
    assert_eq!((header.base_offset, header.last_offset()), (1, 2));
    assert_eq!((header.producer_id, header.base_sequence), (7, 1));
    assert_eq!((header.record_count, header.size()), (0, 61));
    first.verify_crc().unwrap();
    // So that its sequence is known after all state is lost.
    let log = reopen(&dir, &log, false);
    let known = log.active_producers()[0];
    assert_eq!((known.producer_id, known.last_sequence), (7, 2));
    put_with(&log, producer(7, 3, false), &[("a", Some("4"))]);
    // Once it wrote again the empty batch goes.
    log.roll().unwrap();
    clean(&log);
    assert_eq!(records(&log)[0].0, 4);
    assert_eq!(
        batches(&all_bytes(&log))
            .next()
            .unwrap()
            .unwrap()
            .header()
            .base_offset,
        3
    );
}

#[test]
fn aborted_records_go_and_their_markers_follow() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    put(&log, &[("a", Some("1"))]);
    put_with(&log, producer(7, 0, true), &[("a", Some("aborted"))]);
    end_txn(&log, 7, false);
    put_with(&log, producer(7, 1, true), &[("b", Some("committed"))]);
    end_txn(&log, 7, true);
    log.roll().unwrap();
    assert_eq!(log.aborted_transactions(0, 5).unwrap().len(), 1);
    clean(&log);
    let expected = [(0, "a", Some("1")), (3, "b", Some("committed"))];
    assert_eq!(pairs(&records(&log)), expected);
    let offsets = |log: &Log| -> Vec<i64> {
        let bytes = all_bytes(log);
        batches(&bytes)
            .map(|batch| batch.unwrap().header().base_offset)
            .collect()
    };
    assert_eq!(
        offsets(&log),
        [0, 2, 3, 4],
        "markers stay with their time running"
    );
    let found = log.aborted_transactions(0, 5).unwrap();
    assert_eq!(found.len(), 1, "the aborted batch was read by this clean");

    put(&log, &[("c", Some("1"))]);
    log.roll().unwrap();
    clean_at(&log, NOW_MS + 1);
    assert!(log.aborted_transactions(0, 6).unwrap().is_empty());
    assert_eq!(offsets(&log), [0, 2, 3, 4, 5]);
    put(&log, &[("c", Some("2"))]);
    log.roll().unwrap();
    clean_at(&log, NOW_MS + 2 * HOUR_MS);
    assert_eq!(
        offsets(&log),
        [0, 3, 4, 6],
        "the marker of what was aborted is gone"
    );
}

#[test]
fn an_open_transaction_is_not_cleaned() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    put(&log, &[("a", Some("1"))]);
    put(&log, &[("a", Some("2"))]);
    log.roll().unwrap();
    put_with(&log, producer(7, 0, true), &[("a", Some("3"))]);
    log.roll().unwrap();
    put(&log, &[("a", Some("4"))]);
    log.roll().unwrap();
    assert_eq!(log.cleanable(NOW_MS).unwrap().end_offset, 2);
    clean(&log);
    assert_eq!(records(&log).len(), 3);
    assert_eq!(log.cleaned_to(), Some(2));
}

#[test]
fn the_high_watermark_and_the_lags_bound_a_clean() {
    let dir = TestDir::new();
    let mut config = compacted();
    let log = dir.log(config.clone());
    for _ in 0..4 {
        put(&log, &[("a", Some("1"))]);
        log.roll().unwrap();
    }
    assert_eq!(log.cleanable(NOW_MS).unwrap().end_offset, 4);
    log.set_high_watermark(2);
    assert_eq!(log.cleanable(NOW_MS).unwrap().end_offset, 2);
    log.set_high_watermark(4);
    config.min_compaction_lag_ms = HOUR_MS;
    log.update_config(config.clone());
    assert_eq!(log.cleanable(NOW_MS + HOUR_MS - 1).unwrap().end_offset, 0);
    assert_eq!(log.cleanable(NOW_MS + HOUR_MS).unwrap().end_offset, 4);
    config.min_compaction_lag_ms = 0;
    config.max_compaction_lag_ms = HOUR_MS;
    log.update_config(config);
    assert_eq!(log.cleanable(NOW_MS + HOUR_MS).unwrap().overdue_ms, 0);
    let late = log.cleanable(NOW_MS + HOUR_MS + 5).unwrap();
    assert_eq!(late.overdue_ms, 5);
    assert!(late.is_due(1.0), "whatever the ratio");
}

#[test]
fn the_dirty_share_counts_segments() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    put(&log, &[("a", Some("1"))]);
    log.roll().unwrap();
    assert!((log.cleanable(NOW_MS).unwrap().dirty_ratio() - 1.0).abs() < 1e-9);
    clean(&log);
    assert_eq!(log.cleanable(NOW_MS).unwrap().dirty_bytes, 0);
    put(&log, &[("b", Some("1"))]);
    log.roll().unwrap();
    let half = log.cleanable(NOW_MS).unwrap();
    assert!((half.dirty_ratio() - 0.5).abs() < 1e-9);
    assert!(half.is_due(0.4) && !half.is_due(0.5));
}

#[test]
fn an_offset_outside_of_the_log_is_forgotten() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    for _ in 0..3 {
        put(&log, &[("a", Some("1"))]);
        log.roll().unwrap();
    }
    log.set_cleaned_to(99);
    assert_eq!(log.cleanable(NOW_MS).unwrap().first_dirty_offset, 0);
    log.set_cleaned_to(1);
    assert_eq!(log.cleanable(NOW_MS).unwrap().first_dirty_offset, 1);
    log.delete_records_before(2).unwrap();
    assert_eq!(log.cleanable(NOW_MS).unwrap().first_dirty_offset, 2);
    log.set_cleaned_to(3);
    log.truncate_to(2).unwrap();
    assert_eq!(log.cleaned_to(), Some(2), "a truncation takes it back");
}

#[test]
fn segments_are_joined_up_to_their_size() {
    let dir = TestDir::new();
    let log = dir.log(LogConfig {
        segment_bytes: 300,
        ..compacted()
    });
    for n in 0..20 {
        put(&log, &[(&format!("key-{n}"), Some("value"))]);
    }
    log.roll().unwrap();
    let before = log.segment_base_offsets().len();
    for n in 0..18 {
        put(&log, &[(&format!("key-{n}"), Some("value"))]);
    }
    log.roll().unwrap();
    let size = log.size_bytes();
    let report = clean(&log);
    assert!(
        report.segments_written == report.segments_read,
        "{before} full ones"
    );
    assert!(log.size_bytes() < size);
    log.set_cleaned_to(0);
    let again = clean(&log);
    assert!(again.segments_written < again.segments_read);
    let mut keys: Vec<_> = records(&log).into_iter().map(|(_, key, _)| key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!((keys.len(), records(&log).len()), (20, 20));
}

#[test]
fn a_map_that_is_full_leaves_the_rest_for_the_next_clean() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    for n in 0..40 {
        put(&log, &[(&format!("k{}", n % 20), Some(&n.to_string()))]);
    }
    log.roll().unwrap();
    let mut cleaner = Cleaner::new(
        CleanerConfig {
            map_bytes: 24 * 10,
            map_load_factor: 0.9,
            io_buffer_bytes: 0,
        },
        1,
    );
    let mut rounds = 0;
    while log.cleanable(NOW_MS).unwrap().dirty_bytes > 0 {
        let target = log.cleanable(NOW_MS).unwrap();
        if target.first_dirty_offset >= target.end_offset {
            break;
        }
        let report = cleaner.clean(&log, &target, NOW_MS, &()).unwrap();
        assert!(report.cleaned_to > target.first_dirty_offset);
        rounds += 1;
    }
    assert_eq!(rounds, 5, "nine keys a clean");
    assert_eq!(records(&log).len(), 20);
    assert_eq!(records(&log)[0], (20, "k0".into(), Some("20".into())));
}

#[test]
fn readers_of_old_segments_go_on() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    put(&log, &[("a", Some("1"))]);
    put(&log, &[("a", Some("2"))]);
    log.roll().unwrap();
    let read = log.read(0, usize::MAX, i64::MAX, true).unwrap();
    let before = bytes_of(&read);
    assert!(log.is_current(&read));
    clean(&log);
    assert_eq!(bytes_of(&read), before);
    assert!(!log.is_current(&read));
    assert_ne!(all_bytes(&log), before);
}

#[test]
fn old_files_wait_for_their_removal() {
    let dir = TestDir::new();
    let log = dir.log(LogConfig {
        file_delete_delay_ms: 1_000,
        ..compacted()
    });
    for _ in 0..2 {
        put(&log, &[("a", Some("1"))]);
        log.roll().unwrap();
    }
    clean(&log);
    let deleted = |dir: &TestDir| {
        let files = dir.files();
        files
            .iter()
            .filter(|name| name.ends_with(".deleted"))
            .count()
    };
    assert_eq!(
        deleted(&dir),
        7,
        "two segments and the second one's snapshot"
    );
    assert!(
        !dir.files()
            .iter()
            .any(|name| name.ends_with(".cleaned") || name.ends_with(".swap"))
    );
    log.tick(dir.env.clock.wall_ms() + 1_000).unwrap();
    assert_eq!(deleted(&dir), 0);
    assert_eq!(log.segment_base_offsets(), [0, 2]);
}

#[test]
fn a_truncation_ends_a_clean() {
    struct Truncates<'a>(&'a Log);
    impl Pace for Truncates<'_> {
        fn after_io(&self, _: u64) -> ControlFlow<()> {
            self.0.truncate_to(1).unwrap();
            ControlFlow::Continue(())
        }
    }
    let dir = TestDir::new();
    let log = dir.log(compacted());
    for _ in 0..3 {
        put(&log, &[("a", Some("1"))]);
        log.roll().unwrap();
    }
    let target = log.cleanable(NOW_MS).unwrap();
    let mut cleaner = Cleaner::new(CleanerConfig::default(), 1);
    let ended = cleaner.clean(&log, &target, NOW_MS, &Truncates(&log));
    assert!(matches!(ended, Err(CleanError::Disturbed)), "{ended:?}");
    assert!(!log.is_offline());
    assert_eq!(log.log_end_offset(), 1);
    assert!(!dir.files().iter().any(|name| name.ends_with(".cleaned")));
    assert!(log.cleaned_to().unwrap() <= 1);
}

#[test]
fn the_pace_can_end_a_clean() {
    struct Ends(Cell<u32>);
    impl Pace for Ends {
        fn after_io(&self, _: u64) -> ControlFlow<()> {
            let left = self.0.get();
            self.0.set(left.saturating_sub(1));
            if left == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
    }
    let dir = TestDir::new();
    let log = dir.log(compacted());
    for _ in 0..3 {
        put(&log, &[("a", Some("1"))]);
        log.roll().unwrap();
    }
    let before = all_bytes(&log);
    let target = log.cleanable(NOW_MS).unwrap();
    let mut cleaner = Cleaner::new(CleanerConfig::default(), 1);
    for calls in 0..5 {
        let ended = cleaner.clean(&log, &target, NOW_MS, &Ends(Cell::new(calls)));
        assert!(matches!(ended, Err(CleanError::Stopped)), "{ended:?}");
        assert_eq!(all_bytes(&log), before);
        assert!(!dir.files().iter().any(|name| name.ends_with(".cleaned")));
    }
}

#[test]
fn damage_is_told_and_nothing_is_replaced() {
    let dir = TestDir::new();
    let log = dir.log(compacted());
    put(&log, &[("a", Some("1"))]);
    put(&log, &[("a", Some("2"))]);
    log.roll().unwrap();
    let path = dir.path().join("topic-0").join("00000000000000000000.log");
    let mut content = dir.env.fs.read(&path).unwrap();
    *content.last_mut().unwrap() ^= 1;
    let file = dir.env.fs.open(&path, klamm_env::OpenMode::Write).unwrap();
    klamm_env::FileExt::write_all_at(&*file, &content, 0).unwrap();
    let target = log.cleanable(NOW_MS).unwrap();
    let mut cleaner = Cleaner::new(CleanerConfig::default(), 1);
    let failed = cleaner.clean(&log, &target, NOW_MS, &());
    assert!(
        matches!(failed, Err(CleanError::Log(LogError::Corrupt { .. }))),
        "{failed:?}"
    );
    assert!(!log.is_offline());
    assert_eq!(dir.env.fs.read(&path).unwrap(), content);
}

/// A random history, and what it comes to: of each key the last record.
struct History {
    rng: SplitMix64,
    sequences: BTreeMap<i64, i32>,
    expected: BTreeMap<String, (i64, Option<String>)>,
}

impl History {
    fn new(seed: u64) -> History {
        History {
            rng: SplitMix64::new(seed),
            sequences: BTreeMap::new(),
            expected: BTreeMap::new(),
        }
    }

    fn step(&mut self, log: &Log) {
        let mut options = BatchOptions {
            codec: Codec::from(Compression::ALL[self.rng.below(5) as usize]),
            ..BatchOptions::default()
        };
        let kind = self.rng.below(10);
        let producer_id = self.rng.below(3) as i64 + if kind < 3 { 100 } else { 200 };
        if kind < 6 {
            options.producer_id = producer_id;
            options.producer_epoch = 0;
            options.base_sequence = self.sequences.get(&producer_id).copied().unwrap_or(0);
            options.transactional = kind < 3;
        }
        let count = self.rng.below(5) + 1;
        let records: Vec<(String, Option<String>)> = (0..count)
            .map(|_| {
                let value =
                    (self.rng.below(4) > 0).then(|| "v".repeat(self.rng.below(40) as usize));
                (format!("k{}", self.rng.below(12)), value)
            })
            .collect();
        let borrowed: Vec<_> = records
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_deref()))
            .collect();
        let first = log.log_end_offset();
        put_with(log, options, &borrowed);
        let committed = self.rng.below(2) == 0;
        if kind < 6 {
            *self.sequences.entry(producer_id).or_default() += count as i32;
        }
        if options.transactional {
            end_txn(log, producer_id, committed);
        }
        if !options.transactional || committed {
            for (offset, (key, value)) in (first..).zip(records) {
                self.expected.insert(key, (offset, value));
            }
        }
        if self.rng.below(6) == 0 {
            log.roll().unwrap();
        }
    }
}

#[test]
fn random_histories_keep_the_last_value_of_each_key() {
    for seed in 0..4 {
        let dir = TestDir::new();
        let log = dir.log(LogConfig {
            segment_bytes: 4_000,
            ..compacted()
        });
        let mut history = History::new(seed);
        for round in 0..4 {
            for _ in 0..40 {
                history.step(&log);
            }
            log.roll().unwrap();
            let (end, epochs) = (log.log_end_offset(), log.epochs());
            let producers = log.active_producers();
            clean_at(&log, NOW_MS + round);
            check(&log, &history, seed);
            assert_eq!((log.log_end_offset(), log.epochs()), (end, epochs));
            assert_eq!(log.active_producers(), producers);
        }
        // Whatever recovery would have to find out again is there.
        let (end, producers) = (log.log_end_offset(), log.active_producers());
        drop(log);
        let log = Log::open(LogOpen {
            clean: false,
            ..dir.open(compacted())
        })
        .unwrap();
        assert_eq!(log.recovery_report().truncation, None, "seed {seed}");
        assert_eq!(log.log_end_offset(), end, "seed {seed}");
        let sequences = |known: &[crate::ActiveProducer]| -> Vec<_> {
            known
                .iter()
                .map(|known| (known.producer_id, known.last_sequence, known.last_offset))
                .collect()
        };
        assert_eq!(
            sequences(&log.active_producers()),
            sequences(&producers),
            "seed {seed}"
        );
        check(&log, &history, seed);
    }
}

fn check(log: &Log, history: &History, seed: u64) {
    let found = records(log);
    assert!(found.is_sorted_by(|a, b| a.0 < b.0), "seed {seed}");
    let kept: BTreeMap<String, (i64, Option<String>)> = found
        .iter()
        .cloned()
        .map(|(offset, key, value)| (key, (offset, value)))
        .collect();
    assert_eq!(kept, history.expected, "seed {seed}");
    assert_eq!(found.len(), kept.len(), "one record a key: seed {seed}");
    // Every offset finds the first record at or after it.
    for offset in log.log_start_offset()..log.log_end_offset() {
        let read = log.read(offset, 1, i64::MAX, true).unwrap();
        let bytes = bytes_of(&read);
        let next = found.iter().find(|(at, ..)| *at >= offset);
        let Some((next, ..)) = next else { continue };
        let batch = batches(&bytes).next().unwrap().unwrap();
        assert!(batch.header().base_offset <= *next, "seed {seed}");
        assert!(batch.header().last_offset() >= offset, "seed {seed}");
    }
}
