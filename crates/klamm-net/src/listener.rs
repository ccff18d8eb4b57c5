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
use crate::shutdown::Open;
use crate::threads::{Place, Threads};
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
    /// Threads that the connections live on; shared between listeners by cloning. `None` leaves
    /// them to the runtime that runs the listener.
    pub threads: Option<Threads>,
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
            threads: None,
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
        let (stop, open) = (shutdown.subscribe(), shutdown.enter());
        let session = service.open(info);
        let connection = Connection::new(stream, service.clone(), session, limits, None, stop);
        let served = Served {
            connection,
            peer,
            _open: open,
            _seat: seat,
        };
        match &self.config.threads {
            Some(threads) => served.go_on(threads.place()),
            None => served.stay(),
        }
    }
}

/// A connection with what is given back when it ends.
struct Served<S: Service> {
    connection: Connection<S>,
    peer: SocketAddr,
    _open: Open,
    _seat: Seat,
}

impl<S: Service> Served<S> {
    /// Runs the connection on the runtime at hand.
    #[expect(
        clippy::disallowed_methods,
        reason = "the driver of connections: a task each"
    )]
    fn stay(self) {
        tokio::spawn(self.run());
    }

    /// Runs the connection on another thread from now on.
    fn go_on(mut self, place: Place) {
        let socket = match self.connection.second_socket() {
            Ok(socket) => socket,
            Err(error) => return self.end(&Closed::Io(error)),
        };
        let handle = place.handle().clone();
        handle.spawn(async move {
            match self.connection.settle(socket, place) {
                Ok(()) => self.run().await,
                Err(error) => self.end(&Closed::Io(error)),
            }
        });
    }

    async fn run(mut self) {
        match self.connection.run().await {
            Closed::Moves(place) => self.go_on(place),
            closed => self.end(&closed),
        }
    }

    fn end(self, closed: &Closed) {
        let peer = self.peer;
        match closed {
            Closed::Frame(error) => warn!(%peer, %error, "closing a connection"),
            closed => debug!(%peer, reason = %closed, "connection closed"),
        }
        self.connection.closed();
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::{Handling, Part, Reply};

    /// Answers with the number of the frame within its connection and the thread's last letter.
    struct WhoAmI;

    impl Service for WhoAmI {
        type Session = u8;

        fn open(&self, _: ConnectionInfo) -> u8 {
            0
        }

        fn handle(self: &Arc<Self>, seen: &mut u8, _: Bytes) -> Handling {
            *seen += 1;
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default().as_bytes();
            let answer = vec![0, 0, 0, 2, *seen, name.last().copied().unwrap_or(0)];
            Handling::Ready(Reply::Send(vec![Part::Bytes(answer.into())]))
        }
    }

    #[tokio::test]
    async fn a_connection_keeps_its_state_when_it_moves_to_another_thread() {
        let threads = Threads::start(2, "moving").unwrap();
        let mut config = ListenerConfig::named("TEST");
        config.threads = Some(threads.clone());
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), config).unwrap();
        let mut client = TcpStream::connect(listener.local_addr()).await.unwrap();
        let shutdown = Shutdown::new();
        let serving = listener.run(Arc::new(WhoAmI), shutdown.clone());
        let talking = async {
            let mut answers = Vec::new();
            loop {
                client.write_all(&[0, 0, 0, 1, 7]).await.unwrap();
                let mut answer = [0; 6];
                client.read_exact(&mut answer).await.unwrap();
                answers.push((answer[4], answer[5]));
                if answer[5] == b'1' {
                    break;
                }
                // The thread's own account may take it back before the connection looks.
                threads.send_one_away(0, 1);
            }
            shutdown.stop();
            answers
        };
        let ((), answers) = tokio::join!(serving, talking);
        assert_eq!(answers[0], (1, b'0'));
        for (at, (seen, _)) in answers.iter().enumerate() {
            assert_eq!(usize::from(*seen), at + 1);
        }
        while shutdown.open_connections() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
