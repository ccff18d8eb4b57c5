//! The answer to a fetch: parts of files and what is said along with them.

use klamm_env::FileExt as _;
use klamm_log::{AbortedTxn, LogSlice};
use klamm_protocol::ErrorCode;
use smallvec::SmallVec;

use super::LeaderHint;
use crate::fetch_session::PartitionAnswer;

/// Parts of log files: the records of one partition's answer.
#[derive(Clone, Debug, Default)]
pub struct FetchSlices {
    parts: SmallVec<[LogSlice; 1]>,
    len: usize,
}

impl FetchSlices {
    pub(crate) fn new(parts: Vec<LogSlice>, len: usize) -> Self {
        FetchSlices {
            parts: parts.into(),
            len,
        }
    }

    /// The parts, to be sent one after the other.
    pub fn parts(&self) -> &[LogSlice] {
        &self.parts
    }

    /// Bytes of all parts.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no records.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether all of it is in memory, so that sending won't wait for a disk. A guess: `true`
    /// where the system cannot tell.
    pub fn is_resident(&self) -> bool {
        self.parts.iter().all(|part| {
            let resident = part.file.is_resident(part.position, part.len as u64);
            resident.unwrap_or(true)
        })
    }

    /// Brings all of it into memory by reading it through `buffer`. Blocks on the disk: call it
    /// where that does no harm, and only if [`FetchSlices::is_resident`] says no.
    pub fn prefetch(&self, buffer: &mut [u8]) -> std::io::Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        for part in &self.parts {
            let mut done = 0;
            while done < part.len {
                let want = buffer.len().min(part.len - done);
                let read = part
                    .file
                    .read_up_to_at(&mut buffer[..want], part.position + done as u64)?;
                if read == 0 {
                    break;
                }
                done += read;
            }
        }
        Ok(())
    }

    /// Copies all of it into one buffer. Blocks on the disk.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.len];
        let mut filled = 0;
        for part in &self.parts {
            part.file
                .read_exact_at(&mut bytes[filled..filled + part.len], part.position)?;
            filled += part.len;
        }
        Ok(bytes)
    }
}

/// What a fetch answers for one partition.
#[derive(Clone, Debug)]
pub struct FetchedPartition {
    /// The verdict.
    pub error: ErrorCode,
    /// High watermark, -1 on an error.
    pub high_watermark: i64,
    /// Last stable offset, -1 on an error.
    pub last_stable_offset: i64,
    /// First offset of the log, -1 on an error.
    pub log_start_offset: i64,
    /// The leader's largest epoch not above the client's, and its end, if the logs part there.
    pub diverging_epoch: Option<(i32, i64)>,
    /// Aborted transactions among the records, for `read_committed`.
    pub aborted: Option<Vec<AbortedTxn>>,
    /// A replica that the consumer should read from instead.
    pub preferred_read_replica: Option<i32>,
    /// Who leads the partition, on an error that says that this broker does not (KIP-951).
    pub current_leader: Option<LeaderHint>,
    /// The records. The last batch may be cut short; clients skip that.
    pub records: FetchSlices,
}

impl FetchedPartition {
    /// An error without any detail.
    pub fn error(error: ErrorCode) -> Self {
        FetchedPartition {
            error,
            high_watermark: -1,
            last_stable_offset: -1,
            log_start_offset: -1,
            diverging_epoch: None,
            aborted: None,
            preferred_read_replica: None,
            current_leader: None,
            records: FetchSlices::default(),
        }
    }
}

impl PartitionAnswer for FetchedPartition {
    fn records_len(&self) -> usize {
        self.records.len()
    }

    fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    fn log_start_offset(&self) -> i64 {
        self.log_start_offset
    }

    fn is_error(&self) -> bool {
        self.error != ErrorCode::None
    }

    fn has_advice(&self) -> bool {
        self.preferred_read_replica.is_some() || self.diverging_epoch.is_some()
    }
}
