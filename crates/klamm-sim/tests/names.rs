//! Which names are in a log's directory after a power cut: those of small files that were put there
//! without a sync of their own, once the log was flushed; that of the only segment that tells where the
//! log ends; not that of a segment which could not be made.

use std::path::Path;
use std::sync::Arc;

use klamm_env::{Env, FileExt as _, Fs as _, FsExt as _, OpenMode};
use klamm_log::{AppendOrigin, Log, LogConfig, LogError, LogOpen, partition_metadata};
use klamm_records::control::EndTransactionMarker;
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch, Uuid};
use klamm_sim::{Errno, SimClock, SimFs, SimRng, Trace};

const NOW_MS: i64 = 1_700_000_000_000;
const DIR: &str = "/data/t-0";

fn machine(seed: u64) -> (SimFs, Env) {
    let rng = SimRng::new(seed);
    let clock = SimClock::new(NOW_MS);
    let fs = SimFs::new(rng.fork("disk"), clock.clone(), Trace::new());
    fs.create_dir_all(Path::new("/data")).unwrap();
    fs.sync_dir(Path::new("/")).unwrap();
    let env = Env {
        clock: Arc::new(clock),
        rng: Arc::new(rng.fork("env")),
        fs: Arc::new(fs.clone()),
    };
    (fs, env)
}

fn open(env: &Env) -> Log {
    open_result(env).unwrap()
}

fn open_result(env: &Env) -> Result<Log, LogError> {
    let config = LogConfig {
        retention_ms: 1_000,
        ..LogConfig::default()
    };
    let open = LogOpen {
        topic_id: Some(Uuid::METADATA_TOPIC),
        ..LogOpen::standalone(DIR, config, env.clone())
    };
    Log::open(open)
}

fn append(log: &Log, epoch: i32) {
    append_with(log, epoch, BatchOptions::default());
}

fn append_with(log: &Log, epoch: i32, options: BatchOptions) {
    let mut builder = BatchBuilder::new(options);
    builder.append(NOW_MS, None, Some(b"value"), []).unwrap();
    let mut batch = [PreparedBatch::trusted(builder.build().unwrap()).unwrap()];
    log.append_as_leader(&mut batch, epoch, NOW_MS, AppendOrigin::Client)
        .unwrap();
}

#[test]
fn a_flush_makes_the_names_of_small_files_durable() {
    for seed in 0..40 {
        let (fs, env) = machine(seed);
        let log = open(&env);
        append(&log, 1);
        log.flush(i64::MAX).unwrap();
        // There is no new segment now whose name would have to be synced.
        append(&log, 2);
        log.flush(i64::MAX).unwrap();
        drop(log);
        fs.crash();
        let read = |name: &str| fs.read(&Path::new(DIR).join(name)).unwrap();
        let epochs = String::from_utf8(read("leader-epoch-checkpoint")).unwrap();
        assert_eq!(epochs, "0\n2\n1 0\n2 1\n", "seed {seed}");
        let id = String::from_utf8(read("partition.metadata")).unwrap();
        assert!(id.starts_with("version: 0\ntopic_id: "), "seed {seed}");
        assert_eq!(open(&env).epoch_for_offset(1), Some(2));
    }
}

#[test]
fn the_first_batch_makes_the_topics_id_durable_and_none_before() {
    for (seed, epoch) in (0..40).flat_map(|seed| [(seed, -1), (seed, 3)]) {
        let (fs, env) = machine(seed);
        drop(open(&env));
        fs.crash();
        // Whatever is left of the file that was not synced: there is nothing in the log yet.
        let log = open(&env);
        assert_eq!(log.topic_id(), Some(Uuid::METADATA_TOPIC), "seed {seed}");
        append(&log, epoch);
        drop(log);
        fs.crash();
        let id = partition_metadata::read(&fs, Path::new(DIR));
        assert_eq!(id.unwrap(), Some(Uuid::METADATA_TOPIC), "seed {seed}");
        // The file that tore is one of a log with batches now: no id may be made up for them.
        let file = Path::new(DIR).join("partition.metadata");
        let torn = fs.open(&file, OpenMode::Truncate).unwrap();
        torn.write_all_at(b"version: 0\ntop", 0).unwrap();
        if open_result(&env).is_ok() {
            let log = Path::new(DIR).join("00000000000000000000.log");
            assert!(fs.read(&log).unwrap().is_empty(), "seed {seed}");
        }
    }
}

#[test]
fn what_an_append_notes_outlives_a_crash_whole_or_not_at_all() {
    for seed in 0..40 {
        let (fs, env) = machine(seed);
        let log = open(&env);
        append(&log, 1);
        log.flush(i64::MAX).unwrap();
        append(&log, 2);
        drop(log);
        fs.crash();
        let log = open(&env);
        let there = log.log_end_offset() == 2;
        // Recovery reads from the recovery point on what the file may lack.
        assert_eq!(log.latest_epoch(), Some(if there { 2 } else { 1 }));
    }
}

#[test]
fn a_log_of_which_retention_leaves_nothing_does_not_begin_anew() {
    for seed in 0..8 {
        for calls in 0..200 {
            let (fs, env) = machine(seed);
            let log = open(&env);
            for _ in 0..5 {
                append(&log, 1);
            }
            log.flush(i64::MAX).unwrap();
            fs.power_off_after(calls);
            let removed = log.apply_retention(NOW_MS + 10_000, 5);
            let was_off = fs.is_off();
            drop(log);
            fs.crash();
            let log = open(&env);
            assert_eq!(log.log_end_offset(), 5, "seed {seed}, cut at call {calls}");
            if !was_off {
                assert_eq!(removed.unwrap(), 1);
                assert_eq!(log.log_start_offset(), 5);
                break;
            }
        }
    }
}

#[test]
fn a_segment_that_could_not_be_made_does_not_come_back() {
    let mut failed = 0;
    for seed in 0..40 {
        for calls in 0..10 {
            let (fs, env) = machine(seed);
            let log = open(&env);
            append(&log, 1);
            log.flush(i64::MAX).unwrap();
            fs.fail_after(calls, Errno::NoSpace);
            if log.roll().is_ok() {
                continue;
            }
            failed += 1;
            // On goes the old one.
            append(&log, 1);
            append(&log, 1);
            drop(log);
            fs.crash();
            let log = open(&env);
            let read = log.read(0, usize::MAX, i64::MAX, true).unwrap();
            let size: u64 = log.size_bytes();
            assert_eq!(read.len as u64, size, "seed {seed}, failed at call {calls}");
            assert_eq!(log.segment_base_offsets(), [0]);
        }
    }
    assert!(failed >= 40, "{failed}");
}

#[test]
fn a_transaction_does_not_become_open_again_when_its_marker_is_deleted() {
    for seed in 0..40 {
        let (fs, env) = machine(seed);
        let log = open(&env);
        let options = BatchOptions {
            producer_id: 7,
            producer_epoch: 0,
            base_sequence: 0,
            transactional: true,
            ..BatchOptions::default()
        };
        append_with(&log, 1, options);
        log.flush(i64::MAX).unwrap();
        drop(log);
        // The process ends, and the next one notes the open transaction where it finds the end.
        fs.kill();
        let log = open(&env);
        let marker = EndTransactionMarker {
            committed: true,
            coordinator_epoch: 0,
        };
        let marker = marker.to_batch(7, 0, NOW_MS).unwrap();
        let origin = AppendOrigin::TxnMarkers {
            transaction_version: 0,
        };
        let mut marker = [PreparedBatch::trusted(marker).unwrap()];
        log.append_as_leader(&mut marker, 1, NOW_MS, origin)
            .unwrap();
        log.roll().unwrap();
        append(&log, 1);
        log.set_high_watermark(3);
        log.delete_records_before(2).unwrap();
        assert_eq!(log.apply_retention(NOW_MS, 3).unwrap(), 1);
        drop(log);
        fs.crash();
        let log = open(&env);
        let end = log.log_end_offset();
        assert!(end >= 2, "seed {seed}: {end}");
        assert_eq!(log.last_stable_offset(end), end, "seed {seed}");
    }
}
