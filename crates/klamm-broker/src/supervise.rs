//! Tasks that must not end while the broker runs. One that panics is started again after a pause;
//! the panic is logged and counted, so that it is seen.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::sleep;
use tracing::error;

/// How long a task rests after a panic: what caused it may still be there.
const PAUSE: Duration = Duration::from_millis(500);

/// Counts the panics of a broker's tasks. Clones share the count.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor {
    panics: Arc<AtomicU64>,
    pause: Duration,
}

impl Default for Supervisor {
    fn default() -> Self {
        Supervisor::new(PAUSE)
    }
}

impl Supervisor {
    /// None so far. A task that panics is started again after `pause`.
    pub(crate) fn new(pause: Duration) -> Self {
        Supervisor {
            panics: Arc::default(),
            pause,
        }
    }

    /// Panics so far.
    pub(crate) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// The rest after a panic.
    pub(crate) async fn rest(&self) {
        sleep(self.pause).await;
    }

    /// Runs a task to its end; `None` if that was a panic.
    pub(crate) async fn attempt<F: Future>(&self, task: &str, run: F) -> Option<F::Output> {
        let mut run = pin!(run);
        // What a panic leaves behind is dropped with the future; whatever it shares with others is
        // behind locks that are taken again after a panic.
        let ended = std::future::poll_fn(|cx| {
            match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx))) {
                Ok(poll) => poll.map(Ok),
                Err(panic) => Poll::Ready(Err(panic)),
            }
        });
        ended.await.map_err(|panic| self.note(task, &*panic)).ok()
    }

    /// Runs what `make` makes until it ends other than by a panic.
    pub(crate) async fn keep<F>(self, task: &'static str, make: impl Fn() -> F + Send)
    where
        F: Future<Output = ()> + Send,
    {
        while self.attempt(task, make()).await.is_none() {
            self.rest().await;
        }
    }

    /// One round of a thread's work.
    pub(crate) fn round<T>(&self, task: &str, round: impl FnOnce() -> T) -> Option<T> {
        catch_unwind(AssertUnwindSafe(round))
            .map_err(|panic| self.note(task, &*panic))
            .ok()
    }

    fn note(&self, task: &str, panic: &(dyn Any + Send)) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        error!(
            task,
            panic = text.unwrap_or("?"),
            "a task of this broker panicked"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_started_again_until_it_ends() {
        let supervisor = Supervisor::new(Duration::ZERO);
        let runs = AtomicUsize::new(0);
        let task = || async {
            tokio::task::yield_now().await;
            assert!(runs.fetch_add(1, Ordering::Relaxed) == 2, "not yet");
        };
        supervisor.clone().keep("test", task).await;
        assert_eq!(runs.load(Ordering::Relaxed), 3);
        assert_eq!(supervisor.panics(), 2);
    }

    #[test]
    fn a_round_that_panics_is_counted() {
        let supervisor = Supervisor::default();
        assert_eq!(supervisor.round("test", || 7), Some(7));
        assert_eq!(
            supervisor.round("test", || [0][supervisor.panics() as usize + 1]),
            None
        );
        assert_eq!(supervisor.panics(), 1);
    }
}
