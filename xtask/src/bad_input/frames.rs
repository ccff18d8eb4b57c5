//! Frames and headers that are wrong.

use super::{Case, Context, outcome};
use crate::Result;
use crate::broker::Broker;
use crate::wire::{Reader, Writer};
use std::io::Write;

pub const CASES: &[Case] = &[
    ("frame.negative-size", |c| raw(c, &(-5i32).to_be_bytes())),
    ("frame.largest-size", |c| raw(c, &i32::MAX.to_be_bytes())),
    ("frame.over-the-limit", |c| {
        raw(c, &104_857_601i32.to_be_bytes())
    }),
    ("frame.empty", |c| raw(c, &[0, 0, 0, 0])),
    ("frame.two-bytes", |c| raw(c, &[0, 0, 0, 2, 0, 18])),
    ("frame.http", |c| {
        raw(c, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    }),
    ("frame.tls-hello", |c| {
        raw(c, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0, 0, 0, 0])
    }),
    ("header.unknown-key", |c| {
        call(c, 999, 0, &Writer::default())
    }),
    ("header.negative-key", |c| {
        call(c, -1, 0, &Writer::default())
    }),
    ("header.controller-only-key", |c| {
        call(c, 52, 0, &Writer::default())
    }),
    ("header.removed-key", |c| call(c, 6, 7, &Writer::default())),
    ("header.version-too-high", |c| {
        call(c, 3, 99, &Writer::default())
    }),
    ("header.version-too-low", |c| {
        call(c, 1, 3, &Writer::default())
    }),
    ("header.negative-version", |c| {
        call(c, 3, -1, &Writer::default())
    }),
    ("header.client-id-too-long", client_id_too_long),
    (
        "header.api-versions-of-the-future",
        api_versions_of_the_future,
    ),
    ("body.empty", |c| call(c, 3, 1, &Writer::default())),
    ("body.array-too-long", |c| {
        call(c, 3, 1, Writer::default().i32(i32::MAX))
    }),
    ("body.array-longer-than-frame", |c| {
        call(c, 3, 1, Writer::default().i32(1000).string("a"))
    }),
    ("body.string-longer-than-frame", |c| {
        call(c, 3, 1, Writer::default().i32(1).i16(30_000))
    }),
    ("body.not-utf-8", not_utf8),
    ("body.varint-too-long", |c| {
        call(c, 18, 3, Writer::default().i64(-1).i64(-1))
    }),
    ("body.produce-cut-off", |c| {
        call(
            c,
            0,
            7,
            Writer::default()
                .null_string()
                .i16(-1)
                .i32(1000)
                .i32(1)
                .string("bad-input"),
        )
    }),
];

fn raw(context: &Context, bytes: &[u8]) -> Result<String> {
    let mut connection = context.connect()?;
    connection.stream.write_all(bytes)?;
    Ok(outcome(&mut connection))
}

fn call(context: &Context, key: i16, version: i16, body: &Writer) -> Result<String> {
    let mut connection = context.connect()?;
    connection.send(key, version, &body.0)?;
    Ok(outcome(&mut connection))
}

fn client_id_too_long(context: &Context) -> Result<String> {
    let mut frame = Writer::default();
    frame.i32(14).i16(3).i16(1).i32(0).i16(30_000).i32(0);
    raw(context, &frame.0)
}

fn not_utf8(context: &Context) -> Result<String> {
    let mut body = Writer::default();
    body.i32(1).i16(4);
    body.0.extend([b'a', 0xff, 0xfe, b'b']);
    let mut connection = context.connect()?;
    connection.send(3, 1, &body.0)?;
    // Kafka reads such bytes as replacement characters and finds the name invalid.
    match connection.receive() {
        Ok(_) => Ok("answered".into()),
        Err(_) => Ok("closed".into()),
    }
}

/// A version that does not exist yet gets version 0 with the table of what there is.
fn api_versions_of_the_future(context: &Context) -> Result<String> {
    let mut connection = context.connect()?;
    connection.send(18, 99, &[0, 0, 0])?;
    let answer = connection.receive()?;
    let mut r = Reader(&answer);
    let code = r.i16()?;
    let count = r.i32()?;
    let first = (r.i16()?, r.i16()?, r.i16()?);
    let whole = answer.len() == 6 + 6 * count.max(0) as usize;
    // The connection stays usable.
    let after = connection.brokers()?;
    Ok(format!(
        "error {code}, {count} entry {first:?}, whole {whole}, then {after} broker"
    ))
}

/// Connections that announce large requests and never send them cost next to nothing.
pub fn memory_bounded(context: &Context, broker: &Broker) -> Result<()> {
    let before = broker.memory_mib()?.0;
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut connection = context.connect()?;
        let mut frame = 100_000_000i32.to_be_bytes().to_vec();
        frame.extend([0, 3, 0, 1, 0, 0, 0, 0]);
        connection.stream.write_all(&frame)?;
        idle.push(connection);
    }
    // The broker has taken in what was sent once it answers behind it.
    for _ in 0..50 {
        context.connect()?.brokers()?;
    }
    let (after, _) = broker.memory_mib()?;
    if after - before > 64.0 {
        return Err(format!("{before:.0} MiB before, {after:.0} MiB after").into());
    }
    drop(idle);
    Ok(())
}
