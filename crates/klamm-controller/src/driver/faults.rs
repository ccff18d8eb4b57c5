//! What happens when the task that decides panics, which is a bug.
//!
//! What was decided and not committed yet is lost, and who asked is told. What the task remembers
//! beside the log (the sessions of brokers) may be half changed. So this controller hands the lead to
//! another, as Kafka's does after an unexpected error, forgets that, and goes on from what is
//! committed. One that cannot get through a single round any more takes itself out of the quorum and
//! says so: the process is to end, as Kafka's does after a fatal fault, and not to stay half alive.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;

use super::task::{End, Task};
use crate::runtime;

/// Panics without a whole round between them that it takes to give up.
const PANICS_MAX: u32 = 5;
/// How long to rest after a panic, twice as long after each further one.
const REST: Duration = Duration::from_millis(100);
/// How long another controller may take to take over.
const RESIGN_MAX: Duration = Duration::from_secs(2);

/// The faults of a controller. Clones refer to the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    panics: AtomicU64,
    /// Why the controller has given up, once it has.
    fatal: watch::Sender<Option<String>>,
}

impl Faults {
    /// Panics so far.
    pub(super) fn panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }

    /// Waits until the controller has given up, and says why.
    pub(super) async fn fatal(&self) -> String {
        let mut fatal = self.0.fatal.subscribe();
        let given_up = fatal.wait_for(Option::is_some).await;
        // The sender lives as long as this does.
        given_up
            .ok()
            .and_then(|why| why.clone())
            .unwrap_or_default()
    }

    fn give_up(&self, why: String) {
        tracing::error!(why, "this controller cannot go on");
        self.0.fatal.send_replace(Some(why));
    }

    /// Runs the task to its end, and again after a panic.
    pub(super) async fn watch(self, mut task: Task) {
        let mut in_a_row = 0;
        loop {
            let rounds = task.rounds();
            let panic = match caught(task.run()).await {
                Ok(End::Stopped) => return,
                Ok(End::QuorumStopped) => {
                    let why = task.raft().why_stopped();
                    return self.give_up(format!("the metadata quorum has stopped here: {why}"));
                }
                // A simulation looks for panics, and is to see this one.
                Err(panic) if runtime::is_hosted() => resume_unwind(panic),
                Err(panic) => text_of(&*panic),
            };
            self.0.panics.fetch_add(1, Ordering::Relaxed);
            in_a_row = if task.rounds() > rounds {
                1
            } else {
                in_a_row + 1
            };
            tracing::error!(
                panic,
                in_a_row,
                "the controller panicked, and gives up the lead"
            );
            if in_a_row >= PANICS_MAX {
                if let Err(error) = task.raft().shutdown().await {
                    tracing::error!(%error, "the quorum is not cleanly left");
                }
                return self.give_up(format!("the controller panicked {in_a_row} times: {panic}"));
            }
            task.step_down();
            task.raft().resign(RESIGN_MAX).await;
            runtime::sleep(REST * 2_u32.pow(in_a_row - 1)).await;
        }
    }
}

type Panic = Box<dyn Any + Send>;

/// Runs a future to its end, or to its panic.
async fn caught<F: Future>(run: F) -> Result<F::Output, Panic> {
    let mut run = pin!(run);
    // What a panic leaves half done is forgotten, as the module says.
    std::future::poll_fn(
        |cx| match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        },
    )
    .await
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("?").to_owned()
}
