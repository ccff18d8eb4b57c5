use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use klamm_env::File;

/// A piece of a response.
#[derive(Clone, Debug)]
pub enum Part {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A range of a file.
    File {
        /// The file.
        file: Arc<dyn File>,
        /// Where the range starts, in bytes.
        position: u64,
        /// How long the range is, in bytes. It must lie within the file for as long as the reply
        /// lives; if the file turns out shorter the connection is closed, because the length has
        /// already been promised to the client.
        len: u64,
    },
}

impl Part {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::File { len, .. } => *len,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a service answers to a frame.
#[derive(Debug)]
pub enum Reply {
    /// Send this, length prefix included.
    Send(Vec<Part>),
    /// Send nothing and go on (a Produce with `acks=0`).
    Nothing,
    /// Close the connection once everything before this has been sent.
    Close,
}

/// An answer that is still to come.
pub type ReplyFuture = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// How a service deals with a frame; see the crate's section on order.
pub enum Handling {
    /// Answered.
    Ready(Reply),
    /// Done but not answered: the frames behind it may be handled meanwhile.
    Pipelined(ReplyFuture),
    /// To be started when all earlier answers are out; the frames behind it wait.
    Barrier(ReplyFuture),
}

/// Who is at the other end of a connection, and by which door it came in.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Unique within the process.
    pub id: u64,
    /// The client's address.
    pub peer: SocketAddr,
    /// The address the client reached.
    pub local: SocketAddr,
    /// The listener's name, as in `listeners`.
    pub listener: Arc<str>,
}

/// What handles the frames of a listener.
pub trait Service: Send + Sync + 'static {
    /// State kept per connection.
    type Session: Send + 'static;

    /// A connection was accepted.
    fn open(&self, connection: ConnectionInfo) -> Self::Session;

    /// Handles one frame (without its length prefix). Called in the order of arrival, on a runtime
    /// thread: it must not block.
    fn handle(self: &Arc<Self>, session: &mut Self::Session, frame: Bytes) -> Handling;

    /// The connection is gone.
    fn closed(&self, _session: Self::Session) {}
}
