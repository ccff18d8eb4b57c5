use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use klamm_env::host::{self, Host, HostFuture};
use klamm_env::{Clock as _, Rng as _};

use crate::{SimClock, SimRng, Trace};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A process: tasks that end together, and that stand still together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process(u64);

impl Process {
    /// The one that never ends nor pauses.
    pub const MAIN: Process = Process(0);
}

/// A task between two polls; without its future while it is polled.
struct Entry {
    name: String,
    process: Process,
    future: Option<Task>,
}

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
    tasks: BTreeMap<u64, Entry>,
    ready: BTreeSet<u64>,
    paused: BTreeSet<Process>,
    /// The longest that a process waits for its disk.
    slow_disks: BTreeMap<Process, Duration>,
    next_process: u64,
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

    /// How many tasks there are, and how many timers are set.
    pub fn load(&self) -> (usize, usize) {
        let shared = self.shared();
        (shared.tasks.len(), shared.timers.len())
    }

    /// Starts a process without tasks.
    pub fn new_process(&self) -> Process {
        let mut shared = self.shared();
        shared.next_process += 1;
        Process(shared.next_process)
    }

    /// Adds a task to [`Process::MAIN`]. Its name is for the trace.
    pub fn spawn(
        &self,
        name: impl Into<String>,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn_in(Process::MAIN, name, future);
    }

    /// Adds a task to a process.
    pub fn spawn_in(
        &self,
        process: Process,
        name: impl Into<String>,
        future: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut shared = self.shared();
        let id = shared.next_task;
        shared.next_task += 1;
        let entry = Entry {
            name: name.into(),
            process,
            future: Some(Box::pin(future)),
        };
        shared.tasks.insert(id, entry);
        shared.ready.insert(id);
    }

    /// Ends a process: its tasks are dropped where they wait. The task that is running, if it is
    /// one of them, goes on to where it waits next.
    pub fn end(&self, process: Process) {
        let mut shared = self.shared();
        shared.paused.remove(&process);
        shared.slow_disks.remove(&process);
        let tasks = std::mem::take(&mut shared.tasks);
        let (ended, others): (BTreeMap<_, _>, BTreeMap<_, _>) = tasks
            .into_iter()
            .partition(|(_, entry)| entry.process == process);
        shared.tasks = others;
        shared.ready.retain(|id| !ended.contains_key(id));
        // What the tasks own may wake others or take back timers: the lock must be free.
        drop(shared);
        drop(ended);
    }

    /// Drops all tasks, where they wait.
    pub fn shut_down(&self) {
        let mut shared = self.shared();
        let tasks = std::mem::take(&mut shared.tasks);
        shared.ready.clear();
        drop(shared);
        drop(tasks);
    }

    /// Lets a process stand still, as SIGSTOP does: time passes without it.
    pub fn pause(&self, process: Process) {
        self.shared().paused.insert(process);
    }

    /// Lets a process go on.
    pub fn resume(&self, process: Process) {
        self.shared().paused.remove(&process);
    }

    /// From now on work of a process that waits for its disk takes up to this long.
    pub fn slow_disk(&self, process: Process, longest: Duration) {
        self.shared().slow_disks.insert(process, longest);
    }

    /// Waits until `duration` has passed on the virtual clock.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        Sleep {
            executor: self.clone(),
            deadline: self.clock.monotonic() + duration,
            timer: None,
        }
    }

    /// One of the tasks that can run.
    fn choose(&self, shared: &Shared) -> Option<u64> {
        if shared.paused.is_empty() {
            let index = self.rng.index(shared.ready.len());
            return shared.ready.iter().nth(index).copied();
        }
        let runs = |id: &&u64| {
            let entry = shared.tasks.get(id);
            entry.is_none_or(|entry| !shared.paused.contains(&entry.process))
        };
        let able: Vec<u64> = shared.ready.iter().filter(runs).copied().collect();
        self.rng.pick(&able).copied()
    }

    /// Polls one task that can run; false if none can.
    fn step(&self) -> bool {
        let mut shared = self.shared();
        let Some(id) = self.choose(&shared) else {
            return false;
        };
        shared.ready.remove(&id);
        let Some(entry) = shared.tasks.get_mut(&id) else {
            return true;
        };
        let Some(mut task) = entry.future.take() else {
            return true;
        };
        self.trace.note(format_args!("run {}", entry.name));
        let host = ProcessHost {
            executor: self.clone(),
            process: entry.process,
        };
        // The task may spawn, sleep and wake: the lock must be free.
        drop(shared);
        let waker = Waker::from(Arc::new(TaskWaker {
            id,
            shared: self.shared.clone(),
        }));
        let poll = || task.as_mut().poll(&mut Context::from_waker(&waker));
        let poll = host::with(Arc::new(host), poll);
        let mut shared = self.shared();
        match poll {
            Poll::Ready(()) => {
                shared.tasks.remove(&id);
            }
            Poll::Pending => {
                if let Some(entry) = shared.tasks.get_mut(&id) {
                    entry.future = Some(task);
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

/// What a process runs on, for code that asks for a [`Host`]: its tasks are the process's.
struct ProcessHost {
    executor: Executor,
    process: Process,
}

impl fmt::Debug for ProcessHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.process)
    }
}

impl Host for ProcessHost {
    fn spawn(&self, task: HostFuture) {
        self.executor.spawn_in(self.process, "task", task);
    }

    fn spawn_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        let longest = self
            .executor
            .shared()
            .slow_disks
            .get(&self.process)
            .copied();
        let longest = longest.unwrap_or_default().as_micros() as u64;
        let executor = self.executor.clone();
        self.executor.spawn_in(self.process, "disk", async move {
            if longest > 0 {
                let wait = Duration::from_micros(executor.rng.below(longest));
                executor.sleep(wait).await;
            }
            work();
        });
    }

    fn now(&self) -> Duration {
        self.executor.clock.monotonic()
    }

    fn sleep_until(&self, deadline: Duration) -> HostFuture {
        // The clock has whole microseconds, and must not stop short.
        let us = deadline.as_nanos().div_ceil(1_000);
        Box::pin(Sleep {
            executor: self.executor.clone(),
            deadline: Duration::from_micros(u64::try_from(us).unwrap_or(u64::MAX)),
            timer: None,
        })
    }

    fn random(&self) -> u64 {
        self.executor.rng.next_u64()
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
    fn processes_end_and_pause_as_one() {
        let (executor, _) = executor(3);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let [ended, paused] = [executor.new_process(), executor.new_process()];
        for (name, process) in [
            ("main", Process::MAIN),
            ("ended", ended),
            ("paused", paused),
        ] {
            for _ in 0..2 {
                let (seen, handle) = (seen.clone(), executor.clone());
                executor.spawn_in(process, name, async move {
                    handle.sleep(Duration::from_millis(1)).await;
                    seen.lock().unwrap().push(name);
                });
            }
        }
        executor.run_ready();
        executor.end(ended);
        executor.pause(paused);
        let handle = executor.clone();
        let nap = async move { handle.sleep(Duration::from_millis(5)).await };
        executor.block_on(Duration::from_secs(1), nap).unwrap();
        assert_eq!(*seen.lock().unwrap(), ["main"; 2]);
        executor.resume(paused);
        executor.run_ready();
        assert_eq!(*seen.lock().unwrap(), ["main", "main", "paused", "paused"]);
        assert!(executor.shared().tasks.is_empty());
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
