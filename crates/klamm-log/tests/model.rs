//! Random histories against a model that fits on a page.

use std::path::PathBuf;
use std::sync::Arc;

use klamm_env::{Env, FileExt, ManualClock, OpenMode, OsFs, SplitMix64};
use klamm_log::{AppendOrigin, Log, LogConfig, LogOpen};
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch, Scratch, TopicPartition, batches};
use proptest::prelude::*;

const PRODUCER: i64 = 4;

#[derive(Clone, Debug)]
enum Op {
    /// Sizes of the batches of one append, and how far their time steps.
    Append(Vec<usize>, i64),
    /// A batch of the idempotent producer.
    Idempotent(usize),
    /// The last batch of the idempotent producer once more.
    Retry,
    Roll,
    Flush,
    /// Positions are parts per 256 of what there is.
    Truncate(u8),
    DeleteBefore(u8),
    Retain,
    StartAnew(u8),
    CloseAndOpen,
    /// The process is killed; this many bytes of an unfinished append are in the file.
    Kill(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (prop::collection::vec(1_usize..5, 1..4), -20_i64..60).prop_map(|(n, t)| Op::Append(n, t)),
        3 => (1_usize..4).prop_map(Op::Idempotent),
        1 => Just(Op::Retry),
        1 => Just(Op::Roll),
        1 => Just(Op::Flush),
        1 => any::<u8>().prop_map(Op::Truncate),
        1 => any::<u8>().prop_map(Op::DeleteBefore),
        1 => Just(Op::Retain),
        1 => any::<u8>().prop_map(Op::StartAnew),
        2 => Just(Op::CloseAndOpen),
        2 => any::<u8>().prop_map(Op::Kill),
    ]
}

#[derive(Clone, Debug, PartialEq)]
struct Batch {
    base: i64,
    count: i64,
    timestamp: i64,
    /// First sequence number, if it is the producer's.
    sequence: Option<i32>,
}

impl Batch {
    fn end(&self) -> i64 {
        self.base + self.count
    }
}

/// What the log should hold.
#[derive(Debug, Default)]
struct Model {
    batches: Vec<Batch>,
    start: i64,
    end: i64,
}

struct Run {
    dir: tempfile::TempDir,
    env: Env,
    log: Option<Log>,
    model: Model,
    timestamp: i64,
}

impl Run {
    fn new() -> Run {
        let mut run = Run {
            dir: tempfile::tempdir().unwrap(),
            env: Env {
                clock: Arc::new(ManualClock::new(1_000)),
                rng: Arc::new(SplitMix64::new(1)),
                fs: Arc::new(OsFs),
            },
            log: None,
            model: Model::default(),
            timestamp: 1_000,
        };
        run.open(true, 0);
        run
    }

    fn log(&self) -> &Log {
        self.log.as_ref().unwrap()
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("t-0")
    }

    fn open(&mut self, clean: bool, recovery_point: i64) {
        let log = Log::open(LogOpen {
            dir: self.path(),
            topic_partition: TopicPartition::new("t", 0),
            topic_id: None,
            config: LogConfig {
                segment_bytes: 700,
                index_interval_bytes: 100,
                retention_bytes: 2_000,
                retention_ms: -1,
                file_delete_delay_ms: 0,
                ..LogConfig::default()
            },
            env: self.env.clone(),
            recovery_point,
            log_start_offset: self.model.start,
            high_watermark: i64::MAX,
            clean,
            standalone: false,
        });
        self.log = Some(log.unwrap());
    }

    fn append(&mut self, sizes: &[usize], step: i64, sequence: Option<i32>) {
        let mut prepared = Vec::new();
        for &count in sizes {
            self.timestamp = (self.timestamp + step).max(1);
            let mut builder = BatchBuilder::new(BatchOptions {
                producer_id: if sequence.is_some() { PRODUCER } else { -1 },
                producer_epoch: if sequence.is_some() { 0 } else { -1 },
                base_sequence: sequence.unwrap_or(-1),
                ..BatchOptions::default()
            });
            for n in 0..count as i64 {
                let value = format!("{}", self.model.end + n);
                builder
                    .append(self.timestamp, None, Some(value.as_bytes()), [])
                    .unwrap();
            }
            self.model.batches.push(Batch {
                base: self.model.end,
                count: count as i64,
                timestamp: self.timestamp,
                sequence,
            });
            self.model.end += count as i64;
            prepared.push(PreparedBatch::trusted(builder.build().unwrap()).unwrap());
        }
        let log = self.log.as_ref().unwrap();
        let info = log
            .append_as_leader(&mut prepared, 0, 0, AppendOrigin::Client)
            .unwrap();
        assert!(!info.duplicate);
        log.set_high_watermark(i64::MAX);
    }

    /// The producer's last batch, and whether the log must know of it: not if its records are
    /// gone from the start.
    fn last_of_producer(&self) -> Option<(&Batch, bool)> {
        let last = self.model.batches.iter().rfind(|b| b.sequence.is_some())?;
        Some((last, last.base >= self.model.start))
    }

    fn next_sequence(&self) -> i32 {
        self.last_of_producer()
            .map_or(0, |(last, _)| last.sequence.unwrap() + last.count as i32)
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Append(sizes, step) => self.append(sizes, *step, None),
            Op::Idempotent(count) => {
                let sequence = self.next_sequence();
                self.append(&[*count], 10, Some(sequence));
            }
            Op::Retry => self.retry(),
            Op::Roll => self.log().roll().unwrap(),
            Op::Flush => {
                self.log().flush(i64::MAX).unwrap();
                assert_eq!(self.log().recovery_point(), self.model.end);
            }
            Op::Truncate(part) => {
                let offset = self.place(*part);
                let changed = self.log().truncate_to(offset).unwrap();
                assert_eq!(changed, offset < self.model.end);
                self.model.batches.retain(|batch| {
                    let kept = batch.end() <= offset;
                    if !kept {
                        self.model.end = self.model.end.min(batch.base.min(offset));
                    }
                    kept
                });
                self.model.start = self.model.start.min(self.model.end);
            }
            Op::DeleteBefore(part) => {
                let offset = self.place(*part);
                self.log().delete_records_before(offset).unwrap();
                self.model.start = self.model.start.max(offset);
            }
            Op::Retain => {
                self.log().apply_retention(0, i64::MAX).unwrap();
                let first = self.log().segment_base_offsets()[0];
                assert!(self.log().size_bytes() < 2_000 + 700);
                self.model.start = self.model.start.max(first);
                self.log().tick(self.env.clock.wall_ms()).unwrap();
            }
            Op::StartAnew(part) => {
                let offset = i64::from(*part);
                self.log()
                    .truncate_fully_and_start_at(offset, None)
                    .unwrap();
                self.model = Model {
                    batches: Vec::new(),
                    start: offset,
                    end: offset,
                };
            }
            Op::CloseAndOpen => {
                self.log.take().unwrap().close().unwrap();
                self.open(true, 0);
                assert_eq!(self.log().recovery_report().recovered_segments, 0);
            }
            Op::Kill(torn) => self.kill(*torn),
        }
        self.check();
    }

    fn retry(&mut self) {
        let Some((last, true)) = self.last_of_producer() else {
            return;
        };
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id: PRODUCER,
            producer_epoch: 0,
            base_sequence: last.sequence.unwrap(),
            ..BatchOptions::default()
        });
        for _ in 0..last.count {
            builder
                .append(last.timestamp, None, Some(b"again"), [])
                .unwrap();
        }
        let mut batch = [PreparedBatch::trusted(builder.build().unwrap()).unwrap()];
        let info = self
            .log()
            .append_as_leader(&mut batch, 0, 0, AppendOrigin::Client)
            .unwrap();
        assert!(info.duplicate, "{last:?}");
        assert_eq!(info.first_offset, last.base);
    }

    fn kill(&mut self, torn: u8) {
        let log = self.log.take().unwrap();
        let recovery_point = log.recovery_point();
        let active = *log.segment_base_offsets().last().unwrap();
        drop(log);
        let path = self.path().join(format!("{active:020}.log"));
        let file = self.env.fs.open(&path, OpenMode::Write).unwrap();
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: self.model.end,
            ..BatchOptions::default()
        });
        builder.append(0, None, Some(&[7; 300]), []).unwrap();
        let unfinished = builder.build().unwrap();
        let len = usize::from(torn).min(unfinished.len() - 1);
        file.write_all_at(&unfinished[..len], file.len().unwrap())
            .unwrap();
        self.open(false, recovery_point);
        let truncation = &self.log().recovery_report().truncation;
        assert_eq!(truncation.as_ref().map_or(0, |t| t.bytes), len as u64);
    }

    fn place(&self, part: u8) -> i64 {
        let span = self.model.end - self.model.start + 1;
        self.model.start + span * i64::from(part) / 256
    }

    fn check(&mut self) {
        let log = self.log();
        let model = &self.model;
        assert_eq!(
            (log.log_start_offset(), log.log_end_offset()),
            (model.start, model.end)
        );
        let live = |from: i64| model.batches.iter().filter(move |batch| batch.end() > from);
        for start in [model.start, (model.start + model.end) / 2, model.end] {
            for upper in [i64::MAX, (start + model.end) / 2] {
                let expected: Vec<i64> = live(start)
                    .take_while(|batch| batch.end() <= upper)
                    .flat_map(|batch| batch.base..batch.end())
                    .collect();
                let expected = if start >= upper { Vec::new() } else { expected };
                assert_eq!(self.read(start, upper), expected, "{start}..{upper}");
            }
        }
        if let Some(batch) = live(model.start).nth(1) {
            let first = live(model.start)
                .find(|b| b.timestamp >= batch.timestamp)
                .unwrap();
            let found = log.offset_for_timestamp(batch.timestamp).unwrap().unwrap();
            assert_eq!(found.offset, first.base.max(model.start));
            assert_eq!(found.timestamp, first.timestamp);
        }
        if let Some((last, true)) = self.last_of_producer() {
            let producers = log.active_producers();
            assert_eq!(producers[0].producer_id, PRODUCER);
            assert_eq!(producers[0].last_sequence, self.next_sequence() - 1);
            assert_eq!(producers[0].last_offset, last.end() - 1);
        }
    }

    fn read(&self, start: i64, upper: i64) -> Vec<i64> {
        let read = self.log().read(start, usize::MAX, upper, true).unwrap();
        let mut offsets = Vec::new();
        for part in &read.parts {
            let mut bytes = vec![0; part.len];
            part.file.read_exact_at(&mut bytes, part.position).unwrap();
            for batch in batches(&bytes) {
                let batch = batch.unwrap();
                batch.verify_crc().unwrap();
                for record in batch.records(&mut Scratch::new()).unwrap() {
                    let record = record.unwrap();
                    assert_eq!(record.value.unwrap(), record.offset.to_string().as_bytes());
                    offsets.push(record.offset);
                }
            }
        }
        offsets
    }
}

/// A few histories; `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let default = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    match std::env::var("PROPTEST_CASES") {
        Ok(_) => default,
        Err(_) => ProptestConfig {
            cases: 16,
            ..default
        },
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_log_does_what_the_model_does(ops in prop::collection::vec(op(), 1..50)) {
        let mut run = Run::new();
        for op in &ops {
            run.step(op);
        }
    }
}
