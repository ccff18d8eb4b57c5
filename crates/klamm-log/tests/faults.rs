//! A disk that fails leaves the log as it was, or out of service; never wrong.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use klamm_env::{DirEntry, Env, File, FileExt, Fs, LockGuard, Metadata, OpenMode, OsFs, Space};
use klamm_log::{AppendOrigin, Log, LogConfig, LogError, LogOpen};
use klamm_records::control::EndTransactionMarker;
use klamm_records::{BatchBuilder, BatchOptions, PreparedBatch, TopicPartition};

/// What goes wrong; a budget of `i64::MAX` never runs out.
#[derive(Debug)]
struct Trouble {
    /// Bytes that may still be written to files; the write that exceeds it is cut short.
    room: AtomicI64,
    /// Calls that may still change a file's length.
    set_lens: AtomicI64,
    /// Files that may still be synced.
    syncs: AtomicI64,
    /// Files that may still be created.
    creates: AtomicI64,
    /// Files that may still be renamed.
    renames: AtomicI64,
}

impl Trouble {
    fn none() -> Arc<Trouble> {
        Arc::new(Trouble {
            room: AtomicI64::new(i64::MAX),
            set_lens: AtomicI64::new(i64::MAX),
            syncs: AtomicI64::new(i64::MAX),
            creates: AtomicI64::new(i64::MAX),
            renames: AtomicI64::new(i64::MAX),
        })
    }

    fn end(&self) {
        let others = [&self.set_lens, &self.syncs, &self.creates, &self.renames];
        for budget in others.into_iter().chain([&self.room]) {
            budget.store(i64::MAX, Ordering::SeqCst);
        }
    }
}

/// Spends one of a budget.
fn spend(budget: &AtomicI64) -> io::Result<()> {
    if budget.fetch_sub(1, Ordering::SeqCst) > 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(5))
    }
}

#[derive(Debug)]
struct FaultyFs(Arc<Trouble>);

#[derive(Debug)]
struct FaultyFile(Arc<Trouble>, Arc<dyn File>);

impl Fs for FaultyFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if matches!(mode, OpenMode::Truncate | OpenMode::CreateNew) {
            spend(&self.0.creates)?;
        }
        Ok(Arc::new(FaultyFile(self.0.clone(), OsFs.open(path, mode)?)))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        OsFs.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        OsFs.read_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        spend(&self.0.renames)?;
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

impl File for FaultyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.1.read_at(buf, offset)
    }
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let first = bufs
            .iter()
            .find(|buf| !buf.is_empty())
            .map_or(&[][..], |buf| buf);
        let room = self.0.room.load(Ordering::SeqCst).max(0);
        let len = first.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        if len == 0 && !first.is_empty() {
            // ENOSPC
            return Err(io::Error::from_raw_os_error(28));
        }
        self.0.room.fetch_sub(len as i64, Ordering::SeqCst);
        self.1.write_all_at(&first[..len], offset)?;
        Ok(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.1.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        spend(&self.0.set_lens)?;
        self.1.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        spend(&self.0.syncs)?;
        self.1.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        spend(&self.0.syncs)?;
        self.1.sync_all()
    }
    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
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
    dir: tempfile::TempDir,
    trouble: Arc<Trouble>,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture {
            dir: tempfile::tempdir().unwrap(),
            trouble: Trouble::none(),
        }
    }

    fn open(&self) -> Log {
        let mut env = Env::os();
        env.fs = Arc::new(FaultyFs(self.trouble.clone()));
        Log::open(LogOpen {
            dir: self.dir.path().join("t-0"),
            topic_partition: TopicPartition::new("t", 0),
            topic_id: None,
            config: LogConfig::default(),
            env,
            recovery_point: 0,
            log_start_offset: 0,
            high_watermark: 0,
            clean: false,
            standalone: false,
        })
        .unwrap()
    }
}

fn batch(options: BatchOptions) -> PreparedBatch {
    let mut builder = BatchBuilder::new(options);
    builder.append(1_000, None, Some(&[9; 100]), []).unwrap();
    PreparedBatch::trusted(builder.build().unwrap()).unwrap()
}

fn append(log: &Log) -> Result<i64, LogError> {
    let mut batches = [
        batch(BatchOptions::default()),
        batch(BatchOptions::default()),
    ];
    let info = log.append_as_leader(&mut batches, 0, 0, AppendOrigin::Client)?;
    Ok(info.first_offset)
}

fn size(log: &Log) -> u64 {
    let path = log.dir().join("00000000000000000000.log");
    OsFs.metadata(&path).unwrap().len
}

#[test]
fn a_full_disk_leaves_no_torn_batch() {
    let f = Fixture::new();
    let log = f.open();
    append(&log).unwrap();
    let before = size(&log);
    for room in [0, 1, 60, 61, 100, 200, 300] {
        f.trouble.room.store(room, Ordering::SeqCst);
        let error = append(&log).unwrap_err();
        assert!(error.is_storage_failure());
        assert!(
            matches!(&error, LogError::Io { operation: "append to", source, .. }
                if source.raw_os_error() == Some(28)),
            "{error}"
        );
        assert_eq!((size(&log), log.log_end_offset()), (before, 2), "{room}");
    }
    f.trouble.end();
    assert_eq!(append(&log).unwrap(), 2, "goes on when there is room again");
    drop(log);
    let log = f.open();
    assert_eq!(
        (log.log_end_offset(), &log.recovery_report().truncation),
        (4, &None)
    );
}

#[test]
fn a_write_that_cannot_be_undone_takes_the_log_offline() {
    let f = Fixture::new();
    let log = f.open();
    append(&log).unwrap();
    f.trouble.room.store(100, Ordering::SeqCst);
    f.trouble.set_lens.store(0, Ordering::SeqCst);
    assert!(append(&log).is_err());
    f.trouble.end();
    assert!(log.is_offline());
    assert!(matches!(append(&log), Err(LogError::Offline { .. })));
    assert!(matches!(
        log.read(0, 1, 1, true),
        Err(LogError::Offline { .. })
    ));
    assert!(matches!(log.close(), Err(LogError::Offline { .. })));
    drop(log);
    let log = f.open();
    assert_eq!(log.log_end_offset(), 2);
    assert_eq!(
        log.recovery_report().truncation.as_ref().unwrap().bytes,
        100
    );
}

#[test]
fn a_write_that_is_undone_is_undone_on_disk() {
    let f = Fixture::new();
    let log = f.open();
    append(&log).unwrap();
    log.flush(2).unwrap();
    f.trouble.room.store(100, Ordering::SeqCst);
    f.trouble.syncs.store(0, Ordering::SeqCst);
    assert!(append(&log).is_err());
    f.trouble.end();
    // All below the recovery point is taken for sound: what is behind it must not come back.
    assert!(log.is_offline(), "the cut could not be made durable");
}

#[test]
fn a_failed_sync_takes_the_log_offline() {
    let f = Fixture::new();
    let log = f.open();
    append(&log).unwrap();
    f.trouble.syncs.store(0, Ordering::SeqCst);
    assert!(log.flush(2).is_err());
    f.trouble.end();
    assert_eq!(log.recovery_point(), 0);
    assert!(matches!(log.flush(2), Err(LogError::Offline { .. })));
    assert!(matches!(append(&log), Err(LogError::Offline { .. })));
}

#[test]
fn a_failed_roll_changes_nothing() {
    let f = Fixture::new();
    let log = f.open();
    append(&log).unwrap();
    for creates in 0..4 {
        f.trouble.creates.store(creates, Ordering::SeqCst);
        assert!(log.roll().is_err(), "{creates}");
        f.trouble.end();
        assert_eq!(log.segment_base_offsets(), [0]);
        assert_eq!(append(&log).unwrap(), 2 + i64::from(creates as i32) * 2);
    }
    log.roll().unwrap();
    append(&log).unwrap();
    let end = log.log_end_offset();
    drop(log);
    let log = f.open();
    assert_eq!(
        (log.log_end_offset(), &log.recovery_report().truncation),
        (end, &None)
    );
}

#[test]
fn a_failed_removal_of_segments_takes_the_log_offline() {
    let f = Fixture::new();
    let log = f.open();
    for _ in 0..3 {
        append(&log).unwrap();
        log.roll().unwrap();
    }
    log.set_high_watermark(6);
    log.delete_records_before(4).unwrap();
    // The second segment's file stays, though it is no longer part of the log: a flush would
    // vouch for what it never looked at.
    f.trouble.renames.store(4, Ordering::SeqCst);
    assert!(log.apply_retention(0, 6).unwrap_err().is_storage_failure());
    f.trouble.end();
    assert!(matches!(log.flush(6), Err(LogError::Offline { .. })));
    drop(log);
    let log = f.open();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (2, 6));
}

#[test]
fn an_abort_that_cannot_be_indexed_takes_the_log_offline() {
    let f = Fixture::new();
    let log = f.open();
    let options = BatchOptions {
        producer_id: 1,
        producer_epoch: 0,
        base_sequence: 0,
        transactional: true,
        ..BatchOptions::default()
    };
    let append = |batch: PreparedBatch, origin| log.append_as_leader(&mut [batch], 0, 0, origin);
    append(batch(options), AppendOrigin::Client).unwrap();
    let marker = EndTransactionMarker {
        committed: false,
        coordinator_epoch: 0,
    };
    let marker = PreparedBatch::trusted(marker.to_batch(1, 0, 0).unwrap()).unwrap();
    // Room for the marker and not for its entry.
    f.trouble
        .room
        .store(marker.size() as i64 + 10, Ordering::SeqCst);
    let origin = AppendOrigin::TxnMarkers {
        transaction_version: 0,
    };
    append(marker, origin).unwrap_err();
    f.trouble.end();
    assert!(matches!(
        log.read(0, 1, 2, true),
        Err(LogError::Offline { .. })
    ));
    drop(log);
    let log = f.open();
    assert_eq!(log.log_end_offset(), 2);
    assert_eq!(
        log.aborted_transactions(0, 2).unwrap().len(),
        1,
        "recovery makes it again"
    );
}
