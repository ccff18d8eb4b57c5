use std::io::IoSlice;

use super::scan::{HEADERS, Verified};
use super::*;
use crate::error::BatchFault;
use crate::test_support::{TestDir, batch, batch_with};
use klamm_env::{FileExt, OpenMode};
use klamm_records::BatchOptions;

/// A file with batches whose bodies have these sizes.
fn file_of(dir: &TestDir, sizes: &[usize]) -> (Arc<dyn File>, PathBuf, u64) {
    let mut bytes = Vec::new();
    for (n, &size) in sizes.iter().enumerate() {
        let options = BatchOptions {
            base_offset: n as i64,
            ..BatchOptions::default()
        };
        bytes.extend_from_slice(&batch_with(options, 0, &[&"x".repeat(size)]).to_bytes());
    }
    let path = dir.path().join("batches");
    let file = dir.env.fs.open(&path, OpenMode::Truncate).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    (file, path, bytes.len() as u64)
}

#[test]
fn scans_see_every_batch_whatever_the_buffer() {
    let dir = TestDir::new();
    let sizes = [1, 500, 3, 70, 2000, 1, 1, 300];
    let (file, path, len) = file_of(&dir, &sizes);
    for buffer_len in [61, 64, 100, 700, 4096] {
        let mut headers = BatchScan::new(file.clone(), path.clone(), (0, len), 0, buffer_len);
        let mut whole = BatchScan::new(file.clone(), path.clone(), (0, len), 0, buffer_len);
        let mut position = 0;
        for n in 0..sizes.len() {
            let span = headers.next_header().unwrap().unwrap();
            assert_eq!((span.position, span.meta.base_offset), (position, n as i64));
            let Verified::Batch(verified, bytes) = whole.next_verified().unwrap() else {
                panic!("batch {n} is whole");
            };
            assert_eq!((verified, bytes.len()), (span, span.meta.size));
            position = span.end();
        }
        assert!(headers.next_header().unwrap().is_none());
        assert!(matches!(whole.next_verified().unwrap(), Verified::End));
    }
}

#[test]
fn scans_tell_what_is_damaged_and_where() {
    let dir = TestDir::new();
    let (file, path, len) = file_of(&dir, &[10, 10, 10]);
    let second = len / 3;
    file.write_all_at(b"!", second + 65).unwrap();
    let mut scan = BatchScan::new(file.clone(), path.clone(), (0, len), 0, HEADERS);
    assert!(matches!(scan.next_verified().unwrap(), Verified::Batch(..)));
    assert!(matches!(
        scan.next_verified().unwrap(),
        Verified::Damaged(BatchFault::Checksum)
    ));
    // A magic that does not exist.
    file.write_all_at(&[9], second + 16).unwrap();
    let mut scan = BatchScan::new(file.clone(), path.clone(), (0, len), 0, HEADERS);
    scan.next_header().unwrap();
    let error = scan.next_header().unwrap_err();
    assert!(matches!(
        error,
        LogError::Corrupt { position, reason: BatchFault::Magic(9), .. } if position == second
    ));
    // The end of the part to be scanned cuts a batch.
    let mut scan = BatchScan::new(file.clone(), path.clone(), (0, second - 1), 0, HEADERS);
    assert!(matches!(
        scan.next_verified().unwrap(),
        Verified::Damaged(BatchFault::Truncated)
    ));
    // The file is shorter than it is said to be.
    file.set_len(second + 20).unwrap();
    let mut scan = BatchScan::new(file, path, (second, len), 0, HEADERS);
    assert!(matches!(scan.next_header(), Err(LogError::Io { .. })));
}

fn segment(dir: &TestDir, base_offset: i64, config: &LogConfig) -> Segment {
    Segment::create(&dir.log_dir(), base_offset, config, &dir.env).unwrap()
}

fn append(segment: &Segment, base_offset: i64, timestamp: i64) {
    let mut batch = batch(timestamp, &["value"]);
    batch.assign(base_offset, 0, None);
    let meta = crate::batch::BatchMeta::parse(batch.header_bytes()).unwrap();
    let mut slices = [
        IoSlice::new(batch.header_bytes()),
        IoSlice::new(batch.body()),
    ];
    segment
        .append(&mut slices, &[meta], meta.size as u64)
        .unwrap();
}

#[test]
fn offsets_translate_to_the_batch_that_reaches_them() {
    let dir = TestDir::new();
    let segment = segment(&dir, 40, &LogConfig::default());
    // With gaps, as compaction leaves them.
    let offsets = [40, 43, 44, 50];
    for offset in offsets {
        append(&segment, offset, 0);
    }
    for remembered in [true, false] {
        if !remembered {
            segment.forget_recent();
        }
        for offset in 40..=50 {
            let found = segment.translate(offset).unwrap().unwrap();
            let expected = offsets.into_iter().find(|&o| o >= offset).unwrap();
            assert_eq!(found.meta.base_offset, expected, "{offset} {remembered}");
        }
        assert_eq!(segment.translate(51).unwrap(), None);
        assert_eq!(segment.read_next_offset().unwrap(), 51);
    }
}

#[test]
fn the_largest_timestamp_survives_truncation_and_reload() {
    let dir = TestDir::new();
    let config = LogConfig {
        index_interval_bytes: 100,
        ..LogConfig::default()
    };
    let segment = segment(&dir, 0, &config);
    for (offset, timestamp) in [(0, 10), (1, 30), (2, 20), (3, 40), (4, 35)] {
        append(&segment, offset, timestamp);
    }
    let max = |segment: &Segment| {
        let max = segment.max_timestamp().unwrap();
        (max.timestamp, max.offset)
    };
    assert_eq!(max(&segment), (40, 3));
    segment.truncate_to(3, 0).unwrap();
    assert_eq!(max(&segment), (30, 1));
    segment.seal().unwrap();
    let size = segment.size();
    let reopened = Segment::unloaded(&dir.log_dir(), 0, size, false, &config, &dir.env);
    assert_eq!(max(&reopened), (30, 1));
    segment.truncate_to(0, 0).unwrap();
    assert_eq!((max(&segment), segment.size()), ((-1, 0), 0));
}

/// A time index that is hit while its segment is the active one must not keep entries out that are
/// right, or lookups would pass over records for good.
#[test]
fn a_damaged_time_index_is_not_built_upon() {
    let dir = TestDir::new();
    let config = LogConfig::default();
    let first = segment(&dir, 0, &config);
    append(&first, 0, 10);
    first.seal().unwrap();
    let path = dir.log_dir().file(0, FileKind::TimeIndex);
    for top_byte in [0x40, 0x80] {
        let file = dir.env.fs.open(&path, OpenMode::Write).unwrap();
        file.write_all_at(&[top_byte], 0).unwrap();
        let reopened = Segment::unloaded(&dir.log_dir(), 0, first.size(), false, &config, &dir.env);
        append(&reopened, 1, 5);
        reopened.seal().unwrap();
        let max = reopened.max_timestamp().unwrap();
        assert_eq!((max.timestamp, max.offset), (10, 0));
        append(&reopened, 2, 20);
        reopened.seal().unwrap();
        let again = Segment::unloaded(&dir.log_dir(), 0, reopened.size(), false, &config, &dir.env);
        let max = again.max_timestamp().unwrap();
        assert_eq!((max.timestamp, max.offset), (20, 2));
        dir.truncate(&path, 12);
        dir.truncate(&dir.log_dir().file(0, FileKind::Log), first.size());
    }
}

/// The checksum does not cover a batch's offset, and behind one that is damaged there another one is
/// damaged, too, so that nothing contradicts it.
#[test]
fn a_batch_of_an_impossible_offset_hides_none_behind_it() {
    let dir = TestDir::new();
    let config = LogConfig {
        index_interval_bytes: 1,
        ..LogConfig::default()
    };
    let first = segment(&dir, 0, &config);
    for (offset, timestamp) in [(0, 10), (1, 20), (2, 30)] {
        append(&first, offset, timestamp);
    }
    first.seal().unwrap();
    let path = dir.log_dir().file(0, FileKind::Log);
    let file = dir.env.fs.open(&path, OpenMode::Write).unwrap();
    let last = 2 * first.size() / 3;
    file.write_all_at(&[8], last + 2).unwrap();
    dir.truncate(&dir.log_dir().file(0, FileKind::TimeIndex), 0);
    let open = || Segment::unloaded(&dir.log_dir(), 0, first.size(), false, &config, &dir.env);
    let max = |segment: &Segment| {
        let max = segment.checked_max_timestamp().unwrap();
        (max.timestamp, max.offset)
    };
    let rebuilt = open();
    rebuilt.rebuild_indexes(&mut lock(&rebuilt.state)).unwrap();
    assert_eq!([max(&rebuilt), max(&open())], [(20, 1); 2]);
}

#[test]
fn rolls_before_offsets_outgrow_the_index() {
    let dir = TestDir::new();
    let segment = segment(&dir, 10, &LogConfig::default());
    let roll = |last_offset, append_bytes| {
        segment
            .should_roll(&RollCheck {
                segment_bytes_max: 1000,
                segment_ms: i64::MAX,
                append_bytes,
                max_timestamp: 0,
                last_offset,
                now_ms: 0,
            })
            .unwrap()
    };
    assert!(!roll(10 + i64::from(i32::MAX), 1));
    assert!(roll(11 + i64::from(i32::MAX), 1));
    assert!(roll(9, 1));
    assert!(!roll(10, 1000));
    assert!(roll(10, 1001));
}

#[test]
fn segments_without_timestamps_age_by_the_clock() {
    let dir = TestDir::new();
    let segment = segment(&dir, 0, &LogConfig::default());
    let created_ms = dir.env.clock.wall_ms();
    let roll = |now_ms| {
        let check = RollCheck {
            segment_bytes_max: 1000,
            segment_ms: 100,
            append_bytes: 1,
            max_timestamp: -1,
            last_offset: 1,
            now_ms,
        };
        segment.should_roll(&check).unwrap()
    };
    assert!(!roll(created_ms + 1000), "empty");
    append(&segment, 0, -1);
    assert!(!roll(created_ms + 100));
    assert!(roll(created_ms + 101));
}

/// A byte of a file on the disk, changed.
fn flip(dir: &TestDir, path: &std::path::Path, position: u64, mask: u8) {
    let file = dir.env.fs.open(path, OpenMode::Write).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ mask], position).unwrap();
}

#[test]
fn a_time_index_that_reads_wrong_is_made_anew_as_its_segment_is_closed() {
    for (position, mask) in [(2, 1), (5, 0x80), (9, 1)] {
        let dir = TestDir::new();
        let segment = segment(&dir, 40, &LogConfig::default());
        append(&segment, 40, 1000);
        segment.seal().unwrap();
        append(&segment, 41, 1010);
        lock(&segment.state)
            .times
            .as_mut()
            .unwrap()
            .write_tail()
            .unwrap();
        // Read again after a while, with a bit that is not as it was written.
        let path = dir
            .path()
            .join(crate::names::file_name(40, FileKind::TimeIndex));
        flip(&dir, &path, position, mask);
        lock(&segment.state).times = None;
        segment.seal().unwrap();
        let mut state = lock(&segment.state);
        let last = segment.times_in(&mut state).unwrap().last_entry();
        assert_eq!((last.timestamp, last.offset), (1010, 41), "byte {position}");
    }
}

#[test]
fn entries_of_a_batch_whose_offset_is_damaged_keep_no_others_out() {
    for newer in [true, false] {
        let dir = TestDir::new();
        let config = LogConfig {
            index_interval_bytes: 0,
            ..LogConfig::default()
        };
        let segment = segment(&dir, 40, &config);
        for n in 0..3 {
            append(&segment, 40 + n, 1000 + n);
        }
        let last = segment.size() / 3 * 2;
        flip(&dir, &segment.path(), last + 6, 1);
        // No checksum covers it, and as long as nothing stands behind it, it may follow a gap.
        segment.rebuild_indexes(&mut lock(&segment.state)).unwrap();
        let mut state = lock(&segment.state);
        assert_eq!(
            segment.offsets_in(&mut state).unwrap().last_offset(),
            42 + 256
        );
        drop(state);
        for n in 3..5 {
            append(&segment, 40 + n, if newer { 1000 + n } else { 900 });
        }
        let mut state = lock(&segment.state);
        assert_eq!(segment.offsets_in(&mut state).unwrap().last_offset(), 44);
        let max = segment.max_timestamp_in(&mut state).unwrap();
        let wanted = if newer { (1004, 44) } else { (1002, 42) };
        assert_eq!((max.timestamp, max.offset), wanted);
        let noted = segment.times_in(&mut state).unwrap().last_entry();
        assert_eq!((noted.timestamp, noted.offset), wanted);
    }
}

#[test]
fn an_empty_segment_has_no_largest_timestamp_whatever_its_index_says() {
    let dir = TestDir::new();
    let config = LogConfig::default();
    let other = segment(&dir, 40, &config);
    append(&other, 40, 1000);
    other.seal().unwrap();
    drop(other);
    dir.truncate(
        &dir.path().join(crate::names::file_name(40, FileKind::Log)),
        0,
    );
    let segment = Segment::unloaded(&dir.log_dir(), 40, 0, false, &config, &dir.env);
    assert_eq!(segment.checked_max_timestamp().unwrap().timestamp, -1);
}
