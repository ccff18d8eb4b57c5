//! Connections over loopback: order, barriers, file ranges, limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use klamm_env::{Env, FileExt, OpenMode};
use klamm_net::{
    ByteBudget, ConnectionInfo, Handling, Listener, ListenerConfig, Part, Reply, Service, Shutdown,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// A service whose frames are commands.
struct Script {
    release: Notify,
    file: Option<Arc<dyn klamm_env::File>>,
}

fn answer(text: &[u8]) -> Reply {
    let mut bytes = BytesMut::new();
    bytes.put_u32(u32::try_from(text.len()).unwrap());
    bytes.extend_from_slice(text);
    Reply::Send(vec![Part::Bytes(bytes.freeze())])
}

impl Service for Script {
    type Session = u32;

    fn open(&self, connection: ConnectionInfo) -> u32 {
        assert_eq!(&*connection.listener, "TEST");
        0
    }

    fn handle(self: &Arc<Self>, seen: &mut u32, frame: Bytes) -> Handling {
        *seen += 1;
        let this = self.clone();
        match &frame[..] {
            b"later" => Handling::Pipelined(Box::pin(async move {
                this.release.notified().await;
                answer(b"later")
            })),
            b"barrier" => Handling::Barrier(Box::pin(async move {
                tokio::task::yield_now().await;
                answer(b"barrier")
            })),
            b"release" => {
                self.release.notify_one();
                Handling::Ready(answer(b"released"))
            }
            b"count" => Handling::Ready(answer(seen.to_string().as_bytes())),
            b"nothing" => Handling::Ready(Reply::Nothing),
            b"close" => Handling::Ready(Reply::Close),
            b"file" => Handling::Ready(Reply::Send(vec![
                Part::Bytes(Bytes::copy_from_slice(&300_000_u32.to_be_bytes())),
                Part::File {
                    file: self.file.clone().unwrap(),
                    position: 7,
                    len: 300_000,
                },
            ])),
            b"piece" => Handling::Ready(Reply::Send(vec![
                Part::Bytes(Bytes::copy_from_slice(&1_003_u32.to_be_bytes())),
                Part::File {
                    file: self.file.clone().unwrap(),
                    position: 100,
                    len: 1_000,
                },
                Part::Bytes(Bytes::from_static(b"end")),
            ])),
            other => Handling::Ready(answer(other)),
        }
    }
}

struct Server {
    address: std::net::SocketAddr,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<()>,
}

#[expect(clippy::disallowed_methods, reason = "the test is its own driver")]
fn serve(config: ListenerConfig, file: Option<Arc<dyn klamm_env::File>>) -> Server {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
    let address = listener.local_addr();
    let shutdown = Shutdown::new();
    let service = Arc::new(Script {
        release: Notify::new(),
        file,
    });
    let task = tokio::spawn(listener.run(service, shutdown.clone()));
    Server {
        address,
        shutdown,
        task,
    }
}

async fn send(stream: &mut TcpStream, frames: &[&[u8]]) {
    let mut bytes = BytesMut::new();
    for frame in frames {
        bytes.put_u32(u32::try_from(frame.len()).unwrap());
        bytes.extend_from_slice(frame);
    }
    stream.write_all(&bytes).await.unwrap();
}

async fn receive(stream: &mut TcpStream) -> Vec<u8> {
    let len = stream.read_u32().await.unwrap();
    let mut body = vec![0; len as usize];
    stream.read_exact(&mut body).await.unwrap();
    body
}

#[tokio::test]
async fn a_pending_answer_lets_later_requests_in_but_not_past_it() {
    let server = serve(ListenerConfig::named("TEST"), None);
    let mut client = TcpStream::connect(server.address).await.unwrap();
    // "release" is handled although "later" is unanswered; its answer leaves behind it.
    send(&mut client, &[b"later", b"release", b"barrier", b"count"]).await;
    for expected in [&b"later"[..], b"released", b"barrier", b"4"] {
        assert_eq!(receive(&mut client).await, expected);
    }
}

#[tokio::test]
async fn nothing_is_sent_for_nothing_and_close_closes() {
    let server = serve(ListenerConfig::named("TEST"), None);
    let mut client = TcpStream::connect(server.address).await.unwrap();
    send(&mut client, &[b"nothing", b"count", b"close", b"count"]).await;
    assert_eq!(receive(&mut client).await, b"2");
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn file_ranges_arrive_whole() {
    let dir = tempfile::tempdir().unwrap();
    let file = Env::os()
        .fs
        .open(&dir.path().join("f"), OpenMode::Create)
        .unwrap();
    let content: Vec<u8> = (0..400_000_u32).map(|i| (i % 251) as u8).collect();
    file.write_all_at(&content, 0).unwrap();
    let server = serve(ListenerConfig::named("TEST"), Some(file));
    let mut client = TcpStream::connect(server.address).await.unwrap();
    send(&mut client, &[b"file", b"hi", b"file"]).await;
    assert_eq!(receive(&mut client).await, &content[7..300_007]);
    assert_eq!(receive(&mut client).await, b"hi");
    assert_eq!(receive(&mut client).await, &content[7..300_007]);
}

#[tokio::test]
async fn short_file_ranges_arrive_in_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = Env::os()
        .fs
        .open(&dir.path().join("f"), OpenMode::Create)
        .unwrap();
    let content: Vec<u8> = (0..2_000_u32).map(|i| (i % 251) as u8).collect();
    file.write_all_at(&content, 0).unwrap();
    let server = serve(ListenerConfig::named("TEST"), Some(file));
    let mut client = TcpStream::connect(server.address).await.unwrap();
    send(&mut client, &[b"piece", b"hi"]).await;
    let expected = [&content[100..1_100], b"end"].concat();
    assert_eq!(receive(&mut client).await, expected);
    assert_eq!(receive(&mut client).await, b"hi");
}

#[tokio::test]
async fn an_oversized_frame_costs_its_own_connection_only() {
    let config = ListenerConfig {
        frame_bytes_max: 100,
        ..ListenerConfig::named("TEST")
    };
    let server = serve(config, None);
    let mut good = TcpStream::connect(server.address).await.unwrap();
    let mut bad = TcpStream::connect(server.address).await.unwrap();
    bad.write_all(&101_u32.to_be_bytes()).await.unwrap();
    assert_eq!(bad.read(&mut [0]).await.unwrap(), 0);
    send(&mut good, &[b"hi"]).await;
    assert_eq!(receive(&mut good).await, b"hi");
}

#[tokio::test]
async fn a_request_larger_than_the_budget_passes_alone() {
    let budget = ByteBudget::new(2048);
    let config = ListenerConfig {
        queued_bytes_max: Some(budget.clone()),
        ..ListenerConfig::named("TEST")
    };
    let server = serve(config, None);
    let mut client = TcpStream::connect(server.address).await.unwrap();
    let large = vec![b'x'; 100_000];
    send(&mut client, &[&large, b"hi"]).await;
    assert_eq!(receive(&mut client).await, large);
    assert_eq!(receive(&mut client).await, b"hi");
    assert_eq!(budget.free_bytes(), 2048);
}

#[tokio::test]
async fn too_many_connections_from_one_address_are_dropped() {
    let config = ListenerConfig {
        connections_per_ip_max: 1,
        ..ListenerConfig::named("TEST")
    };
    let server = serve(config, None);
    let mut first = TcpStream::connect(server.address).await.unwrap();
    send(&mut first, &[b"hi"]).await;
    assert_eq!(receive(&mut first).await, b"hi");
    let mut second = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(second.read(&mut [0]).await.unwrap_or(0), 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed() {
    let config = ListenerConfig {
        idle_max: Some(Duration::from_secs(60)),
        ..ListenerConfig::named("TEST")
    };
    let server = serve(config, None);
    let mut client = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn shutdown_ends_listener_and_connections_even_with_answers_pending() {
    let server = serve(ListenerConfig::named("TEST"), None);
    let mut client = TcpStream::connect(server.address).await.unwrap();
    send(&mut client, &[b"hi", b"later"]).await;
    assert_eq!(receive(&mut client).await, b"hi");
    server.shutdown.stop();
    server.task.await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}
