use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use crate::error::LogError;
use crate::flusher::WorkPlan;
use crate::log::Log;
use crate::storage::lock;

/// Threads that do one kind of work on logs. They are started one by one, as soon as all that
/// there are have something to do.
pub(crate) struct Pool {
    name: &'static str,
    threads_max: usize,
    job: fn(&Log) -> Result<(), LogError>,
    work: Mutex<Work>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Work {
    plan: WorkPlan<u64>,
    /// The logs that the plan speaks of.
    logs: BTreeMap<u64, Weak<Log>>,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    ended: bool,
}

impl Pool {
    pub(crate) fn new(
        name: &'static str,
        threads_max: usize,
        job: fn(&Log) -> Result<(), LogError>,
    ) -> Arc<Pool> {
        Arc::new(Pool {
            name,
            threads_max,
            job,
            work: Mutex::new(Work::default()),
            wake: Condvar::new(),
        })
    }

    /// Asks for the job to be done for a log. Whatever happened to the log before this call is
    /// seen by the job.
    pub(crate) fn request(self: &Arc<Self>, id: u64, log: &Weak<Log>) {
        let mut work = lock(&self.work);
        if work.ended || !work.plan.request(id) {
            return;
        }
        work.logs.insert(id, log.clone());
        // Threads that were woken and have not run yet still count as idle.
        if work.idle >= work.plan.queued() {
            drop(work);
            self.wake.notify_one();
        } else if work.threads.len() < self.threads_max {
            let pool = Arc::clone(self);
            let started = thread::Builder::new()
                .name(self.name.to_owned())
                .spawn(move || pool.run());
            match started {
                Ok(thread) => work.threads.push(thread),
                // The threads that there are get to it; without any the caller does it.
                Err(_) if work.threads.is_empty() => {
                    drop(work);
                    while self.run_one() {}
                }
                Err(_) => {}
            }
        }
    }

    /// Does the next piece of work on this thread; false if there is none.
    pub(crate) fn run_one(&self) -> bool {
        let next = take(&mut lock(&self.work));
        let Some((id, log)) = next else {
            return false;
        };
        self.turn(id, log);
        true
    }

    fn turn(&self, id: u64, log: Weak<Log>) {
        let result = log.upgrade().map_or(Ok(()), |log| (self.job)(&log));
        let mut work = lock(&self.work);
        // A log that was closed meanwhile is no failure of the disk.
        if let Err(error) = result
            && !matches!(error, LogError::Closed { .. })
        {
            work.plan.fail();
            work.logs.clear();
        }
        if work.plan.done(&id) {
            work.logs.insert(id, log);
        }
    }

    /// What a thread does until the pool ends.
    fn run(&self) {
        let mut work = lock(&self.work);
        while !work.ended {
            if let Some((id, log)) = take(&mut work) {
                drop(work);
                self.turn(id, log);
                work = lock(&self.work);
            } else {
                work.idle += 1;
                work = self.wake.wait(work).unwrap_or_else(PoisonError::into_inner);
                work.idle -= 1;
            }
        }
    }

    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.work).plan.has_failed()
    }

    /// Has the threads end after the work at hand.
    pub(crate) fn end(&self) {
        lock(&self.work).ended = true;
        self.wake.notify_all();
    }

    /// Ends the threads and waits for them.
    pub(crate) fn stop(&self) {
        self.end();
        let threads = std::mem::take(&mut lock(&self.work).threads);
        for thread in threads {
            // A panic there was reported by the panic hook; nothing is left to be done about it.
            let _ = thread.join();
        }
    }
}

fn take(work: &mut Work) -> Option<(u64, Weak<Log>)> {
    let id = work.plan.begin()?;
    let log = work.logs.remove(&id).unwrap_or_default();
    Some((id, log))
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("name", &self.name)
            .field("threads_max", &self.threads_max)
            .field("work", &self.work)
            .finish_non_exhaustive()
    }
}
