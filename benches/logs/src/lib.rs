//! Logs that a program can embed, behind one face, so that a benchmark can take them in turn.
//!
//! Each is used as its documentation shows, with its defaults but for compression, which is off
//! everywhere: what is compared is the log, not the codec.

use std::path::Path;

use tempfile::TempDir;

/// A log in a directory of its own.
pub trait Contender: Sized {
    const NAME: &'static str;
    /// Whether records can be read from any offset on.
    const READS: bool = true;
    /// Whether an append can do without a sync.
    const BUFFERS: bool = true;
    /// Whether there is a call that makes an append survive the end of the machine.
    const SYNCS: bool = true;

    fn open(dir: &Path) -> Self;
    /// One record, on its own.
    fn append(&mut self, value: &[u8]);
    /// Records together.
    fn append_many(&mut self, values: &[Vec<u8>]);
    /// One record, that survives the end of the machine when the call returns.
    fn append_synced(&mut self, value: &[u8]);
    /// The bytes of `count` values from the record numbered `from` on, added up. Records are
    /// numbered from 0.
    fn read(&self, from: u64, count: usize) -> usize;
    fn close(self);
}

/// An open log in a new directory.
pub fn fresh<C: Contender>() -> (TempDir, C) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = C::open(&dir.path().join("log"));
    (dir, log)
}

/// A log of `count` records of `len` bytes, written a hundred at a time.
pub fn filled<C: Contender>(count: usize, len: usize) -> (TempDir, C) {
    let (dir, mut log) = fresh::<C>();
    for chunk in values(count, len).chunks(100) {
        log.append_many(chunk);
    }
    (dir, log)
}

/// Values that differ, in JSON's clothes.
pub fn values(count: usize, len: usize) -> Vec<Vec<u8>> {
    let text = |n: usize| {
        format!(
            r#"{{"user":{n},"action":"click","page":"/item/{}"}}"#,
            n % 977
        )
    };
    (0..count)
        .map(|n| text(n).bytes().cycle().take(len).collect())
        .collect()
}

/// Bytes of all files below a directory.
pub fn size_on_disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).expect("a directory");
    let size = |entry: std::fs::DirEntry| {
        let metadata = entry.metadata().expect("an entry");
        if metadata.is_dir() {
            size_on_disk(&entry.path())
        } else {
            metadata.blocks() * 512
        }
    };
    entries.map(|entry| size(entry.expect("an entry"))).sum()
}

pub struct Klamm(klamm_log::Journal);

impl Contender for Klamm {
    const NAME: &'static str = "klamm-log";

    fn open(dir: &Path) -> Self {
        Klamm(klamm_log::Journal::open(dir).expect("opened"))
    }

    fn append(&mut self, value: &[u8]) {
        self.0.push(value).expect("appended");
    }

    fn append_many(&mut self, values: &[Vec<u8>]) {
        let records = values.iter().map(|value| ("", value));
        self.0.append_all(records).expect("appended");
    }

    fn append_synced(&mut self, value: &[u8]) {
        self.append(value);
        self.0.flush().expect("synced");
    }

    fn read(&self, from: u64, count: usize) -> usize {
        let entries = self.0.read(from).take(count);
        entries
            .map(|entry| entry.expect("read").value.map_or(0, |value| value.len()))
            .sum()
    }

    fn close(self) {
        self.0.close().expect("closed");
    }
}

pub struct CommitLog(commitlog::CommitLog);

impl Contender for CommitLog {
    const NAME: &'static str = "commitlog";
    // Its `flush` ends in `File::flush`, which does nothing, and syncs pages of its index.
    const SYNCS: bool = false;

    fn open(dir: &Path) -> Self {
        let mut options = commitlog::LogOptions::new(dir);
        options.message_max_bytes(64 << 20);
        CommitLog(commitlog::CommitLog::new(options).expect("opened"))
    }

    fn append(&mut self, value: &[u8]) {
        self.0.append_msg(value).expect("appended");
    }

    fn append_many(&mut self, values: &[Vec<u8>]) {
        let mut messages = commitlog::message::MessageBuf::default();
        for value in values {
            messages.push(value).expect("fits");
        }
        self.0.append(&mut messages).expect("appended");
    }

    fn append_synced(&mut self, _: &[u8]) {
        unreachable!("it cannot")
    }

    fn read(&self, from: u64, count: usize) -> usize {
        use commitlog::message::MessageSet;
        let (mut next, mut left, mut bytes) = (from, count, 0);
        while left > 0 {
            // Its usual limit for a single one, and as much as the others for many.
            let limit = if count == 1 {
                commitlog::ReadLimit::default()
            } else {
                commitlog::ReadLimit::max_bytes(1 << 20)
            };
            let messages = self.0.read(next, limit).expect("read");
            for message in messages.iter().take(left) {
                bytes += message.payload().len();
                next = message.offset() + 1;
                left -= 1;
            }
        }
        bytes
    }

    fn close(mut self) {
        self.0.flush().expect("flushed");
    }
}

/// Its entries are protobuf messages of the caller's type that know their index.
pub struct RaftEngine {
    engine: raft_engine::Engine,
    next: u64,
}

#[derive(Clone)]
struct Indexed;

impl raft_engine::MessageExt for Indexed {
    type Entry = protobuf::well_known_types::Any;

    fn index(entry: &Self::Entry) -> u64 {
        entry.type_url.parse().expect("an index")
    }
}

const REGION: u64 = 1;

impl RaftEngine {
    fn write(&mut self, values: &[&[u8]], sync: bool) {
        let entry = |(n, value): (usize, &&[u8])| protobuf::well_known_types::Any {
            type_url: (self.next + n as u64).to_string(),
            value: value.to_vec(),
            ..Default::default()
        };
        let entries: Vec<_> = values.iter().enumerate().map(entry).collect();
        let mut batch = raft_engine::LogBatch::default();
        batch
            .add_entries::<Indexed>(REGION, &entries)
            .expect("fits");
        self.engine.write(&mut batch, sync).expect("appended");
        self.next += values.len() as u64;
    }
}

impl Contender for RaftEngine {
    const NAME: &'static str = "raft-engine";

    fn open(dir: &Path) -> Self {
        let engine = raft_engine::Engine::open(raft_engine::Config {
            dir: dir.display().to_string(),
            batch_compression_threshold: raft_engine::ReadableSize(0),
            ..Default::default()
        })
        .expect("opened");
        let next = engine.last_index(REGION).map_or(1, |last| last + 1);
        RaftEngine { engine, next }
    }

    fn append(&mut self, value: &[u8]) {
        self.write(&[value], false);
    }

    fn append_many(&mut self, values: &[Vec<u8>]) {
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        self.write(&values, false);
    }

    fn append_synced(&mut self, value: &[u8]) {
        // With an empty batch, as `Engine::sync` has it, nothing is synced.
        self.write(&[value], true);
    }

    fn read(&self, from: u64, count: usize) -> usize {
        let (mut next, end, mut bytes) = (from + 1, from + 1 + count as u64, 0);
        let mut entries = Vec::new();
        while next < end {
            entries.clear();
            let to = end.min(next + 1000);
            self.engine
                .fetch_entries_to::<Indexed>(REGION, next, to, None, &mut entries)
                .expect("read");
            bytes += entries.iter().map(|entry| entry.value.len()).sum::<usize>();
            next = to;
        }
        bytes
    }

    fn close(self) {
        drop(self.engine);
    }
}

/// A tree whose keys are the numbers of the records.
pub struct Sled {
    tree: sled::Db,
    next: u64,
}

impl Contender for Sled {
    const NAME: &'static str = "sled";

    fn open(dir: &Path) -> Self {
        let tree = sled::open(dir).expect("opened");
        let last = tree.last().expect("read");
        let number = |key: sled::IVec| u64::from_be_bytes((*key).try_into().expect("a number"));
        Sled {
            next: last.map_or(0, |(key, _)| number(key) + 1),
            tree,
        }
    }

    fn append(&mut self, value: &[u8]) {
        self.tree
            .insert(self.next.to_be_bytes(), value)
            .expect("appended");
        self.next += 1;
    }

    fn append_many(&mut self, values: &[Vec<u8>]) {
        let mut batch = sled::Batch::default();
        for value in values {
            batch.insert(&self.next.to_be_bytes(), value.as_slice());
            self.next += 1;
        }
        self.tree.apply_batch(batch).expect("appended");
    }

    fn append_synced(&mut self, value: &[u8]) {
        self.append(value);
        self.tree.flush().expect("synced");
    }

    fn read(&self, from: u64, count: usize) -> usize {
        let found = self.tree.range(from.to_be_bytes()..).take(count);
        found.map(|pair| pair.expect("read").1.len()).sum()
    }

    fn close(self) {
        self.tree.flush().expect("synced");
    }
}

/// A keyspace whose keys are the numbers of the records.
pub struct Fjall {
    database: fjall::Database,
    records: fjall::Keyspace,
    next: u64,
}

impl Contender for Fjall {
    const NAME: &'static str = "fjall";

    fn open(dir: &Path) -> Self {
        let database = fjall::Database::builder(dir)
            .journal_compression(fjall::CompressionType::None)
            .open()
            .expect("opened");
        let options = || {
            fjall::KeyspaceCreateOptions::default()
                .data_block_compression_policy(fjall::config::CompressionPolicy::disabled())
        };
        let records = database.keyspace("records", options).expect("opened");
        let number = |guard: fjall::Guard| {
            let key = guard.key().expect("read");
            u64::from_be_bytes((*key).try_into().expect("a number"))
        };
        Fjall {
            next: records.last_key_value().map_or(0, |last| number(last) + 1),
            database,
            records,
        }
    }

    fn append(&mut self, value: &[u8]) {
        self.records
            .insert(self.next.to_be_bytes(), value)
            .expect("appended");
        self.next += 1;
    }

    fn append_many(&mut self, values: &[Vec<u8>]) {
        let mut batch = self.database.batch();
        for value in values {
            batch.insert(&self.records, self.next.to_be_bytes(), value.as_slice());
            self.next += 1;
        }
        batch.commit().expect("appended");
    }

    fn append_synced(&mut self, value: &[u8]) {
        self.append(value);
        let mode = fjall::PersistMode::SyncData;
        self.database.persist(mode).expect("synced");
    }

    fn read(&self, from: u64, count: usize) -> usize {
        let found = self.records.range(from.to_be_bytes()..).take(count);
        found
            .map(|guard| guard.into_inner().expect("read").1.len())
            .sum()
    }

    fn close(self) {
        let mode = fjall::PersistMode::SyncAll;
        self.database.persist(mode).expect("synced");
    }
}

/// A write-ahead log: every append is synced, and read back at the next start or by the position
/// that the append returned.
pub struct OkayWal(okaywal::WriteAheadLog);

impl Contender for OkayWal {
    const NAME: &'static str = "okaywal";
    const READS: bool = false;
    const BUFFERS: bool = false;

    fn open(dir: &Path) -> Self {
        let log = okaywal::WriteAheadLog::recover(dir, okaywal::LogVoid).expect("opened");
        OkayWal(log)
    }

    fn append(&mut self, value: &[u8]) {
        let mut entry = self.0.begin_entry().expect("begun");
        entry.write_chunk(value).expect("written");
        entry.commit().expect("appended");
    }

    fn append_many(&mut self, values: &[Vec<u8>]) {
        let mut entry = self.0.begin_entry().expect("begun");
        for value in values {
            entry.write_chunk(value).expect("written");
        }
        entry.commit().expect("appended");
    }

    fn append_synced(&mut self, value: &[u8]) {
        self.append(value);
    }

    fn read(&self, _: u64, _: usize) -> usize {
        unreachable!("it has no offsets")
    }

    fn close(self) {
        self.0.shutdown().expect("closed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They must do the same before it means anything how long they take.
    fn reads_back<C: Contender>() {
        let (dir, mut log) = filled::<C>(1000, 120);
        if C::SYNCS {
            log.append_synced(&[7; 50]);
        } else {
            log.append(&[7; 50]);
        }
        log.close();
        let log = C::open(&dir.path().join("log"));
        assert_eq!(log.read(0, 1001), 1000 * 120 + 50, "{}", C::NAME);
        assert_eq!(log.read(1000, 1), 50, "{}", C::NAME);
        assert_eq!(log.read(500, 2), 240, "{}", C::NAME);
    }

    #[test]
    fn all_read_back_what_they_wrote() {
        reads_back::<Klamm>();
        reads_back::<CommitLog>();
        reads_back::<RaftEngine>();
        reads_back::<Sled>();
        reads_back::<Fjall>();
    }
}
