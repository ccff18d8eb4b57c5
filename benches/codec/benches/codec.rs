//! Reading and writing the messages of the hot paths, beside the crate kafka-protocol.
//!
//! `cargo bench` in this directory.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable};
use klamm_bench_codec::{
    decode_ours, decode_theirs, encode_ours, encode_theirs, fetch_request, fetch_response,
    metadata_response, offset_commit_request, produce_request,
};
use klamm_protocol::Message;

fn compare<M: Message, T: Encodable + Decodable>(
    c: &mut Criterion,
    name: &str,
    message: &M,
    version: i16,
) {
    let bytes = message
        .to_bytes(version)
        .expect("a message of that version");
    let other: T = decode_theirs(&bytes, version);
    let mut group = c.benchmark_group(name);
    group.bench_function("decode/klamm", |b| {
        b.iter(|| decode_ours::<M>(black_box(&bytes), version))
    });
    group.bench_function("decode/kafka-protocol", |b| {
        b.iter(|| decode_theirs::<T>(black_box(&bytes), version));
    });
    group.bench_function("encode/klamm", |b| {
        b.iter(|| encode_ours(black_box(message), version))
    });
    group.bench_function("encode/kafka-protocol", |b| {
        b.iter(|| encode_theirs(black_box(&other), version));
    });
    group.finish();
}

fn codec(c: &mut Criterion) {
    compare::<_, theirs::ProduceRequest>(
        c,
        "produce request 11, 100 x 16 KiB",
        &produce_request(16 << 10),
        11,
    );
    compare::<_, theirs::FetchRequest>(c, "fetch request 16, 100 partitions", &fetch_request(), 16);
    compare::<_, theirs::FetchResponse>(
        c,
        "fetch response 16, 100 x 16 KiB",
        &fetch_response(16 << 10),
        16,
    );
    compare::<_, theirs::MetadataResponse>(
        c,
        "metadata response 12, 1200 partitions",
        &metadata_response(),
        12,
    );
    compare::<_, theirs::OffsetCommitRequest>(
        c,
        "offset commit 8, 100 partitions",
        &offset_commit_request(),
        8,
    );
}

criterion_group! {
    name = benches;
    config = Criterion::default().measurement_time(std::time::Duration::from_secs(3));
    targets = codec
}
criterion_main!(benches);
