//! The property is violated by what it must not allow.

use std::path::Path;
use std::sync::Arc;

use klamm_env::{Env, FileExt as _, Fs as _, OpenMode};
use klamm_log::tier::{
    DirectoryTier, IndexKind, MemoryTier, RemoteLog, RemoteMetadata as _, RemoteSegment,
    RemoteSegmentState, RemoteStorage as _, SegmentData,
};
use klamm_log::{AppendOrigin, Log, LogConfig, LogOpen, LogSlice};
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch, Uuid};

use super::whole::{self, Written};
use super::*;
use crate::{Errno, Faults, SimFs, SimRng};

#[test]
fn what_is_gone_or_changed_is_seen() {
    let run = Run::new(1);
    let fs = SimFs::new(SimRng::new(1), run.clock.clone(), run.trace.clone());
    let env = Env {
        clock: Arc::new(run.clock),
        rng: Arc::new(SimRng::new(2)),
        fs: Arc::new(fs),
    };
    let config = LogConfig {
        remote_storage: true,
        local_retention_ms: 0,
        ..LogConfig::default()
    };
    let log = Arc::new(Log::open(LogOpen::standalone("/log", config, env)).unwrap());
    let mut batches = Vec::new();
    for value in [&b"a"[..], b"b", b"c"] {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(1, None, Some(value), []).unwrap();
        let mut batch = [PreparedBatch::trusted(builder.build().unwrap()).unwrap()];
        let info = log
            .append_as_leader(&mut batch, 0, 1, AppendOrigin::Client)
            .unwrap();
        batches.push(Written {
            base: info.first_offset,
            next: info.last_offset + 1,
            bytes: batch[0].to_bytes().to_vec(),
            timestamps: vec![1],
        });
        log.roll().unwrap();
    }
    log.set_high_watermark(3);
    let tier = Arc::new(MemoryTier::default());
    let remote = RemoteLog::open(log.clone(), tier.clone(), tier.clone()).unwrap();
    let first = remote.upload_next(3).unwrap().unwrap();
    log.apply_retention(i64::MAX, 3).unwrap();
    assert_eq!(log.local_log_start_offset(), 1);
    assert_eq!(whole::check(&log, &remote, &batches, 0), Ok(()));
    let rng = SimRng::new(3);
    assert_eq!(whole::check_times(&log, &remote, &batches, &rng), Ok(()));
    let mut other = batches.clone();
    other[0].timestamps[0] = 0;
    assert!((0..9).any(|_| whole::check_times(&log, &remote, &other, &rng).is_err()));
    let mut other = batches.clone();
    other[0].bytes[65] ^= 1;
    assert!(whole::check(&log, &remote, &other, 0).is_err());
    let mut other = batches.clone();
    other[2].bytes[65] ^= 1;
    assert!(whole::check(&log, &remote, &other, 0).is_err());
    assert!(whole::check(&log, &remote, &batches[..2], 0).is_err());
    assert!(whole::check(&log, &remote, &batches[1..], 0).is_err());
    tier.delete_segment(&first).unwrap();
    assert!(whole::check(&log, &remote, &batches, 0).is_err());
}

/// A deletion that failed is tried again, and the power goes as the segment is forgotten: data of
/// which nobody knows must not be back after that.
#[test]
fn a_segment_that_is_forgotten_leaves_nothing_behind() {
    for seed in 0..8 {
        for calls in 0..12 {
            let run = Run::new(seed);
            let fs = run.disk("share", "/share").unwrap();
            let tier = DirectoryTier::open(Arc::new(fs.clone()), "/share/t-0").unwrap();
            let mut segment = whole_segment(&tier, &fs);
            segment.state = RemoteSegmentState::DeleteStarted;
            tier.put(&segment).unwrap();
            fs.fail_after(calls, Errno::Io);
            // It may have come through.
            let _ = tier.delete_segment(&segment);
            fs.set_faults(Faults::default());
            tier.delete_segment(&segment).unwrap();
            segment.state = RemoteSegmentState::DeleteFinished;
            fs.power_off_after(1);
            tier.put(&segment).unwrap_err();
            fs.crash();
            let names = fs.read_dir(Path::new("/share/t-0")).unwrap();
            let known = names.iter().any(|entry| entry.name.ends_with(".segment"));
            assert!(known || names.is_empty(), "{seed} {calls}: {names:?}");
        }
    }
}

/// Facts that were replaced and not synced are there for whoever comes next, and gone without power:
/// segments leave the local disk by them.
#[test]
fn what_is_listed_is_not_taken_back() {
    let mut listed = [0, 0];
    for seed in 0..8 {
        for calls in 0..8 {
            let run = Run::new(seed);
            let fs = run.disk("share", "/share").unwrap();
            let tier = DirectoryTier::open(Arc::new(fs.clone()), "/share/t-0").unwrap();
            let mut segment = begun_segment(&tier, &fs);
            segment.state = RemoteSegmentState::CopyFinished;
            fs.fail_after(calls, Errno::Io);
            // It may have come through.
            let _ = tier.put(&segment);
            fs.set_faults(Faults::default());
            fs.kill();
            let list = || {
                let tier = DirectoryTier::open(Arc::new(fs.clone()), "/share/t-0").unwrap();
                tier.list().unwrap()
            };
            let before = list();
            fs.crash();
            assert_eq!(list(), before, "{seed} {calls}");
            listed[usize::from(before == [segment])] += 1;
        }
    }
    assert!(listed.iter().all(|&times| times > 0), "{listed:?}");
}

/// Nor is the directory, whose name was not made durable when it was made.
#[test]
fn a_directory_that_was_half_made_is_there_to_stay() {
    for seed in 0..8 {
        for calls in 0..8 {
            let run = Run::new(seed);
            let fs = run.disk("share", "/share").unwrap();
            let open = || DirectoryTier::open(Arc::new(fs.clone()), "/share/t-0");
            fs.fail_after(calls, Errno::Io);
            let _ = open();
            fs.set_faults(Faults::default());
            let tier = open().unwrap();
            let segment = begun_segment(&tier, &fs);
            fs.crash();
            assert_eq!(open().unwrap().list().unwrap(), [segment], "{seed} {calls}");
        }
    }
}

/// A segment that was copied in full.
fn whole_segment(tier: &DirectoryTier, fs: &SimFs) -> RemoteSegment {
    let mut segment = begun_segment(tier, fs);
    segment.state = RemoteSegmentState::CopyFinished;
    tier.put(&segment).unwrap();
    segment
}

/// A segment whose data is there, and of which that is not noted yet.
fn begun_segment(tier: &DirectoryTier, fs: &SimFs) -> RemoteSegment {
    let file = fs.open(Path::new("/source"), OpenMode::Create).unwrap();
    file.write_all_at(b"batch", 0).unwrap();
    let segment = RemoteSegment {
        id: Uuid::from_bytes([7; 16]),
        start_offset: 40,
        end_offset: 90,
        max_timestamp_ms: -1,
        bytes: 5,
        epochs: vec![(0, 40)],
        state: RemoteSegmentState::CopyStarted,
    };
    tier.put(&segment).unwrap();
    let data = SegmentData {
        log: LogSlice {
            file,
            position: 0,
            len: 5,
        },
        indexes: vec![(IndexKind::Offset, b"index".to_vec())],
    };
    tier.copy_segment(&segment, &data).unwrap();
    segment
}
