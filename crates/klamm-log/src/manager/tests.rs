use super::*;
use crate::checkpoints;
use crate::error::LogError;
use crate::meta_properties::MetaProperties;
use crate::test_support::{TestDir, all_records, append, batch};
use klamm_env::{FsExt, OpenMode};

const CLUSTER: &str = "cluster";

pub(super) struct Fixture {
    pub(super) dir: TestDir,
    pub(super) dirs: Vec<PathBuf>,
}

impl Fixture {
    pub(super) fn new(dirs: usize) -> Fixture {
        let dir = TestDir::new();
        let dirs = (0..dirs)
            .map(|n| dir.path().join(format!("d{n}")))
            .collect();
        Fixture { dir, dirs }
    }

    pub(super) fn config(&self) -> LogManagerConfig {
        LogManagerConfig::new(self.dirs.clone(), CLUSTER, 3)
    }

    fn try_open(&self) -> Result<LogManager, ManagerError> {
        LogManager::open(self.config(), self.dir.env.clone(), |_| topic_config())
    }

    pub(super) fn open(&self) -> LogManager {
        self.try_open().unwrap()
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.dir.env.clock.wall_ms()
    }

    pub(super) fn names(&self, dir: usize) -> Vec<String> {
        let entries = self.dir.env.fs.read_dir(&self.dirs[dir]).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }
}

pub(super) fn topic_config() -> LogConfig {
    LogConfig {
        retention_ms: -1,
        ..LogConfig::default()
    }
}

pub(super) fn partition(topic: &str) -> TopicPartition {
    TopicPartition::new(topic, 0)
}

pub(super) fn create(manager: &LogManager, topic: &str) -> Arc<Log> {
    let id = Some(Uuid::from_bytes([topic.as_bytes()[0]; 16]));
    manager
        .create(&partition(topic), id, topic_config(), None)
        .unwrap()
}

#[test]
fn logs_that_a_crash_left_empty_hold_no_descriptors() {
    let f = Fixture::new(1);
    let manager = f.open();
    for topic in ["a", "b", "c"] {
        create(&manager, topic);
    }
    drop(manager);
    // The first recovery makes their indexes, the next one empties them.
    for _ in 0..2 {
        assert_eq!(f.open().open_files(), 0);
    }
    let log = create(&f.open(), "b");
    append(&log, batch(0, &["1"])).unwrap();
}

#[test]
fn logs_and_marks_survive_a_clean_shutdown() {
    let f = Fixture::new(2);
    let manager = f.open();
    assert_eq!(manager.previous_broker_epoch(), None);
    let ids: Vec<Uuid> = manager.directories().iter().map(|d| d.id).collect();
    for topic in ["a", "b", "c", "d"] {
        let log = create(&manager, topic);
        append(&log, batch(0, &["1", "2", "3"])).unwrap();
        log.set_high_watermark(2);
    }
    let a = manager.get(&partition("a")).unwrap();
    a.delete_records_before(1).unwrap();
    let places: Vec<_> = ["a", "b", "c", "d"]
        .map(|t| manager.directory_of(&partition(t)))
        .into();
    assert_eq!(
        places,
        [Some(ids[0]), Some(ids[1]), Some(ids[0]), Some(ids[1])]
    );
    manager.shutdown(77).unwrap();
    drop(manager);

    let manager = f.open();
    assert_eq!(manager.previous_broker_epoch(), Some(77));
    assert_eq!(
        manager
            .directories()
            .iter()
            .map(|d| d.id)
            .collect::<Vec<_>>(),
        ids
    );
    assert_eq!(manager.logs().len(), 4);
    for log in manager.logs() {
        assert_eq!(log.recovery_report().recovered_segments, 0);
        assert_eq!((log.log_end_offset(), log.high_watermark()), (3, 2));
    }
    let a = manager.get(&partition("a")).unwrap();
    assert_eq!(
        (a.log_start_offset(), a.topic_id()),
        (1, Some(Uuid::from_bytes([b'a'; 16])))
    );
    assert!(
        !f.names(0)
            .contains(&crate::clean_shutdown::CLEAN_SHUTDOWN_FILE.to_owned())
    );
}

#[test]
fn an_unclean_end_recovers_from_the_checkpoints() {
    let f = Fixture::new(1);
    let manager = f.open();
    let log = create(&manager, "a");
    append(&log, batch(0, &["1", "2"])).unwrap();
    log.set_high_watermark(2);
    log.roll().unwrap();
    append(&log, batch(0, &["3"])).unwrap();
    f.dir.clock.advance_ms(60_000);
    assert!(manager.tick(f.now_ms()).is_empty());
    drop((manager, log));
    let manager = f.open();
    let log = manager.get(&partition("a")).unwrap();
    assert_eq!(
        log.recovery_report().recovered_segments,
        1,
        "the rolled segment was flushed"
    );
    assert_eq!(
        (
            log.recovery_point(),
            log.high_watermark(),
            log.log_end_offset()
        ),
        (2, 2, 3)
    );
    assert_eq!(all_records(&log).len(), 3);
}

#[test]
fn directories_of_others_are_refused() {
    let f = Fixture::new(1);
    f.open();
    let open = |config| LogManager::open(config, f.dir.env.clone(), |_| topic_config());
    let mut config = f.config();
    config.cluster_id = "other".into();
    assert!(matches!(
        open(config).unwrap_err(),
        ManagerError::ClusterIdMismatch { found, .. } if found == CLUSTER
    ));
    let mut config = f.config();
    config.node_id = 4;
    assert!(matches!(
        open(config).unwrap_err(),
        ManagerError::NodeIdMismatch {
            expected: 4,
            found: 3,
            ..
        }
    ));
    let mut config = f.config();
    config.dirs.push(f.dirs[0].join("../d0"));
    assert!(matches!(
        open(config).unwrap_err(),
        ManagerError::SameDirTwice { .. }
    ));
    let mut config = f.config();
    config.dirs.clear();
    assert!(matches!(open(config).unwrap_err(), ManagerError::NoDirs));
    // A copy of a directory.
    let fs = &f.dir.env.fs;
    let copy = f.dir.path().join("copy");
    fs.create_dir_all(&copy).unwrap();
    let properties = MetaProperties::read(&**fs, &f.dirs[0]).unwrap().unwrap();
    properties.write(&**fs, &copy).unwrap();
    let mut config = f.config();
    config.dirs.push(copy);
    let id = properties.directory_id.unwrap();
    assert!(matches!(
        open(config).unwrap_err(),
        ManagerError::DuplicateDirectoryId { id: found, .. } if found == id
    ));
}

/// Locks belong to processes, so another one must hold it.
#[test]
fn a_directory_in_use_is_refused() {
    let f = Fixture::new(1);
    f.open();
    let lock = f.dirs[0].join(crate::log::LOCK_FILE);
    let script = "import fcntl,sys\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint('held',flush=True)\nsys.stdin.read()";
    let child = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&lock)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        // Nothing at hand that could hold it.
        return;
    };
    let mut held = String::new();
    let stdout = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut held).unwrap();
    let error = f.try_open().unwrap_err();
    drop(child.stdin.take());
    child.wait().unwrap();
    assert!(
        matches!(&error, ManagerError::Locked { dir } if *dir == f.dirs[0]),
        "{error}"
    );
    f.open();
}

#[test]
fn a_directory_is_opened_once_within_a_process() {
    let f = Fixture::new(2);
    let manager = f.open();
    assert!(matches!(
        f.try_open().unwrap_err(),
        ManagerError::Locked { dir } if dir == f.dirs[0]
    ));
    // One that was shut down lets go, whoever still holds it.
    manager.shutdown(1).unwrap();
    f.open();
    drop(manager);
}

#[test]
fn a_partition_in_two_directories_is_refused() {
    let f = Fixture::new(2);
    for dir in &f.dirs {
        f.dir.env.fs.create_dir_all(&dir.join("a-0")).unwrap();
    }
    assert!(matches!(
        f.try_open().unwrap_err(),
        ManagerError::DuplicatePartition { partition: p, .. } if p == partition("a")
    ));
}

#[test]
fn deleted_partitions_vanish_after_the_delay() {
    let f = Fixture::new(1);
    let manager = f.open();
    let log = create(&manager, "a");
    append(&log, batch(0, &["1"])).unwrap();
    assert!(manager.delete(&partition("a")).unwrap());
    assert!(!manager.delete(&partition("a")).unwrap());
    assert!(manager.get(&partition("a")).is_none());
    assert!(matches!(
        append(&log, batch(0, &["2"])),
        Err(LogError::Closed { .. })
    ));
    let waiting = |f: &Fixture| f.names(0).iter().filter(|n| n.ends_with("-delete")).count();
    assert_eq!(waiting(&f), 1);
    // The name is free at once, and nothing of the old log comes back.
    let log = create(&manager, "a");
    assert_eq!(log.log_end_offset(), 0);
    f.dir.clock.advance_ms(59_999);
    manager.tick(f.now_ms());
    assert_eq!(waiting(&f), 1);
    f.dir.clock.advance_ms(1);
    manager.tick(f.now_ms());
    assert_eq!(waiting(&f), 0);
    assert!(manager.get(&partition("a")).is_some());
}

#[test]
fn what_waits_for_removal_is_removed_after_a_restart() {
    let f = Fixture::new(1);
    let manager = f.open();
    create(&manager, "a");
    manager.delete(&partition("a")).unwrap();
    drop(manager);
    let manager = f.open();
    assert!(manager.logs().is_empty());
    manager.tick(f.now_ms());
    assert!(!f.names(0).iter().any(|name| name.ends_with("-delete")));
}

#[test]
fn a_new_partition_does_not_inherit_the_marks_of_its_name() {
    let f = Fixture::new(1);
    let manager = f.open();
    let log = create(&manager, "a");
    append(&log, batch(0, &["1", "2", "3"])).unwrap();
    log.set_high_watermark(3);
    log.delete_records_before(2).unwrap();
    f.dir.clock.advance_ms(60_000);
    manager.tick(f.now_ms());
    let fs = &f.dir.env.fs;
    let starts =
        || checkpoints::read_offsets(&**fs, &f.dirs[0].join(checkpoints::LOG_START)).unwrap();
    assert_eq!(starts(), [(partition("a"), 2)].into());
    manager.delete(&partition("a")).unwrap();
    create(&manager, "a");
    assert!(starts().is_empty());
    drop(manager);
    let log = f.open().get(&partition("a")).unwrap();
    assert_eq!((log.log_start_offset(), log.log_end_offset()), (0, 0));
}

#[test]
fn strays_are_kept_but_not_served() {
    let f = Fixture::new(1);
    let manager = f.open();
    append(&create(&manager, "a"), batch(0, &["1"])).unwrap();
    assert!(manager.set_stray(&partition("a")).unwrap());
    assert!(manager.get(&partition("a")).is_none());
    drop(manager);
    let manager = f.open();
    assert!(manager.logs().is_empty());
    let [stray] = manager.ignored_dirs() else {
        panic!("{:?}", manager.ignored_dirs());
    };
    let name = stray.file_name().unwrap().to_str().unwrap();
    assert!(
        name.starts_with("a-0.") && name.ends_with("-stray"),
        "{name}"
    );
}

#[test]
fn other_directories_are_left_alone() {
    let f = Fixture::new(1);
    let fs = &f.dir.env.fs;
    for name in [
        "lost+found",
        "__cluster_metadata-0",
        "remote-log-index-cache",
        "b-1.0a-future",
    ] {
        fs.create_dir_all(&f.dirs[0].join(name)).unwrap();
    }
    let manager = f.open();
    assert!(manager.logs().is_empty());
    assert_eq!(manager.ignored_dirs(), [f.dirs[0].join("lost+found")]);
    let futures = manager.future_logs();
    assert_eq!(futures[0].topic_partition(), &TopicPartition::new("b", 1));
}

#[test]
fn a_failing_directory_goes_offline_alone() {
    let f = Fixture::new(2);
    let manager = f.open();
    let ids: Vec<Uuid> = manager.directories().iter().map(|d| d.id).collect();
    let (a, b) = (create(&manager, "a"), create(&manager, "b"));
    a.set_offline();
    assert_eq!(manager.tick(f.now_ms()), [ids[0]]);
    assert!(manager.tick(f.now_ms()).is_empty(), "told once");
    assert!(!manager.directories()[0].online);
    assert!(matches!(
        append(&a, batch(0, &["1"])),
        Err(LogError::Offline { .. })
    ));
    assert!(matches!(
        a.read(0, 1, 1, true),
        Err(LogError::Offline { .. })
    ));
    append(&b, batch(0, &["1"])).unwrap();
    let error = manager
        .create(&partition("c"), None, topic_config(), Some(ids[0]))
        .unwrap_err();
    assert!(matches!(error, ManagerError::NoSuchDirectory(id) if id == ids[0]));
    create(&manager, "c");
    assert_eq!(manager.directory_of(&partition("c")), Some(ids[1]));
    manager.shutdown(1).unwrap();
    let marked = |dir| {
        f.names(dir)
            .iter()
            .any(|n| n == crate::clean_shutdown::CLEAN_SHUTDOWN_FILE)
    };
    assert_eq!((marked(0), marked(1)), (false, true));
    manager.set_directory_offline(ids[1]);
    let error = manager
        .create(&partition("d"), None, topic_config(), None)
        .unwrap_err();
    assert!(matches!(error, ManagerError::AllOffline));
}

#[test]
fn a_directory_that_cannot_be_read_is_left_offline() {
    let f = Fixture::new(2);
    let manager = f.open();
    create(&manager, "a");
    create(&manager, "b");
    manager.shutdown(1).unwrap();
    drop(manager);
    let epochs = f.dirs[1].join("b-0").join(names::LEADER_EPOCH_CHECKPOINT);
    f.dir
        .env
        .fs
        .write_atomically(&epochs, b"0\nnonsense\n")
        .unwrap();
    let manager = f.open();
    let online: Vec<bool> = manager.directories().iter().map(|d| d.online).collect();
    assert_eq!(online, [true, false]);
    assert_eq!(manager.logs().len(), 1);
    drop(manager);

    let alone = Fixture {
        dirs: vec![f.dirs[1].clone()],
        dir: TestDir::new(),
    };
    let error = alone.try_open().unwrap_err();
    assert!(
        matches!(&error, ManagerError::AllFailed(failures) if failures.len() == 1),
        "{error}"
    );
}

#[test]
fn retention_runs_in_its_interval() {
    let f = Fixture::new(1);
    let manager = f.open();
    let config = LogConfig {
        retention_ms: 1000,
        ..topic_config()
    };
    let log = manager.create(&partition("a"), None, config, None).unwrap();
    append(&log, batch(f.now_ms(), &["1"])).unwrap();
    log.set_high_watermark(1);
    manager.tick(f.now_ms());
    f.dir.clock.advance_ms(299_999);
    manager.tick(f.now_ms());
    assert_eq!(log.log_start_offset(), 0);
    f.dir.clock.advance_ms(1);
    manager.tick(f.now_ms());
    assert_eq!(log.log_start_offset(), 1);
}

#[test]
fn an_empty_file_in_place_of_a_checkpoint_is_no_obstacle() {
    let f = Fixture::new(1);
    let manager = f.open();
    append(&create(&manager, "a"), batch(0, &["1"])).unwrap();
    drop(manager);
    let path = f.dirs[0].join(checkpoints::RECOVERY_POINT);
    for content in [&b""[..], b"nonsense", b"0\n5\na 0 9\n"] {
        f.dir.env.fs.write_atomically(&path, content).unwrap();
        let manager = f.open();
        assert_eq!(manager.get(&partition("a")).unwrap().log_end_offset(), 1);
    }
    let file = f.dir.env.fs.open(&path, OpenMode::Truncate).unwrap();
    assert!(file.is_empty().unwrap());
}

#[test]
fn recovery_points_are_noted_after_a_roll_and_after_a_truncation() {
    let f = Fixture::new(1);
    let manager = f.open();
    let log = create(&manager, "a");
    let path = f.dirs[0].join(checkpoints::RECOVERY_POINT);
    let noted = || checkpoints::read_offsets(&*f.dir.env.fs, &path).unwrap();
    append(&log, batch(0, &["1", "2"])).unwrap();
    manager.tick(f.now_ms());
    assert!(
        noted().is_empty(),
        "nothing was synced that recovery could spare"
    );
    log.roll().unwrap();
    append(&log, batch(0, &["3"])).unwrap();
    manager.tick(f.now_ms());
    assert_eq!(noted()[&partition("a")], 2);
    log.roll().unwrap();
    manager.tick(f.now_ms());
    assert_eq!(noted()[&partition("a")], 3);
    log.truncate_to(1).unwrap();
    manager.tick(f.now_ms());
    assert!(noted()[&partition("a")] < 1);
}
