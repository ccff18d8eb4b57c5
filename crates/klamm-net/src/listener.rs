use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::{debug, warn};

use crate::connection::{Closed, Connection, Limits};
use crate::write::ColdReads;
use crate::{ByteBudget, ConnectionInfo, Service, Shutdown};

/// How long to wait after a failed accept (out of file descriptors, say) before the next.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Threads per listener that read ranges ahead which are not in the page cache: a few keep a
/// device busy, and more would only be more of them to wait for it.
const COLD_READS_MAX: usize = 8;

static NEXT_CONNECTION_ID: AtomicU64 = AtomicU64::new(0);

/// What a listener needs to know.
#[derive(Clone, Debug)]
pub struct ListenerConfig {
    /// The listener's name, as in `listeners`.
    pub name: Arc<str>,
    /// Longest frame accepted (`socket.request.max.bytes`).
    pub frame_bytes_max: usize,
    /// Answers pending per connection before it is no longer read.
    pub pipeline_max: usize,
    /// Connections without traffic for this long are closed (`connections.max.idle.ms`), give or
    /// take half a minute.
    pub idle_max: Option<Duration>,
    /// Budget for the bytes of requests over all connections (`queued.max.request.bytes`); shared
    /// between listeners by cloning.
    pub queued_bytes_max: Option<ByteBudget>,
    /// Connections over all addresses (`max.connections`).
    pub connections_max: usize,
    /// Connections from one address (`max.connections.per.ip`).
    pub connections_per_ip_max: usize,
    /// Kernel send buffer in bytes (`socket.send.buffer.bytes`); `None` leaves it to the system.
    pub send_buffer_bytes: Option<usize>,
    /// Kernel receive buffer in bytes (`socket.receive.buffer.bytes`).
    pub receive_buffer_bytes: Option<usize>,
    /// Connections the kernel queues before they are accepted (`socket.listen.backlog.size`).
    pub backlog: i32,
}

impl ListenerConfig {
    /// Kafka's defaults for a listener of this name.
    pub fn named(name: impl Into<Arc<str>>) -> Self {
        ListenerConfig {
            name: name.into(),
            frame_bytes_max: 100 * 1024 * 1024,
            pipeline_max: 16,
            idle_max: Some(Duration::from_secs(600)),
            queued_bytes_max: None,
            connections_max: usize::MAX,
            connections_per_ip_max: usize::MAX,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            backlog: 50,
        }
    }
}

/// A listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener} cannot listen on {address}: {source}")]
pub struct BindError {
    /// The listener's name.
    pub listener: Arc<str>,
    /// The address that was asked for.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// An open listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    config: ListenerConfig,
    address: SocketAddr,
}

impl Listener {
    /// Opens the socket; clients can connect from now on and are served once [`Listener::run`] is.
    ///
    /// # Errors
    /// The address cannot be had: in use, not local, not permitted.
    pub fn bind(address: SocketAddr, config: ListenerConfig) -> Result<Self, BindError> {
        let fail = |source| BindError {
            listener: config.name.clone(),
            address,
            source,
        };
        let socket = open_socket(address, &config).map_err(fail)?;
        let address = socket.local_addr().map_err(fail)?;
        Ok(Listener {
            socket,
            config,
            address,
        })
    }

    /// The address it listens on; the port is real where 0 was asked for.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Accepts and serves until `shutdown` is signalled.
    pub async fn run<S: Service>(self, service: Arc<S>, shutdown: Shutdown) {
        let mut stop = shutdown.subscribe();
        let cold_reads = ColdReads::new(COLD_READS_MAX);
        let per_ip = Arc::new(PerIp::default());
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = stop.wait() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    self.admit(stream, peer, &service, &shutdown, &per_ip, &cold_reads);
                }
                Err(error) => {
                    warn!(listener = %self.config.name, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// Starts the task of an accepted connection, or drops it if there are too many.
    #[expect(
        clippy::disallowed_methods,
        reason = "the driver of connections: a task each"
    )]
    fn admit<S: Service>(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        service: &Arc<S>,
        shutdown: &Shutdown,
        per_ip: &Arc<PerIp>,
        cold_reads: &ColdReads,
    ) {
        if shutdown.open_connections() >= self.config.connections_max {
            warn!(%peer, limit = self.config.connections_max, "refused: max.connections reached");
            return;
        }
        let Some(seat) = per_ip.enter(peer.ip(), self.config.connections_per_ip_max) else {
            warn!(%peer, limit = self.config.connections_per_ip_max, "refused: max.connections.per.ip reached");
            return;
        };
        let info = match prepare(&stream, peer, &self.config) {
            Ok(info) => info,
            Err(error) => {
                debug!(%peer, %error, "connection lost before it began");
                return;
            }
        };
        let limits = Limits {
            frame_bytes_max: self.config.frame_bytes_max,
            pipeline_max: self.config.pipeline_max.max(1),
            idle_max: self.config.idle_max,
            budget: self.config.queued_bytes_max.clone(),
            cold_reads: cold_reads.clone(),
        };
        let (service, stop, open) = (service.clone(), shutdown.subscribe(), shutdown.enter());
        tokio::spawn(async move {
            let mut session = service.open(info);
            let closed = Connection::new(stream, &service, &mut session, limits, stop)
                .run()
                .await;
            match closed {
                Closed::Frame(error) => warn!(%peer, %error, "closing a connection"),
                closed => debug!(%peer, reason = %closed, "connection closed"),
            }
            service.closed(session);
            drop((open, seat));
        });
    }
}

fn open_socket(address: SocketAddr, config: &ListenerConfig) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    if let Some(bytes) = config.receive_buffer_bytes {
        // Set before listen so that accepted sockets can offer a matching window.
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.bind(&address.into())?;
    socket.listen(config.backlog)?;
    TcpListener::from_std(socket.into())
}

fn prepare(
    stream: &TcpStream,
    peer: SocketAddr,
    config: &ListenerConfig,
) -> io::Result<ConnectionInfo> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    socket.set_keepalive(true)?;
    if let Some(bytes) = config.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    Ok(ConnectionInfo {
        id: NEXT_CONNECTION_ID.fetch_add(1, Ordering::Relaxed),
        peer,
        local: stream.local_addr()?,
        listener: config.name.clone(),
    })
}

/// Connections by client address.
#[derive(Debug, Default)]
struct PerIp(Mutex<HashMap<IpAddr, usize>>);

impl PerIp {
    fn enter(self: &Arc<Self>, ip: IpAddr, max: usize) -> Option<Seat> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(ip).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Seat {
            table: self.clone(),
            ip,
        })
    }
}

/// A connection's place in [`PerIp`], given back on drop.
#[derive(Debug)]
struct Seat {
    table: Arc<PerIp>,
    ip: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.table.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.ip);
            }
        }
    }
}
