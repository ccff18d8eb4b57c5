use bytes::{Bytes, BytesMut};

use crate::batch::{BatchError, BatchHeader, BatchView, CRC_FROM, HEADER_LEN, TimestampType};
use crate::crc::{combine, crc32c};

/// A batch that is ready to be appended once it has an offset.
///
/// The header is held apart from the body, so that offset, epoch and append time can be written
/// without a copy of the records: append it as two slices, [`PreparedBatch::header_bytes`] and
/// [`PreparedBatch::body`].
#[derive(Clone, Debug)]
pub struct PreparedBatch {
    header: BatchHeader,
    header_bytes: [u8; HEADER_LEN],
    body: Bytes,
    /// Checksum of the body alone, where it was computed on the way.
    body_crc: Option<u32>,
    rebuilt: bool,
}

impl PreparedBatch {
    pub(super) fn new(
        header: BatchHeader,
        body: Bytes,
        body_crc: Option<u32>,
        rebuilt: bool,
    ) -> PreparedBatch {
        PreparedBatch {
            header,
            header_bytes: header.to_array(),
            body,
            body_crc,
            rebuilt,
        }
    }

    /// Takes a batch from the program itself, such as one of a
    /// [`BatchBuilder`](crate::BatchBuilder), without looking at more than its frame.
    pub fn trusted(batch: Bytes) -> Result<PreparedBatch, BatchError> {
        let view = BatchView::parse(&batch)?;
        let header = *view.header();
        let size = header.size();
        if size < batch.len() {
            return Err(BatchError::TrailingBytes(header.record_count));
        }
        let body = batch.slice(HEADER_LEN..size);
        Ok(PreparedBatch::new(header, body, None, false))
    }

    /// The header's fields as they stand now.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The header's bytes as they stand now.
    pub fn header_bytes(&self) -> &[u8; HEADER_LEN] {
        &self.header_bytes
    }

    /// The bytes after the header: a slice of what was received, unless the batch was rebuilt.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Bytes of the whole batch.
    pub fn size(&self) -> usize {
        HEADER_LEN + self.body.len()
    }

    /// Whether the batch is not the one received but was made anew for another codec.
    pub fn is_rebuilt(&self) -> bool {
        self.rebuilt
    }

    /// Offsets that the batch takes: one more than its last offset delta.
    pub fn offset_count(&self) -> i64 {
        i64::from(self.header.last_offset_delta) + 1
    }

    /// Writes what only the moment of the append decides. With `log_append_time` (milliseconds)
    /// the broker's time replaces the producer's; this alone needs a new checksum, which does not
    /// pass over the body again if [`validate`](super::validate) knew of it.
    pub fn assign(
        &mut self,
        base_offset: i64,
        partition_leader_epoch: i32,
        log_append_time: Option<i64>,
    ) {
        self.header.base_offset = base_offset;
        self.header.partition_leader_epoch = partition_leader_epoch;
        if let Some(time) = log_append_time {
            self.set_max_timestamp(TimestampType::LogAppendTime, time);
        }
        self.header_bytes = self.header.to_array();
    }

    /// Sets type and maximum of the timestamps, and the checksum if that changes anything.
    pub(super) fn set_max_timestamp(&mut self, timestamp_type: TimestampType, max_timestamp: i64) {
        let header = &mut self.header;
        if header.attributes.timestamp_type() == timestamp_type
            && header.max_timestamp == max_timestamp
        {
            return;
        }
        header.attributes = header.attributes.with_timestamp_type(timestamp_type);
        header.max_timestamp = max_timestamp;
        let body_crc = *self.body_crc.get_or_insert_with(|| crc32c(&self.body));
        let header_crc = crc32c(&header.to_array()[CRC_FROM..]);
        header.crc = combine(header_crc, body_crc, self.body.len());
        self.header_bytes = header.to_array();
    }

    /// Header and body in one piece; copies the body.
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.size());
        bytes.extend_from_slice(&self.header_bytes);
        bytes.extend_from_slice(&self.body);
        bytes.freeze()
    }
}
