//! The plug is pulled at every call that a clean makes. Whatever the disk kept of it, the log that
//! comes back holds the last value of every key, shows nobody what was aborted, ends where it
//! ended, and can be compacted again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use klamm_env::{Env, FileExt, FsExt, Rng};
use klamm_log::{
    AppendOrigin, CleanError, Cleaner, CleanerConfig, Log, LogConfig, LogError, LogOpen,
};
use klamm_records::control::{ControlType, EndTransactionMarker};
use klamm_records::{
    BatchBuilder, BatchOptions, Codec, Compression, PreparedBatch, Scratch, TopicPartition, batches,
};
use klamm_sim::{Errno, Faults, SimClock, SimFs, SimRng, Trace};

const NOW_MS: i64 = 1_700_000_000_000;
const HISTORIES: u64 = 2;

/// A record: offset, key, value.
type Seen = (i64, String, Option<String>);

/// A machine with a log whose last records are known.
struct Machine {
    fs: SimFs,
    env: Env,
    rng: SimRng,
    /// By key: offset and value.
    last: BTreeMap<String, (i64, Option<String>)>,
    sequences: BTreeMap<i64, i32>,
}

impl Machine {
    fn new(seed: u64) -> Machine {
        let rng = SimRng::new(seed);
        let clock = SimClock::new(NOW_MS);
        let fs = SimFs::new(rng.fork("disk"), clock.clone(), Trace::new());
        Machine {
            env: Env {
                clock: Arc::new(clock),
                rng: Arc::new(rng.fork("env")),
                fs: Arc::new(fs.clone()),
            },
            fs,
            rng: rng.fork("history"),
            last: BTreeMap::new(),
            sequences: BTreeMap::new(),
        }
    }

    /// The log after whatever happened, with a recovery point as old as can be.
    fn open(&self) -> Result<Log, LogError> {
        self.open_recovered_to(0)
    }

    fn open_recovered_to(&self, recovery_point: i64) -> Result<Log, LogError> {
        let log = Log::open(LogOpen {
            dir: PathBuf::from("/data/t-0"),
            topic_partition: TopicPartition::new("t", 0),
            topic_id: None,
            config: LogConfig {
                compact: true,
                delete: false,
                segment_bytes: 1_500,
                index_interval_bytes: 200,
                delete_retention_ms: 0,
                file_delete_delay_ms: 0,
                ..LogConfig::default()
            },
            env: self.env.clone(),
            recovery_point,
            log_start_offset: 0,
            high_watermark: i64::MAX,
            clean: false,
            standalone: false,
        })?;
        log.set_high_watermark(i64::MAX);
        Ok(log)
    }

    fn write(&mut self, log: &Log, appends: usize) {
        for _ in 0..appends {
            self.append(log);
            if self.rng.one_in(8) {
                log.roll().unwrap();
            }
        }
        log.roll().unwrap();
        log.flush(i64::MAX).unwrap();
        for dir in ["/", "/data"] {
            self.env.fs.sync_dir(&PathBuf::from(dir)).unwrap();
        }
    }

    /// One batch, in a transaction or not, which is committed or not.
    fn append(&mut self, log: &Log) {
        let transactional = self.rng.one_in(3);
        let producer_id = if transactional { 7 } else { 8 };
        let compression = Compression::ALL[self.rng.index(Compression::ALL.len())];
        let sequence = self.sequences.entry(producer_id).or_default();
        let options = BatchOptions {
            codec: Codec::from(compression),
            producer_id,
            producer_epoch: 0,
            base_sequence: *sequence,
            transactional,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        let records: Vec<_> = (0..self.rng.index(4) + 1)
            .map(|_| {
                let key = format!("key-{}", self.rng.index(9));
                let value = (!self.rng.one_in(5)).then(|| format!("v{}", self.rng.next_u64()));
                (key, value)
            })
            .collect();
        for (key, value) in &records {
            let value = value.as_deref().map(str::as_bytes);
            builder
                .append(NOW_MS, Some(key.as_bytes()), value, [])
                .unwrap();
        }
        *sequence += records.len() as i32;
        let first = log.log_end_offset();
        put(log, builder.build().unwrap(), AppendOrigin::Client);
        let committed = !transactional || !self.rng.one_in(2);
        if transactional {
            let marker = EndTransactionMarker {
                committed,
                coordinator_epoch: 1,
            };
            let origin = AppendOrigin::TxnMarkers {
                transaction_version: 1,
            };
            put(log, marker.to_batch(7, 0, NOW_MS).unwrap(), origin);
        }
        if committed {
            for (offset, (key, value)) in (first..).zip(records) {
                self.last.insert(key, (offset, value));
            }
        }
    }
}

fn put(log: &Log, bytes: bytes::Bytes, origin: AppendOrigin) {
    let mut batches = [PreparedBatch::trusted(bytes).unwrap()];
    log.append_as_leader(&mut batches, 5, NOW_MS, origin)
        .unwrap();
    log.set_high_watermark(i64::MAX);
}

fn clean(log: &Log, now_ms: i64) -> Result<(), CleanError> {
    let target = log.cleanable(now_ms)?;
    let config = CleanerConfig {
        io_buffer_bytes: 4 << 10,
        ..CleanerConfig::default()
    };
    Cleaner::new(config, 3)
        .clean(log, &target, now_ms, &())
        .map(drop)
}

/// What a consumer that reads committed records only gets, by the rules of Kafka's.
fn committed(log: &Log) -> Vec<Seen> {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    let read = log.read(start, usize::MAX, i64::MAX, true).unwrap();
    let mut bytes = vec![0; read.len];
    let mut at = 0;
    for part in &read.parts {
        let slice = &mut bytes[at..at + part.len];
        part.file.read_exact_at(slice, part.position).unwrap();
        at += part.len;
    }
    let mut aborted = log.aborted_transactions(start, end).unwrap();
    aborted.sort_by_key(|txn| txn.first_offset);
    let mut aborted = aborted.into_iter().peekable();
    let mut producers = BTreeSet::new();
    let mut seen = Vec::new();
    for batch in batches(&bytes) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        let header = *batch.header();
        while let Some(txn) = aborted.next_if(|txn| txn.first_offset <= header.last_offset()) {
            producers.insert(txn.producer_id);
        }
        let mut scratch = Scratch::new();
        for record in batch.records(&mut scratch).unwrap() {
            let record = record.unwrap();
            if header.attributes.is_control() {
                if ControlType::from_key(record.key.unwrap()).unwrap() == ControlType::Abort {
                    producers.remove(&header.producer_id);
                }
            } else if !header.attributes.is_transactional()
                || !producers.contains(&header.producer_id)
            {
                let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
                seen.push((
                    record.offset,
                    text(record.key.unwrap()),
                    record.value.map(text),
                ));
            }
        }
    }
    seen
}

/// What must hold whatever the crash left: the last record of each key, unless it is a tombstone
/// whose time may be over, and nothing that was not there before.
fn check(log: &Log, machine: &Machine, before: &BTreeSet<Seen>, what: &str) {
    let seen = committed(log);
    assert!(seen.is_sorted_by(|a, b| a.0 < b.0), "{what}: {seen:?}");
    let mut last = BTreeMap::new();
    for record in seen {
        assert!(
            before.contains(&record),
            "{what}: {record:?} was never there"
        );
        last.insert(record.1, (record.0, record.2));
    }
    for (key, expected) in &machine.last {
        match last.get(key) {
            Some(found) => assert_eq!(found, expected, "{what}: {key}"),
            None => assert_eq!(expected.1, None, "{what}: {key} is gone"),
        }
    }
}

#[test]
fn a_crash_at_any_call_of_a_clean_loses_nothing() {
    for seed in 0..HISTORIES {
        let mut calls = 0;
        while !crash_after(seed, calls) {
            calls += 1;
        }
        assert!(calls > 20, "a clean makes more calls than {calls}");
    }
}

/// Pulls the plug after some calls of the second clean of a log. Returns whether the clean was
/// through before.
fn crash_after(seed: u64, calls: u64) -> bool {
    let what = format!("history {seed}, call {calls}");
    let mut machine = Machine::new(seed);
    let log = machine.open().unwrap();
    machine.write(&log, 30);
    clean(&log, NOW_MS).unwrap();
    machine.write(&log, 20);
    let before: BTreeSet<Seen> = committed(&log).into_iter().collect();
    let (end, epochs) = (log.log_end_offset(), log.epochs());
    machine.fs.power_off_after(calls);
    let through = clean(&log, NOW_MS + 1).is_ok();
    drop(log);
    machine.fs.crash();
    let log = machine.open().unwrap();
    assert_eq!(log.recovery_report().truncation, None, "{what}");
    assert_eq!(
        (log.log_end_offset(), log.epochs()),
        (end, epochs),
        "{what}"
    );
    check(&log, &machine, &before, &what);
    // Beside the log nothing is left over, and nothing is in the way of the next clean.
    for entry in machine.env.fs.read_dir(&log.dir()).unwrap() {
        let left = [".cleaned", ".swap", ".deleted"];
        assert!(
            !left.iter().any(|suffix| entry.name.ends_with(suffix)),
            "{what}: {}",
            entry.name
        );
    }
    for round in 2..4 {
        log.set_cleaned_to(0);
        clean(&log, NOW_MS + round).unwrap();
        check(&log, &machine, &before, &what);
    }
    let keys: BTreeSet<String> = committed(&log).into_iter().map(|(_, key, _)| key).collect();
    assert_eq!(
        committed(&log).len(),
        keys.len(),
        "{what}: one record a key"
    );
    for (key, (_, value)) in &machine.last {
        assert_eq!(keys.contains(key), value.is_some(), "{what}: {key}");
    }
    through
}

#[test]
fn a_failure_at_any_call_of_a_clean_leaves_each_segment_its_own_indexes() {
    for (seed, errno) in [(0, Errno::NoSpace), (1, Errno::Io)] {
        let mut calls = 0;
        while !fail_after(seed, calls, errno) {
            calls += 1;
        }
        assert!(calls > 20, "a clean makes more calls than {calls}");
    }
}

/// Lets a call of the second clean of a log fail and ends the process. Returns whether the clean was
/// through before.
fn fail_after(seed: u64, calls: u64, errno: Errno) -> bool {
    let what = format!("history {seed}, call {calls}");
    let mut machine = Machine::new(seed);
    let log = machine.open().unwrap();
    machine.write(&log, 30);
    clean(&log, NOW_MS).unwrap();
    machine.write(&log, 20);
    let before: BTreeSet<Seen> = committed(&log).into_iter().collect();
    let end = log.log_end_offset();
    machine.fs.fail_after(calls, errno);
    let through = clean(&log, NOW_MS + 1).is_ok();
    drop(log);
    machine.fs.set_faults(Faults::default());
    machine.fs.kill();
    let log = machine.open_recovered_to(end).unwrap();
    assert_eq!(log.log_end_offset(), end, "{what}");
    // First, as a read may notice that they are wrong and make them anew.
    check_indexes(&log, &machine, &what);
    check(&log, &machine, &before, &what);
    through
}

/// Whether each index on the disk tells of batches of its own segment.
fn check_indexes(log: &Log, machine: &Machine, what: &str) {
    let read = |base: i64, kind: &str| {
        let path = log.dir().join(format!("{base:020}.{kind}"));
        machine.env.fs.read(&path).unwrap_or_default()
    };
    for base in log.segment_base_offsets() {
        let bytes = read(base, "log");
        let mut position = 0;
        let (mut places, mut times) = (BTreeSet::new(), BTreeSet::new());
        for batch in batches(&bytes) {
            let batch = batch.unwrap();
            let header = batch.header();
            let last = (header.last_offset() - base) as i32;
            places.insert((last, position));
            times.insert((header.max_timestamp, last));
            position += header.size() as i32;
        }
        let at = format!("{what}: segment {base}");
        for entry in read(base, "index").chunks_exact(8) {
            let (offset, position) = entry.split_at(4);
            let number = |bytes: &[u8]| i32::from_be_bytes(bytes.try_into().unwrap());
            assert!(places.contains(&(number(offset), number(position))), "{at}");
        }
        for entry in read(base, "timeindex").chunks_exact(12) {
            let (time, offset) = entry.split_at(8);
            let time = i64::from_be_bytes(time.try_into().unwrap());
            let offset = i32::from_be_bytes(offset.try_into().unwrap());
            assert!(times.contains(&(time, offset)), "{at}");
        }
    }
}
