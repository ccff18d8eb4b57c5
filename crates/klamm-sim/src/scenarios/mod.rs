//! What is run under faults, and the properties that must hold all the same.
//!
//! Each scenario is a folder: the driver that lets a seed decide what happens, the model of what
//! should be true, and one file for each property. A property's file opens with what it states and
//! where that comes from. [`SCENARIOS`] lists them all; a new one adds its line.

pub mod cluster;
pub mod controller;
pub mod coordinators;
pub mod group;
pub mod history;
pub mod log;
mod lying;
pub mod partition;
pub mod quorum;
pub mod rot;
pub mod tier;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_env::{Clock as _, Env, Fs};

use crate::trace::LINES_KEPT;
use crate::{SimClock, SimFs, SimRng, Trace};

/// Everything that a run may use, made from its seed.
#[derive(Debug)]
pub struct Run {
    /// Decides everything.
    pub rng: SimRng,
    /// Time.
    pub clock: SimClock,
    /// What happened.
    pub trace: Trace,
}

impl Run {
    /// The run of a seed.
    pub fn new(seed: u64) -> Run {
        Run::keeping(seed, LINES_KEPT)
    }

    /// The same with so many of the last lines of its trace.
    fn keeping(seed: u64, lines: usize) -> Run {
        Run {
            rng: SimRng::new(seed),
            clock: SimClock::new(1_700_000_000_000),
            trace: Trace::keeping(lines),
        }
    }

    /// A disk, named so that its whims are its own, with an empty directory that outlasts a crash.
    fn disk(&self, name: &str, dir: &str) -> Result<SimFs, Violation> {
        let fs = SimFs::new(self.rng.fork(name), self.clock.clone(), self.trace.clone());
        fs.create_dir_all(Path::new(dir))
            .and_then(|()| fs.sync_dir(Path::new("/")))
            .map_err(|error| Violation::new("setup", error.to_string()))?;
        Ok(fs)
    }

    /// The outside world of a log on a disk.
    fn env(&self, fs: Arc<dyn Fs>) -> Env {
        Env {
            clock: Arc::new(self.clock.clone()),
            rng: Arc::new(self.rng.fork("log's own")),
            fs,
        }
    }
}

/// Puts something between a log and its disk.
type Between = fn(SimFs) -> Arc<dyn Fs>;

/// Nothing in between.
fn honest(fs: SimFs) -> Arc<dyn Fs> {
    Arc::new(fs)
}

/// A property that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the property: its file.
    pub property: &'static str,
    /// What was seen.
    pub detail: String,
}

impl Violation {
    /// A violation of `property`.
    pub fn new(property: &'static str, detail: impl Into<String>) -> Violation {
        Violation {
            property,
            detail: detail.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is violated: {}", self.property, self.detail)
    }
}

/// Something to run.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Name on the command line.
    pub name: &'static str,
    /// What it does, in a line.
    pub about: &'static str,
    /// Runs it to its end or to the first violation.
    pub run: fn(&Run) -> Result<(), Violation>,
}

/// All scenarios.
pub const SCENARIOS: &[Scenario] = &[
    log::SCENARIO,
    log::MANAGED,
    history::SCENARIO,
    rot::SCENARIO,
    tier::SCENARIO,
    partition::SCENARIO,
    group::SCENARIO,
    controller::SCENARIO,
    cluster::SCENARIO,
    cluster::WHOLE,
    cluster::DAY,
    coordinators::GROUPS,
    coordinators::STREAMS,
    coordinators::TRANSACTIONS,
    coordinators::SHARES,
    quorum::SCENARIO,
    quorum::VOTERS,
];

/// Scenarios that are run only by name: a seed takes minutes.
pub const LONG: &[Scenario] = &[cluster::WEEKS];

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Hash over all that happened.
    pub trace_hash: u64,
    /// Time that passed in the run.
    pub simulated: Duration,
    /// Lines of the trace: steps of tasks, calls of disks, messages.
    pub trace_len: u64,
    /// The last lines of the trace.
    pub tail: Vec<String>,
    /// Whether the properties held.
    pub result: Result<(), Violation>,
}

/// What a panic says.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default()
}

/// Runs something in which a panic is a violation like others: other seeds are to run all the same.
fn guard(act: impl FnOnce() -> Result<(), Violation>) -> Result<(), Violation> {
    let result = catch_unwind(AssertUnwindSafe(act));
    result.unwrap_or_else(|panic| Err(Violation::new("no panic", text_of(&*panic))))
}

/// Runs a scenario on a seed.
pub fn run_seed(scenario: &Scenario, seed: u64) -> Outcome {
    run_and_keep(scenario, seed, LINES_KEPT)
}

/// The same with so many of the last lines of the trace.
pub fn run_and_keep(scenario: &Scenario, seed: u64, lines: usize) -> Outcome {
    let run = Run::keeping(seed, lines);
    let result = guard(|| (scenario.run)(&run));
    Outcome {
        trace_hash: run.trace.hash(),
        simulated: run.clock.monotonic(),
        trace_len: run.trace.len(),
        tail: run.trace.tail(lines),
        result,
    }
}
