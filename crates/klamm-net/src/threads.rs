//! The threads that connections live on.
//!
//! Each thread has a runtime of its own and polls only the sockets of its own connections: data
//! that comes in wakes the one thread that handles it, and no thread is woken to look for work at
//! another. What is given up is that an idle thread takes over the work of a busy one as it comes;
//! instead connections *move*:
//!
//! - A new connection goes to the first thread that is not half busy. At low load all of them share
//!   a thread, and one wake-up serves several; a request's answer and the fetch that waits for it
//!   need no second thread.
//! - Each thread knows how much processor time it takes. One that takes nearly all there is gives
//!   some of its connections to the calmest one, if that does not merely exchange their roles. Time
//!   and not waiting is what counts: where all processors are busy, more threads would only mean
//!   more switches between them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How long a thread is watched before its load is known.
const WINDOW: Duration = Duration::from_millis(100);
/// A load that is older than this is one of a thread that sleeps.
const STALE: Duration = Duration::from_secs(1);
/// New connections go elsewhere from this load on, in per cent.
const FULL_PERCENT: u32 = 50;
/// A thread gives connections away from this load on, in per cent.
const OVERLOADED_PERCENT: u32 = 85;

/// Threads that connections live on; shared by cloning. They end when the last clone and the last
/// connection are gone.
#[derive(Clone, Debug)]
pub struct Threads(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    handles: Vec<Handle>,
    loads: Arc<Loads>,
    /// Dropped to end the threads.
    _stops: Vec<oneshot::Sender<()>>,
}

impl Threads {
    /// Starts `count` threads, at least one, whose names begin with `name`.
    ///
    /// # Errors
    /// The system has no thread or no poll to give.
    pub fn start(count: usize, name: &str) -> io::Result<Threads> {
        let loads = Arc::new(Loads::new(count.max(1)));
        let (mut handles, mut stops) = (Vec::new(), Vec::new());
        for thread in 0..loads.threads.len() {
            let parked = loads.clone();
            let runtime = Builder::new_current_thread()
                .enable_all()
                .thread_name(format!("{name}-io"))
                .on_thread_park(move || parked.park(thread))
                .build()?;
            handles.push(runtime.handle().clone());
            let (stop, stopped) = oneshot::channel::<()>();
            stops.push(stop);
            std::thread::Builder::new()
                .name(format!("{name}-{thread}"))
                .spawn(move || {
                    // That the sender is gone is the signal.
                    let _ = runtime.block_on(stopped);
                })?;
        }
        Ok(Threads(Arc::new(Inner {
            handles,
            loads,
            _stops: stops,
        })))
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.0.handles.len()
    }

    /// Whether both are the same threads.
    pub fn is_same(&self, other: &Threads) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Where a new connection is to live.
    pub(crate) fn place(&self) -> Place {
        self.at(self.0.loads.first_with_room())
    }

    /// Has the next connection of `thread` that does something move to `target`.
    #[cfg(test)]
    pub(crate) fn send_one_away(&self, thread: usize, target: u32) {
        let load = &self.0.loads.threads[thread];
        load.target.store(target, Relaxed);
        load.leaving.store(1, Relaxed);
    }

    fn at(&self, thread: usize) -> Place {
        Place {
            threads: self.clone(),
            thread,
            window: u32::MAX,
        }
    }
}

/// The thread that a connection lives on.
#[derive(Debug)]
pub(crate) struct Place {
    threads: Threads,
    thread: usize,
    /// The window in which the connection was last counted as active.
    window: u32,
}

impl Place {
    pub(crate) fn handle(&self) -> &Handle {
        &self.threads.0.handles[self.thread]
    }

    /// Counts the connection as active; returns where it should go on, if that is elsewhere.
    pub(crate) fn next(&mut self) -> Option<Place> {
        let thread = self.threads.0.loads.note(self.thread, &mut self.window)?;
        Some(self.threads.at(thread))
    }
}

/// How busy each thread is.
#[derive(Debug)]
struct Loads {
    began: Instant,
    threads: Vec<Load>,
}

/// One thread's account. Written by that thread alone, so that loads and stores suffice.
#[derive(Debug, Default)]
struct Load {
    /// In microseconds since the beginning.
    window_began: AtomicU64,
    /// Processor time that the thread had taken when the window began, in microseconds.
    cpu_us: AtomicU64,
    /// Counts windows.
    window: AtomicU32,
    /// Connections that did something in this window.
    active: AtomicU32,
    /// Of the last whole window.
    percent: AtomicU32,
    /// Connections that should leave, and for which thread.
    leaving: AtomicU32,
    target: AtomicU32,
}

impl Loads {
    fn new(count: usize) -> Self {
        Loads {
            began: Instant::now(),
            threads: (0..count).map(|_| Load::default()).collect(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn park(&self, thread: usize) {
        let now = self.now();
        let began = self.threads[thread].window_began.load(Relaxed);
        if u128::from(now.saturating_sub(began)) >= WINDOW.as_micros() {
            self.end_window(thread, now, thread_cpu_us());
        }
    }

    /// Ends a window of the calling thread, which has taken `cpu_us` of processor time so far.
    fn end_window(&self, thread: usize, now: u64, cpu_us: u64) {
        let load = &self.threads[thread];
        let span = now.saturating_sub(load.window_began.load(Relaxed)).max(1);
        let busy = cpu_us.saturating_sub(load.cpu_us.load(Relaxed));
        let percent = u32::try_from(busy.min(span) * 100 / span).unwrap_or(100);
        let active = load.active.load(Relaxed);
        load.percent.store(percent, Relaxed);
        load.cpu_us.store(cpu_us, Relaxed);
        load.active.store(0, Relaxed);
        load.window_began.store(now, Relaxed);
        load.window
            .store(load.window.load(Relaxed).wrapping_add(1), Relaxed);
        let (leaving, target) = self.relief(thread, percent, active, now);
        load.target.store(target, Relaxed);
        load.leaving.store(leaving, Relaxed);
    }

    /// How many of a thread's `active` connections should go to which other one.
    fn relief(&self, thread: usize, percent: u32, active: u32, now: u64) -> (u32, u32) {
        let others = (0..self.threads.len()).filter(|&other| other != thread);
        let calmest = others.min_by_key(|&other| self.percent(other, now));
        let Some(target) = calmest.filter(|_| percent >= OVERLOADED_PERCENT && active >= 2) else {
            return (0, 0);
        };
        // As many as make the two alike, by what an active connection takes on the average.
        let difference = percent.saturating_sub(self.percent(target, now));
        let leaving = u64::from(difference) * u64::from(active) / (2 * u64::from(percent));
        let leaving = u32::try_from(leaving).unwrap_or(u32::MAX).min(active - 1);
        (leaving, u32::try_from(target).unwrap_or(0))
    }

    fn percent(&self, thread: usize, now: u64) -> u32 {
        let load = &self.threads[thread];
        let age = now.saturating_sub(load.window_began.load(Relaxed));
        if u128::from(age) > STALE.as_micros() {
            return 0;
        }
        load.percent.load(Relaxed)
    }

    /// The first thread that is not half busy, else the calmest.
    fn first_with_room(&self) -> usize {
        let now = self.now();
        let all = 0..self.threads.len();
        let free = all
            .clone()
            .find(|&thread| self.percent(thread, now) < FULL_PERCENT);
        free.or_else(|| all.min_by_key(|&thread| self.percent(thread, now)))
            .unwrap_or(0)
    }

    /// Counts a connection of `thread` as active in this window, which `seen` remembers; returns
    /// the thread that it should move to.
    fn note(&self, thread: usize, seen: &mut u32) -> Option<usize> {
        let load = &self.threads[thread];
        let window = load.window.load(Relaxed);
        if *seen != window {
            *seen = window;
            load.active.store(load.active.load(Relaxed) + 1, Relaxed);
        }
        let leaving = load.leaving.load(Relaxed);
        if leaving == 0 {
            return None;
        }
        load.leaving.store(leaving - 1, Relaxed);
        usize::try_from(load.target.load(Relaxed)).ok()
    }
}

/// Processor time that the calling thread has taken.
fn thread_cpu_us() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanos) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
    seconds * 1_000_000 + nanos / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    /// One window in which `thread` was busy for `percent` of the time and `active` connections
    /// did something.
    fn window(loads: &Loads, thread: usize, began: u64, percent: u64, active: u32) {
        let load = &loads.threads[thread];
        for _ in 0..active {
            loads.note(thread, &mut load.window.load(Relaxed).wrapping_sub(1));
        }
        load.window_began.store(began, Relaxed);
        let cpu_us = load.cpu_us.load(Relaxed) + percent * MS;
        loads.end_window(thread, began + 100 * MS, cpu_us);
    }

    fn leaving(loads: &Loads, thread: usize) -> u32 {
        loads.threads[thread].leaving.load(Relaxed)
    }

    #[test]
    fn a_busy_thread_gives_half_of_its_connections_to_an_idle_one() {
        let loads = Loads::new(3);
        window(&loads, 1, 0, 40, 4);
        window(&loads, 2, 0, 10, 1);
        window(&loads, 0, 0, 90, 9);
        assert_eq!(leaving(&loads, 0), 4);
        let mut seen = 0;
        assert_eq!(loads.note(0, &mut seen), Some(2));
        assert_eq!(leaving(&loads, 0), 3);
    }

    #[test]
    fn nothing_moves_without_need_or_use() {
        let loads = Loads::new(2);
        window(&loads, 0, 0, 60, 9);
        assert_eq!(leaving(&loads, 0), 0, "there is room");
        window(&loads, 0, 100 * MS, 95, 1);
        assert_eq!(leaving(&loads, 0), 0, "one alone would only change places");
        window(&loads, 1, 100 * MS, 90, 4);
        window(&loads, 0, 200 * MS, 95, 4);
        assert_eq!(leaving(&loads, 0), 0, "both are busy");
    }

    #[test]
    fn what_a_sleeping_thread_last_did_counts_no_more() {
        let loads = Loads::new(2);
        window(&loads, 1, 0, 100, 5);
        window(&loads, 0, 5_000 * MS, 90, 4);
        assert_eq!(leaving(&loads, 0), 2);
    }

    #[test]
    fn new_connections_fill_one_thread_after_the_other() {
        let loads = Loads::new(2);
        assert_eq!(loads.first_with_room(), 0);
        loads.threads[0].percent.store(60, Relaxed);
        loads.threads[0].window_began.store(loads.now(), Relaxed);
        assert_eq!(loads.first_with_room(), 1);
        loads.threads[1].percent.store(70, Relaxed);
        loads.threads[1].window_began.store(loads.now(), Relaxed);
        assert_eq!(loads.first_with_room(), 0);
    }
}
