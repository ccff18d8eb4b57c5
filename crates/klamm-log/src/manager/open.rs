use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};

use klamm_env::Env;
use klamm_records::TopicPartition;

use crate::agenda::Agenda;
use crate::clean_shutdown;
use crate::config::LogConfig;
use crate::error::{IoContext, LogError};
use crate::files::OpenFiles;
use crate::log::{KnownLog, Log, LogOpen};
use crate::manager::directory::{Directory, Written};
use crate::manager::manifest;
use crate::manager::{LogManager, LogManagerConfig, ManagerError, Placed, Upkeep};
use crate::names::PartitionDir;
use crate::storage::lock;

/// Directories that Kafka keeps below a log directory and that are no partition's log.
const KAFKAS_OWN: [&str; 2] = ["remote-log-index-cache", "__cluster_metadata-0"];

/// A log to open.
struct Job {
    partition: TopicPartition,
    dir: PathBuf,
    directory: usize,
    future: bool,
    recovery_point: i64,
    log_start_offset: i64,
    high_watermark: i64,
    cleaned_to: Option<i64>,
    clean: bool,
    /// What is known of it from the last orderly shutdown.
    known: Option<KnownLog>,
}

impl LogManager {
    /// Locks the directories, makes sure that they belong to this node, and opens all logs in
    /// them. `topic_config` is asked for the configuration of each topic.
    ///
    /// A directory whose disk fails is left offline.
    ///
    /// # Errors
    /// A directory that is locked or not ours, a partition with two logs, or no directory that
    /// works.
    pub fn open(
        config: LogManagerConfig,
        env: Env,
        topic_config: impl Fn(&str) -> LogConfig + Sync,
    ) -> Result<LogManager, ManagerError> {
        let mut failures = Vec::new();
        let directories = open_directories(&config, &env, &mut failures)?;
        let mut jobs = Vec::new();
        let mut removals = Vec::new();
        let mut ignored = Vec::new();
        let mut epochs = Vec::new();
        for (index, directory) in directories.iter().enumerate() {
            if !directory.is_online() {
                epochs.push(None);
                continue;
            }
            let scanned = scan(
                index,
                directory,
                &env,
                &mut jobs,
                &mut removals,
                &mut ignored,
            );
            epochs.push(scanned.unwrap_or_else(|error| {
                directory.set_offline();
                failures.push(error);
                None
            }));
        }
        let files = OpenFiles::new(config.open_files_max);
        let opened = open_logs(&config, &env, &files, &jobs, &topic_config);
        let mut logs: BTreeMap<TopicPartition, Placed> = BTreeMap::new();
        let mut futures = BTreeMap::new();
        for (job, result) in jobs.iter().zip(opened) {
            let log = match result {
                Ok(log) => {
                    let log = Arc::new(log);
                    directories[job.directory].flusher().attach(&log);
                    log
                }
                Err(error) => {
                    directories[job.directory].set_offline();
                    failures.push(error);
                    continue;
                }
            };
            let placed = Placed {
                log,
                directory: job.directory,
            };
            let map = if job.future { &mut futures } else { &mut logs };
            if let Some(other) = map.insert(job.partition.clone(), placed) {
                return Err(ManagerError::DuplicatePartition {
                    partition: job.partition.clone(),
                    dirs: [other.log.dir(), job.dir.clone()],
                });
            }
        }
        if !directories.iter().any(Directory::is_online) {
            return Err(ManagerError::AllFailed(failures));
        }
        for map in [&mut logs, &mut futures] {
            map.retain(|_, placed| directories[placed.directory].is_online());
        }
        let agenda = Arc::new(Agenda::default());
        for placed in logs.values().chain(futures.values()) {
            directories[placed.directory].count_log(1);
            directories[placed.directory].note_arrival();
            agenda.add(&placed.log);
        }
        for current in futures.keys().filter_map(|partition| logs.get(partition)) {
            current.log.set_moving(true);
        }
        let now_ms = env.clock.wall_ms();
        let first_epoch = epochs.first().copied().flatten();
        Ok(LogManager {
            previous_broker_epoch: first_epoch.filter(|_| epochs.iter().all(|e| *e == first_epoch)),
            config,
            env,
            directories,
            files,
            agenda,
            logs: RwLock::new(logs),
            creating: Mutex::new(BTreeSet::new()),
            created: Condvar::new(),
            futures: RwLock::new(futures),
            preferred: Mutex::new(BTreeMap::new()),
            placing: Mutex::new(()),
            cleaning: Mutex::default(),
            upkeep: Mutex::new(Upkeep {
                last_round_ms: now_ms,
                // The first round of retention comes soon, like Kafka's after 30 seconds.
                last_retention_ms: 0,
                last_checkpoint_ms: now_ms,
                last_high_watermark_ms: now_ms,
                removals,
            }),
            ignored,
        })
    }
}

fn open_directories(
    config: &LogManagerConfig,
    env: &Env,
    failures: &mut Vec<LogError>,
) -> Result<Vec<Directory>, ManagerError> {
    if config.dirs.is_empty() {
        return Err(ManagerError::NoDirs);
    }
    let mut directories: Vec<Directory> = Vec::new();
    let mut real_paths: Vec<PathBuf> = Vec::new();
    for path in &config.dirs {
        if let Ok(real) = env.fs.canonicalize(path) {
            if real_paths.contains(&real) {
                return Err(ManagerError::SameDirTwice { dir: path.clone() });
            }
            real_paths.push(real);
        }
        let directory = match Directory::open(path, config, env) {
            Err(ManagerError::Log(error @ LogError::Io { .. })) => {
                failures.push(error);
                Directory::failed(path)
            }
            result => result?,
        };
        if real_paths.len() < directories.len() + 1
            && let Ok(real) = env.fs.canonicalize(path)
        {
            // It did not exist before.
            if real_paths.contains(&real) {
                return Err(ManagerError::SameDirTwice { dir: path.clone() });
            }
            real_paths.push(real);
        }
        if let Some(other) = directories.iter().find(|other| {
            other.is_online() && directory.is_online() && other.id() == directory.id()
        }) {
            return Err(ManagerError::DuplicateDirectoryId {
                id: directory.id(),
                dirs: [other.path().into(), path.clone()],
            });
        }
        directories.push(directory);
    }
    Ok(directories)
}

/// Lists what is in a directory. Returns the broker epoch of its clean shutdown.
fn scan(
    index: usize,
    directory: &Directory,
    env: &Env,
    jobs: &mut Vec<Job>,
    removals: &mut Vec<(i64, PathBuf)>,
    ignored: &mut Vec<PathBuf>,
) -> Result<Option<i64>, LogError> {
    let fs = &*env.fs;
    let mut manifest = manifest::take(fs, directory.path())?;
    let marker = clean_shutdown::take(fs, directory.path())?;
    let Written {
        recovery_points,
        log_starts,
        high_watermarks,
        cleaned,
    } = directory.read_checkpoints(fs)?;
    let entries = fs.read_dir(directory.path()).at("list", directory.path())?;
    for entry in entries.into_iter().filter(|entry| entry.is_dir) {
        let dir = directory.path().join(&entry.name);
        if KAFKAS_OWN.contains(&entry.name.as_str()) {
            continue;
        }
        let (partition, future) = match PartitionDir::parse(&entry.name) {
            Ok(PartitionDir::Current(partition)) => (partition, false),
            Ok(PartitionDir::Future(partition)) => (partition, true),
            Ok(PartitionDir::Deleted) => {
                removals.push((env.clock.wall_ms(), dir));
                continue;
            }
            Ok(PartitionDir::Stray(_)) | Err(_) => {
                ignored.push(dir);
                continue;
            }
        };
        let offset_in = |offsets: &BTreeMap<_, i64>| offsets.get(&partition).copied().unwrap_or(0);
        jobs.push(Job {
            recovery_point: offset_in(&recovery_points),
            log_start_offset: offset_in(&log_starts),
            high_watermark: offset_in(&high_watermarks),
            cleaned_to: cleaned.get(&partition).copied(),
            clean: marker.is_some(),
            known: manifest.remove(&entry.name),
            partition,
            dir,
            directory: index,
            future,
        });
    }
    Ok(marker.and_then(|marker| marker.broker_epoch))
}

/// Opens logs, on several threads if so configured; results in the order of the jobs.
fn open_logs(
    config: &LogManagerConfig,
    env: &Env,
    files: &OpenFiles,
    jobs: &[Job],
    topic_config: &(impl Fn(&str) -> LogConfig + Sync),
) -> Vec<Result<Log, LogError>> {
    let open = |job: &Job| {
        let mut config = topic_config(&job.partition.topic);
        // The topic's own configuration may come later, but what was compacted has gaps, which
        // recovery must not take for damage.
        config.compact |= job.cleaned_to.is_some();
        let opening = LogOpen {
            dir: job.dir.clone(),
            topic_partition: job.partition.clone(),
            topic_id: None,
            config,
            env: env.clone(),
            recovery_point: job.recovery_point,
            log_start_offset: job.log_start_offset,
            high_watermark: job.high_watermark,
            clean: job.clean,
            standalone: false,
        };
        let log = Log::open_known(opening, job.known.as_ref(), files)?;
        if let Some(offset) = job.cleaned_to {
            log.set_cleaned_to(offset);
        }
        Ok(log)
    };
    let threads = config.open_threads.min(jobs.len());
    if threads <= 1 {
        return jobs.iter().map(open).collect();
    }
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<Log, LogError>)>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed))
                    && let Some(job) = jobs.get(index)
                {
                    let result = open(job);
                    lock(&results).push((index, result));
                }
            });
        }
    });
    let mut results = results
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
