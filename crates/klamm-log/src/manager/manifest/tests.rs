use std::sync::Arc;

use klamm_env::{FileExt, OpenMode};
use klamm_records::BatchOptions;

use super::*;
use crate::clean_shutdown;
use crate::manager::LogManager;
use crate::manager::tests::{Fixture, create, partition};
use crate::names::{FileKind, LEADER_EPOCH_CHECKPOINT, PARTITION_METADATA, file_name};
use crate::test_support::{all_records, append, batch, batch_with};
use crate::{AppendOrigin, Log};

/// A directory with a log of three segments, one that is empty, and a manifest.
struct Shut {
    f: Fixture,
}

/// What is to be the same before and after.
fn told(log: &Log) -> String {
    let told = (
        (
            log.log_start_offset(),
            log.log_end_offset(),
            log.high_watermark(),
        ),
        (log.segment_base_offsets(), log.size_bytes(), log.topic_id()),
        (log.epochs(), log.active_producers()),
    );
    format!("{told:?}")
}

impl Shut {
    fn new() -> (Shut, String) {
        let f = Fixture::new(1);
        let manager = f.open();
        let log = create(&manager, "a");
        for n in 0..3 {
            let sequence = BatchOptions {
                producer_id: 5,
                producer_epoch: 1,
                base_sequence: n,
                ..BatchOptions::default()
            };
            let x = batch_with(sequence, f.now_ms() + i64::from(n), &["x"]);
            append(&log, x).unwrap();
            log.append_as_leader(&mut [batch(2_000, &["y"])], 2 + n, 0, AppendOrigin::Client)
                .unwrap();
            if n < 2 {
                log.roll().unwrap();
            }
        }
        log.set_high_watermark(6);
        log.delete_records_before(1).unwrap();
        create(&manager, "e");
        let before = told(&log);
        manager.shutdown(1).unwrap();
        (Shut { f }, before)
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.f.dirs[0].join(name)
    }

    fn in_log(&self, name: &str) -> std::path::PathBuf {
        self.path("a-0").join(name)
    }

    fn write(&self, path: &Path, content: &[u8]) {
        let file = self.f.dir.env.fs.open(path, OpenMode::Truncate).unwrap();
        file.write_all_at(content, 0).unwrap();
    }

    /// What nobody reads who goes by the manifest is made unreadable, without a trace in times.
    fn spoil(&self) {
        let fs = &*self.f.dir.env.fs;
        for name in [LEADER_EPOCH_CHECKPOINT, PARTITION_METADATA] {
            self.write(&self.in_log(name), b"unreadable");
        }
        let snapshot = self.in_log(&file_name(6, FileKind::Snapshot));
        assert!(fs.exists(&snapshot).unwrap());
        self.write(&snapshot, b"unreadable");
    }

    fn open(&self) -> (LogManager, Arc<Log>) {
        let manager = self.f.open();
        let log = manager.get(&partition("a")).unwrap();
        (manager, log)
    }
}

#[test]
fn a_log_is_opened_by_it_and_nothing_is_read() {
    let (shut, before) = Shut::new();
    shut.spoil();
    let (manager, log) = shut.open();
    assert_eq!(told(&log), before);
    assert_eq!(manager.open_files(), 0);
    assert!(!shut.f.dir.env.fs.exists(&shut.path(MANIFEST_FILE)).unwrap());
    // It is a log like any other.
    assert_eq!(all_records(&log).len(), 5);
    let now_ms = shut.f.now_ms();
    append(&log, batch(now_ms + 9, &["z"])).unwrap();
    assert_eq!(log.log_end_offset(), 7);
    assert_eq!(log.max_timestamp_offset().unwrap().unwrap().offset, 6);
    let found = log.offset_for_timestamp(now_ms + 1).unwrap().unwrap();
    assert_eq!(found.offset, 2);
}

#[test]
fn a_log_that_was_not_used_is_closed_without_touching_its_files() {
    let (shut, before) = Shut::new();
    let (manager, log) = shut.open();
    manager.shutdown(1).unwrap();
    assert_eq!(manager.open_files(), 0);
    drop((manager, log));
    shut.spoil();
    let (_manager, log) = shut.open();
    assert_eq!(told(&log), before);
}

/// Whether the log was opened by the manifest although `change` was made while it was shut.
fn is_believed_after(change: impl FnOnce(&Shut)) -> bool {
    let (shut, _) = Shut::new();
    // The epochs tell: the file has none.
    shut.write(&shut.in_log(LEADER_EPOCH_CHECKPOINT), b"0\n0\n");
    change(&shut);
    let (_manager, log) = shut.open();
    !log.epochs().is_empty()
}

#[test]
fn it_is_believed_of_a_directory_that_is_as_it_was_left() {
    assert!(is_believed_after(|_| {}));
}

#[test]
fn another_clean_shutdown_in_between_is_noticed() {
    assert!(!is_believed_after(|shut| {
        let fs = &*shut.f.dir.env.fs;
        let manifest = fs.read(&shut.path(MANIFEST_FILE)).unwrap();
        let (of_ms, _) = decode(&manifest).unwrap();
        // What Kafka does, which leaves the manifest alone.
        clean_shutdown::take(fs, &shut.f.dirs[0]).unwrap();
        clean_shutdown::write(fs, &shut.f.dirs[0], 7).unwrap();
        let marker = shut.path(CLEAN_SHUTDOWN_FILE);
        let file = fs.open(&marker, OpenMode::Write).unwrap();
        file.set_modified_ms(of_ms + 1).unwrap();
    }));
}

#[test]
fn a_changed_directory_is_noticed() {
    assert!(!is_believed_after(|shut| {
        let name = shut.in_log("new");
        let before = shut.f.dir.env.fs.metadata(&shut.path("a-0")).unwrap();
        // The clock of the file system may be slow.
        while shut.f.dir.env.fs.metadata(&shut.path("a-0")).unwrap() == before {
            shut.write(&name, b"");
            shut.f.dir.env.fs.remove_file(&name).unwrap();
        }
    }));
}

#[test]
fn a_changed_file_of_batches_is_noticed() {
    let log = file_name(0, FileKind::Log);
    for dated in [true, false] {
        assert!(!is_believed_after(|shut| {
            let fs = &*shut.f.dir.env.fs;
            let path = shut.in_log(&log);
            let found = fs.metadata(&path).unwrap();
            let file = fs.open(&path, OpenMode::Write).unwrap();
            if dated {
                file.set_modified_ms(found.modified_ms + 1).unwrap();
            } else {
                file.set_len(found.len - 1).unwrap();
                file.set_modified_ms(found.modified_ms).unwrap();
            }
        }));
    }
}

#[test]
fn a_damaged_one_counts_as_absent() {
    let (shut, _) = Shut::new();
    let fs = &*shut.f.dir.env.fs;
    let content = fs.read(&shut.path(MANIFEST_FILE)).unwrap();
    assert!(decode(&content).is_some());
    for len in 0..content.len() {
        assert!(decode(&content[..len]).is_none());
    }
    for at in (0..content.len()).step_by(7) {
        let mut content = content.clone();
        content[at] ^= 4;
        assert!(decode(&content).is_none());
    }
}

#[test]
fn any_content_is_read_without_a_panic() {
    let (shut, _) = Shut::new();
    let content = shut.f.dir.env.fs.read(&shut.path(MANIFEST_FILE)).unwrap();
    let body = &content[..content.len() - CRC_LEN];
    for at in MAGIC.len()..body.len() {
        for value in [0, 1, 127, 255] {
            let mut body = body.to_vec();
            body[at] = value;
            let checksum = crc::crc32c(&body);
            body.extend_from_slice(&checksum.to_be_bytes());
            let _ = decode(&body);
        }
    }
}

#[test]
fn after_an_unclean_stop_there_is_none() {
    let (shut, _) = Shut::new();
    drop(shut.open());
    let fs = &*shut.f.dir.env.fs;
    assert!(!fs.exists(&shut.path(MANIFEST_FILE)).unwrap());
    // One that comes back without its marker is nobody's.
    shut.write(&shut.path(MANIFEST_FILE), &encode(0, &Manifest::new()));
    assert_eq!(take(fs, &shut.f.dirs[0]).unwrap(), Manifest::new());
    assert!(!fs.exists(&shut.path(MANIFEST_FILE)).unwrap());
}

#[test]
fn what_is_left_to_do_in_a_directory_keeps_its_log_out() {
    let f = Fixture::new(1);
    let manager = f.open();
    let log = create(&manager, "a");
    for _ in 0..3 {
        append(&log, batch(0, &["x"])).unwrap();
        log.roll().unwrap();
    }
    create(&manager, "b");
    log.set_high_watermark(3);
    log.delete_records_before(2).unwrap();
    log.apply_retention(0, 3).unwrap();
    manager.shutdown(1).unwrap();
    let manifest = take(&*f.dir.env.fs, &f.dirs[0]).unwrap();
    // Files of the first wait for their removal.
    assert_eq!(manifest.keys().collect::<Vec<_>>(), ["b-0"]);
}
