//! Damage in what had been on disk: what is told of it, and that everything else stays readable.

use super::*;
use crate::error::BatchFault;
use crate::names::FileKind;
use crate::test_support::{TestDir, append, batch, bytes_of};
use klamm_env::{FileExt, FsExt, OpenMode};
use klamm_records::{BatchView, batches};

const BATCHES: i64 = 10;

/// Three batches of two records to a segment.
fn config(index_interval_bytes: u32) -> LogConfig {
    LogConfig {
        segment_bytes: 3 * size() as u32,
        index_interval_bytes,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

fn size() -> u64 {
    batch(0, &["a00", "b00"]).size() as u64
}

/// A log of batches at 0, 2, .. 18 in segments that begin at 0, 6, 12 and 18, its files whole.
fn written(config: &LogConfig) -> TestDir {
    let dir = TestDir::new();
    let log = dir.log(config.clone());
    for n in 0..BATCHES {
        let (a, b) = (format!("a{n:02}"), format!("b{n:02}"));
        append(&log, batch(1000 + n * 10, &[&a, &b])).unwrap();
    }
    assert_eq!(log.segment_base_offsets(), [0, 6, 12, 18]);
    log.close().unwrap();
    dir
}

fn flip(dir: &TestDir, base: i64, kind: FileKind, position: u64, mask: u8) {
    let path = dir.log_path().join(crate::names::file_name(base, kind));
    let file = dir.env.fs.open(&path, OpenMode::Write).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ mask], position).unwrap();
}

fn open(dir: &TestDir, config: &LogConfig, recovery_point: i64, clean: bool) -> Log {
    let log = Log::open(LogOpen {
        recovery_point,
        clean,
        ..dir.open(config.clone())
    })
    .unwrap();
    log.set_high_watermark(i64::MAX);
    log
}

/// The batch that a read at an offset gives first.
fn first_batch(log: &Log, offset: i64) -> Result<Vec<u8>, LogError> {
    log.read(offset, 1, i64::MAX, true)
        .map(|read| bytes_of(&read))
}

/// Whether a consumer that asked for `offset` sees that this is no good.
fn is_seen_through(bytes: &[u8], offset: i64) -> bool {
    match BatchView::parse(bytes) {
        Ok(view) => {
            let header = view.header();
            view.verify_crc().is_err()
                || header.base_offset != offset
                || header.size() != bytes.len()
        }
        Err(_) => true,
    }
}

#[test]
fn damage_is_an_error_with_file_position_and_offset_and_the_rest_is_served() {
    let config = config(0);
    let dir = written(&config);
    // The magic of the batch at 8.
    flip(&dir, 6, FileKind::Log, size() + 16, 0x40);
    let log = open(&dir, &config, 20, false);
    assert_eq!(log.recovery_report().damage, [], "nobody looked there");
    for offset in [8, 9] {
        let error = first_batch(&log, offset).unwrap_err();
        let LogError::Corrupt {
            file,
            position,
            offset,
            reason,
        } = &error
        else {
            panic!("{error}");
        };
        assert_eq!(*file, log.dir.file(6, FileKind::Log));
        assert_eq!((*position, *offset), (size(), 8));
        assert_eq!(*reason, BatchFault::Magic(0x42));
        assert!(error.is_damage() && !error.is_storage_failure());
    }
    assert!(!log.is_offline());
    for offset in (0..20).filter(|offset| !(8..10).contains(offset)) {
        let read = log.read(offset, 1, i64::MAX, true).unwrap();
        assert_eq!(read.first_offset, offset / 2 * 2);
    }
    assert_eq!(log.log_end_offset(), 20);
    // Nor does it hold up what else is done with a log.
    assert_eq!(
        append(&log, batch(2000, &["new"])).unwrap().first_offset,
        20
    );
    log.flush(i64::MAX).unwrap();
    log.tick(0).unwrap();
    log.apply_retention(0, 21).unwrap();
    assert!(log.truncate_to(9).unwrap());
    assert_eq!(log.log_end_offset(), 8, "there is nothing to keep of it");
    assert_eq!(append(&log, batch(2000, &["new"])).unwrap().first_offset, 8);
    assert_eq!(
        first_batch(&log, 8).unwrap().len(),
        batch(0, &["new"]).size()
    );
}

#[test]
fn recovery_cuts_nothing_below_the_recovery_point() {
    let config = config(0);
    for (position, fault) in [
        (16, BatchFault::Magic(3)),
        (65, BatchFault::Checksum),
        (11, BatchFault::Checksum),
        (7, BatchFault::Offset(0)),
    ] {
        let dir = written(&config);
        flip(&dir, 6, FileKind::Log, size() + position, 1);
        // In the middle of the segment, as a flush leaves it.
        let log = open(&dir, &config, 10, false);
        let report = log.recovery_report();
        assert_eq!(report.truncation, None);
        let [damage] = &report.damage[..] else {
            panic!("{:?}", report.damage);
        };
        assert_eq!(damage.file, log.dir.file(6, FileKind::Log));
        assert_eq!((damage.position, damage.bytes), (size(), size()));
        assert_eq!((damage.first_offset, damage.next_offset), (8, 10));
        if !matches!(fault, BatchFault::Offset(_)) {
            assert_eq!(damage.fault, fault);
        }
        assert_eq!(log.log_end_offset(), 20);
        for offset in (0..20).filter(|offset| !(8..10).contains(offset)) {
            let read = log.read(offset, 1, i64::MAX, true).unwrap();
            assert_eq!(read.first_offset, offset / 2 * 2, "byte {position}");
        }
        // What a crash can have left is cut as ever.
        let log = open(&dir, &config, 8, false);
        assert_eq!(
            (log.log_end_offset(), log.recovery_report().damage.len()),
            (8, 0)
        );
    }
}

#[test]
fn offsets_of_a_damaged_end_are_not_given_to_others() {
    let config = config(0);
    for clean in [false, true] {
        for (recovery_point, base, position) in [(20, 18, 16), (20, 18, 70)] {
            let dir = written(&config);
            flip(&dir, base, FileKind::Log, position, 1);
            let log = open(&dir, &config, recovery_point, clean);
            // After a crash the recovery point may lie within the last batch that was synced.
            let end = if clean { 20 } else { 21 };
            assert_eq!(log.log_end_offset(), end, "byte {position}");
            assert_eq!(log.recovery_report().truncation, None);
            assert_eq!(log.recovery_report().damage[0].next_offset, end);
            assert!(first_batch(&log, 18).map_or(true, |bytes| is_seen_through(&bytes, 18)));
            assert_eq!(first_batch(&log, 16).unwrap().len() as u64, size());
            let new = append(&log, batch(2000, &["new"])).unwrap();
            assert_eq!(new.first_offset, end);
            drop(log);
            for _ in 0..2 {
                let log = open(&dir, &config, recovery_point, false);
                assert_eq!(log.log_end_offset(), end + 1);
                assert!(!is_seen_through(&first_batch(&log, end).unwrap(), end));
            }
        }
    }
}

#[test]
fn a_damaged_end_of_a_segment_with_others_behind_it_stays_and_is_told() {
    let config = config(0);
    let dir = written(&config);
    flip(&dir, 6, FileKind::Log, size() * 2 + 16, 4);
    flip(&dir, 6, FileKind::Index, 7, 0);
    // Its index is gone, so that it is looked at.
    let index = crate::names::file_name(6, FileKind::Index);
    dir.env.fs.remove_file(&dir.log_path().join(index)).unwrap();
    let log = open(&dir, &config, 20, true);
    let damage = &log.recovery_report().damage[0];
    assert_eq!((damage.position, damage.first_offset), (size() * 2, 10));
    assert_eq!(log.log_end_offset(), 20);
    assert_eq!(log.segment_base_offsets(), [0, 6, 12, 18]);
    assert!(matches!(
        first_batch(&log, 10),
        Err(LogError::Corrupt { offset: 10, .. })
    ));
    assert_eq!(log.read(12, 1, i64::MAX, true).unwrap().first_offset, 12);
}

/// Flips every bit of a batch's header, and some of its body.
#[test]
fn whatever_bit_flips_all_other_batches_are_as_they_were() {
    for index_interval_bytes in [0, 4096] {
        let config = config(index_interval_bytes);
        let dir = written(&config);
        let log = open(&dir, &config, 20, true);
        let whole: Vec<Vec<u8>> = (0..BATCHES)
            .map(|n| first_batch(&log, n * 2).unwrap())
            .collect();
        drop(log);
        for damaged in [3, 4, 5] {
            // Every bit of one, a few of each byte of the others.
            let thin = index_interval_bytes > 0 || damaged != 4;
            for bit in (0..62 * 8).filter(|bit| !thin || bit % 8 == bit / 8 % 8) {
                let position = (damaged - 3) * size() + bit / 8;
                let mask = 1 << (bit % 8);
                flip(&dir, 6, FileKind::Log, position, mask);
                let log = open(&dir, &config, 20, true);
                for (n, bytes) in whole.iter().enumerate() {
                    let offset = n as i64 * 2;
                    let found = first_batch(&log, offset);
                    let at = format!("bit {bit} of {damaged}, read at {offset}");
                    if n as u64 != damaged {
                        assert_eq!(&found.expect(&at), bytes, "{at}");
                    } else if let Ok(found) = found {
                        // The epoch alone is covered by nothing.
                        let epoch = (12..16).contains(&(bit / 8));
                        assert!(epoch || is_seen_through(&found, offset), "{at}");
                    }
                }
                assert_eq!(log.log_end_offset(), 20);
                drop(log);
                flip(&dir, 6, FileKind::Log, position, mask);
            }
        }
    }
}

#[test]
fn whatever_bit_of_an_index_flips_nothing_is_missed() {
    let config = config(0);
    for kind in [FileKind::Index, FileKind::TimeIndex] {
        let dir = written(&config);
        let path = dir.log_path().join(crate::names::file_name(6, kind));
        let before = dir.env.fs.read(&path).unwrap();
        assert!(before.len() >= 16);
        for bit in 0..before.len() as u64 * 8 {
            flip(&dir, 6, kind, bit / 8, 1 << (bit % 8));
            let log = open(&dir, &config, 20, true);
            for n in 0..BATCHES {
                let found = log.offset_for_timestamp(1000 + n * 10).unwrap().unwrap();
                assert_eq!(found.offset, n * 2, "{kind:?} bit {bit}");
                let read = log.read(n * 2 + 1, 1, i64::MAX, true).unwrap();
                assert_eq!(read.first_offset, n * 2, "{kind:?} bit {bit}");
            }
            let read = log.read(6, size() as usize, i64::MAX, true).unwrap();
            assert!(
                log.upper_bound_offset(&read).unwrap() > 7,
                "{kind:?} bit {bit}"
            );
            drop(log);
            let file = dir.env.fs.open(&path, OpenMode::Truncate).unwrap();
            file.write_all_at(&before, 0).unwrap();
        }
    }
}

#[test]
fn a_damaged_time_index_deletes_nothing() {
    let config = config(0);
    let dir = written(&config);
    let path = dir
        .log_path()
        .join(crate::names::file_name(0, FileKind::TimeIndex));
    let len = dir.env.fs.metadata(&path).unwrap().len;
    // The largest timestamp of the first segment, far too small.
    flip(&dir, 0, FileKind::TimeIndex, len - 12 + 6, 2);
    let log = open(
        &dir,
        &LogConfig {
            retention_ms: 500,
            ..config
        },
        20,
        true,
    );
    assert_eq!(log.apply_retention(1400, 20).unwrap(), 0);
    assert_eq!(log.apply_retention(1521, 20).unwrap(), 1, "1020 is over");
}

#[test]
fn damage_of_a_length_does_not_hide_what_follows() {
    let config = LogConfig {
        index_interval_bytes: 1 << 20,
        ..config(0)
    };
    let dir = written(&config);
    // As long as two batches: the walk over headers would step over the second.
    let stated = size() - 12;
    let wrong = (size() * 2 - 12) as u8;
    flip(&dir, 6, FileKind::Log, 11, stated as u8 ^ wrong);
    let log = open(&dir, &config, 20, true);
    for offset in [8, 10, 12] {
        assert_eq!(first_batch(&log, offset).unwrap().len() as u64, size());
    }
    assert!(first_batch(&log, 6).map_or(true, |bytes| is_seen_through(&bytes, 6)));
    let all = log.read(8, usize::MAX, i64::MAX, true).unwrap();
    assert_eq!(batches(&bytes_of(&all)).count(), 6);
}

#[test]
fn a_record_whose_base_offset_is_damaged_is_not_found_elsewhere() {
    for index_interval_bytes in [0, 1 << 20] {
        let config = LogConfig {
            index_interval_bytes,
            retention_ms: -1,
            ..LogConfig::default()
        };
        for position in [7, 6] {
            for bit in 0..8 {
                let dir = TestDir::new();
                let log = dir.log(config.clone());
                append(&log, batch(1400, &["a"])).unwrap();
                append(&log, batch(1300, &["b", "c", "d", "e"])).unwrap();
                append(&log, batch(1500, &["f"])).unwrap();
                log.close().unwrap();
                flip(&dir, 0, FileKind::Log, position, 1 << bit);
                let log = open(&dir, &config, 6, true);
                for time in [1300, 1400] {
                    match log.offset_for_timestamp(time) {
                        Err(LogError::Corrupt { .. }) => {}
                        found => {
                            let found = found.unwrap().map(|found| found.offset);
                            let right = if time == 1300 { Some(1) } else { Some(5) };
                            assert_eq!(found, right, "bit {bit} of {position}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_torn_end_without_a_base_offset_does_not_take_the_place_of_damage_at_the_begin() {
    let config = LogConfig {
        segment_bytes: 1 << 20,
        ..config(0)
    };
    let dir = TestDir::new();
    let log = dir.log(config.clone());
    for text in ["a", "b", "c", "d"] {
        append(&log, batch(1000, &[text])).unwrap();
    }
    log.close().unwrap();
    let size = batch(0, &["a"]).size() as u64;
    for damaged in [0, 1] {
        flip(&dir, 0, FileKind::Log, damaged * size + 65, 1);
    }
    // Of the last batch, which was not on disk yet, a power cut kept all but the first bytes.
    flip(&dir, 0, FileKind::Log, 3 * size + 7, 3);
    let log = open(&dir, &config, 3, false);
    assert_eq!(log.log_end_offset(), 3);
    let told: Vec<_> = log
        .recovery_report()
        .damage
        .iter()
        .map(|it| (it.first_offset, it.next_offset))
        .collect();
    assert_eq!(told, [(0, 2)]);
    let kept = first_batch(&log, 2).unwrap();
    assert_eq!(BatchView::parse(&kept).unwrap().header().base_offset, 2);
}
