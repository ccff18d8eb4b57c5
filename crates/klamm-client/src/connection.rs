//! A connection over TCP.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Buf, Bytes};
use klamm_protocol::frame::decode_response;
use klamm_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};
use klamm_protocol::{Decoder, ErrorCode, Message, Request, Segment};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::core::{Answer, Answers, Requests, VersionTable};
use crate::error::ClientError;

/// Bytes of what an answer begins with.
const CORRELATION_ID_LEN: usize = 4;

/// How a connection is made and used.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Name by which the broker's logs, metrics and quotas know this client.
    pub client_id: Option<String>,
    /// Longest wait for the connection and for its first answer.
    pub connect_timeout: Duration,
    /// Longest wait for an answer.
    pub request_timeout: Duration,
    /// Longest answer that is accepted, in bytes.
    pub response_bytes_max: usize,
}

impl Default for ConnectOptions {
    /// The times of Kafka's clients: 10 s and 30 s; answers of up to 100 MiB.
    fn default() -> Self {
        ConnectOptions {
            client_id: None,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            response_bytes_max: 100 << 20,
        }
    }
}

/// A connection to one broker. Clones share it; it closes with the last of them. Requests of
/// several tasks overlap: they leave in the order of the calls, and none waits for the answer of
/// another.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    link: Arc<Link>,
    /// Held over the writes of one request, so that requests leave in the order of their ids.
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    versions: VersionTable,
    request_timeout: Duration,
    reader: AbortHandle,
}

/// What writers and the reader share.
struct Link(Mutex<LinkState>);

struct LinkState {
    requests: Requests,
    waiting: VecDeque<oneshot::Sender<Bytes>>,
    closed: bool,
}

impl Connection {
    /// Connects and asks for the versions that the broker serves.
    ///
    /// # Errors
    /// Nobody listens there, or no Kafka broker does.
    #[expect(
        clippy::disallowed_methods,
        reason = "the driver: one task reads for all who wait"
    )]
    pub async fn open(
        host: &str,
        port: u16,
        options: ConnectOptions,
    ) -> Result<Connection, ClientError> {
        let limit = options.connect_timeout;
        let connecting = TcpStream::connect((host, port));
        let stream = within(limit, async { Ok(connecting.await?) }).await?;
        stream.set_nodelay(true)?;
        let (reading, writing) = stream.into_split();
        let link = Arc::new(Link(Mutex::new(LinkState {
            requests: Requests::new(options.client_id),
            waiting: VecDeque::new(),
            closed: false,
        })));
        let answers = Answers::new(options.response_bytes_max);
        let reader = tokio::spawn(read_answers(link.clone(), reading, answers)).abort_handle();
        let mut inner = Inner {
            link,
            writer: tokio::sync::Mutex::new(writing),
            versions: VersionTable::default(),
            request_timeout: options.request_timeout,
            reader,
        };
        inner.versions = within(limit, inner.ask_versions()).await?;
        Ok(Connection(Arc::new(inner)))
    }

    /// The versions that the broker serves.
    pub fn versions(&self) -> &VersionTable {
        &self.0.versions
    }

    /// Whether the connection has ended; requests then fail.
    pub fn is_closed(&self) -> bool {
        self.0.link.state().closed
    }

    /// Sends a request in the highest version that both sides know, and waits for its answer.
    ///
    /// # Errors
    /// [`ClientError`]. What the broker says of the request itself is in the answer. After a
    /// timeout the connection is closed.
    pub async fn request<R: Request>(&self, request: &R) -> Result<R::Response, ClientError> {
        self.request_up_to(request, i16::MAX).await
    }

    /// As [`request`](Connection::request), in a version not above `max`.
    ///
    /// # Errors
    /// As [`request`](Connection::request).
    pub async fn request_up_to<R: Request>(
        &self,
        request: &R,
        max: i16,
    ) -> Result<R::Response, ClientError> {
        let version = self.0.versions.best::<R>(max)?;
        let answer = self.0.exchange(version, request);
        let frame = self.in_time(self.0.request_timeout, answer).await?;
        let (_, response) = decode_response::<R>(frame, version)?;
        Ok(response)
    }

    /// Sends a request of an API that Kafka does not have and that only the like of this program
    /// knows. `body` goes out as it is, behind a header in version 1; what follows the correlation
    /// id of the answer comes back. Waits for at most `limit`.
    ///
    /// # Errors
    /// As [`request`](Connection::request).
    pub async fn request_private(
        &self,
        api_key: i16,
        api_version: i16,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, ClientError> {
        let answer = self
            .0
            .exchange_with(|requests| requests.send_private(api_key, api_version, body));
        let mut frame = self.in_time(limit, answer).await?;
        // Its correlation id was looked at when it came in.
        frame.advance(CORRELATION_ID_LEN.min(frame.len()));
        Ok(frame)
    }

    async fn in_time(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<Bytes, ClientError>>,
    ) -> Result<Bytes, ClientError> {
        let inner = &*self.0;
        within(limit, answer).await.inspect_err(|error| {
            if matches!(error, ClientError::TimedOut(_)) {
                inner.link.close();
                inner.reader.abort();
            }
        })
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.link.state();
        f.debug_struct("Connection")
            .field("waiting", &state.waiting.len())
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Inner {
    async fn exchange<R: Request>(&self, version: i16, request: &R) -> Result<Bytes, ClientError> {
        self.exchange_with(|requests| requests.send(version, request, true))
            .await
    }

    async fn exchange_with(
        &self,
        encode: impl FnOnce(&mut Requests) -> Result<(i32, Vec<Segment>), ClientError>,
    ) -> Result<Bytes, ClientError> {
        let answer = {
            let mut writer = self.writer.lock().await;
            let (segments, answer) = self.link.enqueue(encode)?;
            // Half a request may be out if this fails or is given up: nothing can follow it.
            let half = HalfSent(&self.link);
            for segment in segments {
                let Segment::Bytes(bytes) = segment else {
                    // Clients send what they hold in memory.
                    return Err(ClientError::Closed);
                };
                writer.write_all(&bytes).await?;
            }
            std::mem::forget(half);
            answer
        };
        answer.await.map_err(|_| ClientError::Closed)
    }

    /// Asks in the newest form; a broker that does not know it answers in the oldest one, and
    /// tells which it knows (KIP-511).
    async fn ask_versions(&self) -> Result<VersionTable, ClientError> {
        let request = ApiVersionsRequest {
            client_software_name: "klamm".into(),
            client_software_version: env!("CARGO_PKG_VERSION").into(),
            ..ApiVersionsRequest::default()
        };
        let newest = <ApiVersionsRequest as Message>::VERSIONS.max;
        let frame = self.exchange(newest, &request).await?;
        if error_of(&frame)? == ErrorCode::UnsupportedVersion {
            let (_, known) = decode_response::<ApiVersionsRequest>(frame, 0)?;
            let version = VersionTable::of(&known).best::<ApiVersionsRequest>(newest)?;
            let frame = self.exchange(version, &request).await?;
            return table_of(frame, version);
        }
        table_of(frame, newest)
    }
}

/// The error code comes first in each version.
fn error_of(frame: &Bytes) -> Result<ErrorCode, ClientError> {
    let mut d = Decoder::new(frame.clone());
    // The header of this response has no tagged fields, whatever the version.
    d.i32()?;
    Ok(ErrorCode::from_code(d.i16()?).unwrap_or(ErrorCode::UnknownServerError))
}

fn table_of(frame: Bytes, version: i16) -> Result<VersionTable, ClientError> {
    let error = error_of(&frame)?;
    if error != ErrorCode::None {
        return Err(ClientError::Refused(error));
    }
    let (_, response): (_, ApiVersionsResponse) =
        decode_response::<ApiVersionsRequest>(frame, version)?;
    Ok(VersionTable::of(&response))
}

impl Link {
    fn state(&self) -> MutexGuard<'_, LinkState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(
        &self,
        encode: impl FnOnce(&mut Requests) -> Result<(i32, Vec<Segment>), ClientError>,
    ) -> Result<(Vec<Segment>, oneshot::Receiver<Bytes>), ClientError> {
        let mut state = self.state();
        if state.closed {
            return Err(ClientError::Closed);
        }
        let (_, segments) = encode(&mut state.requests)?;
        let (answer, receiver) = oneshot::channel();
        state.waiting.push_back(answer);
        Ok((segments, receiver))
    }

    /// Hands an answer to the one who waits for it.
    fn deliver(&self, answer: Answer) -> Result<(), ClientError> {
        let mut state = self.state();
        state.requests.answered(&answer)?;
        if let Some(waiting) = state.waiting.pop_front() {
            // Whoever asked may have given up; the answer had to be taken all the same.
            let _ = waiting.send(answer.frame);
        }
        Ok(())
    }

    /// Ends the connection for everybody; those who wait are told.
    fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.waiting.clear();
    }
}

/// A request on its way out; closes the connection unless all of it went.
struct HalfSent<'a>(&'a Link);

impl Drop for HalfSent<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn read_answers(link: Arc<Link>, mut reading: OwnedReadHalf, mut answers: Answers) {
    // Why it ends is told to nobody: those who wait learn that it has, and ask anew elsewhere.
    let _: Result<(), ClientError> = async {
        loop {
            if reading.read_buf(answers.spare()?).await? == 0 {
                return Ok(());
            }
            while let Some(answer) = answers.next_answer()? {
                link.deliver(answer)?;
            }
        }
    }
    .await;
    link.close();
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    match timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(ClientError::TimedOut(limit)),
    }
}

#[cfg(test)]
mod tests;
