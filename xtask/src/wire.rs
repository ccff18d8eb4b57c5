//! A Kafka client of a few hundred lines: what the fault loops, the bad-input suite and the
//! start-up measurements need, in fixed old request versions without tagged fields.
//!
//! It is no part of the product and shares no code with it on purpose: a suite that encodes with
//! the codec under test would find both wrong in the same way.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Request bytes, big-endian.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    pub fn i8(&mut self, v: i8) -> &mut Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    pub fn i16(&mut self, v: i16) -> &mut Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    pub fn i32(&mut self, v: i32) -> &mut Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    pub fn i64(&mut self, v: i64) -> &mut Self {
        self.0.extend(v.to_be_bytes());
        self
    }
    pub fn string(&mut self, v: &str) -> &mut Self {
        self.i16(v.len() as i16);
        self.0.extend(v.as_bytes());
        self
    }
    pub fn null_string(&mut self) -> &mut Self {
        self.i16(-1)
    }
    pub fn bytes(&mut self, v: &[u8]) -> &mut Self {
        self.i32(v.len() as i32);
        self.0.extend(v);
        self
    }
    /// Zigzag varint, as records use.
    pub fn varint(&mut self, v: i64) -> &mut Self {
        let mut rest = ((v << 1) ^ (v >> 63)) as u64;
        while rest >= 0x80 {
            self.0.push((rest as u8) | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
        self
    }
}

/// Response bytes. Running off the end is an error, never a panic: the broker may be wrong.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, n: usize) -> io::Result<&'a [u8]> {
        if n > self.0.len() {
            return Err(bad(format!("{n} bytes wanted, {} left", self.0.len())));
        }
        let (head, tail) = self.0.split_at(n);
        self.0 = tail;
        Ok(head)
    }
    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }
    pub fn i8(&mut self) -> io::Result<i8> {
        Ok(i8::from_be_bytes(self.array()?))
    }
    pub fn i16(&mut self) -> io::Result<i16> {
        Ok(i16::from_be_bytes(self.array()?))
    }
    pub fn i32(&mut self) -> io::Result<i32> {
        Ok(i32::from_be_bytes(self.array()?))
    }
    pub fn i64(&mut self) -> io::Result<i64> {
        Ok(i64::from_be_bytes(self.array()?))
    }
    /// A nullable string; null reads as empty.
    pub fn string(&mut self) -> io::Result<String> {
        let n = self.i16()?;
        let raw = self.take(usize::try_from(n).unwrap_or(0))?;
        String::from_utf8(raw.to_vec()).map_err(|e| bad(e.to_string()))
    }
    /// Nullable bytes; null reads as empty.
    pub fn bytes(&mut self) -> io::Result<&'a [u8]> {
        let n = self.i32()?;
        self.take(usize::try_from(n).unwrap_or(0))
    }
    pub fn varint(&mut self) -> io::Result<i64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(((value >> 1) as i64) ^ -((value & 1) as i64));
            }
        }
        Err(bad("varint too long".into()))
    }
}

fn bad(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// One connection; requests may be pipelined with [`Connection::send`] and [`Connection::receive`].
pub struct Connection {
    pub stream: TcpStream,
    sent: i32,
    received: i32,
}

impl Connection {
    pub fn open(port: u16) -> io::Result<Connection> {
        Connection::open_at("127.0.0.1", port)
    }

    /// Opens one to a numeric address.
    pub fn open_at(host: &str, port: u16) -> io::Result<Connection> {
        let address: SocketAddr = format!("{host}:{port}")
            .parse()
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        Ok(Connection {
            stream,
            sent: 0,
            received: 0,
        })
    }

    /// Sends a request with a version 1 header.
    pub fn send(&mut self, key: i16, version: i16, body: &[u8]) -> io::Result<()> {
        let mut frame = Writer::default();
        frame
            .i32(0)
            .i16(key)
            .i16(version)
            .i32(self.sent)
            .string("klamm-xtask");
        frame.0.extend(body);
        let size = frame.0.len() as i32 - 4;
        frame.0[..4].copy_from_slice(&size.to_be_bytes());
        self.sent += 1;
        self.stream.write_all(&frame.0)
    }

    /// The body of the next response, whose correlation id must be the next one.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let frame = self.receive_frame()?;
        let mut reader = Reader(&frame);
        let id = reader.i32()?;
        if id != self.received {
            return Err(bad(format!(
                "correlation id {id} instead of {}",
                self.received
            )));
        }
        self.received += 1;
        Ok(frame[4..].to_vec())
    }

    pub fn receive_frame(&mut self) -> io::Result<Vec<u8>> {
        let mut size = [0; 4];
        self.stream.read_exact(&mut size)?;
        let size = i32::from_be_bytes(size);
        if !(4..=200 << 20).contains(&size) {
            return Err(bad(format!("response of {size} bytes")));
        }
        let mut frame = vec![0; size as usize];
        self.stream.read_exact(&mut frame)?;
        Ok(frame)
    }

    pub fn call(&mut self, key: i16, version: i16, body: &Writer) -> io::Result<Vec<u8>> {
        self.send(key, version, &body.0)?;
        self.receive()
    }

    /// How many brokers the cluster shows (Metadata v1, no topics).
    pub fn brokers(&mut self) -> io::Result<i32> {
        let mut body = Writer::default();
        body.i32(0);
        Reader(&self.call(3, 1, &body)?).i32()
    }

    /// Makes a topic of one replica; answers the error code.
    pub fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        configs: &[(&str, &str)],
    ) -> io::Result<i16> {
        self.create_replicated_topic(name, partitions, 1, configs)
    }

    /// CreateTopics v2; answers the error code.
    pub fn create_replicated_topic(
        &mut self,
        name: &str,
        partitions: i32,
        replicas: i16,
        configs: &[(&str, &str)],
    ) -> io::Result<i16> {
        let mut body = Writer::default();
        body.i32(1)
            .string(name)
            .i32(partitions)
            .i16(replicas)
            .i32(0)
            .i32(configs.len() as i32);
        for (key, value) in configs {
            body.string(key).string(value);
        }
        body.i32(30_000).i8(0);
        let answer = self.call(19, 2, &body)?;
        let mut r = Reader(&answer);
        r.i32()?;
        r.i32()?;
        r.string()?;
        r.i16()
    }

    /// How many partitions of a topic have a leader (Metadata v1).
    pub fn led_partitions(&mut self, topic: &str) -> io::Result<i32> {
        let mut body = Writer::default();
        body.i32(1).string(topic);
        let answer = self.call(3, 1, &body)?;
        let mut r = Reader(&answer);
        for _ in 0..r.i32()? {
            r.i32()?;
            r.string()?;
            r.i32()?;
            r.string()?;
        }
        r.i32()?;
        if r.i32()? != 1 {
            return Err(bad("another number of topics than asked for".into()));
        }
        r.i16()?;
        r.string()?;
        r.i8()?;
        let mut led = 0;
        for _ in 0..r.i32()? {
            let error = r.i16()?;
            r.i32()?;
            led += i32::from(r.i32()? >= 0 && error == 0);
            for _ in 0..2 {
                let nodes = r.i32()?;
                r.take(usize::try_from(nodes).unwrap_or(0) * 4)?;
            }
        }
        Ok(led)
    }

    /// InitProducerId v1 without a transactional id.
    pub fn init_producer_id(&mut self) -> io::Result<(i64, i16)> {
        let mut body = Writer::default();
        body.null_string().i32(60_000);
        let answer = self.call(22, 1, &body)?;
        let mut r = Reader(&answer);
        r.i32()?;
        let code = r.i16()?;
        if code != 0 {
            return Err(bad(format!("InitProducerId answered {code}")));
        }
        Ok((r.i64()?, r.i16()?))
    }

    pub fn send_produce(
        &mut self,
        topic: &str,
        partition: i32,
        acks: i16,
        batch: &[u8],
    ) -> io::Result<()> {
        self.send(0, 7, &produce_body(topic, partition, acks, batch).0)
    }

    pub fn receive_produce(&mut self) -> io::Result<Produced> {
        let answer = self.receive()?;
        let mut r = Reader(&answer);
        r.i32()?;
        r.string()?;
        r.i32()?;
        r.i32()?;
        Ok(Produced {
            error: r.i16()?,
            base_offset: r.i64()?,
            log_append_ms: r.i64()?,
        })
    }

    pub fn produce(
        &mut self,
        topic: &str,
        partition: i32,
        acks: i16,
        batch: &[u8],
    ) -> io::Result<Produced> {
        self.send_produce(topic, partition, acks, batch)?;
        self.receive_produce()
    }

    /// Fetch v4 of one partition: error code, high watermark, raw batches (the last may be cut).
    pub fn fetch(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
        bytes_max: i32,
    ) -> io::Result<(i16, i64, Vec<u8>)> {
        let mut body = Writer::default();
        body.i32(-1)
            .i32(100)
            .i32(1)
            .i32(bytes_max)
            .i8(0)
            .i32(1)
            .string(topic)
            .i32(1);
        body.i32(partition).i64(offset).i32(bytes_max);
        let answer = self.call(1, 4, &body)?;
        let mut r = Reader(&answer);
        r.i32()?;
        if r.i32()? != 1 {
            return Ok((-1, -1, Vec::new()));
        }
        r.string()?;
        r.i32()?;
        r.i32()?;
        let error = r.i16()?;
        let high_watermark = r.i64()?;
        r.i64()?;
        let aborted = r.i32()?;
        for _ in 0..aborted {
            r.i64()?;
            r.i64()?;
        }
        Ok((error, high_watermark, r.bytes()?.to_vec()))
    }
}

/// The wall clock, in milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The answer to one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced {
    pub error: i16,
    pub base_offset: i64,
    /// The time that the broker put on it, if it did.
    pub log_append_ms: i64,
}

/// The body of a Produce v7 request with one batch.
pub fn produce_body(topic: &str, partition: i32, acks: i16, batch: &[u8]) -> Writer {
    let mut body = Writer::default();
    body.null_string()
        .i16(acks)
        .i32(30_000)
        .i32(1)
        .string(topic)
        .i32(1)
        .i32(partition);
    body.bytes(batch);
    body
}
