//! Append, read, index lookup, recovery and compaction of a log; its plain face.
//!
//! ```text
//! cargo bench -p klamm-log
//! ```
//!
//! The files lie in the directory for temporary files; set `TMPDIR` to measure another disk.

use std::hint::black_box;
use std::path::Path;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use klamm_env::{Env, FileExt, OpenMode};
use klamm_log::{AppendOrigin, Cleaner, CleanerConfig, Journal, Log, LogConfig, LogOpen};
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch, TopicPartition};

fn batch(bytes: usize) -> PreparedBatch {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let value = vec![b'x'; 1_000.min(bytes)];
    for n in 0..bytes.div_ceil(1_000) {
        builder
            .append(n as i64, None, Some(&value), [])
            .expect("a small record fits");
    }
    PreparedBatch::trusted(builder.build().expect("a batch")).expect("a valid batch")
}

fn open(dir: &Path, clean: bool) -> Log {
    Log::open(LogOpen {
        dir: dir.join("bench-0"),
        topic_partition: TopicPartition::new("bench", 0),
        topic_id: None,
        config: LogConfig {
            retention_ms: -1,
            ..LogConfig::default()
        },
        env: Env::os(),
        recovery_point: 0,
        log_start_offset: 0,
        high_watermark: i64::MAX,
        clean,
        standalone: false,
    })
    .expect("the log opens")
}

fn append(log: &Log, batch: &PreparedBatch) -> i64 {
    let mut batches = [batch.clone()];
    log.append_as_leader(&mut batches, 0, 0, AppendOrigin::Client)
        .expect("the append succeeds")
        .last_offset
}

/// Empties the log now and then, so that the disk does not fill up.
fn keep_small(log: &Log) {
    if log.size_bytes() > 512 << 20 {
        log.truncate_fully_and_start_at(0, None).expect("truncated");
        log.tick(i64::MAX).expect("removed");
    }
}

fn appends(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    for size in [1_000, 16_000, 256_000] {
        let dir = tempfile::tempdir().expect("a directory");
        let log = open(dir.path(), false);
        let batch = batch(size);
        group.throughput(Throughput::Bytes(batch.size() as u64));
        group.bench_function(format!("log {size}"), |b| {
            b.iter_batched(
                || keep_small(&log),
                |()| append(&log, &batch),
                BatchSize::SmallInput,
            );
        });
        // The floor: the same bytes into a file, without a log.
        let env = Env::os();
        let path = dir.path().join("plain");
        let file = env.fs.open(&path, OpenMode::Truncate).expect("a file");
        let bytes = batch.to_bytes();
        let mut position = 0;
        group.bench_function(format!("plain {size}"), |b| {
            b.iter(|| {
                if position > 512 << 20 {
                    file.set_len(0).expect("truncated");
                    position = 0;
                }
                file.write_all_at(&bytes, position).expect("written");
                position += bytes.len() as u64;
            });
        });
    }
    group.finish();
}

fn reads(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path(), false);
    let batch = batch(16_000);
    let mut last = 0;
    while log.size_bytes() < 256 << 20 {
        last = append(&log, &batch);
    }
    let mut group = c.benchmark_group("read");
    group.bench_function("tail", |b| {
        b.iter(|| black_box(log.read(last, 1 << 20, i64::MAX, true)));
    });
    // A fixed walk that jumps over the whole log.
    let mut offset = 0;
    group.bench_function("index lookup", |b| {
        b.iter(|| {
            offset = (offset + 7_919) % last;
            black_box(log.read(offset, 1 << 20, last, true))
        });
    });
    let mut next = 0;
    group.bench_function("sequential 1 MiB", |b| {
        b.iter(|| {
            let read = log.read(next, 1 << 20, i64::MAX, true).expect("read");
            next = (read.first_offset + 1_000) % (last - 1_000);
        });
    });
    group.finish();
}

fn recovery(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = open(dir.path(), false);
    let batch = batch(16_000);
    while log.size_bytes() < 256 << 20 {
        append(&log, &batch);
    }
    let size = log.size_bytes();
    log.close().expect("closed");
    let mut group = c.benchmark_group("open");
    group.sample_size(10);
    group.bench_function("clean", |b| b.iter(|| open(dir.path(), true)));
    group.throughput(Throughput::Bytes(size));
    group.bench_function("recovery", |b| b.iter(|| open(dir.path(), false)));
    group.finish();
}

/// A log of 64 MiB whose records have so many different keys, and the next segment begun.
fn keyed(dir: &Path, keys: usize) -> Log {
    let log = open(dir, false);
    let value = [b'x'; 1_000];
    let mut n = 0_usize;
    while log.size_bytes() < 64 << 20 {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for _ in 0..16 {
            let key = (n.wrapping_mul(7_919) % keys).to_be_bytes();
            let appended = builder.append(n as i64, Some(&key), Some(&value), []);
            appended.expect("a small record fits");
            n += 1;
        }
        let batch = PreparedBatch::trusted(builder.build().expect("a batch"));
        append(&log, &batch.expect("a valid batch"));
    }
    log.set_high_watermark(i64::MAX);
    log.roll().expect("rolled");
    log
}

fn compaction(c: &mut Criterion) {
    let mut group = c.benchmark_group("compaction of 64 MiB");
    group
        .sample_size(10)
        .throughput(Throughput::Bytes(64 << 20));
    for (name, keys) in [("keep a tenth", 6_500), ("keep all", usize::MAX)] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || {
                    let dir = tempfile::tempdir().expect("a directory");
                    let log = keyed(dir.path(), keys);
                    let cleaner = Cleaner::new(CleanerConfig::default(), 1);
                    (dir, log, cleaner)
                },
                |(dir, log, mut cleaner)| {
                    let target = log.cleanable(0).expect("looked at");
                    let report = cleaner.clean(&log, &target, 0, &()).expect("compacted");
                    assert_eq!(report.cleaned_to, log.log_end_offset());
                    (dir, log)
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// What the plain face costs: entries instead of parts of files.
fn journal(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::open(dir.path()).expect("the journal opens");
    let records = || (0..100).map(|n: u32| (n.to_be_bytes(), [b'x'; 100]));
    let mut group = c.benchmark_group("journal");
    group.throughput(Throughput::Elements(100));
    group.bench_function("append 100 x 100", |b| {
        b.iter_batched(
            || {
                // So that the disk does not fill up.
                let end = journal.end();
                if journal.size_bytes() > 512 << 20 {
                    journal.drop_before(end).expect("dropped");
                }
            },
            |()| journal.append_all(records()).expect("appended"),
            BatchSize::SmallInput,
        );
    });
    journal.drop_before(journal.end()).expect("dropped");
    let first = journal.end();
    for _ in 0..1000 {
        journal.append_all(records()).expect("appended");
    }
    group.throughput(Throughput::Elements(100_000));
    group.bench_function("read 100000 x 100", |b| {
        b.iter(|| journal.read(first).map(|e| e.expect("read").offset).max());
    });
    group.finish();
}

criterion_group!(benches, appends, reads, recovery, compaction, journal);
criterion_main!(benches);
