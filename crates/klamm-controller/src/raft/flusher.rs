//! Makes what was appended durable, in order, off the runtime's threads.
//!
//! Appends and votes reach the disk strictly in the order in which openraft asked for them: a vote
//! that overtook an append could promise what a crash then takes back. So both go through one
//! queue; while one round of work is on the disk, the next gathers, and one flush serves all
//! appends in it.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use klamm_log::Log;
use openraft::storage::IOFlushed;

use super::hard_state::{HardState, HardStateFile};
use super::types::TypeConfig;
use crate::runtime::spawn_blocking;

/// A piece of work for the disk.
pub(super) enum Job {
    /// Flush the log up to here, then tell.
    Flush {
        end: i64,
        done: IOFlushed<TypeConfig>,
    },
    /// Save the state, then tell.
    Save {
        state: HardState,
        done: tokio::sync::oneshot::Sender<io::Result<()>>,
    },
}

#[derive(Default)]
struct Queue {
    jobs: Vec<Job>,
    running: bool,
}

/// The queue, and who works on it.
pub(super) struct Flusher {
    log: Arc<Log>,
    hard_state: Arc<Mutex<HardStateFile>>,
    queue: Arc<Mutex<Queue>>,
}

impl Flusher {
    pub(super) fn new(log: Arc<Log>, hard_state: Arc<Mutex<HardStateFile>>) -> Self {
        Flusher {
            log,
            hard_state,
            queue: Arc::default(),
        }
    }

    /// Puts a job at the end of the queue.
    pub(super) fn push(&self, job: Job) {
        let mut queue = lock(&self.queue);
        queue.jobs.push(job);
        if queue.running {
            return;
        }
        queue.running = true;
        drop(queue);
        let (log, hard_state, queue) = (
            Arc::clone(&self.log),
            Arc::clone(&self.hard_state),
            Arc::clone(&self.queue),
        );
        // Not openraft's own `spawn_blocking`, which starts a thread each time.
        // Whoever waits for it is told by the job.
        drop(spawn_blocking(move || work(&log, &hard_state, &queue)));
    }
}

fn work(log: &Log, hard_state: &Mutex<HardStateFile>, queue: &Mutex<Queue>) {
    loop {
        let jobs = {
            let mut queue = lock(queue);
            if queue.jobs.is_empty() {
                queue.running = false;
                return;
            }
            std::mem::take(&mut queue.jobs)
        };
        run(log, hard_state, jobs);
    }
}

fn run(log: &Log, hard_state: &Mutex<HardStateFile>, jobs: Vec<Job>) {
    let mut flushes: Vec<(i64, IOFlushed<TypeConfig>)> = Vec::new();
    for job in jobs {
        match job {
            Job::Flush { end, done } => flushes.push((end, done)),
            Job::Save { state, done } => {
                flush(log, std::mem::take(&mut flushes));
                let result = lock(hard_state).save(state);
                // Nobody waits any more if the node is shutting down.
                let _ = done.send(result);
            }
        }
    }
    flush(log, flushes);
}

fn flush(log: &Log, flushes: Vec<(i64, IOFlushed<TypeConfig>)>) {
    let Some(end) = flushes.iter().map(|(end, _)| *end).max() else {
        return;
    };
    let result = log.flush(end);
    for (_, done) in flushes {
        done.io_completed(match &result {
            Ok(()) => Ok(()),
            Err(error) => Err(io::Error::other(error.to_string())),
        });
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
