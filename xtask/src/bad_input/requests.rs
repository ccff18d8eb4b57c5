//! Requests that are well formed and wrong.

use super::{Case, Context, TOPIC};
use crate::Result;
use crate::batch::{self, Producer};
use crate::wire::{Reader, Writer, now_ms as now};

pub const CASES: &[Case] = &[
    ("batch.good", |c| produce(c, good())),
    ("batch.bad-crc", |c| {
        produce(c, changed(|b| b[70] ^= 1, false))
    }),
    ("batch.cut-off", |c| produce(c, good()[..50].to_vec())),
    ("batch.cut-off-by-one", |c| {
        produce(c, good()[..good().len() - 1].to_vec())
    }),
    ("batch.header-only", |c| produce(c, good()[..61].to_vec())),
    ("batch.empty", |c| produce(c, Vec::new())),
    ("batch.length-zero", |c| {
        produce(c, changed(|b| put(b, 8, &0i32.to_be_bytes()), false))
    }),
    ("batch.length-negative", |c| {
        produce(c, changed(|b| put(b, 8, &(-1i32).to_be_bytes()), false))
    }),
    ("batch.length-largest", |c| {
        produce(c, changed(|b| put(b, 8, &i32::MAX.to_be_bytes()), false))
    }),
    ("batch.magic-0", |c| {
        produce(c, changed(|b| b[16] = 0, true))
    }),
    ("batch.magic-1", |c| {
        produce(c, changed(|b| b[16] = 1, true))
    }),
    ("batch.magic-3", |c| {
        produce(c, changed(|b| b[16] = 3, true))
    }),
    ("batch.too-many-told", |c| {
        produce(c, changed(|b| put(b, 57, &9i32.to_be_bytes()), true))
    }),
    ("batch.too-few-told", |c| {
        produce(c, changed(|b| put(b, 57, &1i32.to_be_bytes()), true))
    }),
    ("batch.count-negative", |c| {
        produce(c, changed(|b| put(b, 57, &(-1i32).to_be_bytes()), true))
    }),
    ("batch.count-largest", |c| {
        let top = |b: &mut [u8]| {
            put(b, 57, &i32::MAX.to_be_bytes());
            put(b, 23, &(i32::MAX - 1).to_be_bytes());
        };
        produce(c, changed(top, true))
    }),
    ("batch.last-offset-delta", |c| {
        produce(c, changed(|b| put(b, 23, &7i32.to_be_bytes()), true))
    }),
    ("batch.unknown-codec", |c| {
        produce(c, changed(|b| b[22] |= 7, true))
    }),
    ("batch.not-really-gzip", |c| {
        produce(c, changed(|b| b[22] |= 1, true))
    }),
    ("batch.not-really-snappy", |c| {
        produce(c, changed(|b| b[22] |= 2, true))
    }),
    ("batch.not-really-lz4", |c| {
        produce(c, changed(|b| b[22] |= 3, true))
    }),
    ("batch.not-really-zstd", |c| {
        produce(c, changed(|b| b[22] |= 4, true))
    }),
    ("batch.control", |c| {
        produce(c, changed(|b| b[22] |= 0x20, true))
    }),
    ("batch.transactional-unknown-producer", |c| {
        let own = Producer {
            id: 123_456,
            epoch: 0,
            sequence: 0,
        };
        let mut b = batch::build(own, now(), &values());
        b[22] |= 0x10;
        batch::reseal(&mut b);
        produce(c, b)
    }),
    ("batch.record-longer-than-batch", |c| {
        produce(c, changed(|b| b[61] = 0x7e, true))
    }),
    ("batch.two-in-one-request", |c| {
        produce(c, [good(), good()].concat())
    }),
    ("batch.junk-behind", |c| {
        produce(c, [good(), vec![1, 2, 3]].concat())
    }),
    ("batch.too-large", |c| {
        produce(
            c,
            batch::build(Producer::NONE, now(), &[vec![7; 1_100_000]]),
        )
    }),
    ("batch.from-the-far-future", |c| {
        produce(
            c,
            batch::build(Producer::NONE, now() + 7_200_000, &values()),
        )
    }),
    ("sequence.gap", sequence_gap),
    ("sequence.repeated", sequence_repeated),
    ("sequence.stale-epoch", stale_epoch),
    ("produce.acks-2", |c| produce_to(c, TOPIC, 0, 2, &good())),
    ("produce.unknown-topic", |c| {
        produce_to(c, "no-such-topic", 0, -1, &good())
    }),
    ("produce.unknown-partition", |c| {
        produce_to(c, TOPIC, 9, -1, &good())
    }),
    ("produce.negative-partition", |c| {
        produce_to(c, TOPIC, -1, -1, &good())
    }),
    ("produce.invalid-topic", |c| {
        produce_to(c, "not a topic!", 0, -1, &good())
    }),
    ("produce.acks-0-bad-crc", acks_zero_bad_crc),
    ("fetch.beyond-the-end", |c| fetch(c, TOPIC, 0, 1 << 40)),
    ("fetch.negative-offset", |c| fetch(c, TOPIC, 0, -7)),
    ("fetch.unknown-topic", |c| fetch(c, "no-such-topic", 0, 0)),
    ("fetch.unknown-partition", |c| fetch(c, TOPIC, 9, 0)),
    ("metadata.invalid-name", |c| metadata(c, "not a topic!")),
    ("metadata.name-too-long", |c| metadata(c, &"n".repeat(250))),
    ("metadata.empty-name", |c| metadata(c, "")),
    ("create.invalid-name", |c| create(c, "not a topic!", 1, &[])),
    ("create.dot", |c| create(c, ".", 1, &[])),
    ("create.empty-name", |c| create(c, "", 1, &[])),
    ("create.no-partitions", |c| create(c, "none", 0, &[])),
    ("create.existing", |c| create(c, TOPIC, 1, &[])),
    ("create.config-not-a-number", |c| {
        create(c, "conf", 1, &[("retention.ms", "soon")])
    }),
    ("create.config-out-of-range", |c| {
        create(c, "conf", 1, &[("segment.bytes", "1")])
    }),
    ("create.config-unknown", |c| {
        create(c, "conf", 1, &[("no.such.config", "1")])
    }),
    ("alter.config-out-of-range", |c| {
        alter(c, 2, TOPIC, "retention.ms", "-2")
    }),
    ("alter.config-unknown", |c| {
        alter(c, 2, TOPIC, "no.such.config", "1")
    }),
    ("alter.topic-unknown", |c| {
        alter(c, 2, "no-such-topic", "retention.ms", "1")
    }),
    ("alter.broker-read-only", |c| {
        alter(c, 4, "1", "node.id", "7")
    }),
    ("alter.broker-out-of-range", |c| {
        alter(c, 4, "1", "num.io.threads", "0")
    }),
    ("alter.resource-unknown", |c| alter(c, 77, "x", "y", "1")),
    ("group.empty-id", |c| join(c, "", 10_000)),
    ("group.session-too-short", |c| join(c, "bad-group", 1)),
    ("group.session-too-long", |c| join(c, "bad-group", i32::MAX)),
    ("group.heartbeat-of-nobody", |c| {
        let mut body = Writer::default();
        body.string("no-group").i32(3).string("nobody");
        simple(c, 12, 1, &body, 4)
    }),
    ("group.sync-of-nobody", |c| {
        let mut body = Writer::default();
        body.string("no-group").i32(3).string("nobody").i32(0);
        simple(c, 14, 1, &body, 4)
    }),
    ("group.commit-of-nobody", commit_of_nobody),
    ("group.coordinator-of-unknown-kind", |c| {
        let mut body = Writer::default();
        body.string("key").i8(9);
        simple(c, 10, 1, &body, 4)
    }),
    ("list-offsets.unknown-partition", |c| {
        let mut body = Writer::default();
        body.i32(-1).i32(1).string(TOPIC).i32(1).i32(9).i64(-1);
        simple(c, 2, 1, &body, 4 + 2 + TOPIC.len() + 4 + 4)
    }),
    ("list-offsets.unknown-special", |c| {
        let mut body = Writer::default();
        body.i32(-1).i32(1).string(TOPIC).i32(1).i32(0).i64(-99);
        simple(c, 2, 1, &body, 4 + 2 + TOPIC.len() + 4 + 4)
    }),
];

fn values() -> Vec<Vec<u8>> {
    vec![
        b"first value".to_vec(),
        b"second value".to_vec(),
        b"third value".to_vec(),
    ]
}

fn good() -> Vec<u8> {
    batch::build(Producer::NONE, now(), &values())
}

/// A good batch with a change, its checksum made right again or not.
fn changed(change: impl Fn(&mut [u8]), reseal: bool) -> Vec<u8> {
    let mut bytes = good();
    change(&mut bytes);
    if reseal {
        batch::reseal(&mut bytes);
    }
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

fn produce(context: &Context, bytes: Vec<u8>) -> Result<String> {
    produce_to(context, TOPIC, 0, -1, &bytes)
}

fn produce_to(c: &Context, topic: &str, partition: i32, acks: i16, bytes: &[u8]) -> Result<String> {
    let mut connection = c.connect()?;
    Ok(match connection.produce(topic, partition, acks, bytes) {
        Ok(answer) => format!("error {}", answer.error),
        Err(_) => "closed".into(),
    })
}

/// Acks 0 has no answer; an error shows in the connection being closed.
fn acks_zero_bad_crc(context: &Context) -> Result<String> {
    let mut connection = context.connect()?;
    connection.send_produce(TOPIC, 0, 0, &changed(|b| b[70] ^= 1, false))?;
    Ok(super::outcome(&mut connection))
}

fn sequence_gap(context: &Context) -> Result<String> {
    let mut connection = context.connect()?;
    let (id, epoch) = connection.init_producer_id()?;
    let send = |sequence| {
        batch::build(
            Producer {
                id,
                epoch,
                sequence,
            },
            now(),
            &values(),
        )
    };
    let first = connection.produce(TOPIC, 0, -1, &send(0))?;
    let gap = connection.produce(TOPIC, 0, -1, &send(10))?;
    let next = connection.produce(TOPIC, 0, -1, &send(3))?;
    Ok(format!(
        "error {}, then {}, then {}",
        first.error, gap.error, next.error
    ))
}

fn sequence_repeated(context: &Context) -> Result<String> {
    let mut connection = context.connect()?;
    let (id, epoch) = connection.init_producer_id()?;
    let send = |sequence| {
        batch::build(
            Producer {
                id,
                epoch,
                sequence,
            },
            now(),
            &values(),
        )
    };
    let mut offsets = Vec::new();
    let mut errors = Vec::new();
    for sequence in [0, 3, 6, 9, 12, 15, 18, 18, 6, 0] {
        let answer = connection.produce(TOPIC, 0, -1, &send(sequence))?;
        offsets.push(answer.base_offset);
        errors.push(answer.error);
    }
    let same = offsets[7] == offsets[6] && offsets[8] == offsets[2];
    Ok(format!(
        "errors {errors:?}, repeats answered with the first offsets: {same}"
    ))
}

fn stale_epoch(context: &Context) -> Result<String> {
    let mut connection = context.connect()?;
    let (id, _) = connection.init_producer_id()?;
    let send = |epoch| {
        batch::build(
            Producer {
                id,
                epoch,
                sequence: 0,
            },
            now(),
            &values(),
        )
    };
    let newer = connection.produce(TOPIC, 0, -1, &send(5))?;
    let stale = connection.produce(TOPIC, 0, -1, &send(4))?;
    Ok(format!("error {}, then {}", newer.error, stale.error))
}

fn fetch(context: &Context, topic: &str, partition: i32, offset: i64) -> Result<String> {
    let mut connection = context.connect()?;
    let (error, high_watermark, bytes) = connection.fetch(topic, partition, offset, 1 << 20)?;
    let high_watermark = if high_watermark < 0 {
        high_watermark
    } else {
        0
    };
    Ok(format!(
        "error {error}, high watermark {high_watermark}, {} bytes",
        bytes.len()
    ))
}

/// The error code at a fixed place of the answer.
fn simple(c: &Context, key: i16, version: i16, body: &Writer, at: usize) -> Result<String> {
    let mut connection = c.connect()?;
    let Ok(answer) = connection.call(key, version, body) else {
        return Ok("closed".into());
    };
    let mut r = Reader(&answer);
    r.take(at)?;
    Ok(format!("error {}", r.i16()?))
}

fn metadata(context: &Context, topic: &str) -> Result<String> {
    let mut connection = context.connect()?;
    let mut body = Writer::default();
    body.i32(1).string(topic);
    let Ok(answer) = connection.call(3, 1, &body) else {
        return Ok("closed".into());
    };
    let mut r = Reader(&answer);
    for _ in 0..r.i32()? {
        r.i32()?;
        r.string()?;
        r.i32()?;
        r.string()?;
    }
    r.i32()?;
    let count = r.i32()?;
    let code = r.i16()?;
    Ok(format!("{count} topic, error {code}"))
}

fn create(c: &Context, name: &str, partitions: i32, configs: &[(&str, &str)]) -> Result<String> {
    Ok(format!(
        "error {}",
        c.connect()?.create_topic(name, partitions, configs)?
    ))
}

/// IncrementalAlterConfigs v0: sets one config.
fn alter(c: &Context, kind: i8, resource: &str, name: &str, value: &str) -> Result<String> {
    let mut body = Writer::default();
    body.i32(1)
        .i8(kind)
        .string(resource)
        .i32(1)
        .string(name)
        .i8(0)
        .string(value)
        .i8(0);
    simple(c, 44, 0, &body, 8)
}

fn join(context: &Context, group: &str, session_ms: i32) -> Result<String> {
    let mut body = Writer::default();
    body.string(group)
        .i32(session_ms)
        .i32(10_000)
        .string("")
        .string("consumer");
    body.i32(1)
        .string("range")
        .bytes(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    simple(context, 11, 2, &body, 4)
}

fn commit_of_nobody(context: &Context) -> Result<String> {
    let mut body = Writer::default();
    body.string("no-group")
        .i32(3)
        .string("nobody")
        .i64(-1)
        .i32(1)
        .string(TOPIC);
    body.i32(1).i32(0).i64(5).null_string();
    simple(context, 8, 2, &body, 4 + 2 + TOPIC.len() + 4 + 4)
}
