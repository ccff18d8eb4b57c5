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

fn appends<C: Contender>(c: &mut Criterion) {
    let value = &values(1, 1000)[0];
    let hundred = values(100, 100);
    if C::BUFFERS {
        let mut group = c.benchmark_group("append 1 KB");
        group.throughput(Throughput::Bytes(1000));
        let (_dir, mut log) = fresh::<C>();
        group.bench_function(C::NAME, |b| b.iter(|| log.append(value)));
        group.finish();
        let mut group = c.benchmark_group("append 100 x 100 B together");
        group.throughput(Throughput::Elements(100));
        let (_dir, mut log) = fresh::<C>();
        group.bench_function(C::NAME, |b| b.iter(|| log.append_many(&hundred)));
        group.finish();
    }
    if C::SYNCS {
        let mut group = c.benchmark_group("append 1 KB and sync");
        let (_dir, mut log) = fresh::<C>();
        group.bench_function(C::NAME, |b| b.iter(|| log.append_synced(value)));
        group.finish();
    }
}

fn reads<C: Contender>(c: &mut Criterion) {
    if C::READS {
        let (_dir, log) = filled::<C>(RECORDS, 100);
        let mut group = c.benchmark_group("read 100,000 x 100 B in order");
        group.throughput(Throughput::Elements(RECORDS as u64));
        group.bench_function(C::NAME, |b| b.iter(|| black_box(log.read(0, RECORDS))));
        group.finish();
        let mut from = 0;
        c.benchmark_group("read one of 100,000")
            .bench_function(C::NAME, |b| {
                b.iter(|| {
                    from = (from + 7_919) % RECORDS as u64;
                    black_box(log.read(from, 1))
                });
            });
    }
}

fn opens<C: Contender>(c: &mut Criterion) {
    if !C::READS {
        // It has forgotten what it was told to checkpoint.
        return;
    }
    let (dir, log) = filled::<C>(RECORDS, 1000);
    log.close();
    let path = dir.path().join("log");
    let size = size_on_disk(&path) as f64 / 1e6;
    eprintln!(
        "{}: 100,000 x 1 KB, written in hundreds, are {size:.1} MB on disk",
        C::NAME
    );
    c.benchmark_group("open 100 MB after a close")
        .bench_function(C::NAME, |b| {
            b.iter_batched(|| (), |()| C::open(&path), BatchSize::PerIteration);
        });
}

fn all(c: &mut Criterion) {
    fn one<C: Contender>(c: &mut Criterion) {
        appends::<C>(c);
        reads::<C>(c);
        opens::<C>(c);
    }
    one::<Klamm>(c);
    one::<CommitLog>(c);
    one::<RaftEngine>(c);
    one::<OkayWal>(c);
    one::<Sled>(c);
    one::<Fjall>(c);
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
