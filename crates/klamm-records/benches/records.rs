//! What a produced and a fetched batch cost here: checksum, validation, walk, codecs.
//!
//! `cargo bench -p klamm-records`

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use klamm_records::produce::validate;
use klamm_records::{
    BatchBuilder, BatchOptions, BatchView, Compression, HEADER_LEN, ProduceRules, Scratch, crc,
};

const NOW: i64 = 1_700_000_000_000;

/// Sixteen KiB of records of 100 bytes that look like JSON events.
fn batch(compression: Compression) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions {
        codec: compression.into(),
        ..BatchOptions::default()
    });
    let mut number = 0_u64;
    while builder.size_uncompressed() < 16 * 1024 {
        number = number
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let value = format!(
            r#"{{"user":{},"action":"click","page":"/item/{}","ms":{}}}"#,
            number >> 44,
            number >> 54,
            number & 1023
        );
        builder
            .append(NOW, Some(&number.to_be_bytes()), Some(value.as_bytes()), [])
            .unwrap();
    }
    builder.build().unwrap()
}

fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("crc32c");
    for len in [100, 16 * 1024, 1024 * 1024] {
        let bytes = vec![7; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter(|| crc::crc32c(black_box(&bytes)));
        });
    }
    group.finish();
}

fn validation(c: &mut Criterion) {
    let mut group = c.benchmark_group("validate");
    for compression in Compression::ALL {
        let batch = batch(compression);
        let mut scratch = Scratch::new();
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(compression.name(), |b| {
            b.iter(|| {
                validate(batch.clone(), &ProduceRules::default(), &mut scratch, NOW).unwrap()
            });
        });
    }
    group.finish();
}

fn walk(c: &mut Criterion) {
    let mut group = c.benchmark_group("walk");
    for compression in Compression::ALL {
        let batch = batch(compression);
        let mut scratch = Scratch::new();
        group.throughput(Throughput::Bytes(batch.len() as u64));
        group.bench_function(compression.name(), |b| {
            b.iter(|| {
                let view = BatchView::parse(&batch).unwrap();
                let records = view.records(&mut scratch).unwrap();
                records
                    .map(|record| record.unwrap().value.map_or(0, <[u8]>::len))
                    .sum::<usize>()
            });
        });
    }
    group.finish();
}

fn compress(c: &mut Criterion) {
    let mut group = c.benchmark_group("compress");
    let plain = batch(Compression::None).slice(HEADER_LEN..);
    for compression in Compression::ALL.into_iter().skip(1) {
        let mut scratch = Scratch::new();
        let mut out = Vec::new();
        group.throughput(Throughput::Bytes(plain.len() as u64));
        group.bench_function(compression.name(), |b| {
            b.iter(|| {
                out.clear();
                scratch
                    .compress(compression.into(), &plain, &mut out)
                    .unwrap();
            });
        });
    }
    group.finish();
}

criterion_group!(benches, checksum, validation, walk, compress);
criterion_main!(benches);
