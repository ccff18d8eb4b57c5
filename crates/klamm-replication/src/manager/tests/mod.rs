//! The replica manager over real files, with a clock that stands still. Nothing here runs tasks:
//! futures are polled by hand, so that each test says exactly when what happens.

mod cold;
mod copying;
mod durable;
mod fetching;
mod following;
mod histories;
mod moving;
mod offsets;
mod producing;
mod replicas;
mod threads;
mod timing;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use klamm_env::{Env, ManualClock, OsFs, SplitMix64};
use klamm_log::{LogConfig, LogManager, LogManagerConfig};
use klamm_metadata::{MetadataDelta, MetadataImage, Provenance};
use klamm_protocol::metadata::{
    MetadataRecord, PartitionRecord, RegisterBrokerRecord, RemoveTopicRecord, TopicRecord,
};
use klamm_records::{BatchBuilder, BatchOptions, batches};

use super::*;
use crate::fetch_session::TopicIdPartition;
use crate::waiters::Isolation;

const NODE: i32 = 1;
const OTHER: i32 = 2;
const START_MS: i64 = 1_700_000_000_000;

/// ISR proposals, as the controller would get them.
#[derive(Debug, Default)]
struct Sink(Mutex<Vec<IsrProposal>>);

impl ProposalSink for Sink {
    fn propose(&self, _partition: &TopicPartition, _topic_id: Uuid, proposal: IsrProposal) {
        lock(&self.0).push(proposal);
    }
}

struct Broker {
    node: i32,
    dir: tempfile::TempDir,
    /// Names of the log directories in it.
    dirs: &'static [&'static str],
    clock: Arc<ManualClock>,
    manager: ReplicaManager,
    sink: Arc<Sink>,
    image: Arc<MetadataImage>,
    settings: TopicSettings,
}

fn start(
    node: i32,
    dirs: Vec<std::path::PathBuf>,
    clock: &Arc<ManualClock>,
    sink: &Arc<Sink>,
) -> ReplicaManager {
    let env = Env {
        clock: Arc::clone(clock) as _,
        rng: Arc::new(SplitMix64::new(7)),
        fs: Arc::new(OsFs),
    };
    let config = LogManagerConfig {
        // Tests say when something becomes durable.
        sync_threads: 0,
        ..LogManagerConfig::new(dirs, "cluster", node)
    };
    let logs = LogManager::open(config, env.clone(), |_| LogConfig::default()).unwrap();
    let config = ReplicaManagerConfig::new(node);
    ReplicaManager::new(config, Arc::new(logs), Arc::clone(sink) as _, env)
}

impl Broker {
    fn new() -> Self {
        Broker::of_node(NODE)
    }

    fn of_node(node: i32) -> Self {
        Broker::over(node, &["data"])
    }

    fn over(node: i32, dirs: &'static [&'static str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START_MS));
        let sink = Arc::new(Sink::default());
        let paths = dirs.iter().map(|name| dir.path().join(name)).collect();
        let manager = start(node, paths, &clock, &sink);
        Broker {
            node,
            dir,
            dirs,
            clock,
            manager,
            sink,
            image: Arc::default(),
            settings: TopicSettings::default(),
        }
    }

    /// With topic `t` of one partition, led here, alone.
    fn with_topic() -> Self {
        let mut broker = Broker::new();
        broker.create("t", &[partition(0, &[NODE])]);
        broker
    }

    /// Starts anew on the same files and metadata, after an orderly shutdown.
    fn restart(self) -> Self {
        self.manager.logs().shutdown(5).unwrap();
        let manager = start(self.node, self.paths(), &self.clock, &self.sink);
        let delta = MetadataDelta::from_nothing(&self.image);
        let settings = self.settings.clone();
        let changes = manager.apply_metadata(&delta, &self.image, &|_| settings.clone());
        assert!(changes.failed.is_empty(), "{:?}", changes.failed);
        Broker { manager, ..self }
    }

    fn paths(&self) -> Vec<std::path::PathBuf> {
        let paths = self.dirs.iter().map(|name| self.dir.path().join(name));
        paths.collect()
    }

    fn apply(&mut self, records: Vec<MetadataRecord>) -> ReplicaChanges {
        let mut delta = MetadataDelta::new(Arc::clone(&self.image));
        for record in &records {
            delta.replay(record).unwrap();
        }
        self.image = delta.finish(Provenance {
            offset: self.image.offset() + 1,
            epoch: 1,
            timestamp_ms: START_MS,
        });
        let settings = self.settings.clone();
        self.manager
            .apply_metadata(&delta, &self.image, &|_| settings.clone())
    }

    fn create(&mut self, topic: &str, partitions: &[PartitionRecord]) -> ReplicaChanges {
        let topic_id = id(topic);
        let mut records: Vec<MetadataRecord> = vec![
            TopicRecord {
                name: topic.into(),
                topic_id,
                ..TopicRecord::default()
            }
            .into(),
        ];
        for partition in partitions {
            let record = PartitionRecord {
                topic_id,
                ..partition.clone()
            };
            records.push(record.into());
        }
        self.apply(records)
    }

    fn change(&mut self, topic: &str, partition: PartitionRecord) -> ReplicaChanges {
        let record = PartitionRecord {
            topic_id: id(topic),
            ..partition
        };
        self.apply(vec![record.into()])
    }

    fn delete(&mut self, topic: &str) -> ReplicaChanges {
        let record = RemoveTopicRecord {
            topic_id: id(topic),
            ..RemoveTopicRecord::default()
        };
        self.apply(vec![record.into()])
    }

    fn register(&mut self, broker_id: i32, epoch: i64) {
        let record = RegisterBrokerRecord {
            broker_id,
            broker_epoch: epoch,
            fenced: false,
            ..RegisterBrokerRecord::default()
        };
        self.apply(vec![record.into()]);
    }

    /// Appends one batch to `t-0`.
    fn produce(&self, records: &[&str]) -> ProduceResult {
        let mut results = ready(self.produce_acks(records, 1).wait());
        results.remove(0)
    }

    fn produce_acks(&self, records: &[&str], acks: i16) -> PendingProduce {
        self.append(batch(records, &BatchOptions::default()), acks)
    }

    fn append(&self, batch: Bytes, acks: i16) -> PendingProduce {
        let prepared = self.manager.prepare(TopicRef::Name("t"), 0, batch, CONTEXT);
        self.manager.append_now(vec![prepared], acks, 1_000)
    }

    fn offsets(&self) -> ReplicaOffsets {
        self.manager.offsets("t", 0).unwrap()
    }

    fn sleep_ms(&self, ms: u32) {
        self.clock.advance_ms(ms);
        self.manager.expire();
    }

    /// What a follower's fetch at `offset` gets.
    fn follow(&self, offset: i64) -> FetchedPartition {
        let params = FetchParams {
            replica_id: OTHER,
            replica_epoch: 9,
            max_wait_ms: 0,
            isolation: Isolation::LogEnd,
            ..CONSUMER
        };
        let wish = FetchPartition {
            log_start_offset: 0,
            ..wish(offset)
        };
        ready(self.manager.fetch(&params, &[(t(), wish)])).remove(0)
    }
}

const CONTEXT: ProduceContext = ProduceContext {
    api_version: 12,
    internal_topics_allowed: false,
};

const CONSUMER: FetchParams = FetchParams {
    replica_id: -1,
    replica_epoch: -1,
    max_wait_ms: 500,
    min_bytes: 1,
    max_bytes: 1 << 20,
    isolation: Isolation::HighWatermark,
    leader_only: true,
};

/// An id of its own for each name.
fn id(topic: &str) -> Uuid {
    let mut bytes = [1; 16];
    for (index, byte) in topic.bytes().enumerate() {
        bytes[index % 16] ^= byte;
    }
    Uuid::from_bytes(bytes)
}

fn t() -> TopicIdPartition {
    TopicIdPartition::by_name("t", 0)
}

fn wish(fetch_offset: i64) -> FetchPartition {
    FetchPartition {
        fetch_offset,
        log_start_offset: -1,
        max_bytes: 1 << 20,
        current_leader_epoch: None,
        last_fetched_epoch: None,
        high_watermark: None,
    }
}

/// A partition led here, all replicas in sync.
fn partition(index: i32, replicas: &[i32]) -> PartitionRecord {
    PartitionRecord {
        partition_id: index,
        replicas: replicas.to_vec(),
        isr: replicas.to_vec(),
        leader: NODE,
        leader_epoch: 3,
        partition_epoch: 3,
        ..PartitionRecord::default()
    }
}

fn batch(records: &[&str], options: &BatchOptions) -> Bytes {
    let mut builder = BatchBuilder::new(*options);
    for (index, record) in (0..).zip(records) {
        let value = Some(record.as_bytes());
        builder.append(START_MS + index, None, value, []).unwrap();
    }
    builder.build().unwrap()
}

/// The values of all records at and after `offset`, cut batches left out.
fn values(answer: &FetchedPartition, offset: i64) -> Vec<String> {
    let bytes = answer.records.read().unwrap();
    let mut scratch = klamm_records::Scratch::new();
    let mut values = Vec::new();
    for batch in batches(&bytes).map_while(Result::ok) {
        for record in batch.records(&mut scratch).unwrap() {
            let record = record.unwrap();
            if record.offset >= offset {
                let value = record.value.unwrap_or_default();
                values.push(String::from_utf8_lossy(value).into_owned());
            }
        }
    }
    values
}

fn poll<F: Future + ?Sized>(future: &mut Pin<&mut F>) -> Poll<F::Output> {
    future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}

/// The output of a future that must not wait.
fn ready<F: Future>(future: F) -> F::Output {
    match poll(&mut std::pin::pin!(future)) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("it waits"),
    }
}
