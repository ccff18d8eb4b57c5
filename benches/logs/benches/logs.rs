//! Logs and stores used as logs, side by side.
//!
//! `cargo bench` in this directory; `TMPDIR` says on which disk.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use klamm_bench_logs::{
    CommitLog, Contender, Fjall, Klamm, OkayWal, RaftEngine, Sled, filled, fresh, size_on_disk,
    values,
};

const RECORDS: usize = 100_000;

fn append<C: Contender>(c: &mut Criterion) {
    if C::BUFFERS {
        let value = &values(1, 1000)[0];
        let (_dir, mut log) = fresh::<C>();
        let mut group = c.benchmark_group("append 1 KB");
        group.throughput(Throughput::Bytes(1000));
        group.bench_function(C::NAME, |b| b.iter(|| log.append(value)));
        group.finish();
    }
}

fn append_together<C: Contender>(c: &mut Criterion) {
    if C::BUFFERS {
        let hundred = values(100, 100);
        let (_dir, mut log) = fresh::<C>();
        let mut group = c.benchmark_group("append 100 x 100 B together");
        group.throughput(Throughput::Elements(100));
        group.bench_function(C::NAME, |b| b.iter(|| log.append_many(&hundred)));
        group.finish();
    }
}

fn append_synced<C: Contender>(c: &mut Criterion) {
    if C::SYNCS {
        let value = &values(1, 1000)[0];
        let (_dir, mut log) = fresh::<C>();
        let mut group = c.benchmark_group("append 1 KB and sync");
        group.bench_function(C::NAME, |b| b.iter(|| log.append_synced(value)));
        group.finish();
    }
}

fn read<C: Contender>(c: &mut Criterion) {
    if C::READS {
        let (_dir, log) = filled::<C>(RECORDS, 100);
        let mut group = c.benchmark_group("read 100,000 x 100 B in order");
        group.throughput(Throughput::Elements(RECORDS as u64));
        group.bench_function(C::NAME, |b| b.iter(|| black_box(log.read(0, RECORDS))));
        group.finish();
    }
}

fn read_one<C: Contender>(c: &mut Criterion) {
    if C::READS {
        let (_dir, log) = filled::<C>(RECORDS, 100);
        let mut from = 0;
        let mut group = c.benchmark_group("read one of 100,000");
        group.bench_function(C::NAME, |b| {
            b.iter(|| {
                from = (from + 7_919) % RECORDS as u64;
                black_box(log.read(from, 1))
            });
        });
        group.finish();
    }
}

/// What okaywal was told to checkpoint it has forgotten: there would be nothing to open.
fn open<C: Contender>(c: &mut Criterion) {
    if C::READS {
        let (dir, log) = filled::<C>(RECORDS, 1000);
        log.close();
        let path = dir.path().join("log");
        let size = size_on_disk(&path) as f64 / 1e6;
        eprintln!(
            "{}: 100,000 x 1 KB, written in hundreds: {size:.1} MB on disk",
            C::NAME
        );
        let mut group = c.benchmark_group("open 100 MB after a close");
        group.bench_function(C::NAME, |b| {
            b.iter_batched(|| (), |()| C::open(&path), BatchSize::PerIteration);
        });
        group.finish();
    }
}

/// One question after the other, so that a slow minute of the machine meets all who are asked.
macro_rules! all_of {
    ($question:ident, $c:expr) => {
        $question::<Klamm>($c);
        $question::<CommitLog>($c);
        $question::<RaftEngine>($c);
        $question::<OkayWal>($c);
        $question::<Sled>($c);
        $question::<Fjall>($c);
    };
}

fn all(c: &mut Criterion) {
    all_of!(append, c);
    all_of!(append_together, c);
    all_of!(append_synced, c);
    all_of!(read, c);
    all_of!(read_one, c);
    all_of!(open, c);
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    targets = all
}
criterion_main!(benches);
