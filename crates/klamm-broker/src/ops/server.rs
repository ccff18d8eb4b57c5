//! The HTTP port for metrics and health.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::exposition::CONTENT_TYPE;
use super::http::{self, HEAD_MAX, Parsed, Response};
use super::{Health, Metrics};

/// Scrapers and probes served at the same time; more wait in the accept queue.
const CONNECTIONS_MAX: usize = 16;
/// How long a client may take for its request and for reading the answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for metrics on {host}:{port}: {source}")]
pub struct OpsBindError {
    /// The host as configured.
    pub host: String,
    /// The port as configured.
    pub port: u16,
    /// What the system says.
    pub source: io::Error,
}

/// Serves `/metrics`, `/health` and `/live` until it is dropped.
#[derive(Debug)]
pub struct OpsServer {
    addresses: Vec<SocketAddr>,
    /// Dropping it ends the tasks.
    _tasks: JoinSet<()>,
}

impl OpsServer {
    /// Binds each address and serves it from tasks of the current runtime.
    ///
    /// # Errors
    /// If an address cannot be bound.
    pub async fn bind(
        addresses: &[(String, u16)],
        metrics: Arc<Metrics>,
    ) -> Result<OpsServer, OpsBindError> {
        let mut tasks = JoinSet::new();
        let mut bound = Vec::with_capacity(addresses.len());
        for (host, port) in addresses {
            let failed = |source| OpsBindError {
                host: host.clone(),
                port: *port,
                source,
            };
            let listener = TcpListener::bind((host.as_str(), *port))
                .await
                .map_err(failed)?;
            bound.push(listener.local_addr().map_err(failed)?);
            tasks.spawn(accept(listener, metrics.clone()));
        }
        Ok(OpsServer {
            addresses: bound,
            _tasks: tasks,
        })
    }

    /// The addresses that were bound, in the order they were asked for.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

async fn accept(listener: TcpListener, metrics: Arc<Metrics>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let metrics = metrics.clone();
                connections.spawn(async move {
                    // A client that is slow or gone is no concern of ours.
                    let _ = tokio::time::timeout(PATIENCE, serve(stream, &metrics)).await;
                    drop(place);
                });
            }
            // Out of file descriptors, most likely: try again when some may be free.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let mut received = Vec::with_capacity(1024);
    let (response, head_only) = loop {
        match http::parse(&received) {
            Parsed::Request(request) => break (answer(request.path, metrics), request.head_only),
            Parsed::Refused(response) => break (response, false),
            Parsed::Incomplete => {}
        }
        let space = u64::try_from(HEAD_MAX - received.len()).unwrap_or(0);
        if (&mut stream).take(space).read_buf(&mut received).await? == 0 {
            return Ok(());
        }
    };
    stream.write_all(&response.into_bytes(head_only)).await?;
    stream.shutdown().await
}

/// The answer to a path.
pub(super) fn answer(path: &str, metrics: &Metrics) -> Response {
    match path {
        "/metrics" => Response::new("200 OK", CONTENT_TYPE, metrics.render()),
        "/health" => {
            let health = metrics.health();
            let status = if health == Health::Ready {
                "200 OK"
            } else {
                "503 Service Unavailable"
            };
            let body = format!("{{\"status\":\"{}\"}}\n", health.name());
            Response::new(status, "application/json", body)
        }
        // The process answers, and that is all this says.
        "/live" => Response::text("200 OK", "live"),
        "/" => Response::text("200 OK", "klamm: /metrics /health /live"),
        _ => Response::text("404 Not Found", "not found: try /metrics, /health or /live"),
    }
}
