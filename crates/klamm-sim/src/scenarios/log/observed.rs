//! What a log holds, read back through its public calls.

use klamm_env::FileExt as _;
use klamm_log::{Log, LogError};
use klamm_records::{Scratch, batches};

/// A batch as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedBatch {
    /// As in its header.
    pub base_offset: i64,
    /// As in its header.
    pub next_offset: i64,
    /// Offset and value of its records; the error if the batch is damaged.
    pub records: Result<Vec<(i64, Vec<u8>)>, String>,
    /// Producer and first sequence number, if the producer is idempotent.
    pub sequence: Option<(i64, i32)>,
}

/// A log as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// First offset that the log says may be read.
    pub start: i64,
    /// End that the log says it has.
    pub end: i64,
    /// The batches from the one on that holds `start`.
    pub batches: Vec<ObservedBatch>,
    /// Bytes after the last whole batch.
    pub trailing_bytes: usize,
}

/// The bytes that a read gives.
pub fn read_bytes(log: &Log, offset: i64, max_bytes: usize) -> Result<Vec<u8>, LogError> {
    let read = log.read(offset, max_bytes, i64::MAX, true)?;
    let mut bytes = Vec::with_capacity(read.len);
    for part in &read.parts {
        let start = bytes.len();
        bytes.resize(start + part.len, 0);
        part.file
            .read_exact_at(&mut bytes[start..], part.position)
            .map_err(|source| LogError::Io {
                operation: "read",
                path: log.dir(),
                source,
            })?;
    }
    Ok(bytes)
}

/// Cuts bytes into batches; gives what is left after the last whole one, too.
pub fn parse(bytes: &[u8]) -> (Vec<ObservedBatch>, usize) {
    let mut scratch = Scratch::new();
    let mut found = Vec::new();
    let mut walk = batches(bytes);
    for batch in walk.by_ref() {
        let Ok(batch) = batch else { break };
        let header = *batch.header();
        let records = batch.verify_crc().and_then(|()| {
            batch
                .records(&mut scratch)?
                .map(|record| record.map(|r| (r.offset, r.value.unwrap_or_default().to_vec())))
                .collect()
        });
        found.push(ObservedBatch {
            base_offset: header.base_offset,
            next_offset: header.next_offset(),
            records: records.map_err(|error| error.to_string()),
            sequence: header
                .has_producer_id()
                .then_some((header.producer_id, header.base_sequence)),
        });
    }
    let trailing = bytes.len() - walk.valid_bytes();
    (found, trailing)
}

/// Reads a whole log.
pub fn observe(log: &Log) -> Result<Observed, LogError> {
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    let bytes = read_bytes(log, start, usize::MAX >> 1)?;
    let (batches, trailing_bytes) = parse(&bytes);
    Ok(Observed {
        start,
        end,
        batches,
        trailing_bytes,
    })
}
