//! The signal that ends listeners and connections.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

/// Tells listeners and connections to stop, and whether they have.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    given: AtomicBool,
    sleepers: Notify,
    open: AtomicUsize,
}

impl Shutdown {
    /// A signal that has not been given.
    pub fn new() -> Self {
        Shutdown::default()
    }

    /// Gives the signal: no more accepts; connections close after the request at hand.
    pub fn stop(&self) {
        self.0.given.store(true, Ordering::SeqCst);
        self.0.sleepers.notify_waiters();
    }

    /// Whether the signal was given.
    pub fn is_stopped(&self) -> bool {
        self.0.given.load(Ordering::SeqCst)
    }

    /// Connections that are open now.
    pub fn open_connections(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// Counts a connection for as long as the result lives.
    pub(crate) fn enter(&self) -> Open {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Open(self.0.clone())
    }

    pub(crate) fn subscribe(&self) -> Stop {
        Stop {
            signal: self.0.clone(),
            sleep: None,
            waker: None,
        }
    }
}

/// An open connection, as [`Shutdown::open_connections`] counts them.
#[derive(Debug)]
pub(crate) struct Open(Arc<Signal>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One task's ear for the signal.
///
/// A connection asks with every request, so asking is cheap: the list of those to wake is entered
/// once for each waker, which for a task is once, and from then on a question is a look at a flag.
pub(crate) struct Stop {
    signal: Arc<Signal>,
    sleep: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    waker: Option<Waker>,
}

impl Stop {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.signal.given.load(Ordering::SeqCst) {
            return Poll::Ready(());
        }
        if let Some(waker) = &self.waker
            && waker.will_wake(cx.waker())
        {
            return Poll::Pending;
        }
        let signal = self.signal.clone();
        let sleep = self.sleep.get_or_insert_with(|| {
            Box::pin(async move {
                let notified = signal.sleepers.notified();
                // Given between the question above and entering the list.
                if !signal.given.load(Ordering::SeqCst) {
                    notified.await;
                }
            })
        });
        self.waker = Some(cx.waker().clone());
        sleep.as_mut().poll(cx)
    }

    pub(crate) async fn wait(&mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop")
            .field("signal", &self.signal)
            .finish_non_exhaustive()
    }
}
