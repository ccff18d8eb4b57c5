//! A batch as the reference model sees it, and how it is read back from bytes.

use klamm_records::control::EndTransactionMarker;
use klamm_records::{BatchView, Scratch, TimestampType, batches};

/// One record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rec {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, or the log's.
    pub timestamp: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// The producer of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Id.
    pub id: i64,
    /// Epoch.
    pub epoch: i16,
    /// Sequence number of the first record, -1 in a marker.
    pub sequence: i32,
}

/// One batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// First offset.
    pub base: i64,
    /// Last offset; compaction may have removed its record.
    pub last: i64,
    /// Leader epoch.
    pub epoch: i32,
    /// Bytes in the log.
    pub size: usize,
    /// Who wrote it, if that counts.
    pub tag: Option<Tag>,
    /// Whether it belongs to a transaction.
    pub transactional: bool,
    /// The end of a transaction that it is.
    pub marker: Option<EndTransactionMarker>,
    /// Largest timestamp, by the header.
    pub max_timestamp: i64,
    /// When its tombstones may go, if compaction has said so.
    pub horizon_ms: Option<i64>,
    /// Its records.
    pub records: Vec<Rec>,
}

impl Batch {
    /// The offset after it.
    pub fn next(&self) -> i64 {
        self.last + 1
    }

    /// Sequence number of its last record, -1 without one.
    pub fn last_sequence(&self) -> i32 {
        match self.tag {
            Some(tag) if tag.sequence >= 0 => tag.sequence + (self.last - self.base) as i32,
            _ => -1,
        }
    }

    /// The same at another place of the log, stamped by the log if it does that.
    pub fn placed(mut self, base: i64, epoch: i32, append_time: Option<i64>) -> Batch {
        let by = base - self.base;
        self.base += by;
        self.last += by;
        self.epoch = epoch;
        for record in &mut self.records {
            record.offset += by;
            record.timestamp = append_time.unwrap_or(record.timestamp);
        }
        self.max_timestamp = append_time.unwrap_or(self.max_timestamp);
        self
    }

    fn read(view: &BatchView<'_>, scratch: &mut Scratch) -> Result<Batch, String> {
        let header = *view.header();
        view.verify_crc().map_err(|error| error.to_string())?;
        let stamped = header.attributes.timestamp_type() == TimestampType::LogAppendTime;
        let mut records = Vec::new();
        let mut marker = None;
        for record in view.records(scratch).map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            if header.attributes.is_control() {
                marker = EndTransactionMarker::from_record(&record).ok();
            }
            records.push(Rec {
                offset: record.offset,
                timestamp: if stamped {
                    header.max_timestamp
                } else {
                    record.timestamp
                },
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
            });
        }
        Ok(Batch {
            base: header.base_offset,
            last: header.last_offset(),
            epoch: header.partition_leader_epoch,
            size: header.size(),
            tag: header.has_producer_id().then_some(Tag {
                id: header.producer_id,
                epoch: header.producer_epoch,
                sequence: header.base_sequence,
            }),
            transactional: header.attributes.is_transactional(),
            marker,
            max_timestamp: header.max_timestamp,
            horizon_ms: header.delete_horizon_ms(),
            records,
        })
    }
}

/// Cuts bytes into batches and verifies them; gives what is left after the last whole one, too.
///
/// # Errors
/// What is wrong with the first damaged one.
pub fn parse(bytes: &[u8]) -> Result<(Vec<Batch>, usize), String> {
    let mut scratch = Scratch::new();
    let mut found = Vec::new();
    let mut walk = batches(bytes);
    for view in walk.by_ref() {
        let view = view.map_err(|error| error.to_string())?;
        let base = view.header().base_offset;
        let batch = Batch::read(&view, &mut scratch);
        found.push(batch.map_err(|error| format!("the batch at {base}: {error}"))?);
    }
    Ok((found, bytes.len() - walk.valid_bytes()))
}
