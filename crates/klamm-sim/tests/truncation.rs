//! The plug is pulled at every call that a truncation of a compacted log makes, and the disk keeps any
//! part of the changes of names that were not synced. What comes back begins as the log did and has
//! no hole: recovery takes a segment that is missing in the middle for something that compaction has
//! left, and nobody would ever bring back what was in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use klamm_env::{Env, FileExt as _, Fs as _};
use klamm_log::{AppendOrigin, Log, LogConfig, LogError, LogOpen};
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch, TopicPartition, batches};
use klamm_sim::{SimClock, SimFs, SimRng, Trace};

const NOW_MS: i64 = 1_700_000_000_000;
const SEGMENTS: i64 = 6;
/// More calls than any of the truncations makes.
const CALLS_MAX: u64 = 200;

struct Machine {
    fs: SimFs,
    env: Env,
}

impl Machine {
    /// A machine with a log of so many segments of one record each, all of them on the disk.
    fn new(seed: u64) -> (Machine, Log) {
        let rng = SimRng::new(seed);
        let clock = SimClock::new(NOW_MS);
        let fs = SimFs::new(rng.fork("disk"), clock.clone(), Trace::new());
        let env = Env {
            clock: Arc::new(clock),
            rng: Arc::new(rng.fork("env")),
            fs: Arc::new(fs.clone()),
        };
        let machine = Machine { fs, env };
        let log = machine.open().unwrap();
        for offset in 0..SEGMENTS {
            let mut builder = BatchBuilder::new(BatchOptions::default());
            let key = format!("key {offset}");
            builder
                .append(NOW_MS, Some(key.as_bytes()), Some(b"value"), [])
                .unwrap();
            let mut batch = [PreparedBatch::trusted(builder.build().unwrap()).unwrap()];
            let origin = AppendOrigin::Client;
            log.append_as_leader(&mut batch, 0, NOW_MS, origin).unwrap();
            log.roll().unwrap();
        }
        log.flush(i64::MAX).unwrap();
        for dir in ["/", "/data"] {
            machine.fs.sync_dir(Path::new(dir)).unwrap();
        }
        (machine, log)
    }

    /// The log, with a recovery point as old as can be.
    fn open(&self) -> Result<Log, LogError> {
        Log::open(LogOpen {
            dir: PathBuf::from("/data/t-0"),
            topic_partition: TopicPartition::new("t", 0),
            topic_id: None,
            config: LogConfig {
                compact: true,
                delete: false,
                ..LogConfig::default()
            },
            env: self.env.clone(),
            recovery_point: 0,
            log_start_offset: 0,
            high_watermark: i64::MAX,
            clean: false,
            standalone: false,
        })
    }
}

fn offsets(log: &Log) -> Vec<i64> {
    let read = log.read(log.log_start_offset(), usize::MAX, i64::MAX, true);
    let mut bytes = Vec::new();
    for part in &read.unwrap().parts {
        let from = bytes.len();
        bytes.resize(from + part.len, 0);
        let file = &part.file;
        file.read_exact_at(&mut bytes[from..], part.position)
            .unwrap();
    }
    batches(&bytes)
        .map(|batch| batch.unwrap().header().base_offset)
        .collect()
}

/// Cuts the power at each call of what `change` does; `kept` is where it leaves the log.
fn at_every_call(kept: i64, change: fn(&Log) -> Result<(), LogError>) {
    for seed in 0..8 {
        for calls in 0..CALLS_MAX {
            let (machine, log) = Machine::new(seed);
            machine.fs.power_off_after(calls);
            let changed = change(&log);
            let was_off = machine.fs.is_off();
            drop(log);
            machine.fs.crash();
            let log = machine.open().unwrap();
            let found = offsets(&log);
            let whole: Vec<i64> = (0..i64::try_from(found.len()).unwrap()).collect();
            assert_eq!(found, whole, "seed {seed}, power cut at call {calls}");
            assert!(
                found.len() >= usize::try_from(kept).unwrap(),
                "seed {seed}, power cut at call {calls}: {found:?}"
            );
            if !was_off {
                changed.unwrap();
                break;
            }
            assert!(calls + 1 < CALLS_MAX, "it makes more calls than that");
        }
    }
}

#[test]
fn a_truncation_leaves_no_hole() {
    at_every_call(2, |log| log.truncate_to(2).map(drop));
}

#[test]
fn a_log_that_begins_anew_leaves_no_hole() {
    at_every_call(0, |log| log.truncate_fully_and_start_at(9, None));
}
