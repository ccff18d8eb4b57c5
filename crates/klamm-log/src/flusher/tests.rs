use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use klamm_env::{DirEntry, File, Fs, LockGuard, Metadata, OpenMode, OsFs, Space};

use super::*;
use crate::config::LogConfig;
use crate::error::LogError;
use crate::log::LogOpen;
use crate::storage::lock;
use crate::test_support::{TestDir, all_records, append, batch};
use crate::watch::EndListener;

type Hook = Box<dyn FnOnce() + Send>;

/// What happens to syncs of files of batches.
#[derive(Default)]
struct Syncs {
    count: AtomicUsize,
    fail: AtomicBool,
    /// Runs within the next sync, after what it covers was decided.
    within: Mutex<Option<Hook>>,
    writebacks: Mutex<Vec<(u64, u64)>>,
}

impl std::fmt::Debug for Syncs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Syncs")
    }
}

#[derive(Debug)]
struct WatchedFs(Arc<Syncs>);

#[derive(Debug)]
struct WatchedFile(Arc<Syncs>, Arc<dyn File>);

impl Fs for WatchedFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = OsFs.open(path, mode)?;
        if path.extension().is_some_and(|extension| extension == "log") {
            Ok(Arc::new(WatchedFile(self.0.clone(), file)))
        } else {
            Ok(file)
        }
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        OsFs.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        OsFs.read_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        OsFs.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        OsFs.remove_dir_all(path)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsFs.hard_link(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        OsFs.sync_dir(path)
    }
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        OsFs.metadata(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        OsFs.space(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        OsFs.lock(path)
    }
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        OsFs.canonicalize(path)
    }
}

impl File for WatchedFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.read_at(buf, offset)
    }
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.1.write_vectored_at(bufs, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.1.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.1.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.count.fetch_add(1, Ordering::SeqCst);
        let within = lock(&self.0.within).take();
        if let Some(within) = within {
            within();
        }
        if self.0.fail.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.1.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        lock(&self.0.writebacks).push((offset, len));
        self.1.start_writeback(offset, len)
    }
    fn is_resident(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.1.is_resident(offset, len)
    }
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.1.as_fd()
    }
}

struct Fixture {
    dir: TestDir,
    syncs: Arc<Syncs>,
    flusher: Flusher,
}

impl Fixture {
    fn new(sync_threads: usize) -> Fixture {
        let mut dir = TestDir::new();
        let syncs = Arc::<Syncs>::default();
        dir.env.fs = Arc::new(WatchedFs(syncs.clone()));
        Fixture {
            dir,
            syncs,
            flusher: Flusher::new(sync_threads),
        }
    }

    fn log(&self, name: &str, config: LogConfig) -> Arc<Log> {
        let open = LogOpen {
            dir: self.dir.path().join(name),
            ..self.dir.open(config)
        };
        let log = Arc::new(Log::open(open).unwrap());
        self.flusher.attach(&log);
        log
    }

    fn syncs(&self) -> usize {
        self.syncs.count.load(Ordering::SeqCst)
    }

    fn within_next_sync(&self, hook: impl FnOnce() + Send + 'static) {
        *lock(&self.syncs.within) = Some(Box::new(hook));
    }
}

fn grouped() -> LogConfig {
    LogConfig {
        group_sync: true,
        retention_ms: -1,
        ..LogConfig::default()
    }
}

/// Segments of two batches of one record.
fn grouped_small() -> LogConfig {
    LogConfig {
        segment_bytes: 2 * batch(0, &["v"]).size() as u32,
        ..grouped()
    }
}

fn append_one(log: &Log) {
    append(log, batch(1, &["v"])).unwrap();
}

fn heard(log: &Log) -> (Arc<EndListener>, Arc<AtomicI64>) {
    let heard = Arc::new(AtomicI64::new(-1));
    let listener: Arc<EndListener> = {
        let heard = heard.clone();
        Arc::new(move |durable| heard.store(durable, Ordering::SeqCst))
    };
    log.subscribe_durable(&listener);
    (listener, heard)
}

#[test]
fn appends_share_a_sync_and_hear_of_it() {
    let fixture = Fixture::new(0);
    let log = fixture.log("a-0", grouped());
    let (_listener, heard) = heard(&log);
    for _ in 0..5 {
        append_one(&log);
    }
    assert_eq!((log.durable_offset(), log.log_end_offset()), (0, 5));
    assert!(!log.wait_for_durable(1, Duration::ZERO).unwrap());
    assert!(fixture.flusher.run_one());
    assert_eq!((log.durable_offset(), fixture.syncs()), (5, 1));
    assert_eq!(heard.load(Ordering::SeqCst), 5);
    assert!(log.wait_for_durable(5, Duration::ZERO).unwrap());
    assert!(!fixture.flusher.run_one(), "nothing is left to do");
}

#[test]
fn what_is_appended_within_a_sync_takes_another() {
    let fixture = Fixture::new(0);
    let log = fixture.log("a-0", grouped());
    append_one(&log);
    fixture.within_next_sync({
        let log = log.clone();
        move || append_one(&log)
    });
    assert!(fixture.flusher.run_one());
    assert_eq!((log.durable_offset(), log.log_end_offset()), (1, 2));
    assert!(fixture.flusher.run_one());
    assert_eq!(log.durable_offset(), 2);
}

#[test]
fn a_sync_spans_segments_and_the_recovery_point_lags_behind_a_roll() {
    let fixture = Fixture::new(0);
    let log = fixture.log("a-0", grouped_small());
    for _ in 0..5 {
        append_one(&log);
    }
    assert_eq!(log.segment_base_offsets(), [0, 2, 4]);
    while fixture.flusher.run_one() {}
    assert_eq!((log.durable_offset(), log.recovery_point()), (5, 5));
    // What is noted stays below the end: the next append may make it the start of a segment whose
    // predecessor has indexes that nobody synced.
    assert_eq!(log.recovery_checkpoint(), 4);
    append_one(&log);
    while fixture.flusher.run_one() {}
    assert_eq!((log.recovery_point(), log.recovery_checkpoint()), (6, 5));
    append_one(&log);
    assert_eq!((log.durable_offset(), log.recovery_point()), (6, 5));
    while fixture.flusher.run_one() {}
    assert_eq!((log.durable_offset(), log.recovery_point()), (7, 7));
}

#[test]
fn a_truncation_within_a_sync_is_not_vouched_for() {
    let fixture = Fixture::new(0);
    let log = fixture.log("a-0", grouped());
    for _ in 0..4 {
        append_one(&log);
    }
    fixture.within_next_sync({
        let log = log.clone();
        move || {
            log.truncate_to(1).unwrap();
            append_one(&log);
            append_one(&log);
        }
    });
    assert!(fixture.flusher.run_one());
    assert_eq!((log.durable_offset(), log.log_end_offset()), (0, 3));
    while fixture.flusher.run_one() {}
    assert_eq!(log.durable_offset(), 3);
}

#[test]
fn segments_that_go_while_they_are_synced_are_no_failure() {
    let fixture = Fixture::new(0);
    let log = fixture.log("a-0", grouped_small());
    for _ in 0..5 {
        append_one(&log);
    }
    // Nothing has the older files open any more.
    log.all_segments()
        .iter()
        .for_each(|segment| segment.release());
    log.set_high_watermark(5);
    log.delete_records_before(4).unwrap();
    fixture.within_next_sync({
        let log = log.clone();
        move || assert_eq!(log.apply_retention(0, 5).unwrap(), 2)
    });
    while fixture.flusher.run_one() {}
    assert_eq!(log.durable_offset(), 5);
    assert!(!log.is_offline());
}

#[test]
fn nothing_is_durable_after_a_failed_sync() {
    let fixture = Fixture::new(0);
    let (a, b) = (fixture.log("a-0", grouped()), fixture.log("b-0", grouped()));
    append_one(&a);
    append_one(&b);
    fixture.syncs.fail.store(true, Ordering::SeqCst);
    assert!(fixture.flusher.run_one());
    // The system may forget the failure, and what it has lost with it.
    fixture.syncs.fail.store(false, Ordering::SeqCst);
    assert!(a.is_offline() && fixture.flusher.has_failed());
    append_one(&b);
    assert!(
        !fixture.flusher.run_one(),
        "no sync of the directory is tried again"
    );
    assert_eq!((a.durable_offset(), b.durable_offset()), (0, 0));
    let error = a.wait_for_durable(1, Duration::from_secs(60)).unwrap_err();
    assert!(matches!(error, LogError::Offline { .. }), "{error}");
    assert!(matches!(a.flush(1), Err(LogError::Offline { .. })));
}

#[test]
fn flush_messages_leaves_the_sync_to_the_flusher() {
    let fixture = Fixture::new(0);
    let config = LogConfig {
        flush_messages: 3,
        group_sync: false,
        ..grouped()
    };
    let log = fixture.log("a-0", config);
    for expected in [false, false, true] {
        let info = append(&log, batch(1, &["v"])).unwrap();
        assert_eq!(info.sync_pending, expected);
    }
    assert_eq!(fixture.syncs(), 0);
    assert!(fixture.flusher.run_one());
    assert_eq!(log.durable_offset(), 3);
    let info = append(&log, batch(1, &["v"])).unwrap();
    assert!(!info.sync_pending, "it counts from the last sync on");
}

#[test]
fn a_log_that_has_lost_its_memory_syncs_what_it_finds() {
    let fixture = Fixture::new(0);
    let log = fixture.log("a-0", grouped());
    append_one(&log);
    drop(log);
    let log = fixture.log("a-0", grouped());
    assert_eq!((log.durable_offset(), log.log_end_offset()), (0, 1));
    while fixture.flusher.run_one() {}
    assert_eq!(log.durable_offset(), 1);
}

#[test]
fn writeback_begins_every_few_megabytes_and_spares_the_end() {
    let fixture = Fixture::new(0);
    let config = LogConfig {
        segment_bytes: 6 << 20,
        group_sync: false,
        ..grouped()
    };
    let log = fixture.log("a-0", config);
    let value = "v".repeat(1 << 19);
    let mut appended = 0;
    while log.segment_base_offsets().len() < 4 {
        appended += append(&log, batch(1, &[&value])).unwrap().bytes;
    }
    while fixture.flusher.run_one() {}
    assert_eq!(fixture.syncs(), 0);
    let begun: u64 = lock(&fixture.syncs.writebacks)
        .iter()
        .map(|(_, len)| len)
        .sum();
    assert!(begun > 8 << 20 && begun < appended, "{begun} of {appended}");
    assert!(!log.is_stalled());
}

#[test]
fn a_dropped_log_leaves_no_debt() {
    let fixture = Fixture::new(0);
    let config = LogConfig {
        group_sync: false,
        ..grouped()
    };
    let value = "v".repeat(1 << 19);
    let log = fixture.log("a-0", config.clone());
    // More than may be pending.
    for _ in 0..160 {
        append(&log, batch(1, &[&value])).unwrap();
    }
    let other = fixture.log("b-0", config);
    assert!(log.is_stalled() && other.is_stalled());
    drop(log);
    assert!(!other.is_stalled());
}

#[test]
fn threads_sync_many_logs_for_many_appenders() {
    const LOGS: usize = 3;
    const APPENDERS: usize = 4;
    const APPENDS: usize = 25;
    let fixture = Fixture::new(2);
    let logs: Vec<_> = (0..LOGS)
        .map(|n| fixture.log(&format!("t-{n}"), grouped_small()))
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..APPENDERS {
            for log in &logs {
                scope.spawn(move || {
                    for _ in 0..APPENDS {
                        let info = append(log, batch(1, &["v"])).unwrap();
                        let end = info.last_offset + 1;
                        assert!(log.wait_for_durable(end, Duration::from_secs(60)).unwrap());
                        assert!(log.durable_offset() >= end);
                    }
                });
            }
        }
    });
    fixture.flusher.stop();
    for log in &logs {
        let appended = APPENDERS * APPENDS;
        assert_eq!(log.durable_offset(), appended as i64);
        assert_eq!(all_records(log).len(), appended);
        append_one(log);
    }
    assert!(logs[0].request_sync(), "nobody serves it, and nobody hangs");
}

#[test]
fn callers_of_flush_share_syncs() {
    let fixture = Fixture::new(0);
    let log = fixture.log("a-0", grouped());
    append_one(&log);
    let second: Arc<OnceLock<std::thread::JoinHandle<()>>> = Arc::default();
    fixture.within_next_sync({
        let (log, second) = (log.clone(), second.clone());
        // Waits for the flush at hand, and then finds its offset durable.
        move || {
            let flush = std::thread::spawn(move || log.flush(1).unwrap());
            second.set(flush).unwrap();
        }
    });
    log.flush(1).unwrap();
    let second = Arc::into_inner(second).and_then(OnceLock::into_inner);
    second.unwrap().join().unwrap();
    assert_eq!(fixture.syncs(), 1);
}
