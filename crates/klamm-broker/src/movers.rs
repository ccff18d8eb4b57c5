//! The threads that move replicas between log directories. There are none while nothing moves.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use klamm_config::BrokerConfig;
use klamm_env::Clock;
use klamm_replication::{MoveStep, ReplicaManager, Throttle};
use tokio::task::spawn_blocking;
use tracing::error;

/// Most bytes copied in one step: what a follower fetches of a partition by default.
const STEP_BYTES_MAX: i64 = 1 << 20;
/// How soon a move is looked at again that waits for something.
const POLL: Duration = Duration::from_millis(5);

/// The threads. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Movers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    replicas: ReplicaManager,
    config: Arc<ArcSwap<BrokerConfig>>,
    clock: Arc<dyn Clock>,
    throttle: Mutex<Throttle>,
    state: Mutex<State>,
    /// The state is another one.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    stopped: bool,
}

impl Movers {
    pub(crate) fn new(
        replicas: ReplicaManager,
        config: Arc<ArcSwap<BrokerConfig>>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Movers(Arc::new(Inner {
            replicas,
            config,
            clock,
            throttle: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }

    /// Sees to it that moves get on which have begun: `num.replica.alter.log.dirs.threads` at once
    /// at the most.
    pub(crate) fn start(&self) {
        let wanted = self.0.replicas.move_count().min(self.threads_max());
        let mut state = self.0.state();
        while state.running < wanted && !state.stopped {
            let inner = self.0.clone();
            let spawned = thread::Builder::new()
                .name("klamm-mover".to_owned())
                .spawn(move || inner.work());
            if let Err(failed) = spawned {
                // Those that run do all of it; the next move tries again.
                error!(error = %failed, "cannot start a thread that moves replicas");
                return;
            }
            state.running += 1;
        }
    }

    /// One for each log directory, unless configured.
    fn threads_max(&self) -> usize {
        let config = self.0.config.load();
        config
            .optional_long("num.replica.alter.log.dirs.threads")
            .and_then(|threads| usize::try_from(threads).ok())
            .unwrap_or_else(|| config.log_dirs().len())
            .max(1)
    }

    /// Ends the threads and waits for the steps at hand. What is not done goes on at the next
    /// start.
    pub(crate) async fn stop(&self) {
        self.end();
        let inner = self.0.clone();
        let stopped = spawn_blocking(move || {
            let mut state = inner.state();
            while state.running > 0 {
                state = inner
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        });
        if stopped.await.is_err() {
            error!("the threads that move replicas did not end");
        }
    }

    /// Lets the threads end after the steps at hand.
    pub(crate) fn end(&self) {
        self.0.state().stopped = true;
        self.0.changed.notify_all();
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let _running = Running(self);
        let mut buffer = Vec::new();
        while !self.is_done() {
            let bytes_per_second = self.config.load().alter_log_dirs_bytes_per_second();
            if let Err(wait) = self
                .throttle()
                .check(bytes_per_second, self.clock.monotonic())
            {
                self.pause(wait);
                continue;
            }
            // The others have the rest in hand.
            let Some(ticket) = self.replicas.next_move() else {
                self.pause(POLL);
                continue;
            };
            let bytes = STEP_BYTES_MAX.min(bytes_per_second).max(1);
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            match self.replicas.step_move(ticket, bytes, &mut buffer) {
                MoveStep::Copied(0) | MoveStep::Waiting => self.pause(POLL),
                MoveStep::Copied(bytes) => self.throttle().took(bytes),
                MoveStep::Ended => {}
            }
        }
    }

    fn throttle(&self) -> MutexGuard<'_, Throttle> {
        self.throttle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this thread has nothing left to do. It does not count as running any more then, so
    /// that a move which begins at this moment gets another one.
    fn is_done(&self) -> bool {
        let mut state = self.state();
        let done = state.stopped || state.running > self.replicas.move_count();
        if done {
            state.running -= 1;
            self.changed.notify_all();
        }
        done
    }

    fn pause(&self, time: Duration) {
        let state = self.state();
        let waited = self
            .changed
            .wait_timeout_while(state, time, |state| !state.stopped);
        drop(waited);
    }
}

/// A thread that ends by a panic does not count as running either.
struct Running<'a>(&'a Inner);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.state().running -= 1;
            self.0.changed.notify_all();
        }
    }
}
