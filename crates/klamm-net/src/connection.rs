//! The task of one connection: read, handle, answer, in order.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io;
use std::os::fd::AsFd as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BufMut as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::shutdown::Stop;
use crate::threads::Place;
use crate::write::{ColdReads, send};
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
    /// Not closed at all: it is to go on elsewhere.
    #[error("moved to another thread")]
    Moves(Place),
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
    pub(crate) cold_reads: ColdReads,
}

enum Pending {
    Ready(Reply),
    Future(ReplyFuture),
}

/// What ended a wait.
enum Event {
    Answered(Reply),
    Readable,
    Timer,
}

pub(crate) struct Connection<S: Service> {
    stream: TcpStream,
    service: Arc<S>,
    session: S::Session,
    limits: Limits,
    /// The thread it lives on; none if the caller's runtime decides that.
    place: Option<Place>,
    frames: FrameReader,
    /// Answers that may not leave yet, oldest first.
    pending: VecDeque<Pending>,
    /// Answers that may leave.
    out: Vec<Part>,
    out_bytes: u64,
    /// What the frame being read, or the ones being handled, take of the budget.
    permits: Vec<OwnedSemaphorePermit>,
    /// Whether anything came or went since the timer was last looked at. The time of it is not
    /// noted: that would be a look at the clock with every request.
    active: bool,
    last_active: Instant,
    stop: Stop,
}

impl<S: Service> Connection<S> {
    pub(crate) fn new(
        stream: TcpStream,
        service: Arc<S>,
        session: S::Session,
        limits: Limits,
        place: Option<Place>,
        stop: Stop,
    ) -> Self {
        Connection {
            stream,
            service,
            session,
            frames: FrameReader::new(limits.frame_bytes_max),
            limits,
            place,
            pending: VecDeque::new(),
            out: Vec::new(),
            out_bytes: 0,
            permits: Vec::new(),
            active: false,
            last_active: Instant::now(),
            stop,
        }
    }

    /// A second handle of the socket, for another thread's runtime.
    pub(crate) fn second_socket(&self) -> io::Result<std::net::TcpStream> {
        Ok(self.stream.as_fd().try_clone_to_owned()?.into())
    }

    /// Takes over the second handle on the thread where it goes on.
    pub(crate) fn settle(&mut self, socket: std::net::TcpStream, place: Place) -> io::Result<()> {
        self.stream = TcpStream::from_std(socket)?;
        self.place = Some(place);
        Ok(())
    }

    /// The connection is gone.
    pub(crate) fn closed(self) {
        self.service.closed(self.session);
    }

    /// Serves until the connection ends or moves, and says why it did.
    pub(crate) async fn run(&mut self) -> Closed {
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
    async fn turn(&mut self, mut timer: Pin<&mut Sleep>) -> Result<(), Closed> {
        self.handle_buffered().await?;
        self.flush().await?;
        if self.pending.is_empty() {
            self.permits.clear();
            if let Some(place) = self.place.as_mut().and_then(Place::next) {
                return Err(Closed::Moves(place));
            }
        }
        match poll_fn(|cx| self.poll_event(timer.as_mut(), cx)).await? {
            Event::Answered(reply) => {
                self.pending.pop_front();
                self.accept(reply)?;
            }
            Event::Readable => self.read().await?,
            Event::Timer => self.check_idle(timer)?,
        }
        Ok(())
    }

    /// One function and not a `select!`: it runs with every request, and what it asks keeps its
    /// place in the lists of those to wake from one request to the next.
    fn poll_event(
        &mut self,
        timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Event, Closed>> {
        if let Poll::Ready(reply) = poll_front(&mut self.pending, cx) {
            return Poll::Ready(Ok(Event::Answered(reply)));
        }
        if self.pending.len() < self.limits.pipeline_max
            && let Poll::Ready(ready) = self.stream.poll_read_ready(cx)
        {
            return Poll::Ready(ready.map(|()| Event::Readable).map_err(Closed::Io));
        }
        if self.pending.is_empty() && timer.poll(cx).is_ready() {
            return Poll::Ready(Ok(Event::Timer));
        }
        self.stop.poll(cx).map(|()| Err(Closed::Shutdown))
    }

    async fn handle_buffered(&mut self) -> Result<(), Closed> {
        while self.pending.len() < self.limits.pipeline_max {
            let Some(frame) = self.frames.next_frame()? else {
                break;
            };
            match self.service.handle(&mut self.session, frame) {
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
                reply = poll_fn(|cx| poll_front(&mut self.pending, cx)) => reply,
                () = self.stop.wait() => return Err(Closed::Shutdown),
            };
            self.pending.pop_front();
            self.accept(earlier)?;
        }
        self.flush().await?;
        let reply = tokio::select! {
            biased;
            reply = reply => reply,
            () = self.stop.wait() => return Err(Closed::Shutdown),
        };
        self.active = true;
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
            sent = send(&self.stream, &mut self.out, &self.limits.cold_reads) => sent?,
            () = self.stop.wait() => return Err(Closed::Shutdown),
        }
        self.active = true;
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Closed> {
        let before = self.frames.pending_frame_bytes()?;
        let mut spare = self.frames.spare()?;
        let room = spare.remaining_mut();
        let read = {
            // Asked once: that it is readable may have been wrong. A read that does not fill the
            // room spares the call that would find nothing more.
            let mut read = pin!(self.stream.read_buf(&mut spare));
            poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await
        };
        match read {
            Poll::Ready(Ok(0)) => return Err(Closed::ByClient),
            Poll::Ready(Ok(read)) => self.frames.note_read(read, room),
            Poll::Ready(Err(error)) => return Err(error.into()),
            Poll::Pending => return Ok(()),
        }
        self.active = true;
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

    /// Looks whether the connection is idle, and says when to look again.
    fn check_idle(&mut self, timer: Pin<&mut Sleep>) -> Result<(), Closed> {
        let now = Instant::now();
        if std::mem::take(&mut self.active) {
            self.last_active = now;
        }
        let quiet = now - self.last_active;
        let next = if quiet >= RELEASE_AFTER {
            self.frames.release();
            self.out = Vec::new();
            self.pending.shrink_to_fit();
            RELEASE_AFTER * 6
        } else {
            RELEASE_AFTER
        };
        timer.reset(now + next);
        match self.limits.idle_max {
            Some(max) if quiet >= max => Err(Closed::Idle),
            _ => Ok(()),
        }
    }
}

fn poll_front(pending: &mut VecDeque<Pending>, cx: &mut Context<'_>) -> Poll<Reply> {
    match pending.front_mut() {
        Some(Pending::Future(reply)) => reply.as_mut().poll(cx),
        Some(Pending::Ready(reply)) => Poll::Ready(std::mem::replace(reply, Reply::Nothing)),
        None => Poll::Pending,
    }
}
