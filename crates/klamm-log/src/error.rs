use std::io;
use std::path::{Path, PathBuf};

use klamm_records::Uuid;

/// Why an operation on a log failed. Grouped by whose fault it is: see
/// [`LogError::is_storage_failure`] for the disk's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// A read, or a request to move the log start, outside of what the log holds.
    #[error("offset {requested} is outside of the log, which holds {log_start}..{log_end}")]
    OffsetOutOfRange {
        /// The offset asked for.
        requested: i64,
        /// First offset the log holds.
        log_start: i64,
        /// The offset after the last one that may be asked for.
        log_end: i64,
    },
    /// A read of what the log holds in its remote tier alone.
    #[error("offset {requested} is in the remote tier; the local log starts at {local_start}")]
    OffsetTiered {
        /// The offset asked for.
        requested: i64,
        /// First offset on the local disk.
        local_start: i64,
    },
    /// One batch is over `max.message.bytes`.
    #[error("a batch of {size} bytes exceeds the limit of {max} bytes")]
    RecordTooLarge {
        /// Size of the batch in bytes.
        size: usize,
        /// `max.message.bytes` of the log.
        max: usize,
    },
    /// The batches of one append together do not fit into a segment.
    #[error("an append of {size} bytes exceeds the segment size of {max} bytes")]
    BatchTooLarge {
        /// Size of the append in bytes.
        size: usize,
        /// `segment.bytes` of the log.
        max: usize,
    },
    /// An idempotent producer's sequence number left a gap or went back.
    #[error(
        "out of order sequence of producer {producer_id} at offset {offset}: got {got}, last was {last}"
    )]
    OutOfOrderSequence {
        /// The producer.
        producer_id: i64,
        /// The offset its batch would have had.
        offset: i64,
        /// First sequence number of the batch.
        got: i32,
        /// Last sequence number known of the producer, -1 if none of this epoch.
        last: i32,
    },
    /// A producer's epoch is older than one seen before: it was fenced.
    #[error("producer {producer_id} at offset {offset} has epoch {got}, but {current} was seen")]
    InvalidProducerEpoch {
        /// The producer.
        producer_id: i64,
        /// The offset its batch would have had.
        offset: i64,
        /// Epoch of the batch.
        got: i16,
        /// Epoch the log knows.
        current: i16,
    },
    /// A producer with an open transaction wrote outside of it.
    #[error("producer {producer_id} wrote a non-transactional batch within its transaction")]
    InvalidTxnState {
        /// The producer.
        producer_id: i64,
    },
    /// A transaction marker from a coordinator that has been replaced.
    #[error("coordinator epoch {got} for producer {producer_id} is older than {current}")]
    TransactionCoordinatorFenced {
        /// The producer.
        producer_id: i64,
        /// Coordinator epoch of the marker.
        got: i32,
        /// Coordinator epoch the log knows.
        current: i32,
    },
    /// A follower append starts below the end of the log.
    #[error("append of offsets {first}..={last} to a log that ends at {log_end}")]
    UnexpectedAppendOffset {
        /// First offset of the append.
        first: i64,
        /// Last offset of the append.
        last: i64,
        /// End of the log.
        log_end: i64,
    },
    /// The batches of a follower append do not ascend.
    #[error("batch offsets do not ascend: {next} after {previous}")]
    OffsetsOutOfOrder {
        /// Last offset of the earlier batch.
        previous: i64,
        /// Last offset of the later batch.
        next: i64,
    },
    /// Batches handed in are damaged.
    #[error("invalid batch at byte {position} of the append: {reason}")]
    InvalidBatch {
        /// Position in the bytes of the append.
        position: usize,
        /// What is wrong with it.
        reason: BatchFault,
    },
    /// A file of batches is damaged: Kafka's `CORRUPT_MESSAGE`. What lies before and behind the
    /// damage can still be read.
    #[error("{} is corrupt at byte {position}, offset {offset}: {reason}", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where the first damaged batch begins.
        position: u64,
        /// The first offset that cannot be read, as far as can be told.
        offset: i64,
        /// What is wrong there.
        reason: BatchFault,
    },
    /// A small text or state file cannot be understood.
    #[error("{} is malformed: {problem}", file.display())]
    MalformedFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// The directory belongs to a topic of the same name but another id.
    #[error("{} belongs to topic id {found}, not {expected}", dir.display())]
    InconsistentTopicId {
        /// The partition's directory.
        dir: PathBuf,
        /// Id asked for.
        expected: Uuid,
        /// Id found in `partition.metadata`.
        found: Uuid,
    },
    /// The name of a directory is no partition's.
    #[error("{name:?} is not the name of a partition's directory")]
    NotAPartition {
        /// The name.
        name: String,
    },
    /// The log or its directory went offline after a disk failure that could not be undone.
    #[error("{} is offline", dir.display())]
    Offline {
        /// The partition's directory.
        dir: PathBuf,
    },
    /// The log was closed or deleted.
    #[error("{} is closed", dir.display())]
    Closed {
        /// The partition's directory.
        dir: PathBuf,
    },
    /// The file system failed. The log is as it was before the operation.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// The path it was tried on.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl LogError {
    /// Whether the disk is to blame rather than the caller: the cases that Kafka answers with
    /// `KAFKA_STORAGE_ERROR`.
    pub fn is_storage_failure(&self) -> bool {
        matches!(
            self,
            LogError::MalformedFile { .. }
                | LogError::Offline { .. }
                | LogError::Closed { .. }
                | LogError::Io { .. }
        )
    }

    /// Whether there was no room left. What was being written has been undone, and the next may fit.
    pub fn is_disk_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self, LogError::Io { source, .. }
            if matches!(source.kind(), StorageFull | QuotaExceeded | FileTooLarge))
    }

    /// Whether the content of one file is to blame: its disk answers, and what else is on it is as
    /// good as before.
    pub fn is_damage(&self) -> bool {
        matches!(
            self,
            LogError::Corrupt { .. } | LogError::MalformedFile { .. }
        )
    }

    /// Whether the disk itself is failing, so that nothing else on it can be relied on either. A
    /// full disk is none, nor is a process that has run out of descriptors or memory: there the
    /// next call may do.
    pub fn is_disk_failure(&self) -> bool {
        use io::ErrorKind;
        /// Too many open files, in the process and in the system.
        const DESCRIPTORS: [i32; 2] = [24, 23];
        match self {
            LogError::Io { source, .. } => {
                let passing = matches!(
                    source.kind(),
                    ErrorKind::StorageFull
                        | ErrorKind::QuotaExceeded
                        | ErrorKind::FileTooLarge
                        | ErrorKind::OutOfMemory
                        | ErrorKind::Interrupted
                        | ErrorKind::WouldBlock
                        | ErrorKind::UnexpectedEof
                        | ErrorKind::NotFound
                        | ErrorKind::AlreadyExists
                );
                let descriptors = source
                    .raw_os_error()
                    .is_some_and(|n| DESCRIPTORS.contains(&n));
                !passing && !descriptors
            }
            _ => false,
        }
    }
}

/// What is wrong with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchFault {
    /// The bytes end within the batch.
    #[error("it ends before its stated length")]
    Truncated,
    /// The length field is smaller than a header.
    #[error("its length field says {0}")]
    Length(i32),
    /// A magic byte no version uses.
    #[error("unknown magic {0}")]
    Magic(i8),
    /// The checksum does not match the content.
    #[error("its checksum does not match")]
    Checksum,
    /// Offsets that no batch can have: negative, or below those of the batch or segment before.
    #[error("offset {0} is out of place")]
    Offset(i64),
    /// An offset too far from the segment's for an index. Recovery and compaction split the segment.
    #[error("offset {0} is too far from its segment's")]
    Unindexable(i64),
    /// A control batch whose record cannot be read.
    #[error("its control record is unreadable")]
    ControlRecord,
    /// Records that cannot be read.
    #[error("its records are unreadable")]
    Records,
}

/// What is wrong with a small file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// A version this program does not know.
    #[error("unknown version {0}")]
    Version(i64),
    /// A line that does not follow the format; counted from 1.
    #[error("line {0} cannot be parsed")]
    Line(usize),
    /// Another number of entries than the header says.
    #[error("{found} entries where {expected} were announced")]
    EntryCount {
        /// Announced.
        expected: usize,
        /// Found.
        found: usize,
    },
    /// A checksum that does not match.
    #[error("the checksum does not match")]
    Checksum,
    /// A file that ends too early or has bytes too many.
    #[error("it has {0} bytes, which no such file has")]
    Size(usize),
    /// A required key is missing.
    #[error("{0} is missing")]
    MissingKey(&'static str),
    /// A value that cannot be parsed.
    #[error("{key} has the invalid value {value:?}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
    },
}

/// Puts the operation and the path into an I/O error.
pub(crate) trait IoContext<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, LogError>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn at(self, operation: &'static str, path: &Path) -> Result<T, LogError> {
        self.map_err(|source| LogError::Io {
            operation,
            path: path.to_owned(),
            source,
        })
    }
}
