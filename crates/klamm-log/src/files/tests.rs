use std::io::IoSlice;
use std::path::Path;

use klamm_env::{
    DirEntry, File, FileExt, Fs, LockGuard, Metadata, OpenMode as Mode, OsFs, Space, SplitMix64,
};

use super::*;
use crate::test_support::{TestDir, all_records, append, batch};
use crate::{Log, LogConfig};

fn file_in(dir: &TestDir, log_dir: &Arc<LogDir>, name: &str) -> (LazyFile, PathBuf) {
    let path = dir.path().join(name);
    log_dir.fs.open(&path, Mode::Create).unwrap();
    (LazyFile::default(), path)
}

#[test]
fn files_are_closed_when_there_are_too_many() {
    let dir = TestDir::new();
    let files = OpenFiles::new(3);
    let log_dir = dir.bounded_log_dir(files.clone());
    let all: Vec<_> = (0..10)
        .map(|n| file_in(&dir, &log_dir, &format!("f{n}")))
        .collect();
    for round in 0..3 {
        for (n, (file, path)) in all.iter().enumerate() {
            let opened = file.get(&log_dir, || path.clone()).unwrap();
            opened.write_all_at(&[n as u8, round], 0).unwrap();
            file.note_change();
            drop(opened);
            assert!(files.count() <= 3, "{}", files.count());
        }
    }
    for (n, (file, path)) in all.iter().enumerate() {
        let mut found = [0; 2];
        let opened = file.get(&log_dir, || path.clone()).unwrap();
        opened.read_exact_at(&mut found, 0).unwrap();
        assert_eq!(found, [n as u8, 2]);
    }
    drop(all);
    assert_eq!(files.count(), 0);
}

#[test]
fn a_file_that_is_held_stays_open() {
    let dir = TestDir::new();
    let files = OpenFiles::new(1);
    let log_dir = dir.bounded_log_dir(files.clone());
    let (held, held_path) = file_in(&dir, &log_dir, "held");
    let holder = held.get(&log_dir, || held_path.clone()).unwrap();
    let (other, other_path) = file_in(&dir, &log_dir, "other");
    for _ in 0..3 {
        other.get(&log_dir, || other_path.clone()).unwrap();
        let same = held.get(&log_dir, || unreachable!("it is open")).unwrap();
        assert!(Arc::ptr_eq(&same, &holder));
    }
    drop(holder);
    let (third, third_path) = file_in(&dir, &log_dir, "third");
    third.get(&log_dir, || third_path.clone()).unwrap();
    assert_eq!(files.count(), 1);
}

#[test]
fn headroom_is_a_quarter_of_the_bound() {
    let dir = TestDir::new();
    let files = OpenFiles::new(8);
    let log_dir = dir.bounded_log_dir(files.clone());
    let all: Vec<_> = (0..8)
        .map(|n| file_in(&dir, &log_dir, &format!("f{n}")))
        .collect();
    for (file, path) in &all {
        file.get(&log_dir, || path.clone()).unwrap();
        file.note_change();
    }
    assert_eq!(files.count(), 8);
    files.make_headroom();
    assert_eq!(files.count(), 6);
    // Their changes are on disk, or they would not be closed.
    assert_eq!(all.iter().filter(|(file, _)| file.has_changed()).count(), 6);
}

#[test]
fn idle_files_are_closed_in_the_second_round_unless_they_changed() {
    let dir = TestDir::new();
    let files = OpenFiles::unbounded();
    let log_dir = dir.bounded_log_dir(files.clone());
    let (file, path) = file_in(&dir, &log_dir, "f");
    file.get(&log_dir, || path.clone()).unwrap();
    assert!(file.release_if_idle());
    file.note_change();
    assert!(!file.release_if_idle(), "a sync comes first");
    assert_eq!(files.count(), 1);
    file.note_synced(file.changes());
    assert!(!file.release_if_idle());
    assert_eq!(files.count(), 0);
}

#[test]
fn a_retired_file_is_not_opened_again() {
    let dir = TestDir::new();
    let log_dir = dir.log_dir();
    let (file, path) = file_in(&dir, &log_dir, "f");
    file.get(&log_dir, || path.clone()).unwrap();
    file.retire();
    file.get(&log_dir, || path.clone()).unwrap();
    file.release();
    assert!(matches!(
        file.get(&log_dir, || path.clone()),
        Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound
    ));
}

/// The operating system's files, the syncs of which fail from some moment on, and of which only
/// some can be open.
#[derive(Debug, Default)]
struct TroubledFs {
    fails: Arc<AtomicBool>,
    descriptors: Option<Arc<AtomicUsize>>,
}

#[derive(Debug)]
struct TroubledFile {
    file: Arc<dyn File>,
    fails: Arc<AtomicBool>,
    descriptors: Option<Arc<AtomicUsize>>,
}

impl Drop for TroubledFile {
    fn drop(&mut self) {
        if let Some(left) = &self.descriptors {
            left.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl TroubledFile {
    fn check(&self) -> io::Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }
}

impl File for TroubledFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.file.write_vectored_at(bufs, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.check()
    }
    fn start_writeback(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
    fn is_resident(&self, _: u64, _: u64) -> io::Result<bool> {
        Ok(true)
    }
}

impl Fs for TroubledFs {
    fn open(&self, path: &Path, mode: Mode) -> io::Result<Arc<dyn File>> {
        let file = OsFs.open(path, mode)?;
        if let Some(left) = &self.descriptors {
            let take = |left: usize| left.checked_sub(1);
            let taken = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
            taken.map_err(|_| io::Error::from_raw_os_error(24))?;
        }
        Ok(Arc::new(TroubledFile {
            file,
            fails: self.fails.clone(),
            descriptors: self.descriptors.clone(),
        }))
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

#[test]
fn a_sync_that_fails_before_a_file_is_closed_is_not_forgotten() {
    let mut dir = TestDir::new();
    let fs = TroubledFs::default();
    let fails = fs.fails.clone();
    dir.env.fs = Arc::new(fs);
    let files = OpenFiles::new(1);
    let log = Log::open_among(dir.open(LogConfig::default()), &files).unwrap();
    append(&log, batch(1, &["a"])).unwrap();
    fails.store(true, Ordering::SeqCst);
    // Another log's file takes its place.
    let log_dir = dir.bounded_log_dir(files.clone());
    let (other, path) = file_in(&dir, &log_dir, "other");
    for _ in 0..2 {
        other.get(&log_dir, || path.clone()).unwrap();
    }
    assert_eq!(files.count(), 1);
    assert!(log.is_offline() && files.take_failed());
    // A sync would succeed by now, and prove nothing.
    fails.store(false, Ordering::SeqCst);
    assert!(log.flush(i64::MAX).is_err());
    assert!(log.is_offline());
    assert_eq!(log.durable_offset(), 0);
}

#[test]
fn want_of_descriptors_closes_files_that_are_not_in_use() {
    let mut dir = TestDir::new();
    dir.env.fs = Arc::new(TroubledFs {
        fails: Arc::default(),
        descriptors: Some(Arc::new(AtomicUsize::new(4))),
    });
    let files = OpenFiles::unbounded();
    let logs: Vec<Log> = (0..12)
        .map(|n| {
            let mut open = dir.open(LogConfig::default());
            open.dir = dir.path().join(format!("topic-{n}"));
            let log = Log::open_among(open, &files).unwrap();
            // For the files that are opened for a moment only, which are not tried again.
            while files.count() > 1 && files.close_one(1) {}
            log
        })
        .collect();
    for (n, log) in logs.iter().enumerate() {
        append(log, batch(1, &[&format!("{n}")])).unwrap();
        while files.count() > 1 && files.close_one(1) {}
    }
    for (n, log) in logs.iter().enumerate() {
        assert_eq!(all_records(log), [(0, format!("{n}"))]);
    }
}

/// Logs that share one file do what logs with one each do.
#[test]
fn logs_behave_the_same_whatever_the_bound() {
    use klamm_env::Rng as _;
    for seed in 0..20 {
        let rng = SplitMix64::new(seed);
        let (bounded, free) = (TestDir::new(), TestDir::new());
        let config = LogConfig {
            segment_bytes: 300,
            index_interval_bytes: 1,
            file_delete_delay_ms: 0,
            ..LogConfig::default()
        };
        let (few, many) = (OpenFiles::new(1), OpenFiles::unbounded());
        let pairs: Vec<(Log, Log)> = (0..3)
            .map(|n| {
                let open = |dir: &TestDir, files| {
                    let mut open = dir.open(config.clone());
                    open.dir = dir.path().join(format!("topic-{n}"));
                    Log::open_among(open, files).unwrap()
                };
                (open(&bounded, &few), open(&free, &many))
            })
            .collect();
        for step in 0..150 {
            let (a, b) = &pairs[rng.below(3) as usize];
            let offset = rng.below(40) as i64;
            match rng.below(12) {
                0..6 => {
                    for log in [a, b] {
                        append(log, batch(step, &["value", &format!("{step}")])).unwrap();
                    }
                }
                6 => {
                    assert_eq!(
                        a.truncate_to(offset).unwrap(),
                        b.truncate_to(offset).unwrap()
                    );
                }
                7 => assert_eq!(a.flush(offset).is_ok(), b.flush(offset).is_ok()),
                8 => assert_eq!(a.tick(step).is_ok(), b.tick(step).is_ok()),
                9 => assert_eq!(
                    a.offset_for_timestamp(step / 2).unwrap(),
                    b.offset_for_timestamp(step / 2).unwrap()
                ),
                10 => assert_eq!(a.roll().is_ok(), b.roll().is_ok()),
                _ => assert_eq!(all_records(a), all_records(b)),
            }
            // Above the bound only as long as it takes.
            few.make_headroom();
            assert!(few.count() <= 1, "{}", few.count());
        }
        for (a, b) in &pairs {
            assert_eq!(all_records(a), all_records(b));
            assert_eq!(a.segment_base_offsets(), b.segment_base_offsets());
            a.close().unwrap();
            b.close().unwrap();
        }
    }
}
