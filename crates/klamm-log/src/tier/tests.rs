use std::sync::Arc;

use klamm_env::FsExt;
use klamm_records::{BatchOptions, Uuid};

use super::*;
use crate::names::FileKind;
use crate::test_support::{TestDir, append, batch, batch_with, records_of};
use crate::{Log, LogConfig, LogError, LogOpen};

fn segment(id: u8, offsets: (i64, i64), epochs: &[(i32, i64)]) -> RemoteSegment {
    RemoteSegment {
        id: Uuid::from_bytes([id; 16]),
        start_offset: offsets.0,
        end_offset: offsets.1,
        max_timestamp_ms: 0,
        bytes: 100,
        epochs: epochs.to_vec(),
        state: RemoteSegmentState::CopyStarted,
    }
}

fn copied(state: &mut TierState, mut segment: RemoteSegment) {
    state.apply(&segment).unwrap();
    segment.state = RemoteSegmentState::CopyFinished;
    state.apply(&segment).unwrap();
}

#[test]
fn segments_live_in_one_order_only() {
    use RemoteSegmentState::{CopyFinished, CopyStarted, DeleteFinished, DeleteStarted};
    let all = [CopyStarted, CopyFinished, DeleteStarted, DeleteFinished];
    let allowed = [
        (None, CopyStarted),
        (Some(CopyStarted), CopyFinished),
        (Some(CopyStarted), DeleteStarted),
        (Some(CopyFinished), DeleteStarted),
        (Some(DeleteStarted), DeleteStarted),
        (Some(DeleteStarted), DeleteFinished),
    ];
    for from in [
        None,
        Some(CopyStarted),
        Some(CopyFinished),
        Some(DeleteStarted),
    ] {
        for to in all {
            let mut new = segment(1, (0, 9), &[(0, 0)]);
            let mut state = TierState::default();
            if let Some(from) = from {
                new.state = from;
                state = TierState::load([new.clone()]);
            }
            new.state = to;
            let result = state.apply(&new);
            assert_eq!(
                result.is_ok(),
                allowed.contains(&(from, to)),
                "{from:?} to {to:?}"
            );
        }
    }
}

#[test]
fn what_is_not_whole_is_not_read() {
    let mut state = TierState::default();
    state.apply(&segment(1, (0, 9), &[(0, 0)])).unwrap();
    assert_eq!(state.segment_for(5, 0), None);
    assert_eq!(state.highest_offset(&[(0, 0)], 100), None);
    assert_eq!(state.unfinished().len(), 1);
    copied(&mut state, segment(2, (0, 9), &[(0, 0)]));
    assert_eq!(
        state.segment_for(5, 0).unwrap().id,
        Uuid::from_bytes([2; 16])
    );
    assert_eq!(state.highest_offset(&[(0, 0)], 100), Some(9));
}

#[test]
fn leaders_that_went_apart_do_not_mix() {
    let mut state = TierState::default();
    copied(&mut state, segment(1, (0, 9), &[(0, 0)]));
    // Of a leader whose records from 15 on nobody else took over.
    copied(&mut state, segment(2, (10, 19), &[(0, 10)]));
    copied(&mut state, segment(3, (10, 29), &[(0, 10), (2, 15)]));
    copied(&mut state, segment(4, (30, 39), &[(1, 30)]));
    let history = [(0, 0), (2, 15)];
    let found = |offset, epoch| state.segment_for(offset, epoch).map(|s| s.id.as_bytes()[0]);
    assert_eq!(found(17, 2), Some(3));
    assert_eq!(found(17, 0), Some(2));
    assert_eq!(
        found(35, 2),
        None,
        "it is of an epoch that this log never had"
    );
    assert_eq!(state.highest_offset(&history, 50), Some(29));
    assert_eq!(state.highest_offset(&history, 20), Some(19));
    assert_eq!(state.highest_offset(&[(0, 0)], 50), Some(19));
    assert_eq!(state.highest_offset(&[(7, 0)], 50), None);
}

/// Three batches of two records to a segment.
fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 3 * batch(0, &["a00", "b00"]).size() as u32,
        index_interval_bytes: 0,
        remote_storage: true,
        retention_ms: -1,
        local_retention_ms: 0,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

fn open(dir: &TestDir, log_start_offset: i64) -> Arc<Log> {
    let log = Log::open(LogOpen {
        log_start_offset,
        ..dir.open(config())
    });
    let log = log.unwrap();
    log.set_high_watermark(i64::MAX);
    Arc::new(log)
}

fn fill(log: &Log, batches: std::ops::Range<i64>) {
    for n in batches {
        let (a, b) = (format!("a{n:02}"), format!("b{n:02}"));
        append(log, batch(1000 + n * 10, &[&a, &b])).unwrap();
    }
    log.set_high_watermark(i64::MAX);
}

fn remote(log: &Arc<Log>, tier: &Arc<MemoryTier>) -> RemoteLog {
    RemoteLog::open(log.clone(), tier.clone(), tier.clone()).unwrap()
}

#[test]
fn segments_go_up_leave_the_disk_and_are_read_back() {
    let dir = TestDir::new();
    let log = open(&dir, 0);
    fill(&log, 0..10);
    let tier = Arc::new(MemoryTier::default());
    let remote = remote(&log, &tier);
    assert_eq!(
        log.apply_retention(i64::MAX, 20).unwrap(),
        0,
        "nothing is there yet"
    );
    assert_eq!(log.earliest_pending_upload_offset(), Some(0));
    assert!(
        remote.upload_next(5).unwrap().is_none(),
        "not all of it is committed"
    );
    let first = remote.upload_next(6).unwrap().unwrap();
    assert_eq!((first.start_offset, first.end_offset), (0, 5));
    assert_eq!(
        (first.max_timestamp_ms, &first.epochs[..]),
        (1020, &[(0, 0)][..])
    );
    assert_eq!(
        log.apply_retention(i64::MAX, 20).unwrap(),
        1,
        "the next ones are not there"
    );
    assert_eq!(
        (log.log_start_offset(), log.local_log_start_offset()),
        (0, 6)
    );
    assert_eq!(
        (
            log.highest_tiered_offset(),
            log.earliest_pending_upload_offset()
        ),
        (5, Some(6))
    );
    while remote.upload_next(20).unwrap().is_some() {}
    assert_eq!(log.highest_tiered_offset(), 17, "the active segment stays");
    assert_eq!(log.apply_retention(i64::MAX, 20).unwrap(), 2);
    assert_eq!(log.segment_base_offsets(), [18]);
    for offset in 0..18 {
        let refused = log.read(offset, 1, i64::MAX, true).unwrap_err();
        assert!(matches!(
            refused,
            LogError::OffsetTiered {
                local_start: 18,
                ..
            }
        ));
        let read = remote.read(offset, 1).unwrap().unwrap();
        assert_eq!(
            (read.first_offset, read.next_offset),
            (offset / 2 * 2, offset / 2 * 2 + 2)
        );
        assert_eq!(read.bytes.len(), batch(0, &["a00", "b00"]).size());
        let all = remote.read(offset, usize::MAX >> 1).unwrap().unwrap();
        assert_eq!(
            all.next_offset,
            offset / 6 * 6 + 6,
            "up to the end of the segment"
        );
    }
    assert_eq!(
        records_of(&log.read(18, 1, i64::MAX, true).unwrap()).len(),
        2
    );
    let kinds = [
        IndexKind::Offset,
        IndexKind::Timestamp,
        IndexKind::Transaction,
        IndexKind::ProducerSnapshot,
        IndexKind::LeaderEpoch,
    ];
    assert!(
        kinds
            .iter()
            .all(|kind| tier.fetch_index(&first, *kind).is_ok())
    );
    let epochs = tier.fetch_index(&first, IndexKind::LeaderEpoch).unwrap();
    assert_eq!(epochs, b"0\n1\n0 0\n");
}

#[test]
fn a_copy_that_fails_is_tried_again_and_leaves_nothing() {
    for calls in 0..3 {
        let dir = TestDir::new();
        let log = open(&dir, 0);
        fill(&log, 0..10);
        let tier = Arc::new(MemoryTier::default());
        let first = remote(&log, &tier);
        tier.fail_after(calls);
        assert!(matches!(first.upload_next(20), Err(TierError::Failed(_))));
        assert_eq!(log.highest_tiered_offset(), -1);
        // Also after a restart.
        let second = remote(&log, &tier);
        for remote in [&first, &second] {
            remote.tidy().unwrap();
            assert_eq!(tier.stored(), []);
        }
        while second.upload_next(20).unwrap().is_some() {}
        assert_eq!((tier.stored().len(), log.highest_tiered_offset()), (3, 17));
    }
}

#[test]
fn damage_stays_where_it_is() {
    use klamm_env::{FileExt, OpenMode};
    let dir = TestDir::new();
    let log = open(&dir, 0);
    fill(&log, 0..10);
    let path = log.dir().join("00000000000000000000.log");
    let file = dir.env.fs.open(&path, OpenMode::Write).unwrap();
    file.write_all_at(b"!", 70).unwrap();
    let tier = Arc::new(MemoryTier::default());
    let remote = remote(&log, &tier);
    let refused = remote.upload_next(20).unwrap_err();
    assert!(matches!(
        refused,
        TierError::Log(LogError::Corrupt { position: 0, .. })
    ));
    assert_eq!(log.apply_retention(i64::MAX, 20).unwrap(), 0);
    assert_eq!(tier.stored(), []);
}

#[test]
fn total_retention_moves_the_start_and_removes_remote_segments() {
    let dir = TestDir::new();
    let log = open(&dir, 0);
    fill(&log, 0..10);
    let tier = Arc::new(MemoryTier::default());
    let remote_log = remote(&log, &tier);
    while remote_log.upload_next(20).unwrap().is_some() {}
    log.apply_retention(i64::MAX, 20).unwrap();
    log.update_config(LogConfig {
        retention_ms: 100,
        ..config()
    });
    // The first segment's last record is of 1020, the second's of 1050.
    assert_eq!(remote_log.apply_retention(1120, 20).unwrap(), 0);
    assert_eq!(remote_log.apply_retention(1121, 20).unwrap(), 1);
    assert_eq!(
        (log.log_start_offset(), log.local_log_start_offset()),
        (6, 18)
    );
    assert!(matches!(
        log.read(5, 1, i64::MAX, true),
        Err(LogError::OffsetOutOfRange { .. })
    ));
    assert_eq!(tier.stored().len(), 2);
    let size = batch(0, &["a00", "b00"]).size() as i64;
    log.update_config(LogConfig {
        retention_bytes: size * 4,
        ..config()
    });
    assert_eq!(remote_log.apply_retention(0, 20).unwrap(), 1);
    assert_eq!((log.log_start_offset(), tier.stored().len()), (12, 1));
    // What is deleted for users goes, too.
    log.delete_records_before(19).unwrap();
    assert_eq!(remote_log.apply_retention(0, 20).unwrap(), 1);
    assert_eq!(tier.stored(), []);
    assert_eq!(log.local_log_start_offset(), 19);
    // A start that was not noted before the end of the process comes back from what there is.
    drop((remote_log, log));
    let log = open(&dir, 0);
    assert_eq!(log.log_start_offset(), 0);
    remote(&log, &tier);
    assert_eq!(log.log_start_offset(), 18);
}

#[test]
fn a_tier_that_gives_back_something_else_is_found_out() {
    #[derive(Debug)]
    struct Rotten(Arc<MemoryTier>);
    impl RemoteStorage for Rotten {
        fn copy_segment(
            &self,
            segment: &RemoteSegment,
            data: &SegmentData,
        ) -> Result<(), TierError> {
            self.0.copy_segment(segment, data)
        }
        fn fetch_segment(
            &self,
            s: &RemoteSegment,
            from: u64,
            to: u64,
        ) -> Result<Vec<u8>, TierError> {
            let mut bytes = self.0.fetch_segment(s, from, to)?;
            bytes[70] ^= 1;
            Ok(bytes)
        }
        fn fetch_index(&self, s: &RemoteSegment, kind: IndexKind) -> Result<Vec<u8>, TierError> {
            self.0.fetch_index(s, kind)
        }
        fn delete_segment(&self, segment: &RemoteSegment) -> Result<(), TierError> {
            self.0.delete_segment(segment)
        }
    }
    let dir = TestDir::new();
    let log = open(&dir, 0);
    fill(&log, 0..10);
    let tier = Arc::new(MemoryTier::default());
    let rotten = Arc::new(Rotten(tier.clone()));
    let remote = RemoteLog::open(log, rotten, tier).unwrap();
    remote.upload_next(20).unwrap().unwrap();
    let found = remote.read(2, 1).unwrap_err();
    assert!(matches!(found, TierError::Damaged { .. }), "{found}");
}

#[test]
fn a_snapshot_of_producers_that_a_crash_tore_is_made_again() {
    let dir = TestDir::new();
    let log = open(&dir, 0);
    // Each segment another producer, and at last each of them again.
    for n in (0..4).chain(0..4) {
        let options = BatchOptions {
            producer_id: 70 + n,
            producer_epoch: 0,
            base_sequence: if log.log_end_offset() < 4 { 0 } else { 1 },
            ..BatchOptions::default()
        };
        append(&log, batch_with(options, 1000, &["value"])).unwrap();
        log.roll().unwrap();
    }
    log.set_high_watermark(8);
    let path = |offset| {
        log.dir()
            .join(crate::names::file_name(offset, FileKind::Snapshot))
    };
    let whole: Vec<Vec<u8>> = (1..8)
        .map(|offset| dir.env.fs.read(&path(offset)).unwrap())
        .collect();
    // The first, two in a row, one that is gone.
    for torn in [1, 3, 4] {
        dir.truncate(&path(torn), 0);
    }
    dir.env.fs.remove_file(&path(6)).unwrap();
    let tier = Arc::new(MemoryTier::default());
    let remote = remote(&log, &tier);
    for whole in &whole {
        let segment = remote.upload_next(8).unwrap().unwrap();
        let uploaded = tier
            .fetch_index(&segment, IndexKind::ProducerSnapshot)
            .unwrap();
        assert_eq!(&uploaded, whole, "segment {}", segment.start_offset);
        assert_eq!(
            dir.env.fs.read(&path(segment.end_offset + 1)).unwrap(),
            *whole
        );
    }
}
