//! Several log directories: replicas that move, directories that are cordoned, disks that fail.

mod common;

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::{Client, batch, produce_error, produce_request};
use klamm_broker::Broker;
use klamm_config::BrokerConfig;
use klamm_env::{DirEntry, Env, File, Fs, LockGuard, Metadata, OpenMode, OsFs, Space};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::alter_replica_log_dirs_request::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic,
};
use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::{
    AlterReplicaLogDirsRequest, CreateTopicsRequest, DescribeLogDirsRequest, FetchRequest,
    IncrementalAlterConfigsRequest, MetadataRequest, fetch_request,
};

/// A broker over directories `d0`, `d1`, … of a folder.
struct Jbod {
    folder: tempfile::TempDir,
    fs: Arc<FailingFs>,
    broker: Broker,
    client: Client,
}

impl Jbod {
    async fn start(dirs: usize) -> Jbod {
        let folder = tempfile::tempdir().unwrap();
        let fs = Arc::new(FailingFs::default());
        let (broker, client) = Jbod::open(folder.path(), dirs, &fs, "").await;
        Jbod {
            folder,
            fs,
            broker,
            client,
        }
    }

    async fn open(
        folder: &Path,
        dirs: usize,
        fs: &Arc<FailingFs>,
        cordoned: &str,
    ) -> (Broker, Client) {
        let path = |n: usize| folder.join(format!("d{n}")).to_string_lossy().into_owned();
        let dirs: Vec<String> = (0..dirs).map(path).collect();
        let pairs = [
            ("listeners", "PLAINTEXT://127.0.0.1:0".to_owned()),
            ("log.dirs", dirs.join(",")),
            ("metadata.log.dir", dirs[0].clone()),
            ("cordoned.log.dirs", cordoned.to_owned()),
            ("klamm.metrics.listeners", String::new()),
        ];
        let config =
            BrokerConfig::from_pairs(pairs.iter().map(|(name, value)| (*name, &**value))).unwrap();
        let env = Env {
            fs: fs.clone(),
            ..Env::os()
        };
        let broker = Broker::start(config, env).await.unwrap();
        let client = Client::connect(&broker).await;
        (broker, client)
    }

    fn path(&self, dir: usize) -> String {
        let path = self.folder.path().join(format!("d{dir}"));
        path.to_string_lossy().into_owned()
    }

    async fn create(&mut self, topic: &str, num_partitions: i32) -> i16 {
        let topic = CreatableTopic {
            name: topic.into(),
            num_partitions,
            replication_factor: 1,
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 10_000,
            ..CreateTopicsRequest::default()
        };
        self.client.ask(7, &request).await.topics[0].error_code
    }

    async fn alter(&mut self, topic: &str, partition: i32, path: &str) -> i16 {
        let topic = AlterReplicaLogDirTopic {
            name: topic.into(),
            partitions: vec![partition],
            ..AlterReplicaLogDirTopic::default()
        };
        let dir = AlterReplicaLogDir {
            path: path.into(),
            topics: vec![topic],
            ..AlterReplicaLogDir::default()
        };
        let request = AlterReplicaLogDirsRequest {
            dirs: vec![dir],
            ..AlterReplicaLogDirsRequest::default()
        };
        let answer = self.client.ask(2, &request).await;
        answer.results[0].partitions[0].error_code
    }

    /// Topic and partition, whether it is moving there, and lag, by directory; with the
    /// directory's error and whether it is cordoned.
    async fn describe(&mut self) -> Vec<(i16, bool, Vec<Replica>)> {
        let request = DescribeLogDirsRequest {
            topics: None,
            ..DescribeLogDirsRequest::default()
        };
        let answer = self.client.ask(5, &request).await;
        let dirs = answer.results.iter().map(|result| {
            let replicas = result.topics.iter().flat_map(|topic| {
                let name = topic.name.to_string();
                let partitions = topic.partitions.iter();
                partitions.map(move |p| (name.clone(), p.partition_index, p.is_future_key))
            });
            assert_eq!(result.total_bytes > 0, result.error_code == 0);
            (result.error_code, result.is_cordoned, replicas.collect())
        });
        dirs.collect()
    }

    async fn replicas(&mut self) -> BTreeMap<Replica, usize> {
        let mut found = BTreeMap::new();
        for (dir, (_, _, replicas)) in self.describe().await.into_iter().enumerate() {
            found.extend(replicas.into_iter().map(|replica| (replica, dir)));
        }
        found
    }

    async fn set_config(&mut self, name: &str, value: &str) -> i16 {
        self.try_set_config(name, value).await.0
    }

    async fn try_set_config(&mut self, name: &str, value: &str) -> (i16, String) {
        let config = AlterableConfig {
            name: name.into(),
            value: Some(value.into()),
            ..AlterableConfig::default()
        };
        let resource = AlterConfigsResource {
            resource_type: 4,
            resource_name: self.broker.node_id().to_string().into(),
            configs: vec![config],
            ..AlterConfigsResource::default()
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![resource],
            ..IncrementalAlterConfigsRequest::default()
        };
        let answer = self.client.ask(1, &request).await;
        let message = answer.responses[0].error_message.clone();
        let message = message.unwrap_or_default().to_string();
        (answer.responses[0].error_code, message)
    }

    /// The directory of a replica by the metadata, as a position in the configuration.
    fn assigned(&self, topic: &str, partition: i32) -> Option<usize> {
        let image = self.broker.metadata();
        let id = image
            .partition(topic, partition)?
            .directory(self.broker.node_id());
        let ids = (0..9).map_while(|dir| self.directory_id(dir));
        ids.collect::<Vec<_>>()
            .iter()
            .position(|known| *known == id.to_string())
    }

    fn directory_id(&self, dir: usize) -> Option<String> {
        let path = self.folder.path().join(format!("d{dir}/meta.properties"));
        let content = klamm_env::FsExt::read(&OsFs, &path).ok()?;
        let content = String::from_utf8(content).ok()?;
        let line = content
            .lines()
            .find(|line| line.starts_with("directory.id="))?;
        Some(line.trim_start_matches("directory.id=").replace('\\', ""))
    }

    async fn metadata_error(&mut self, topic: &str, partition: i32) -> i16 {
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                name: Some(topic.into()),
                ..MetadataRequestTopic::default()
            }]),
            ..MetadataRequest::default()
        };
        let answer = self.client.ask(9, &request).await;
        let partitions = &answer.topics[0].partitions;
        let found = partitions.iter().find(|p| p.partition_index == partition);
        found.unwrap().error_code
    }
}

type Replica = (String, i32, bool);

fn at(topic: &str, partition: i32) -> Replica {
    (topic.to_owned(), partition, false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_move_between_directories_while_they_serve() {
    let mut jbod = Jbod::start(3).await;
    assert_eq!(jbod.create("t", 3).await, 0);
    let replicas = jbod.replicas().await;
    let mut used: Vec<usize> = replicas.values().copied().collect();
    used.sort_unstable();
    assert_eq!(used, [0, 1, 2]);
    for n in 0..100 {
        assert_eq!(jbod.client.produce("t", &[&format!("v{n}")]).await, n);
    }
    let from = replicas[&at("t", 0)];
    let to = (from + 1) % 3;
    let (missing, target) = (jbod.path(7), jbod.path(to));
    assert_eq!(
        jbod.alter("t", 0, &missing).await,
        ErrorCode::LogDirNotFound.code()
    );
    let with_slash = format!("{target}/");
    assert_eq!(
        jbod.alter("t", 0, &with_slash).await,
        ErrorCode::LogDirNotFound.code()
    );
    assert_eq!(jbod.alter("t", 0, &target).await, 0);
    // Producers go on meanwhile; each turn is a look at whether it is done.
    let mut count = 100;
    while jbod.replicas().await.get(&at("t", 0)) != Some(&to) {
        assert_eq!(jbod.client.produce("t", &["more"]).await, count);
        count += 1;
    }
    assert_eq!(jbod.client.produce("t", &["after"]).await, count);
    assert_eq!(jbod.assigned("t", 0), Some(to));
    assert_eq!(jbod.replicas().await.len(), 3, "no copy is left");
    let Jbod {
        folder, fs, broker, ..
    } = jbod;
    broker.shutdown().await;
    let (broker, client) = Jbod::open(folder.path(), 3, &fs, "").await;
    let mut jbod = Jbod {
        folder,
        fs,
        broker,
        client,
    };
    assert_eq!(jbod.replicas().await[&at("t", 0)], to);
    assert_eq!(jbod.client.produce("t", &["again"]).await, count + 1);
    jbod.broker.shutdown().await;
}

/// The throttle holds a move back until it is lifted; a restart and the throttle's lifting let it
/// end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_move_shows_its_copy_and_goes_on_after_a_restart() {
    let mut jbod = Jbod::start(2).await;
    let throttle = "replica.alter.log.dirs.io.max.bytes.per.second";
    assert_eq!(jbod.create("t", 1).await, 0);
    let from = jbod.replicas().await[&at("t", 0)];
    for _ in 0..50 {
        jbod.client.produce("t", &["0123456789"]).await;
    }
    // A broker's value is refused: Kafka has it for the whole cluster only.
    let node = jbod.broker.node_id();
    assert!(node > 0);
    let config = AlterableConfig {
        name: throttle.into(),
        value: Some("1".into()),
        ..AlterableConfig::default()
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: 4,
            resource_name: "".into(),
            configs: vec![config],
            ..AlterConfigsResource::default()
        }],
        ..IncrementalAlterConfigsRequest::default()
    };
    let answer = jbod.client.ask(1, &request).await;
    assert_eq!(answer.responses[0].error_code, 0);
    let target = jbod.path(1 - from);
    assert_eq!(jbod.alter("t", 0, &target).await, 0);
    let moving = ("t".to_owned(), 0, true);
    let replicas = jbod.replicas().await;
    assert_eq!(replicas[&at("t", 0)], from);
    assert_eq!(replicas[&moving], 1 - from);
    let Jbod {
        folder, fs, broker, ..
    } = jbod;
    broker.shutdown().await;
    let (broker, client) = Jbod::open(folder.path(), 2, &fs, "").await;
    let mut jbod = Jbod {
        folder,
        fs,
        broker,
        client,
    };
    assert_eq!(jbod.replicas().await[&moving], 1 - from);
    let mut lifted = request;
    lifted.resources[0].configs[0].value = Some(i64::MAX.to_string().as_str().into());
    let answer = jbod.client.ask(1, &lifted).await;
    assert_eq!(answer.responses[0].error_code, 0);
    while jbod.replicas().await.get(&at("t", 0)) != Some(&(1 - from)) {}
    assert_eq!(jbod.client.produce("t", &["after"]).await, 50);
    jbod.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cordoned_directories_get_nothing_new() {
    let mut jbod = Jbod::start(2).await;
    assert_eq!(jbod.create("old", 2).await, 0);
    let (first, second) = (jbod.path(0), jbod.path(1));
    let refused = jbod.try_set_config("cordoned.log.dirs", "/else").await;
    let message = "requirement failed: All entries in cordoned.log.dirs must be present in log.dirs \
                   or log.dir. Missing entries : /else";
    let expected = (ErrorCode::InvalidRequest.code(), message.to_owned());
    assert_eq!(refused, expected);
    assert_eq!(jbod.set_config("cordoned.log.dirs", &first).await, 0);
    let cordoned = |dirs: Vec<(i16, bool, Vec<Replica>)>| -> Vec<bool> {
        dirs.into_iter().map(|(_, cordoned, _)| cordoned).collect()
    };
    assert_eq!(cordoned(jbod.describe().await), [true, false]);
    assert_eq!(jbod.create("new", 3).await, 0);
    let replicas = jbod.replicas().await;
    let places: Vec<usize> = (0..3).map(|n| replicas[&at("new", n)]).collect();
    assert_eq!(places, [1, 1, 1]);
    let refused = jbod.alter("new", 0, &first).await;
    assert_eq!(refused, ErrorCode::InvalidReplicaAssignment.code());
    assert_eq!(jbod.alter("new", 0, &second).await, 0);
    // The controller hears of it with a heartbeat, and places nothing here any more.
    assert_eq!(jbod.set_config("cordoned.log.dirs", "*").await, 0);
    let refusal = ErrorCode::InvalidReplicationFactor.code();
    let mut attempt = 0;
    loop {
        attempt += 1;
        match jbod.create(&format!("none{attempt}"), 1).await {
            0 => assert!(attempt < 1000),
            refused => {
                assert_eq!(refused, refusal);
                break;
            }
        }
    }
    assert_eq!(jbod.set_config("cordoned.log.dirs", "").await, 0);
    assert_eq!(cordoned(jbod.describe().await), [false, false]);
    jbod.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cordoned_directories_are_so_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let fs = Arc::new(FailingFs::default());
    let d0 = folder.path().join("d0").to_string_lossy().into_owned();
    let (broker, client) = Jbod::open(folder.path(), 2, &fs, &d0).await;
    let mut jbod = Jbod {
        folder,
        fs,
        broker,
        client,
    };
    assert_eq!(jbod.create("t", 2).await, 0);
    let replicas = jbod.replicas().await;
    assert_eq!((replicas[&at("t", 0)], replicas[&at("t", 1)]), (1, 1));
    jbod.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_disk_takes_only_its_own_replicas_offline() {
    let mut jbod = Jbod::start(2).await;
    // The metadata log is in the first directory.
    for topic in ["a", "b"] {
        assert_eq!(jbod.create(topic, 1).await, 0);
        jbod.client.produce(topic, &["before"]).await;
    }
    let replicas = jbod.replicas().await;
    let (lost, kept) = if replicas[&at("a", 0)] == 1 {
        ("a", "b")
    } else {
        ("b", "a")
    };
    assert_eq!((replicas[&at(lost, 0)], replicas[&at(kept, 0)]), (1, 0));
    while jbod.assigned(lost, 0) != Some(1) {
        jbod.metadata_error(lost, 0).await;
    }
    jbod.fs.fail_below(jbod.folder.path().join("d1"));
    let answer = jbod
        .client
        .ask(9, &produce_request(lost, batch(&["lost"]), -1))
        .await;
    assert_eq!(produce_error(&answer), ErrorCode::KafkaStorageError.code());
    assert_eq!(jbod.client.produce(kept, &["kept"]).await, 1);
    let fetch = FetchRequest {
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 1 << 20,
        topics: vec![fetch_request::FetchTopic {
            topic: lost.into(),
            partitions: vec![fetch_request::FetchPartition {
                partition_max_bytes: 1 << 20,
                ..fetch_request::FetchPartition::default()
            }],
            ..fetch_request::FetchTopic::default()
        }],
        ..FetchRequest::default()
    };
    let answer = jbod.client.ask(11, &fetch).await;
    let code = answer.responses[0].partitions[0].error_code;
    assert_eq!(code, ErrorCode::KafkaStorageError.code());
    // The controller is told, and takes the leadership from it.
    while jbod.metadata_error(lost, 0).await != ErrorCode::LeaderNotAvailable.code() {
        tokio::task::yield_now().await;
    }
    assert_eq!(jbod.metadata_error(kept, 0).await, 0);
    let dirs = jbod.describe().await;
    let errors: Vec<i16> = dirs.iter().map(|(error, _, _)| *error).collect();
    assert_eq!(errors, [0, ErrorCode::KafkaStorageError.code()]);
    let (first, second) = (jbod.path(0), jbod.path(1));
    let refused = ErrorCode::KafkaStorageError.code();
    assert_eq!(jbod.alter(kept, 0, &second).await, refused);
    assert_eq!(jbod.alter(lost, 0, &first).await, refused);
    assert_eq!(jbod.create("new", 2).await, 0);
    let replicas = jbod.replicas().await;
    assert_eq!((replicas[&at("new", 0)], replicas[&at("new", 1)]), (0, 0));
    jbod.client.produce("new", &["new"]).await;
    let Jbod {
        folder, fs, broker, ..
    } = jbod;
    broker.shutdown().await;

    // It is repaired, and all is there again.
    fs.repair();
    let (broker, client) = Jbod::open(folder.path(), 2, &fs, "").await;
    let mut jbod = Jbod {
        folder,
        fs,
        broker,
        client,
    };
    assert_eq!(jbod.client.produce(lost, &["after"]).await, 1);
    assert_eq!(jbod.client.produce(kept, &["after"]).await, 2);
    jbod.broker.shutdown().await;
}

/// The operating system's files, of which those below a path fail from some moment on.
#[derive(Debug, Default)]
struct FailingFs(Arc<Failing>);

#[derive(Debug, Default)]
struct Failing {
    below: Mutex<Option<PathBuf>>,
    failing: AtomicBool,
}

impl Failing {
    fn check(&self, path: &Path) -> io::Result<()> {
        if self.failing.load(Ordering::SeqCst) {
            let below = self.below.lock().unwrap();
            if below.as_ref().is_some_and(|below| path.starts_with(below)) {
                return Err(io::Error::from_raw_os_error(5));
            }
        }
        Ok(())
    }
}

impl FailingFs {
    fn fail_below(&self, path: PathBuf) {
        *self.0.below.lock().unwrap() = Some(path);
        self.0.failing.store(true, Ordering::SeqCst);
    }

    fn repair(&self) {
        self.0.failing.store(false, Ordering::SeqCst);
    }
}

impl Fs for FailingFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.0.check(path)?;
        Ok(Arc::new(FailingFile {
            file: OsFs.open(path, mode)?,
            path: path.into(),
            failing: self.0.clone(),
        }))
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.check(path)?;
        OsFs.create_dir_all(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.check(path)?;
        OsFs.read_dir(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.check(from)?;
        OsFs.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.check(path)?;
        OsFs.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.check(path)?;
        OsFs.remove_dir_all(path)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.check(from)?;
        OsFs.hard_link(from, to)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.check(path)?;
        OsFs.sync_dir(path)
    }
    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.0.check(path)?;
        OsFs.metadata(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.check(path)?;
        OsFs.space(path)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn LockGuard>> {
        self.0.check(path)?;
        OsFs.lock(path)
    }
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.0.check(path)?;
        OsFs.canonicalize(path)
    }
}

#[derive(Debug)]
struct FailingFile {
    file: Arc<dyn File>,
    path: PathBuf,
    failing: Arc<Failing>,
}

impl File for FailingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.failing.check(&self.path)?;
        self.file.read_at(buf, offset)
    }
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.failing.check(&self.path)?;
        self.file.write_vectored_at(bufs, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.failing.check(&self.path)?;
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.failing.check(&self.path)?;
        self.file.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.failing.check(&self.path)?;
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.failing.check(&self.path)?;
        self.file.sync_all()
    }
    fn start_writeback(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.start_writeback(offset, len)
    }
    fn is_resident(&self, offset: u64, len: u64) -> io::Result<bool> {
        self.file.is_resident(offset, len)
    }
    fn as_fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.file.as_fd()
    }
}
