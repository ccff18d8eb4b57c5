//! A broker in this process and the smallest client that can talk to it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

pub mod nodes;
pub mod transactions;

use std::net::SocketAddr;
use std::path::Path;

use bytes::{Bytes, BytesMut};
use klamm_broker::Broker;
use klamm_config::BrokerConfig;
use klamm_env::Env;
use klamm_protocol::frame::{decode_response, encode_request};
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::{ProduceRequest, ProduceResponse};
use klamm_protocol::{Records, Request, Segment};
use klamm_records::{BatchBuilder, BatchOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Starts a broker over `dir` on a free port.
pub async fn start(dir: &Path, more: &[(&str, &str)]) -> Broker {
    try_start(dir, more).await.unwrap()
}

pub async fn try_start(
    dir: &Path,
    more: &[(&str, &str)],
) -> Result<Broker, klamm_broker::BrokerError> {
    try_start_in(dir, more, Env::os()).await
}

pub async fn try_start_in(
    dir: &Path,
    more: &[(&str, &str)],
    env: Env,
) -> Result<Broker, klamm_broker::BrokerError> {
    let dir = dir.to_string_lossy();
    let mut pairs = vec![
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("log.dirs", &*dir),
        ("klamm.metrics.listeners", ""),
        ("group.initial.rebalance.delay.ms", "0"),
        ("offsets.topic.num.partitions", "2"),
    ];
    pairs.extend_from_slice(more);
    Broker::start(BrokerConfig::from_pairs(pairs).unwrap(), env).await
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    correlation_id: i32,
}

impl Client {
    pub async fn connect(broker: &Broker) -> Client {
        Client::connect_to(broker, "PLAINTEXT").await
    }

    pub async fn connect_to(broker: &Broker, listener: &str) -> Client {
        Client::connect_at(broker.address(listener).unwrap()).await
    }

    pub async fn connect_at(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).await.unwrap();
        Client {
            stream,
            correlation_id: 0,
        }
    }

    /// Sends a request and reads its response.
    pub async fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.try_ask(version, request)
            .await
            .expect("the connection was closed")
    }

    /// As [`Client::ask`]; `None` if the broker closed the connection instead.
    pub async fn try_ask<R: Request>(&mut self, version: i16, request: &R) -> Option<R::Response> {
        self.send(version, request).await;
        let frame = self.receive().await?;
        let (correlation_id, response) = decode_response::<R>(frame, version).unwrap();
        assert_eq!(correlation_id, self.correlation_id);
        Some(response)
    }

    pub async fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.correlation_id += 1;
        let segments = encode_request(self.correlation_id, Some("test"), version, request).unwrap();
        let mut bytes = BytesMut::new();
        for segment in segments {
            let Segment::Bytes(segment) = segment else {
                panic!("requests lie in memory")
            };
            bytes.extend_from_slice(&segment);
        }
        // The broker may have closed the connection already; reading will tell.
        let _ = self.stream.write_all(&bytes).await;
    }

    /// The next frame, or `None` at the end of the connection.
    pub async fn receive(&mut self) -> Option<Bytes> {
        let len = self.stream.read_i32().await.ok()?;
        let mut body = vec![0; usize::try_from(len).unwrap()];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(body.into())
    }

    /// Produces one batch of `values` and returns its base offset.
    pub async fn produce(&mut self, topic: &str, values: &[&str]) -> i64 {
        let response = self
            .ask(9, &produce_request(topic, batch(values), -1))
            .await;
        let partition = &response.responses[0].partition_responses[0];
        assert_eq!(partition.error_code, 0, "{response:?}");
        partition.base_offset
    }
}

/// A batch of records without keys. They are of now: retention, which looks at logs every so often
/// however short a test is, deletes what is older than a week.
pub fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let now_ms = Env::os().clock.wall_ms();
    for value in values {
        builder
            .append(now_ms, None, Some(value.as_bytes()), [])
            .unwrap();
    }
    builder.build().unwrap()
}

/// A request to produce `records` to partition 0 of a topic, by name.
pub fn produce_request(topic: &str, records: Bytes, acks: i16) -> ProduceRequest {
    let partition = PartitionProduceData {
        index: 0,
        records: Some(Records::Bytes(records)),
        ..PartitionProduceData::default()
    };
    ProduceRequest {
        acks,
        timeout_ms: 5000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![partition],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

/// The one error code of a produce response.
pub fn produce_error(response: &ProduceResponse) -> i16 {
    response.responses[0].partition_responses[0].error_code
}
