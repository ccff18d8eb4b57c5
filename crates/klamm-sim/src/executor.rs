use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use klamm_env::Clock as _;

use crate::{SimClock, SimRng, Trace};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs futures on one thread, in an order that the seed decides. Where tasks wait for time, the
/// clock jumps to the next deadline. Clones are handles to the same executor.
#[derive(Clone)]
pub struct Executor {
    shared: Arc<Mutex<Shared>>,
    clock: SimClock,
    rng: SimRng,
    trace: Trace,
}

#[derive(Default)]
struct Shared {
    tasks: BTreeMap<u64, (String, Option<Task>)>,
    ready: BTreeSet<u64>,
    /// Deadlines with the tasks to wake, by time and then by the order of their making.
    timers: BTreeMap<(Duration, u64), Waker>,
    next_task: u64,
    next_timer: u64,
}

/// Why [`Executor::block_on`] gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stalled {
    /// No task can run and no timer is set: a deadlock.
    Deadlock,
    /// The time limit passed.
    OutOfTime,
}

struct TaskWaker {
    id: u64,
    shared: Arc<Mutex<Shared>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.shared
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .ready
            .insert(self.id);
    }
}

impl Executor {
    /// An executor without tasks.
    pub fn new(rng: SimRng, clock: SimClock, trace: Trace) -> Executor {
        Executor {
            shared: Arc::default(),
            clock,
            rng,
            trace,
        }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The clock that its timers follow.
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// Adds a task. Its name is for the trace.
    pub fn spawn(
        &self,
        name: impl Into<String>,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut shared = self.shared();
        let id = shared.next_task;
        shared.next_task += 1;
        shared
            .tasks
            .insert(id, (name.into(), Some(Box::pin(future))));
        shared.ready.insert(id);
    }

    /// Waits until `duration` has passed on the virtual clock.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        Sleep {
            executor: self.clone(),
            deadline: self.clock.monotonic() + duration,
            timer: None,
        }
    }

    /// Polls one task that can run; false if none can.
    fn step(&self) -> bool {
        let mut shared = self.shared();
        let index = self.rng.index(shared.ready.len());
        let Some(id) = shared.ready.iter().nth(index).copied() else {
            return false;
        };
        shared.ready.remove(&id);
        let Some((name, slot)) = shared.tasks.get_mut(&id) else {
            return true;
        };
        let Some(mut task) = slot.take() else {
            return true;
        };
        self.trace.note(format_args!("run {name}"));
        // The task may spawn, sleep and wake: the lock must be free.
        drop(shared);
        let waker = Waker::from(Arc::new(TaskWaker {
            id,
            shared: self.shared.clone(),
        }));
        let poll = task.as_mut().poll(&mut Context::from_waker(&waker));
        let mut shared = self.shared();
        match poll {
            Poll::Ready(()) => {
                shared.tasks.remove(&id);
            }
            Poll::Pending => {
                if let Some((_, slot)) = shared.tasks.get_mut(&id) {
                    *slot = Some(task);
                }
            }
        }
        true
    }

    /// Moves the clock to the next deadline and wakes who waits for it; false if none is set.
    fn pass_time(&self) -> bool {
        let mut shared = self.shared();
        let Some(((deadline, _), waker)) = shared.timers.pop_first() else {
            return false;
        };
        let now = self.clock.monotonic();
        self.clock.advance(deadline.saturating_sub(now));
        drop(shared);
        waker.wake();
        true
    }

    /// Runs tasks until none can go on without time passing.
    pub fn run_ready(&self) {
        while self.step() {}
    }

    /// Runs until `future` is done, all tasks along with it, for at most `limit` of virtual time.
    pub fn block_on<T: Send + 'static>(
        &self,
        limit: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Stalled> {
        let result = Arc::new(Mutex::new(None));
        let out = result.clone();
        self.spawn("main", async move {
            let value = future.await;
            *out.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        });
        let end = self.clock.monotonic() + limit;
        loop {
            if let Some(value) = result.lock().unwrap_or_else(PoisonError::into_inner).take() {
                return Ok(value);
            }
            if self.step() {
                continue;
            }
            if !self.pass_time() {
                return Err(Stalled::Deadlock);
            }
            if self.clock.monotonic() > end {
                return Err(Stalled::OutOfTime);
            }
        }
    }
}

/// Waits for a moment of the virtual clock.
pub struct Sleep {
    executor: Executor,
    deadline: Duration,
    timer: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.executor.clock.monotonic() >= self.deadline {
            return Poll::Ready(());
        }
        let executor = self.executor.clone();
        let mut shared = executor.shared();
        let key = match self.timer {
            Some(key) => key,
            None => {
                shared.next_timer += 1;
                (self.deadline, shared.next_timer)
            }
        };
        shared.timers.insert(key, context.waker().clone());
        self.timer = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            self.executor.shared().timers.remove(&key);
        }
    }
}

/// Polls a future once, with a waker that does nothing. For state machines that must not wait.
pub fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn executor(seed: u64) -> (Executor, Trace) {
        let trace = Trace::new();
        (
            Executor::new(SimRng::new(seed), SimClock::new(5), trace.clone()),
            trace,
        )
    }

    fn order(seed: u64) -> (Vec<u32>, u64) {
        let (executor, trace) = executor(seed);
        let seen = Arc::new(Mutex::new(Vec::new()));
        for number in 0..6_u32 {
            let (seen, handle) = (seen.clone(), executor.clone());
            executor.spawn(format!("task {number}"), async move {
                handle
                    .sleep(Duration::from_millis(u64::from(number % 2)))
                    .await;
                seen.lock().unwrap().push(number);
            });
        }
        let handle = executor.clone();
        executor
            .block_on(Duration::from_secs(9), async move {
                handle.sleep(Duration::from_secs(1)).await
            })
            .unwrap();
        assert_eq!(executor.clock().wall_ms(), 1005);
        let seen = seen.lock().unwrap().clone();
        (seen, trace.hash())
    }

    #[test]
    fn the_seed_decides_the_order_and_time_the_rest() {
        let all: BTreeSet<Vec<u32>> = (0..30).map(|seed| order(seed).0).collect();
        assert!(all.len() > 10);
        for seen in &all {
            assert_eq!(seen.len(), 6);
            assert!(seen[..3].iter().all(|number| number % 2 == 0), "{seen:?}");
        }
        assert_eq!(order(4), order(4));
    }

    #[test]
    fn stalls_are_told() {
        let (executor, _) = executor(1);
        let forever = executor.block_on(Duration::from_secs(1), std::future::pending::<()>());
        assert_eq!(forever, Err(Stalled::Deadlock));
        let handle = executor.clone();
        let late = executor.block_on(Duration::from_secs(1), async move {
            handle.sleep(Duration::from_secs(5)).await;
        });
        assert_eq!(late, Err(Stalled::OutOfTime));
        assert_eq!(poll_once(async { 3 }), Some(3));
        assert_eq!(poll_once(std::future::pending::<()>()), None);
    }
}
