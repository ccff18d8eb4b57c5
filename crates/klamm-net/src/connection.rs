//! The task of one connection: read, handle, answer, in order.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::write::send;
use crate::{ByteBudget, FrameError, FrameReader, Handling, Part, Reply, ReplyFuture, Service};

/// Answers gathered before they are sent although more frames are waiting.
const GATHER_BYTES_MAX: u64 = 256 * 1024;
/// A connection that has been quiet for this long gives its buffer back.
const RELEASE_AFTER: Duration = Duration::from_secs(5);

/// Why a connection ended. Not an error of the broker: clients come and go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Closed {
    #[error("closed by the client")]
    ByClient,
    #[error("closed by the service")]
    ByService,
    #[error("idle for too long")]
    Idle,
    #[error("the broker is shutting down")]
    Shutdown,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The limits of a connection; see [`crate::ListenerConfig`] for each.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) frame_bytes_max: usize,
    pub(crate) pipeline_max: usize,
    pub(crate) idle_max: Option<Duration>,
    pub(crate) budget: Option<ByteBudget>,
}

enum Pending {
    Ready(Reply),
    Future(ReplyFuture),
}

/// What ended a wait.
enum Event {
    Answered(Reply),
    Readable(io::Result<()>),
    Timer,
}

pub(crate) struct Connection<'a, S: Service> {
    stream: TcpStream,
    service: &'a Arc<S>,
    session: &'a mut S::Session,
    limits: Limits,
    frames: FrameReader,
    /// Answers that may not leave yet, oldest first.
    pending: VecDeque<Pending>,
    /// Answers that may leave.
    out: Vec<Part>,
    out_bytes: u64,
    /// What the frame being read, or the ones being handled, take of the budget.
    permits: Vec<OwnedSemaphorePermit>,
    last_active: Instant,
    shutdown: watch::Receiver<bool>,
}

impl<'a, S: Service> Connection<'a, S> {
    pub(crate) fn new(
        stream: TcpStream,
        service: &'a Arc<S>,
        session: &'a mut S::Session,
        limits: Limits,
        shutdown: watch::Receiver<bool>,
    ) -> Self {
        Connection {
            stream,
            service,
            session,
            frames: FrameReader::new(limits.frame_bytes_max),
            limits,
            pending: VecDeque::new(),
            out: Vec::new(),
            out_bytes: 0,
            permits: Vec::new(),
            last_active: Instant::now(),
            shutdown,
        }
    }

    /// Serves until the connection ends, and says why it did.
    pub(crate) async fn run(mut self) -> Closed {
        let timer = sleep_until(self.last_active + RELEASE_AFTER);
        tokio::pin!(timer);
        loop {
            if let Err(closed) = self.turn(timer.as_mut()).await {
                // What was answered before still leaves, if it can.
                return match (closed, self.flush().await) {
                    (Closed::ByService, Err(error)) => error,
                    (closed, _) => closed,
                };
            }
        }
    }

    /// Handles what is buffered, sends what is answered, then waits for either to change.
    async fn turn(&mut self, timer: std::pin::Pin<&mut Sleep>) -> Result<(), Closed> {
        self.handle_buffered().await?;
        self.flush().await?;
        if self.pending.is_empty() {
            self.permits.clear();
        }
        let may_read = self.pending.len() < self.limits.pipeline_max;
        let event = tokio::select! {
            biased;
            reply = front(&mut self.pending), if !self.pending.is_empty() => Event::Answered(reply),
            ready = self.stream.readable(), if may_read => Event::Readable(ready),
            () = timer_fired(timer), if self.pending.is_empty() => Event::Timer,
            () = stopped(&mut self.shutdown) => return Err(Closed::Shutdown),
        };
        match event {
            Event::Answered(reply) => {
                self.pending.pop_front();
                self.accept(reply)?;
            }
            Event::Readable(ready) => {
                ready?;
                self.read().await?;
            }
            Event::Timer => {}
        }
        self.check_idle()
    }

    async fn handle_buffered(&mut self) -> Result<(), Closed> {
        while self.pending.len() < self.limits.pipeline_max {
            let Some(frame) = self.frames.next_frame()? else {
                break;
            };
            match self.service.handle(self.session, frame) {
                Handling::Ready(reply) if self.pending.is_empty() => self.accept(reply)?,
                Handling::Ready(reply) => self.pending.push_back(Pending::Ready(reply)),
                Handling::Pipelined(reply) => self.pending.push_back(Pending::Future(reply)),
                Handling::Barrier(reply) => self.pass_barrier(reply).await?,
            }
            if self.out_bytes > GATHER_BYTES_MAX {
                self.flush().await?;
            }
        }
        Ok(())
    }

    async fn pass_barrier(&mut self, reply: ReplyFuture) -> Result<(), Closed> {
        while !self.pending.is_empty() {
            let earlier = tokio::select! {
                reply = front(&mut self.pending) => reply,
                () = stopped(&mut self.shutdown) => return Err(Closed::Shutdown),
            };
            self.pending.pop_front();
            self.accept(earlier)?;
        }
        self.flush().await?;
        let reply = tokio::select! {
            biased;
            reply = reply => reply,
            () = stopped(&mut self.shutdown) => return Err(Closed::Shutdown),
        };
        self.last_active = Instant::now();
        self.accept(reply)
    }

    /// Takes an answer whose turn it is.
    fn accept(&mut self, reply: Reply) -> Result<(), Closed> {
        match reply {
            Reply::Send(parts) => {
                self.out_bytes += parts.iter().map(Part::len).sum::<u64>();
                if self.out.is_empty() {
                    self.out = parts;
                } else {
                    self.out.extend(parts);
                }
                Ok(())
            }
            Reply::Nothing => Ok(()),
            Reply::Close => Err(Closed::ByService),
        }
    }

    async fn flush(&mut self) -> Result<(), Closed> {
        if self.out.is_empty() {
            return Ok(());
        }
        self.out_bytes = 0;
        tokio::select! {
            biased;
            sent = send(&self.stream, &mut self.out) => sent?,
            () = stopped(&mut self.shutdown) => return Err(Closed::Shutdown),
        }
        self.last_active = Instant::now();
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Closed> {
        let before = self.frames.pending_frame_bytes()?;
        match self.stream.try_read_buf(self.frames.spare()?) {
            Ok(0) => return Err(Closed::ByClient),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        self.last_active = Instant::now();
        // The budget is asked once per frame, as soon as its length is known and before more of
        // its body is read.
        if before.is_none()
            && let Some(budget) = &self.limits.budget
            && let Some(len) = self.frames.pending_frame_bytes()?
        {
            self.permits.extend(budget.take(len).await);
        }
        Ok(())
    }

    fn check_idle(&mut self) -> Result<(), Closed> {
        let quiet = self.last_active.elapsed();
        if quiet >= RELEASE_AFTER {
            self.frames.release();
            self.out = Vec::new();
            self.pending.shrink_to_fit();
        }
        match self.limits.idle_max {
            Some(max) if quiet >= max => Err(Closed::Idle),
            _ => Ok(()),
        }
    }
}

async fn front(pending: &mut VecDeque<Pending>) -> Reply {
    match pending.front_mut() {
        Some(Pending::Future(reply)) => reply.await,
        Some(ready @ Pending::Ready(_)) => {
            match std::mem::replace(ready, Pending::Ready(Reply::Nothing)) {
                Pending::Ready(reply) => reply,
                Pending::Future(reply) => reply.await,
            }
        }
        None => std::future::pending().await,
    }
}

async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it everything that could be served.
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Waits for the timer and sets it again. The timer is coarse: it says when to look, not how long
/// the connection has been idle.
async fn timer_fired(mut timer: std::pin::Pin<&mut Sleep>) {
    timer.as_mut().await;
    let next = Instant::now() + RELEASE_AFTER * 6;
    timer.reset(next);
}
