//! Tasks and their time: tokio's, or those of the [`Host`](klamm_env::host::Host) that a simulation
//! puts in its place.
//!
//! Nothing else in this crate spawns, sleeps or looks at tokio's clock. Where there is no host, each
//! function costs what tokio's costs and a look at a thread-local variable.

use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use klamm_env::host::{self, HostFuture};
use pin_project_lite::pin_project;
use tokio::sync::oneshot;

/// A moment of monotonic time, in nanoseconds since one that differs from process to process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(i64);

/// Whether tasks run in a simulation.
pub(crate) fn is_hosted() -> bool {
    host::current().is_some()
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// What tokio's instants are counted from.
fn origin() -> std::time::Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "the driver of openraft's clock")]
    *ORIGIN.get_or_init(std::time::Instant::now)
}

impl Moment {
    /// The present.
    pub(crate) fn now() -> Moment {
        match host::current() {
            Some(host) => Moment(nanos(host.now())),
            None => {
                let origin = origin();
                // tokio's, as its tests stop that clock.
                let now = tokio::time::Instant::now().into_std();
                Moment(nanos(now.saturating_duration_since(origin)))
            }
        }
    }

    fn since_start(self) -> Duration {
        Duration::from_nanos(self.0.max(0).unsigned_abs())
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(nanos(duration)))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_sub(nanos(duration)))
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }
}

pin_project! {
    /// Waits for a moment.
    #[project = SleepProjection]
    pub(crate) enum Sleep {
        Tokio { #[pin] sleep: tokio::time::Sleep },
        Hosted { sleep: HostFuture },
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match self.project() {
            SleepProjection::Tokio { sleep } => sleep.poll(context),
            SleepProjection::Hosted { sleep } => sleep.as_mut().poll(context),
        }
    }
}

/// Waits until `duration` has passed.
pub(crate) fn sleep(duration: Duration) -> Sleep {
    match host::current() {
        Some(host) => Sleep::Hosted {
            sleep: host.sleep_until(host.now().saturating_add(duration)),
        },
        None => Sleep::Tokio {
            sleep: tokio::time::sleep(duration),
        },
    }
}

/// Waits until a moment has come.
pub(crate) fn sleep_until(deadline: Moment) -> Sleep {
    match host::current() {
        Some(host) => Sleep::Hosted {
            sleep: host.sleep_until(deadline.since_start()),
        },
        None => Sleep::Tokio {
            sleep: tokio::time::sleep_until((origin() + deadline.since_start()).into()),
        },
    }
}

/// Time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("time is up")]
pub(crate) struct Elapsed;

pin_project! {
    /// A future, for as long as there is time.
    pub(crate) struct Timeout<F> {
        #[pin]
        future: F,
        #[pin]
        sleep: Sleep,
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(context) {
            return Poll::Ready(Ok(output));
        }
        ready!(this.sleep.poll(context));
        Poll::Ready(Err(Elapsed))
    }
}

/// Runs `future` for at most `duration`.
pub(crate) fn timeout<F: Future>(duration: Duration, future: F) -> Timeout<F> {
    Timeout {
        future,
        sleep: sleep(duration),
    }
}

/// Runs `future` until `deadline` at most.
pub(crate) fn timeout_at<F: Future>(deadline: Moment, future: F) -> Timeout<F> {
    Timeout {
        future,
        sleep: sleep_until(deadline),
    }
}

/// Why there is no result of a task: it panicked, or its process has ended.
#[derive(Debug)]
pub(crate) struct JoinError(Option<tokio::task::JoinError>);

impl JoinError {
    pub(crate) fn is_panic(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(tokio::task::JoinError::is_panic)
    }
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(error) => error.fmt(f),
            None => f.write_str("the task's process has ended"),
        }
    }
}

impl std::error::Error for JoinError {}

/// Waits for a task's end.
#[derive(Debug)]
pub(crate) enum JoinHandle<T> {
    Tokio(tokio::task::JoinHandle<T>),
    Hosted(oneshot::Receiver<T>),
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            JoinHandle::Tokio(handle) => {
                let joined = ready!(Pin::new(handle).poll(context));
                Poll::Ready(joined.map_err(|error| JoinError(Some(error))))
            }
            JoinHandle::Hosted(result) => {
                let joined = ready!(Pin::new(result).poll(context));
                Poll::Ready(joined.map_err(|_| JoinError(None)))
            }
        }
    }
}

/// Runs a task.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    match host::current() {
        Some(host) => {
            let (done, result) = oneshot::channel();
            host.spawn(Box::pin(async move {
                // Nobody may care.
                let _ = done.send(future.await);
            }));
            JoinHandle::Hosted(result)
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where this crate spawns"
        )]
        None => JoinHandle::Tokio(tokio::spawn(future)),
    }
}

/// Runs work that may wait for the disk, away from the threads that run tasks.
pub(crate) fn spawn_blocking<T, F>(work: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    match host::current() {
        Some(host) => {
            let (done, result) = oneshot::channel();
            host.spawn_blocking(Box::new(move || {
                // Nobody may care.
                let _ = done.send(work());
            }));
            JoinHandle::Hosted(result)
        }
        None => JoinHandle::Tokio(tokio::task::spawn_blocking(work)),
    }
}
