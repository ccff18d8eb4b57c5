//! The threads that compact logs. They hold no memory while there is nothing to compact.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use klamm_config::BrokerConfig;
use klamm_env::Env;
use klamm_log::{CleanError, CleanRound, Cleaner, CleanerConfig, LogManager, Pace, Throttle};
use klamm_records::Uuid;
use tokio::task::spawn_blocking;
use tracing::{debug, error, info, warn};

/// Configurations that the threads look at before each log.
pub(crate) const DYNAMIC_CONFIGS: [&str; 6] = [
    "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size",
    "log.cleaner.io.buffer.load.factor",
    "log.cleaner.io.buffer.size",
    "log.cleaner.io.max.bytes.per.second",
    "log.cleaner.threads",
];

/// The running threads.
#[derive(Debug)]
pub(crate) struct CleanerThreads(Arc<Crew>);

/// Told of directories that failed.
type OnFailure = Box<dyn Fn(Vec<Uuid>) + Send + Sync>;

/// What the threads share.
struct Crew {
    logs: Arc<LogManager>,
    config: Arc<ArcSwap<BrokerConfig>>,
    env: Env,
    /// Secret, so that nobody can choose keys that look alike to the cleaner.
    seed: u64,
    failed: OnFailure,
    state: Mutex<State>,
    stopping: Condvar,
    dead: AtomicUsize,
}

struct State {
    stopped: bool,
    throttle: Throttle,
    threads: Vec<JoinHandle<()>>,
    /// Threads that neither ended nor are about to.
    running: usize,
}

impl std::fmt::Debug for Crew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Crew")
            .field("dead", &self.dead)
            .finish_non_exhaustive()
    }
}

impl CleanerThreads {
    /// Starts as many threads as the configuration says; none without `log.cleaner.enable`.
    /// `failed` is told of directories whose disk failed.
    pub(crate) fn start(
        logs: Arc<LogManager>,
        config: Arc<ArcSwap<BrokerConfig>>,
        env: Env,
        failed: impl Fn(Vec<Uuid>) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let enabled = config.load().log_cleaner_enable();
        let throttle = Throttle::new(f64::MAX, env.clock.monotonic());
        let crew = Arc::new(Crew {
            seed: env.rng.next_u64(),
            logs,
            config,
            env,
            failed: Box::new(failed),
            state: Mutex::new(State {
                stopped: false,
                throttle,
                threads: Vec::new(),
                running: 0,
            }),
            stopping: Condvar::new(),
            dead: AtomicUsize::new(0),
        });
        if enabled {
            crew.add_thread(&mut crew.lock())?;
        }
        Ok(CleanerThreads(crew))
    }

    /// Threads that ended with a panic.
    pub(crate) fn dead(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let crew = Arc::downgrade(&self.0);
        move || {
            crew.upgrade()
                .map_or(0, |crew| crew.dead.load(Ordering::Relaxed))
        }
    }

    /// Ends the threads; a clean that is under way is given up.
    pub(crate) async fn stop(&self) {
        let threads = self.end();
        if spawn_blocking(move || join(threads)).await.is_err() {
            error!("the cleaner threads did not end");
        }
    }

    fn end(&self) -> Vec<JoinHandle<()>> {
        let mut state = self.0.lock();
        state.stopped = true;
        self.0.stopping.notify_all();
        std::mem::take(&mut state.threads)
    }
}

/// Whoever comes next may open the same directories, and must not find anybody at them.
impl Drop for CleanerThreads {
    fn drop(&mut self) {
        join(self.end());
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        // A panic was told of when it happened.
        drop(thread.join());
    }
}

impl Crew {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add_thread(self: &Arc<Self>, state: &mut State) -> std::io::Result<()> {
        let crew = self.clone();
        let name = format!("klamm-cleaner-{}", state.running);
        let thread = thread::Builder::new()
            .name(name)
            .spawn(move || Worker::new(crew).run())?;
        state.threads.push(thread);
        state.running += 1;
        Ok(())
    }

    /// Brings the number of threads to what is configured. Returns whether the calling one ends.
    fn resize(self: &Arc<Self>, wanted: usize) -> bool {
        let mut state = self.lock();
        if state.stopped || state.running > wanted {
            // Counted out at once, or another could go for the same reason.
            state.running -= 1;
            return true;
        }
        state.threads.retain(|thread| !thread.is_finished());
        while state.running < wanted {
            if let Err(failed) = self.add_thread(&mut state) {
                warn!(error = %failed, "a cleaner thread cannot be started");
                break;
            }
        }
        false
    }

    /// Sleeps, unless the threads are to end. Returns whether they are.
    fn sleep(&self, time: Duration) -> bool {
        let state = self.lock();
        let waited = self
            .stopping
            .wait_timeout_while(state, time, |state| !state.stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.stopped
    }
}

impl Pace for Crew {
    fn after_io(&self, bytes: u64) -> ControlFlow<()> {
        let wait = {
            let mut state = self.lock();
            if state.stopped {
                return ControlFlow::Break(());
            }
            state.throttle.observe(bytes, self.env.clock.monotonic())
        };
        if !wait.is_zero() && self.sleep(wait) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// One thread.
struct Worker {
    crew: Arc<Crew>,
    cleaner: Cleaner,
}

impl Worker {
    fn new(crew: Arc<Crew>) -> Self {
        let cleaner = Cleaner::new(cleaner_config(&crew.config.load()), crew.seed);
        Worker { crew, cleaner }
    }

    fn run(mut self) {
        let crew = self.crew.clone();
        let _watch = DeathWatch(&crew);
        loop {
            let config = crew.config.load_full();
            if crew.resize(threads(&config)) {
                return;
            }
            let wanted = cleaner_config(&config);
            if self.cleaner.config() != wanted {
                self.cleaner = Cleaner::new(wanted, crew.seed);
            }
            let rate = config.double("log.cleaner.io.max.bytes.per.second");
            crew.lock().throttle.set_rate(rate);
            let round = crew.logs.clean_next(&mut self.cleaner, &*crew);
            let worked = matches!(&round.cleaned, Some((_, Ok(_))));
            report(&round);
            if !round.failed_directories.is_empty() {
                (crew.failed)(round.failed_directories);
            }
            let backoff_ms = u64::try_from(config.long("log.cleaner.backoff.ms")).unwrap_or(0);
            if !worked {
                crew.sleep(Duration::from_millis(backoff_ms));
            }
        }
    }
}

/// Notices a thread that dies.
struct DeathWatch<'a>(&'a Crew);

impl Drop for DeathWatch<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lock().running -= 1;
            self.0.dead.fetch_add(1, Ordering::Relaxed);
            error!("a cleaner thread ended with a panic");
        }
    }
}

fn threads(config: &BrokerConfig) -> usize {
    usize::try_from(config.int("log.cleaner.threads"))
        .unwrap_or(1)
        .max(1)
}

/// The share of one thread.
fn cleaner_config(config: &BrokerConfig) -> CleanerConfig {
    let bytes = |value: i64| usize::try_from(value).unwrap_or(0);
    CleanerConfig {
        map_bytes: bytes(config.long("log.cleaner.dedupe.buffer.size")) / threads(config),
        map_load_factor: config.double("log.cleaner.io.buffer.load.factor"),
        // Half for reading, half for writing.
        io_buffer_bytes: bytes(config.int("log.cleaner.io.buffer.size").into())
            / threads(config)
            / 2,
    }
}

fn report(round: &CleanRound) {
    let Some((partition, result)) = &round.cleaned else {
        return;
    };
    match result {
        Ok(report) => {
            info!(
                %partition,
                from = report.first_dirty_offset,
                to = report.cleaned_to,
                bytes_before = report.bytes_read,
                bytes_after = report.bytes_written,
                records_before = report.records_read,
                records_after = report.records_written,
                "compacted"
            );
            if report.records_without_key > 0 {
                let count = report.records_without_key;
                warn!(%partition, count, "records without a key were dropped by compaction");
            }
        }
        Err(ended @ (CleanError::Disturbed | CleanError::Stopped)) => {
            debug!(%partition, reason = %ended, "compaction given up");
        }
        Err(CleanError::Log(failed)) => {
            warn!(%partition, error = %failed, "cannot be compacted; tried again later");
        }
    }
}
