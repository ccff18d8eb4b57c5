use std::sync::atomic::AtomicI64 as Cell;

use super::*;
use crate::error::BatchFault;
use crate::names::FileKind;
use crate::producer_state::AppendOrigin;
use crate::test_support::{TestDir, all_records, append, batch, batch_with, bytes_of, records_of};
use klamm_env::{FileExt, FsExt, OpenMode};
use klamm_records::control::EndTransactionMarker;
use klamm_records::{BatchOptions, PreparedBatch, TimestampType, Uuid};

/// An entry in the indexes for every batch but the first.
fn dense() -> LogConfig {
    LogConfig {
        index_interval_bytes: 0,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

/// Three batches of two records to a segment.
fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 3 * batch(0, &["a00", "b00"]).size() as u32,
        ..dense()
    }
}

fn fill(log: &Log, batches: i64) {
    for n in 0..batches {
        let (a, b) = (format!("a{n:02}"), format!("b{n:02}"));
        let info = append(log, batch(1000 + n * 10, &[&a, &b])).unwrap();
        assert_eq!((info.first_offset, info.last_offset), (n * 2, n * 2 + 1));
    }
    log.set_high_watermark(batches * 2);
}

fn filled(batches: i64) -> Vec<(i64, String)> {
    (0..batches)
        .flat_map(|n| [(n * 2, format!("a{n:02}")), (n * 2 + 1, format!("b{n:02}"))])
        .collect()
}

#[test]
fn records_come_back_in_order_across_segments() {
    let dir = TestDir::new();
    let log = dir.log(small_segments());
    fill(&log, 10);
    assert_eq!(log.segment_base_offsets(), [0, 6, 12, 18]);
    assert_eq!(all_records(&log), filled(10));
    for start in 0..20 {
        let read = log.read(start, usize::MAX, i64::MAX, true).unwrap();
        assert_eq!(
            read.first_offset,
            start / 2 * 2,
            "reads begin with a whole batch"
        );
        assert_eq!(records_of(&read), filled(10)[start as usize / 2 * 2..]);
    }
}

#[test]
fn reads_stop_at_the_upper_bound() {
    let dir = TestDir::new();
    let log = dir.log(small_segments());
    fill(&log, 10);
    for reopened in [false, true] {
        for upper in 0..=20 {
            for start in 0..=20 {
                let read = log.read(start, usize::MAX, upper, true).unwrap();
                let expected: Vec<_> = filled(10)
                    .into_iter()
                    .filter(|(offset, _)| *offset >= start / 2 * 2 && *offset < upper / 2 * 2)
                    .collect();
                assert_eq!(records_of(&read), expected, "{start}..{upper} {reopened}");
            }
        }
        // Without the memory of recent batches the indexes must give the same.
        for segment in log.all_segments() {
            segment.forget_recent();
        }
    }
}

#[test]
fn reads_take_no_more_than_asked_but_one_batch() {
    let dir = TestDir::new();
    let log = dir.log(dense());
    fill(&log, 5);
    let size = batch(0, &["a00", "b00"]).size();
    let read = |max, min_one| log.read(2, max, i64::MAX, min_one).unwrap().len;
    assert_eq!(
        read(size * 2 + 7, false),
        size * 2 + 7,
        "the last batch may be cut"
    );
    assert_eq!(read(10, false), 10);
    assert_eq!(read(10, true), size);
    assert_eq!(read(0, true), size);
    assert_eq!(read(0, false), 0);
    assert_eq!(read(usize::MAX, false), size * 4);
}

#[test]
fn offsets_out_of_range_are_refused() {
    let dir = TestDir::new();
    let log = dir.log(small_segments());
    fill(&log, 10);
    log.delete_records_before(7).unwrap();
    for offset in [-1, 6, 21] {
        let error = log.read(offset, 100, i64::MAX, true).unwrap_err();
        assert!(matches!(
            error,
            LogError::OffsetOutOfRange { log_start: 7, log_end: 20, requested } if requested == offset
        ));
    }
    assert!(log.read(20, 100, i64::MAX, true).unwrap().is_empty());
    assert!(
        log.read(15, 100, 15, true).unwrap().is_empty(),
        "between the bound and the end"
    );
    let read = log.read(7, 1, i64::MAX, true).unwrap();
    assert_eq!((read.first_offset, read.log_start_offset), (6, 7));
}

#[test]
fn oversized_appends_are_refused() {
    let dir = TestDir::new();
    let log = dir.log(LogConfig {
        max_message_bytes: 100,
        segment_bytes: 150,
        ..dense()
    });
    let large = "x".repeat(100);
    let error = append(&log, batch(0, &[&large])).unwrap_err();
    assert!(matches!(error, LogError::RecordTooLarge { max: 100, .. }));
    let mut batches = [batch(0, &["one"]), batch(0, &["two"]), batch(0, &["three"])];
    let error = log
        .append_as_leader(&mut batches, 0, 0, AppendOrigin::Client)
        .unwrap_err();
    assert!(matches!(error, LogError::BatchTooLarge { max: 150, .. }));
    assert_eq!(log.log_end_offset(), 0);
    append(&log, batch(0, &["fits"])).unwrap();
}

#[test]
fn several_batches_are_appended_at_once() {
    let dir = TestDir::new();
    let log = dir.log(dense());
    let mut batches = [batch(5, &["a", "b"]), batch(9, &["c"]), batch(7, &["d"])];
    let info = log
        .append_as_leader(&mut batches, 3, 0, AppendOrigin::Client)
        .unwrap();
    assert_eq!(
        (info.first_offset, info.last_offset, info.max_timestamp),
        (0, 3, 9)
    );
    assert_eq!(all_records(&log).len(), 4);
    assert_eq!(log.epochs(), [(3, 0)]);
    let found = log.max_timestamp_offset().unwrap().unwrap();
    assert_eq!(
        (found.offset, found.timestamp, found.leader_epoch),
        (2, 9, 3)
    );
}

#[test]
fn the_log_stamps_records_if_told_to() {
    let dir = TestDir::new();
    let log = dir.log(LogConfig {
        timestamp_type: TimestampType::LogAppendTime,
        ..dense()
    });
    let info = log
        .append_as_leader(&mut [batch(5, &["a", "b"])], 0, 777, AppendOrigin::Client)
        .unwrap();
    assert_eq!((info.log_append_time_ms, info.max_timestamp), (777, 777));
    let bytes = bytes_of(&log.read(0, 1000, i64::MAX, true).unwrap());
    let batch = klamm_records::BatchView::parse(&bytes).unwrap();
    batch.verify_crc().unwrap();
    assert_eq!(batch.header().log_append_time(), Some(777));
}

fn idempotent(sequence: i32, values: &[&str]) -> PreparedBatch {
    let options = BatchOptions {
        producer_id: 9,
        producer_epoch: 0,
        base_sequence: sequence,
        ..BatchOptions::default()
    };
    batch_with(options, 1000, values)
}

#[test]
fn a_retried_batch_is_not_written_twice() {
    let dir = TestDir::new();
    let log = dir.log(dense());
    append(&log, idempotent(0, &["a", "b"])).unwrap();
    append(&log, idempotent(2, &["c"])).unwrap();
    let info = append(&log, idempotent(0, &["a", "b"])).unwrap();
    assert!(info.duplicate);
    assert_eq!((info.first_offset, info.last_offset, info.bytes), (0, 1, 0));
    assert_eq!(log.log_end_offset(), 3);
    let error = append(&log, idempotent(9, &["z"])).unwrap_err();
    assert!(matches!(
        error,
        LogError::OutOfOrderSequence {
            got: 9,
            last: 2,
            ..
        }
    ));
    assert_eq!(log.log_end_offset(), 3);
}

#[test]
fn retries_are_recognised_after_any_reopen() {
    for clean in [true, false] {
        let dir = TestDir::new();
        dir.clock.set_wall_ms(2000);
        let log = dir.log(dense());
        append(&log, idempotent(0, &["a", "b"])).unwrap();
        log.roll().unwrap();
        append(&log, idempotent(2, &["c"])).unwrap();
        if clean {
            log.close().unwrap();
        }
        drop(log);
        let log = Log::open(LogOpen {
            clean,
            ..dir.open(dense())
        })
        .unwrap();
        assert!(
            append(&log, idempotent(2, &["c"])).unwrap().duplicate,
            "clean: {clean}"
        );
        append(&log, idempotent(3, &["d"])).unwrap();
    }
}

#[test]
fn rolls_by_record_time_and_by_index_size() {
    let dir = TestDir::new();
    let log = dir.log(LogConfig {
        segment_ms: 100,
        ..dense()
    });
    append(&log, batch(1000, &["a"])).unwrap();
    append(&log, batch(1100, &["b"])).unwrap();
    append(&log, batch(1101, &["c"])).unwrap();
    assert_eq!(log.segment_base_offsets(), [0, 2]);

    let dir = TestDir::new();
    // Room for three entries, one of which the time index keeps for the end.
    let log = dir.log(LogConfig {
        segment_index_bytes: 36,
        ..dense()
    });
    for n in 0..8 {
        append(&log, batch(1000 + n, &["x"])).unwrap();
    }
    assert_eq!(log.segment_base_offsets(), [0, 3, 6]);
}

#[test]
fn finds_offsets_by_time() {
    let dir = TestDir::new();
    let log = dir.log(small_segments());
    fill(&log, 10);
    let find = |time| {
        log.offset_for_timestamp(time)
            .unwrap()
            .map(|found| found.offset)
    };
    assert_eq!(find(0), Some(0));
    for n in 0..10 {
        assert_eq!(find(1000 + n * 10), Some(n * 2));
        assert_eq!(find(1000 + n * 10 - 9), Some(n * 2));
    }
    assert_eq!(find(1091), None);
    log.delete_records_before(7).unwrap();
    assert_eq!(find(0), Some(7), "not below the start");
    let max = log.max_timestamp_offset().unwrap().unwrap();
    assert_eq!((max.offset, max.timestamp), (18, 1090));
}

fn transactional(producer_id: i64, sequence: i32) -> PreparedBatch {
    let options = BatchOptions {
        producer_id,
        producer_epoch: 0,
        base_sequence: sequence,
        transactional: true,
        ..BatchOptions::default()
    };
    batch_with(options, 1000, &["t"])
}

fn end_txn(log: &Log, producer_id: i64, committed: bool) -> AppendInfo {
    let marker = EndTransactionMarker {
        committed,
        coordinator_epoch: 0,
    };
    let batch = PreparedBatch::trusted(marker.to_batch(producer_id, 0, 1000).unwrap()).unwrap();
    let origin = AppendOrigin::TxnMarkers {
        transaction_version: 1,
    };
    log.append_as_leader(&mut [batch], 0, 1000, origin).unwrap()
}

#[test]
fn transactions_end_in_the_index() {
    let dir = TestDir::new();
    let log = dir.log(dense());
    append(&log, transactional(1, 0)).unwrap(); // 0
    append(&log, transactional(2, 0)).unwrap(); // 1
    append(&log, batch(1000, &["plain"])).unwrap(); // 2
    assert_eq!(log.last_stable_offset(3), 0);
    end_txn(&log, 2, false); // 3
    log.roll().unwrap();
    assert_eq!(log.last_stable_offset(4), 0);
    end_txn(&log, 1, true); // 4
    assert_eq!(log.last_stable_offset(4), 0, "the marker is not replicated");
    assert_eq!(log.last_stable_offset(5), 5);
    append(&log, transactional(1, 1)).unwrap(); // 5
    end_txn(&log, 1, false); // 6
    let producers = |from, to| {
        let aborted = log.aborted_transactions(from, to).unwrap();
        aborted
            .iter()
            .map(|txn| (txn.producer_id, txn.first_offset))
            .collect::<Vec<_>>()
    };
    assert_eq!(producers(0, 7), [(2, 1), (1, 5)]);
    assert_eq!(producers(0, 5), [(2, 1)]);
    assert_eq!(producers(4, 7), [(1, 5)]);
    let read = log.read(0, usize::MAX, 7, true).unwrap();
    assert!(log.upper_bound_offset(&read).unwrap() >= 7);
}

#[test]
fn followers_index_aborted_transactions_as_their_leader_does() {
    let dir = TestDir::new();
    let leader = dir.log(dense());
    append(&leader, transactional(1, 0)).unwrap(); // 0
    end_txn(&leader, 1, false); // 1
    append(&leader, transactional(1, 1)).unwrap(); // 2
    append(&leader, transactional(2, 0)).unwrap(); // 3
    end_txn(&leader, 1, false); // 4
    end_txn(&leader, 2, true); // 5
    let bytes = bytes_of(&leader.read(0, usize::MAX, i64::MAX, true).unwrap());
    let expected = leader.aborted_transactions(0, 6).unwrap();
    assert_eq!(expected.len(), 2);

    let dir = TestDir::new();
    let follower = dir.log(dense());
    follower.append_as_follower(&bytes, 0, 0).unwrap();
    assert_eq!(follower.aborted_transactions(0, 6).unwrap(), expected);
    let within = leader.aborted_transactions(0, 3).unwrap();
    assert_eq!(follower.aborted_transactions(0, 3).unwrap(), within);
}

#[test]
fn followers_take_offsets_as_they_are() {
    let dir = TestDir::new();
    let leader = dir.log(dense());
    fill(&leader, 4);
    let bytes = bytes_of(&leader.read(0, usize::MAX, i64::MAX, true).unwrap());
    let size = bytes.len() / 4;

    let dir = TestDir::new();
    let follower = dir.log(dense());
    let info = follower
        .append_as_follower(&bytes[..size * 2 + 30], 0, 0)
        .unwrap();
    assert_eq!(
        (info.first_offset, info.last_offset),
        (0, 3),
        "a cut batch is left out"
    );
    let again = follower
        .append_as_follower(&bytes[size..], 0, 0)
        .unwrap_err();
    assert!(matches!(
        again,
        LogError::UnexpectedAppendOffset {
            first: 2,
            last: 7,
            log_end: 4
        }
    ));
    let mut damaged = bytes[size * 2..].to_vec();
    damaged[size + 70] ^= 1;
    let error = follower.append_as_follower(&damaged, 0, 0).unwrap_err();
    assert!(matches!(
        error,
        LogError::InvalidBatch { position, reason: BatchFault::Checksum } if position == size
    ));
    assert_eq!(follower.log_end_offset(), 4);
    let swapped = [&bytes[size * 3..], &bytes[size * 2..size * 3]].concat();
    let error = follower.append_as_follower(&swapped, 0, 0).unwrap_err();
    assert!(matches!(
        error,
        LogError::OffsetsOutOfOrder {
            previous: 7,
            next: 5
        }
    ));
    let none = follower
        .append_as_follower(&bytes[size * 2..], -1, 0)
        .unwrap();
    assert_eq!(none.bytes, 0, "of an epoch that is not known yet");
    follower
        .append_as_follower(&bytes[size * 2..], 0, 0)
        .unwrap();
    assert_eq!(all_records(&follower), filled(4));
}

#[test]
fn followers_take_what_a_segment_has_room_for() {
    let dir = TestDir::new();
    let leader = dir.log(dense());
    fill(&leader, 5);
    let bytes = bytes_of(&leader.read(0, usize::MAX, i64::MAX, true).unwrap());
    let size = bytes.len() / 5;

    let dir = TestDir::new();
    let follower = dir.log(LogConfig {
        segment_bytes: size as u32 * 2 + 1,
        ..dense()
    });
    let all = follower.append_as_follower(&bytes, 0, 0);
    assert!(matches!(all, Err(LogError::BatchTooLarge { .. })));
    for at in [0, 2, 4] {
        let rest = &bytes[at * size..];
        let info = follower.append_fetched(rest, 0, 0).unwrap();
        assert_eq!(info.bytes, rest.len().min(2 * size) as u64);
    }
    assert_eq!(all_records(&follower), filled(5));
}

#[test]
fn followers_do_not_keep_the_old_with_the_young() {
    let by_time = LogConfig {
        segment_ms: 25,
        retention_ms: 100,
        ..dense()
    };
    let dir = TestDir::new();
    let leader = dir.log(by_time.clone());
    fill(&leader, 8);
    assert_eq!(leader.segment_base_offsets(), [0, 6, 12]);
    let bytes = bytes_of(&leader.read(0, usize::MAX, i64::MAX, true).unwrap());

    let dir = TestDir::new();
    let follower = dir.log(by_time.clone());
    let mut taken = 0;
    while taken < bytes.len() {
        let info = follower.append_fetched(&bytes[taken..], 0, 0).unwrap();
        assert!(info.bytes > 0);
        taken += info.bytes as usize;
    }
    assert_eq!(follower.segment_base_offsets(), [0, 6, 12]);
    for log in [&leader, &follower] {
        assert_eq!(log.apply_retention(1121, 16).unwrap(), 1);
        assert_eq!(log.log_start_offset(), 6);
    }

    let dir = TestDir::new();
    let by_key = dir.log(LogConfig {
        compact: true,
        delete: false,
        ..by_time
    });
    let info = by_key.append_fetched(&bytes, 0, 0).unwrap();
    assert_eq!(info.bytes, bytes.len() as u64, "compaction joins segments");
}

#[test]
fn truncation_cuts_whole_batches() {
    let dir = TestDir::new();
    let log = dir.log(small_segments());
    fill(&log, 10);
    log.flush(20).unwrap();
    assert!(!log.truncate_to(20).unwrap());
    assert!(log.truncate_to(15).unwrap());
    assert_eq!(log.log_end_offset(), 14);
    assert_eq!(log.recovery_point(), 14);
    assert_eq!(log.high_watermark(), 14);
    assert_eq!(
        all_records(&log),
        filled(7),
        "the batch of 14 and 15 is gone as a whole"
    );
    assert_eq!(
        append(&log, batch(5000, &["new"])).unwrap().first_offset,
        14
    );
    assert!(log.truncate_to(6).unwrap());
    assert_eq!(log.segment_base_offsets(), [0, 6]);
    assert_eq!(all_records(&log), filled(3));
    assert_eq!(log.max_timestamp_offset().unwrap().unwrap().timestamp, 1020);
    log.close().unwrap();
    let log = Log::open(LogOpen {
        clean: true,
        ..dir.open(small_segments())
    })
    .unwrap();
    assert_eq!((log.log_end_offset(), all_records(&log)), (6, filled(3)));
}

#[test]
fn truncation_forgets_epochs_and_producers() {
    let dir = TestDir::new();
    dir.clock.set_wall_ms(2000);
    let log = dir.log(dense());
    append(&log, idempotent(0, &["a"])).unwrap();
    log.assign_epoch_start(4).unwrap();
    log.append_as_leader(&mut [idempotent(1, &["b"])], 4, 0, AppendOrigin::Client)
        .unwrap();
    assert_eq!(log.epochs(), [(0, 0), (4, 1)]);
    log.truncate_to(1).unwrap();
    assert_eq!(log.epochs(), [(0, 0)]);
    assert_eq!(log.active_producers()[0].last_sequence, 0);
    append(&log, idempotent(1, &["c"])).unwrap();
}

/// The transaction that a truncation opens again may be that of a producer which is forgotten by now.
#[test]
fn truncation_opens_transactions_of_forgotten_producers() {
    let dir = TestDir::new();
    let log = dir.log(dense());
    append(&log, transactional(1, 0)).unwrap(); // 0
    append(&log, batch(1000, &["plain"])).unwrap(); // 1
    end_txn(&log, 1, false); // 2
    assert_eq!(log.last_stable_offset(3), 3);
    log.tick(1000 + log.config().producer_id_expiration_ms)
        .unwrap();
    assert_eq!(log.active_producers(), []);
    log.truncate_to(2).unwrap();
    assert_eq!(log.last_stable_offset(2), 0);
    end_txn(&log, 1, false); // 2
    assert_eq!(log.aborted_transactions(0, 3).unwrap().len(), 1);
}

#[test]
fn truncation_at_the_end_forgets_epochs_without_records() {
    let dir = TestDir::new();
    let log = dir.log(dense());
    append(&log, batch(0, &["a"])).unwrap();
    log.assign_epoch_start(4).unwrap();
    assert_eq!(log.latest_epoch(), Some(4));
    assert!(!log.truncate_to(1).unwrap());
    assert_eq!(log.epochs(), [(0, 0)]);
    assert!(!log.truncate_to(9).unwrap());
    assert_eq!((log.epochs(), log.log_end_offset()), (vec![(0, 0)], 1));
}

#[test]
fn starts_anew_at_any_offset() {
    let dir = TestDir::new();
    let log = dir.log(small_segments());
    fill(&log, 10);
    log.truncate_fully_and_start_at(500, None).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (500, 500));
    assert_eq!(log.segment_base_offsets(), [500]);
    assert!(log.epochs().is_empty());
    assert_eq!(append(&log, batch(0, &["x"])).unwrap().first_offset, 500);
    log.truncate_fully_and_start_at(300, Some(310)).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (310, 300));
}

#[test]
fn retention_goes_by_time_size_and_start() {
    let dir = TestDir::new();
    let log = dir.log(LogConfig {
        retention_ms: 100,
        ..small_segments()
    });
    fill(&log, 10);
    // Newest timestamps of the segments: 1020, 1050, 1080, 1090.
    assert_eq!(log.apply_retention(1120, 20).unwrap(), 0);
    assert_eq!(log.apply_retention(1121, 20).unwrap(), 1);
    assert_eq!(log.log_start_offset(), 6);
    assert_eq!(
        log.apply_retention(2000, 12).unwrap(),
        1,
        "not above the high watermark"
    );
    assert_eq!(log.apply_retention(2000, 20).unwrap(), 2);
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (20, 20));
    assert_eq!(log.segment_base_offsets(), [20]);

    let dir = TestDir::new();
    let size = u64::from(small_segments().segment_bytes);
    let log = dir.log(LogConfig {
        retention_bytes: size as i64 * 2,
        ..small_segments()
    });
    fill(&log, 10);
    assert_eq!(log.size_bytes(), size / 3 * 10);
    assert_eq!(
        log.apply_retention(0, 20).unwrap(),
        1,
        "never below the size"
    );

    let dir = TestDir::new();
    let log = dir.log(LogConfig {
        delete: false,
        retention_ms: 0,
        ..small_segments()
    });
    fill(&log, 10);
    log.delete_records_before(13).unwrap();
    assert_eq!(
        log.apply_retention(i64::MAX, 20).unwrap(),
        2,
        "only what is below the start"
    );
    assert_eq!(
        (log.log_start_offset(), log.segment_base_offsets()[0]),
        (13, 12)
    );
}

#[test]
fn removed_files_wait_for_their_time() {
    let dir = TestDir::new();
    let config = LogConfig {
        file_delete_delay_ms: 1000,
        ..small_segments()
    };
    let log = dir.log(config);
    fill(&log, 4);
    log.delete_records_before(6).unwrap();
    let read = log.read(6, 1000, i64::MAX, true).unwrap();
    let old = log.segment_at(0).unwrap().file().unwrap();
    log.apply_retention(0, 8).unwrap();
    let deleted = |dir: &TestDir| {
        let names = dir.files();
        names
            .into_iter()
            .filter(|name| name.ends_with(".deleted"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        deleted(&dir),
        [
            "00000000000000000000.index.deleted",
            "00000000000000000000.log.deleted",
            "00000000000000000000.timeindex.deleted"
        ]
    );
    assert!(old.len().unwrap() > 0, "readers may finish");
    assert_eq!(records_of(&read)[0].0, 6);
    dir.clock.advance_ms(999);
    log.tick(dir.env.clock.wall_ms()).unwrap();
    assert_eq!(deleted(&dir).len(), 3);
    dir.clock.advance_ms(1);
    log.tick(dir.env.clock.wall_ms()).unwrap();
    assert!(deleted(&dir).is_empty());
}

#[test]
fn deleting_records_needs_them_replicated() {
    let dir = TestDir::new();
    let log = dir.log(dense());
    fill(&log, 4);
    log.set_high_watermark(5);
    assert!(matches!(
        log.delete_records_before(6),
        Err(LogError::OffsetOutOfRange {
            requested: 6,
            log_end: 5,
            ..
        })
    ));
    log.delete_records_before(5).unwrap();
    log.delete_records_before(2).unwrap();
    assert_eq!(log.log_start_offset(), 5, "never back");
    assert_eq!(log.epochs(), [(0, 5)]);
}

#[test]
fn flushes_by_count_and_by_time() {
    let dir = TestDir::new();
    let log = dir.log(LogConfig {
        flush_messages: 4,
        flush_ms: 500,
        ..dense()
    });
    append(&log, batch(0, &["a", "b", "c"])).unwrap();
    assert_eq!(log.recovery_point(), 0);
    append(&log, batch(0, &["d"])).unwrap();
    assert_eq!(log.recovery_point(), 4);
    append(&log, batch(0, &["e"])).unwrap();
    log.tick(dir.env.clock.wall_ms() + 499).unwrap();
    assert_eq!(log.recovery_point(), 4);
    log.tick(dir.env.clock.wall_ms() + 500).unwrap();
    assert_eq!(log.recovery_point(), 5);
    append(&log, batch(0, &["f"])).unwrap();
    log.roll().unwrap();
    log.tick(dir.env.clock.wall_ms()).unwrap();
    assert_eq!(
        log.recovery_point(),
        6,
        "rolled segments are flushed by the next tick"
    );
}

#[test]
fn listeners_hear_of_appends() {
    let dir = TestDir::new();
    let log = dir.log(dense());
    let heard = Arc::new(Cell::new(0));
    let listener: Arc<EndListener> = {
        let heard = heard.clone();
        Arc::new(move |end| heard.store(end, Ordering::SeqCst))
    };
    log.subscribe(&listener);
    fill(&log, 2);
    assert_eq!(heard.load(Ordering::SeqCst), 4);
    assert!(log.wait_for(3, Duration::ZERO));
    assert!(!log.wait_for(4, Duration::ZERO));
}

#[test]
fn a_torn_tail_is_cut_off() {
    let size = batch(0, &["a00", "b00"]).size() as u64;
    for cut in [1, 11, 12, 60, 61, size - 1] {
        let dir = TestDir::new();
        let log = dir.log(dense());
        fill(&log, 5);
        let path = log.dir().join("00000000000000000000.log");
        drop(log);
        dir.truncate(&path, size * 4 + cut);
        let log = dir.log(dense());
        let report = log.recovery_report();
        assert_eq!(
            (report.recovered_segments, report.recovered_bytes),
            (1, size * 4)
        );
        let truncation = report.truncation.clone().unwrap();
        assert_eq!(truncation.fault, BatchFault::Truncated);
        assert_eq!(
            (truncation.position, truncation.offset, truncation.bytes),
            (size * 4, 8, cut)
        );
        assert_eq!(all_records(&log), filled(4));
        assert_eq!(append(&log, batch(0, &["new"])).unwrap().first_offset, 8);
    }
}

#[test]
fn damage_is_reported_with_file_and_position() {
    let size = batch(0, &["a00", "b00"]).size() as u64;
    let dir = TestDir::new();
    let log = dir.log(small_segments());
    fill(&log, 10);
    let path = log.dir().join("00000000000000000006.log");
    drop(log);
    let file = dir.env.fs.open(&path, OpenMode::Write).unwrap();
    file.write_all_at(b"!", size + 70).unwrap();
    let log = dir.log(small_segments());
    let truncation = log.recovery_report().truncation.clone().unwrap();
    assert_eq!(
        truncation,
        Truncation {
            file: path,
            position: size,
            offset: 8,
            bytes: size * 2,
            fault: BatchFault::Checksum,
            segments_removed: 2
        }
    );
    assert_eq!((log.log_end_offset(), all_records(&log)), (8, filled(4)));
    assert_eq!(log.segment_base_offsets(), [0, 6]);
}

#[test]
fn only_what_is_past_the_recovery_point_is_verified() {
    let dir = TestDir::new();
    let log = dir.log(small_segments());
    fill(&log, 10);
    drop(log);
    let open = |recovery_point| {
        let log = Log::open(LogOpen {
            recovery_point,
            ..dir.open(small_segments())
        })
        .unwrap();
        assert_eq!(all_records(&log), filled(10));
        log.recovery_report().recovered_segments
    };
    assert_eq!(open(20), 1);
    assert_eq!(open(18), 1);
    assert_eq!(open(17), 2);
    assert_eq!(open(12), 2);
    assert_eq!(open(0), 4);
}

#[test]
fn a_clean_open_reads_no_batches_again() {
    let dir = TestDir::new();
    let log = dir.log(small_segments());
    fill(&log, 10);
    log.close().unwrap();
    assert!(matches!(
        append(&log, batch(0, &["x"])),
        Err(LogError::Closed { .. })
    ));
    let log = Log::open(LogOpen {
        clean: true,
        ..dir.open(small_segments())
    })
    .unwrap();
    assert_eq!(log.recovery_report(), &RecoveryReport::default());
    assert_eq!(log.recovery_point(), 20);
    assert_eq!(all_records(&log), filled(10));
}

#[test]
fn missing_and_damaged_indexes_are_made_again() {
    for damage in ["missing", "cut", "wrong"] {
        let dir = TestDir::new();
        let log = dir.log(small_segments());
        fill(&log, 11);
        log.close().unwrap();
        for base in [6, 18] {
            let path = log.dir.file(base, FileKind::Index);
            let content = dir.env.fs.read(&path).unwrap();
            match damage {
                "missing" => dir.env.fs.remove_file(&path).unwrap(),
                "cut" => dir.truncate(&path, content.len() as u64 - 1),
                _ => {
                    let file = dir.env.fs.open(&path, OpenMode::Write).unwrap();
                    // Positions that are within the file, but within a batch.
                    for position in (4..content.len()).step_by(8) {
                        file.write_all_at(&9_i32.to_be_bytes(), position as u64)
                            .unwrap();
                    }
                }
            }
        }
        let log = Log::open(LogOpen {
            clean: true,
            ..dir.open(small_segments())
        })
        .unwrap();
        assert_eq!(log.log_end_offset(), 22, "{damage}");
        for start in 0..22 {
            let read = log.read(start, 1, i64::MAX, true).unwrap();
            assert_eq!(read.first_offset, start / 2 * 2, "{damage} {start}");
        }
        let found = log.offset_for_timestamp(1040).unwrap().unwrap();
        assert_eq!(found.offset, 8, "{damage}");
        for base in [6, 18] {
            let len = dir
                .env
                .fs
                .metadata(&log.dir.file(base, FileKind::Index))
                .unwrap()
                .len;
            assert_eq!(len, if base == 6 { 16 } else { 8 }, "{damage} {base}");
        }
    }
}

#[test]
fn interrupted_work_is_finished_at_open() {
    let dir = TestDir::new();
    let log = dir.log(small_segments());
    fill(&log, 10);
    log.close().unwrap();
    let path = |name: &str| dir.path().join("topic-0").join(name);
    let fs = &dir.env.fs;
    // A segment that was being deleted, half a compacted one, one that replaces two others,
    // and an index without its log.
    let swap = [
        fs.read(&path("00000000000000000006.log")).unwrap(),
        fs.read(&path("00000000000000000012.log")).unwrap(),
    ]
    .concat();
    fs.write_atomically(&path("00000000000000000006.log.swap"), &swap)
        .unwrap();
    fs.write_atomically(&path("00000000000000000099.log.deleted"), b"x")
        .unwrap();
    fs.write_atomically(&path("00000000000000000018.log.cleaned"), b"x")
        .unwrap();
    fs.write_atomically(&path("00000000000000000077.index"), b"12345678")
        .unwrap();
    let log = Log::open(LogOpen {
        clean: true,
        ..dir.open(small_segments())
    })
    .unwrap();
    assert_eq!(log.segment_base_offsets(), [0, 6, 18]);
    assert_eq!(all_records(&log), filled(10));
    assert!(!dir.files().iter().any(|name| {
        name.ends_with(".swap")
            || name.ends_with(".deleted")
            || name.ends_with(".cleaned")
            || name.contains("77")
    }));
}

#[test]
fn a_log_that_lost_its_segments_starts_where_it_must() {
    let dir = TestDir::new();
    let log = dir.log(small_segments());
    fill(&log, 2);
    log.close().unwrap();
    let log = Log::open(LogOpen {
        log_start_offset: 100,
        clean: true,
        ..dir.open(small_segments())
    })
    .unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (100, 100));
    assert_eq!(append(&log, batch(0, &["x"])).unwrap().first_offset, 100);
}

#[test]
fn a_log_alone_keeps_its_own_marks() {
    let dir = TestDir::new();
    let path = dir.path().join("some.log");
    let open = || LogOpen::standalone(&path, small_segments(), dir.env.clone());
    let log = Log::open(open()).unwrap();
    fill(&log, 10);
    log.delete_records_before(7).unwrap();
    log.close().unwrap();
    drop(log);
    let log = Log::open(open()).unwrap();
    assert_eq!(
        log.recovery_report().recovered_segments,
        0,
        "closed in order"
    );
    assert_eq!((log.log_start_offset(), log.recovery_point()), (7, 20));
    append(&log, batch(0, &["x"])).unwrap();
    log.tick(dir.env.clock.wall_ms()).unwrap();
    drop(log);
    let log = Log::open(open()).unwrap();
    assert_eq!(log.recovery_report().recovered_segments, 1, "not closed");
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (7, 21));
}

#[test]
fn another_topics_directory_is_refused() {
    let dir = TestDir::new();
    let ids = [1, 2].map(|n| Uuid::from_bytes([n; 16]));
    let open = |id| {
        Log::open(LogOpen {
            topic_id: id,
            ..dir.open(dense())
        })
    };
    assert_eq!(open(Some(ids[0])).unwrap().topic_id(), Some(ids[0]));
    assert_eq!(open(None).unwrap().topic_id(), Some(ids[0]));
    assert!(matches!(
        open(Some(ids[1])),
        Err(LogError::InconsistentTopicId { found, .. }) if found == ids[0]
    ));
}

#[test]
fn preallocated_segments_are_trimmed() {
    let dir = TestDir::new();
    let log = dir.log(LogConfig {
        preallocate: true,
        ..small_segments()
    });
    fill(&log, 4);
    let len = |base| {
        log.dir
            .fs
            .metadata(&log.dir.file(base, FileKind::Log))
            .unwrap()
            .len
    };
    let full = u64::from(small_segments().segment_bytes);
    assert_eq!((len(0), len(6)), (full, full));
    log.close().unwrap();
    assert_eq!(len(6), full / 3);
    // After a crash the rest is zeros.
    dir.truncate(&log.dir.file(6, FileKind::Log), full);
    let log = dir.log(small_segments());
    assert_eq!(all_records(&log), filled(4));
}

#[test]
fn idle_logs_hold_no_descriptors() {
    let dir = TestDir::new();
    let log = dir.log(small_segments());
    fill(&log, 10);
    let open_files = || {
        let fds = dir
            .env
            .fs
            .read_dir(std::path::Path::new("/proc/self/fd"))
            .unwrap();
        fds.iter()
            .filter(|fd| {
                let link = std::path::Path::new("/proc/self/fd").join(&fd.name);
                let target = dir.env.fs.canonicalize(&link);
                target.is_ok_and(|target| target.starts_with(dir.path()))
            })
            .count()
    };
    assert!(open_files() > 0);
    log.tick(0).unwrap();
    log.tick(0).unwrap();
    assert_eq!(open_files(), 1, "the one with unsynced batches");
    assert!(log.durable_offset() < log.log_end_offset());
    log.tick(60_000).unwrap();
    log.tick(60_000).unwrap();
    assert_eq!(open_files(), 0, "nothing was appended for a minute");
    assert_eq!(log.durable_offset(), log.log_end_offset());
    assert_eq!(all_records(&log), filled(10));
    append(&log, batch(2000, &["x"])).unwrap();
}

/// One thread appends, rolls and deletes; others read up to a bound that moves behind it.
#[test]
fn readers_never_see_past_their_bound() {
    let dir = TestDir::new();
    let log = Arc::new(dir.log(small_segments()));
    let bound = Arc::new(Cell::new(0));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (log, bound) = (log.clone(), bound.clone());
            std::thread::spawn(move || {
                let mut next = 0;
                while next < 240 {
                    log.wait_for(next, Duration::from_secs(10));
                    let upper = bound.load(Ordering::SeqCst);
                    let read = match log.read(next, 300, upper, true) {
                        Ok(read) => read,
                        Err(LogError::OffsetOutOfRange { log_start, .. }) => {
                            next = next.max(log_start);
                            continue;
                        }
                        Err(error) => panic!("{error}"),
                    };
                    for (offset, value) in records_of(&read) {
                        assert!(offset < upper);
                        assert_eq!(value, format!("v{offset}"));
                        next = next.max(offset + 1);
                    }
                }
            })
        })
        .collect();
    for n in 0..120 {
        let (a, b) = (format!("v{}", n * 2), format!("v{}", n * 2 + 1));
        append(&log, batch(1000 + n, &[&a, &b])).unwrap();
        bound.store(n * 2 + 2, Ordering::SeqCst);
        log.set_high_watermark(n * 2 + 2);
        if n % 50 == 40 {
            log.delete_records_before(n * 2 - 60).unwrap();
            log.apply_retention(0, n * 2 + 2).unwrap();
            log.tick(0).unwrap();
        }
    }
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn a_log_that_stands_alone_is_opened_once() {
    let dir = TestDir::new();
    let open = || {
        let (path, env) = (dir.log_path(), dir.env.clone());
        Log::open(LogOpen::standalone(path, LogConfig::default(), env))
    };
    let log = open().unwrap();
    assert!(matches!(
        open().unwrap_err(),
        LogError::Io {
            operation: "lock",
            ..
        }
    ));
    // A closed one lets go, whoever still holds it.
    log.close().unwrap();
    open().unwrap();
}
