//! A directory that Kafka wrote opens here with the same content, and the same history written
//! here gives the same files. `golden/README.md` tells where the directory comes from.

mod support;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use klamm_env::{Env, FileExt, FsExt};
use klamm_log::{
    ActiveProducer, AppendOrigin, Log, LogConfig, LogManager, LogManagerConfig, LogOpen,
    checkpoints, clean_shutdown,
};
use klamm_records::control::EndTransactionMarker;
use klamm_records::{BatchView, PreparedBatch, Scratch, TimestampType, TopicPartition, batches};

use support::{unpack, unzip};

const CLUSTER: &str = "4nQkvhmAR7GHKvIvOeIQ-w";
const TOPICS: [&str; 3] = ["mixed", "stamped", "txn"];

fn topic_config(topic: &str) -> LogConfig {
    let config = LogConfig {
        index_interval_bytes: 200,
        retention_ms: -1,
        // The history's time stamps are from 2023.
        producer_id_expiration_ms: i64::MAX,
        ..LogConfig::default()
    };
    match topic {
        "mixed" | "txn" => LogConfig {
            segment_ms: 60_000,
            ..config
        },
        "stamped" => LogConfig {
            timestamp_type: TimestampType::LogAppendTime,
            ..config
        },
        _ => LogConfig::default(),
    }
}

fn kafkas_dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    unpack(include_bytes!("golden/data.tar.gz"), dir.path());
    dir
}

fn open(dir: &Path) -> LogManager {
    let config = LogManagerConfig::new(vec![dir.to_owned()], CLUSTER, 1);
    LogManager::open(config, Env::os(), topic_config).unwrap()
}

fn log(manager: &LogManager, topic: &str) -> Arc<Log> {
    manager.get(&TopicPartition::new(topic, 0)).unwrap()
}

/// The bytes of one segment, through the log's own read path.
fn segment_bytes(log: &Log, base_offset: i64, end: i64) -> Vec<u8> {
    let start = base_offset.max(log.log_start_offset());
    let read = log.read(start, 1 << 30, end, true).unwrap();
    let [part] = &read.parts[..] else {
        panic!("{} parts", read.parts.len());
    };
    let mut bytes = vec![0; part.len];
    part.file.read_exact_at(&mut bytes, part.position).unwrap();
    bytes
}

/// What kafka-dump-log prints for a batch and its records.
fn dump_batch(batch: &BatchView<'_>, position: u64, out: &mut String) {
    let header = batch.header();
    let time = match header.attributes.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    };
    writeln!(
        out,
        "baseOffset: {} lastOffset: {} count: {} baseSequence: {} lastSequence: {} \
         producerId: {} producerEpoch: {} partitionLeaderEpoch: {} isTransactional: {} \
         isControl: {} deleteHorizonMs: OptionalLong.empty position: {position} {time}: {} \
         size: {} magic: 2 compresscodec: {} crc: {} isvalid: {}",
        header.base_offset,
        header.last_offset(),
        header.record_count,
        header.base_sequence,
        header.last_sequence(),
        header.producer_id,
        header.producer_epoch,
        header.partition_leader_epoch,
        header.attributes.is_transactional(),
        header.attributes.is_control(),
        header.max_timestamp,
        header.size(),
        header.compression().unwrap().name(),
        header.crc,
        batch.verify_crc().is_ok(),
    )
    .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    for record in batch.records(&mut Scratch::new()).unwrap() {
        let record = record.unwrap();
        let size = |field: Option<&[u8]>| field.map_or(-1, |bytes| bytes.len() as i64);
        let headers: Vec<String> = record.headers.iter().map(|(key, _)| text(key)).collect();
        write!(
            out,
            "| offset: {} {time}: {} keySize: {} valueSize: {} sequence: {} headerKeys: [{}]",
            record.offset,
            record.timestamp,
            size(record.key),
            size(record.value),
            record.sequence,
            headers.join(",")
        )
        .unwrap();
        if header.attributes.is_control() {
            let marker = EndTransactionMarker::from_record(&record).unwrap();
            let kind = if marker.committed { "COMMIT" } else { "ABORT" };
            let epoch = marker.coordinator_epoch;
            write!(out, " endTxnMarker: {kind} coordinatorEpoch: {epoch}").unwrap();
        } else {
            if let Some(key) = record.key {
                write!(out, " key: {}", text(key)).unwrap();
            }
            if let Some(value) = record.value {
                write!(out, " payload: {}", text(value)).unwrap();
            }
        }
        out.push('\n');
    }
}

/// What kafka-dump-log prints for all segments of the three topics.
fn dump(manager: &LogManager) -> String {
    let mut out = String::new();
    for topic in TOPICS {
        let log = log(manager, topic);
        let bases = log.segment_base_offsets();
        for (index, &base) in bases.iter().enumerate() {
            let end = bases.get(index + 1).copied().unwrap_or(i64::MAX);
            writeln!(
                out,
                "Dumping {topic}-0/{base:020}.log\nLog starting offset: {base}"
            )
            .unwrap();
            let bytes = segment_bytes(&log, base, end);
            let mut position = 0;
            for batch in batches(&bytes) {
                let batch = batch.unwrap();
                dump_batch(&batch, position, &mut out);
                position += batch.bytes().len() as u64;
            }
        }
    }
    out
}

/// Kafka's dump, without the batches of `mixed` that lie wholly below its start offset and with
/// positions counted from the first batch that is left.
fn expected_dump() -> String {
    let full = String::from_utf8(unzip(include_bytes!("golden/dump.txt.gz"))).unwrap();
    let cut = full.find("baseOffset: 3 lastOffset: 5").unwrap();
    let header = full.find("baseOffset: 0 ").unwrap();
    let (first, rest) = full[cut..].split_at(full[cut..].find("Dumping").unwrap());
    let mut out = full[..header].to_owned();
    for line in first.lines() {
        match line.split_once(" position: ") {
            Some((before, after)) => {
                let (position, after) = after.split_once(' ').unwrap();
                let position: u64 = position.parse().unwrap();
                writeln!(out, "{before} position: {} {after}", position - 208).unwrap();
            }
            None => writeln!(out, "{line}").unwrap(),
        }
    }
    out + rest
}

fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let env = Env::os();
    env.fs
        .read_dir(dir)
        .unwrap()
        .into_iter()
        .filter(|entry| !entry.is_dir)
        .map(|entry| {
            let content = env.fs.read(&dir.join(&entry.name)).unwrap();
            (entry.name, content)
        })
        .collect()
}

fn assert_same_files(left: &Path, right: &Path) {
    let (left, right) = (files(left), files(right));
    assert_eq!(
        left.keys().collect::<Vec<_>>(),
        right.keys().collect::<Vec<_>>()
    );
    for (name, content) in &left {
        assert_eq!(content, &right[name], "{name}");
    }
}

fn assert_content(manager: &LogManager) {
    assert_eq!(dump(manager), expected_dump());
    let mixed = log(manager, "mixed");
    assert_eq!((mixed.log_start_offset(), mixed.log_end_offset()), (5, 280));
    assert_eq!(mixed.high_watermark(), 280);
    assert_eq!(mixed.epochs(), [(0, 5)]);
    let producers: Vec<i64> = mixed
        .active_producers()
        .iter()
        .map(|p| p.producer_id)
        .collect();
    assert_eq!(producers, [0, 1, 2, 3, 4]);
    let found = mixed
        .offset_for_timestamp(1_700_000_300_000)
        .unwrap()
        .unwrap();
    assert_eq!(
        (found.timestamp, found.leader_epoch),
        (1_700_000_300_000, 0)
    );

    let txn = log(manager, "txn");
    assert_eq!(txn.log_end_offset(), 49);
    assert_eq!(
        txn.last_stable_offset(49),
        48,
        "held back by the open transaction"
    );
    let aborted: Vec<_> = txn
        .aborted_transactions(0, 49)
        .unwrap()
        .iter()
        .map(|t| {
            (
                t.producer_id,
                t.first_offset,
                t.last_offset,
                t.last_stable_offset,
            )
        })
        .collect();
    assert_eq!(
        aborted,
        [
            (6, 0, 7, 8),
            (7, 9, 15, 16),
            (6, 16, 22, 17),
            (7, 17, 23, 24),
            (6, 32, 38, 33),
            (7, 33, 39, 40),
            (7, 41, 47, 48)
        ]
    );
    let ended = ActiveProducer {
        producer_id: 6,
        producer_epoch: 6,
        last_sequence: -1,
        last_timestamp: 1_795_366_702_627,
        coordinator_epoch: 0,
        current_txn_start_offset: -1,
        last_offset: -1,
    };
    let open = ActiveProducer {
        producer_id: 8,
        producer_epoch: 0,
        last_sequence: 0,
        last_timestamp: 1_700_000_200_000,
        coordinator_epoch: -1,
        current_txn_start_offset: 48,
        last_offset: 48,
    };
    let producers = txn.active_producers();
    assert_eq!((producers[0], producers[2]), (ended, open));
}

#[test]
fn opens_after_a_clean_shutdown() {
    let dir = kafkas_dir();
    let manager = open(dir.path());
    assert_eq!(manager.previous_broker_epoch(), Some(16));
    assert_eq!(
        manager.directories()[0].id.to_string(),
        "jvMsyhbIi8I5X5Vfi2qM4Q"
    );
    assert!(manager.ignored_dirs().is_empty());
    for log in manager.logs() {
        assert_eq!(log.recovery_report().recovered_segments, 0);
        assert!(log.topic_id().is_some());
    }
    assert_content(&manager);
}

#[test]
fn hands_back_what_it_was_given() {
    let (dir, untouched) = (kafkas_dir(), kafkas_dir());
    open(dir.path()).shutdown(16).unwrap();
    for topic in TOPICS {
        let name = format!("{topic}-0");
        assert_same_files(&dir.path().join(&name), &untouched.path().join(&name));
    }
    let env = Env::os();
    for name in [
        checkpoints::RECOVERY_POINT,
        checkpoints::LOG_START,
        checkpoints::HIGH_WATERMARK,
    ] {
        let read = |dir: &Path| checkpoints::read_offsets(&*env.fs, &dir.join(name)).unwrap();
        assert_eq!(read(dir.path()), read(untouched.path()), "{name}");
    }
    for name in [
        clean_shutdown::CLEAN_SHUTDOWN_FILE,
        checkpoints::CLEANER,
        "meta.properties",
    ] {
        let read = |dir: &Path| env.fs.read(&dir.join(name)).unwrap();
        assert_eq!(read(dir.path()), read(untouched.path()), "{name}");
    }
}

#[test]
fn recovery_makes_kafkas_indexes_again() {
    let (dir, untouched) = (kafkas_dir(), kafkas_dir());
    let env = Env::os();
    for name in [
        clean_shutdown::CLEAN_SHUTDOWN_FILE,
        checkpoints::RECOVERY_POINT,
    ] {
        env.fs.remove_file(&dir.path().join(name)).unwrap();
    }
    for topic in TOPICS {
        let path = dir.path().join(format!("{topic}-0"));
        for (name, _) in files(&path) {
            if !name.ends_with(".log") && !name.ends_with(".metadata") {
                env.fs.remove_file(&path.join(name)).unwrap();
            }
        }
    }
    let manager = open(dir.path());
    assert_eq!(manager.previous_broker_epoch(), None);
    let report = log(&manager, "mixed").recovery_report().clone();
    assert_eq!((report.recovered_segments, report.truncation), (11, None));
    assert_content(&manager);
    manager.shutdown(16).unwrap();
    for topic in TOPICS {
        let name = format!("{topic}-0");
        assert_same_files(&dir.path().join(&name), &untouched.path().join(&name));
    }
}

#[test]
fn the_same_history_gives_the_same_files() {
    let original = kafkas_dir();
    let manager = open(original.path());
    let env = Env::os();
    let copies = tempfile::tempdir().unwrap();
    for topic in TOPICS {
        for leader in [true, false] {
            let name = format!("{topic}-0");
            let dir = copies.path().join(format!("{leader}")).join(&name);
            let source = log(&manager, topic);
            let copy = Log::open(LogOpen {
                dir: dir.clone(),
                topic_partition: TopicPartition::new(topic, 0),
                topic_id: source.topic_id(),
                config: topic_config(topic),
                env: env.clone(),
                recovery_point: 0,
                log_start_offset: 0,
                high_watermark: 0,
                clean: false,
                standalone: false,
            })
            .unwrap();
            for base in source.segment_base_offsets() {
                let file = original.path().join(&name).join(format!("{base:020}.log"));
                for batch in batches(&env.fs.read(&file).unwrap()) {
                    append(&copy, &batch.unwrap(), leader);
                }
            }
            copy.close().unwrap();
            let mut original = files(&original.path().join(&name));
            // The copy's records are all there.
            original.insert("leader-epoch-checkpoint".into(), b"0\n1\n0 0\n".into());
            let copy = files(&dir);
            assert_eq!(
                copy.keys().collect::<Vec<_>>(),
                original.keys().collect::<Vec<_>>(),
                "{dir:?}"
            );
            for (file, content) in &copy {
                assert_eq!(content, &original[file], "{dir:?} {file}");
            }
        }
    }
}

fn append(log: &Log, batch: &BatchView<'_>, leader: bool) {
    let header = batch.header();
    let now_ms = header.max_timestamp;
    if !leader {
        log.append_as_follower(batch.bytes(), 0, now_ms).unwrap();
        return;
    }
    let mut sent = batch.bytes().to_vec();
    klamm_records::batch::set_base_offset(&mut sent, 0);
    klamm_records::batch::set_partition_leader_epoch(&mut sent, -1);
    let mut prepared = [PreparedBatch::trusted(sent.into()).unwrap()];
    let origin = if header.attributes.is_control() {
        AppendOrigin::TxnMarkers {
            transaction_version: 2,
        }
    } else {
        AppendOrigin::Client
    };
    let info = log
        .append_as_leader(&mut prepared, 0, now_ms, origin)
        .unwrap();
    assert_eq!(
        (info.first_offset, info.last_offset),
        (header.base_offset, header.last_offset())
    );
}
