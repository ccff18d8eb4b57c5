//! What compaction keeps of a batch, and the bytes it leaves of it.

use std::collections::BTreeMap;

use klamm_records::legacy::Message;
use klamm_records::{
    Attributes, BatchBuilder, BatchHeader, BatchOptions, BatchView, Codec, Compression, RecordRef,
    Scratch, TimestampType, crc,
};

use crate::batch::{BatchMeta, HEADER_LEN, LOG_OVERHEAD, NO_PRODUCER_ID, NO_TIMESTAMP};
use crate::cleaner::offset_map::OffsetMap;
use crate::cleaner::transactions::Transactions;
use crate::error::BatchFault;
use crate::log::LastRecord;

/// Where the checksummed part of a batch begins, and where the checksum lies.
const CRC_FROM: usize = 21;
const CRC_AT: std::ops::Range<usize> = 17..21;

/// The rules of one clean.
pub(super) struct Filter<'a> {
    /// The last offset of each key in the dirty part.
    pub(super) map: &'a OffsetMap,
    /// The last record of each producer that is remembered.
    pub(super) producers: &'a BTreeMap<i64, LastRecord>,
    /// Where the clean ends. A batch that ends there stays, if empty: it tells the last offset.
    pub(super) end: i64,
    /// Whether tombstones of the formats before v2, which have no horizon, are too young to go.
    pub(super) keep_legacy_tombstones: bool,
    pub(super) now_ms: i64,
    pub(super) delete_retention_ms: i64,
}

/// What a batch held and what was kept of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Filtered {
    pub(super) records_read: u64,
    pub(super) records_kept: u64,
    /// Records without a key, which do not belong into a compacted topic.
    pub(super) without_key: u64,
}

/// What to do with a batch as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Verdict {
    /// None of its records stays.
    drop_records: bool,
    /// It stays without records if none does.
    keep_empty: bool,
    /// It is the marker of a transaction of which nothing else is left, so its time runs.
    starts_horizon: bool,
}

/// Space that is used again for each batch.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pub(super) read: Scratch,
    pub(super) write: Scratch,
}

impl Filter<'_> {
    /// Adds what stays of a batch, which may be nothing, to `out`.
    pub(super) fn apply(
        &self,
        meta: &BatchMeta,
        bytes: &[u8],
        transactions: &mut Transactions,
        buffers: &mut Buffers,
        out: &mut Vec<u8>,
    ) -> Result<Filtered, BatchFault> {
        let verdict = self.judge(meta, bytes, transactions)?;
        if verdict.drop_records && !verdict.keep_empty {
            return Ok(Filtered::default());
        }
        if meta.magic < 2 {
            return self.apply_legacy(meta, bytes, verdict, buffers, out);
        }
        let view = BatchView::parse(bytes).map_err(|_| BatchFault::Records)?;
        let header = *view.header();
        let horizon_ms = header.delete_horizon_ms();
        let mut filtered = Filtered::default();
        let mut kept = Vec::new();
        for record in view
            .records(&mut buffers.read)
            .map_err(|_| BatchFault::Records)?
        {
            let record = record.map_err(|_| BatchFault::Records)?;
            filtered.records_read += 1;
            let keep_tombstone = horizon_ms.is_none_or(|horizon_ms| self.now_ms < horizon_ms);
            let stays = !verdict.drop_records
                && (meta.is_control() || self.keeps(&record, keep_tombstone, &mut filtered));
            if stays {
                kept.push(record);
            }
        }
        filtered.records_kept = kept.len() as u64;
        let starts_horizon = horizon_ms.is_none()
            && (verdict.starts_horizon || kept.iter().any(|record| record.value.is_none()));
        if kept.is_empty() {
            if verdict.keep_empty {
                write_empty(&header, out);
            }
        } else if filtered.records_kept == filtered.records_read && !starts_horizon {
            out.extend_from_slice(view.bytes());
        } else {
            let horizon_ms = if starts_horizon {
                Some(self.new_horizon_ms())
            } else {
                horizon_ms
            };
            let options = options_of(&header).ok_or(BatchFault::Records)?;
            let builder = BatchBuilder::with_capacity(options, bytes.len())
                .with_last_offset(header.last_offset());
            rebuild(builder, horizon_ms, &kept, &mut buffers.write, out)?;
        }
        Ok(filtered)
    }

    /// Messages of the formats before v2 become batches of v2, as they do in Kafka since 4.0.
    fn apply_legacy(
        &self,
        meta: &BatchMeta,
        bytes: &[u8],
        verdict: Verdict,
        buffers: &mut Buffers,
        out: &mut Vec<u8>,
    ) -> Result<Filtered, BatchFault> {
        let message = Message::parse(bytes).map_err(|_| BatchFault::Records)?;
        let records = message
            .records(&mut buffers.read)
            .map_err(|_| BatchFault::Records)?;
        let mut filtered = Filtered {
            records_read: records.len() as u64,
            ..Filtered::default()
        };
        let mut kept = records;
        kept.retain(|record| self.keeps(record, self.keep_legacy_tombstones, &mut filtered));
        filtered.records_kept = kept.len() as u64;
        let append_time = message.magic == 1 && message.attributes & (1 << 3) != 0;
        let timestamp_type = if append_time {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        };
        let compression = message.compression().map_err(|_| BatchFault::Records)?;
        let Some(first) = kept.first() else {
            if verdict.keep_empty {
                write_empty(&empty_header_of(meta, timestamp_type), out);
            }
            return Ok(filtered);
        };
        let options = BatchOptions {
            codec: Codec::from(compression),
            timestamp_type,
            log_append_time: meta.max_timestamp,
            base_offset: first.offset,
            ..BatchOptions::default()
        };
        let tombstones = kept.iter().any(|record| record.value.is_none());
        let horizon_ms = tombstones.then(|| self.new_horizon_ms());
        let builder = BatchBuilder::with_capacity(options, bytes.len());
        rebuild(builder, horizon_ms, &kept, &mut buffers.write, out)?;
        Ok(filtered)
    }

    fn judge(
        &self,
        meta: &BatchMeta,
        bytes: &[u8],
        transactions: &mut Transactions,
    ) -> Result<Verdict, BatchFault> {
        let may_discard = transactions.may_discard(meta, bytes)?;
        let drop_records = if meta.is_control() {
            // A marker that ends nothing any more waits like a tombstone, for consumers that are
            // still reading what it ended.
            let header = BatchHeader::parse(bytes).map_err(|_| BatchFault::ControlRecord)?;
            let horizon_ms = header.delete_horizon_ms();
            may_discard && horizon_ms.is_some_and(|horizon_ms| horizon_ms <= self.now_ms)
        } else {
            may_discard
        };
        Ok(Verdict {
            drop_records,
            keep_empty: self.is_last_of_producer(meta) || meta.next_offset() == self.end,
            starts_horizon: may_discard && meta.is_control(),
        })
    }

    /// Whether a batch is what a remembered producer is known by: the one with its last sequence
    /// number or, if it has only written markers since, one with its epoch.
    fn is_last_of_producer(&self, meta: &BatchMeta) -> bool {
        if !meta.has_producer_id() {
            return false;
        }
        let Some(last) = self.producers.get(&meta.producer_id) else {
            return false;
        };
        match last.data_offset {
            Some(offset) => meta.last_offset == offset,
            None => meta.is_control() && meta.producer_epoch == last.epoch,
        }
    }

    /// Whether a record stays: the last of its key, and not a tombstone whose time is over.
    fn keeps(&self, record: &RecordRef<'_>, keep_tombstone: bool, filtered: &mut Filtered) -> bool {
        if record.offset > self.map.latest_offset() {
            return true;
        }
        let Some(key) = record.key else {
            filtered.without_key += 1;
            return false;
        };
        let newest = self
            .map
            .get(key)
            .is_none_or(|offset| record.offset >= offset);
        newest && (record.value.is_some() || keep_tombstone)
    }

    fn new_horizon_ms(&self) -> i64 {
        self.now_ms.saturating_add(self.delete_retention_ms)
    }
}

fn rebuild(
    builder: BatchBuilder,
    horizon_ms: Option<i64>,
    records: &[RecordRef<'_>],
    scratch: &mut Scratch,
    out: &mut Vec<u8>,
) -> Result<(), BatchFault> {
    let mut builder = match horizon_ms {
        Some(horizon_ms) => builder.with_delete_horizon(horizon_ms),
        None => builder,
    };
    for record in records {
        let headers = record.headers.to_vec();
        builder
            .append_at(
                record.offset,
                record.timestamp,
                record.key,
                record.value,
                headers,
            )
            .map_err(|_| BatchFault::Records)?;
    }
    let bytes = builder
        .build_with(scratch)
        .map_err(|_| BatchFault::Records)?;
    out.extend_from_slice(&bytes);
    Ok(())
}

/// The fields of a batch that stay when some of its records go.
fn options_of(header: &BatchHeader) -> Option<BatchOptions> {
    Some(BatchOptions {
        codec: Codec::from(header.compression().ok()?),
        timestamp_type: header.attributes.timestamp_type(),
        log_append_time: header.log_append_time().unwrap_or(NO_TIMESTAMP),
        base_offset: header.base_offset,
        partition_leader_epoch: header.partition_leader_epoch,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        transactional: header.attributes.is_transactional(),
        control: header.attributes.is_control(),
    })
}

/// Adds the header of a batch whose records are all gone: its offsets, its leader epoch and what
/// it tells of its producer.
fn write_empty(of: &BatchHeader, out: &mut Vec<u8>) {
    let attributes = of.attributes;
    let header = BatchHeader {
        length: (HEADER_LEN - LOG_OVERHEAD) as i32,
        attributes: Attributes::new(
            Compression::None,
            attributes.timestamp_type(),
            attributes.is_transactional(),
            attributes.is_control(),
        ),
        base_timestamp: NO_TIMESTAMP,
        record_count: 0,
        ..*of
    };
    let mut bytes = header.to_array();
    let checksum = crc::crc32c(&bytes[CRC_FROM..]);
    bytes[CRC_AT].copy_from_slice(&checksum.to_be_bytes());
    out.extend_from_slice(&bytes);
}

fn empty_header_of(meta: &BatchMeta, timestamp_type: TimestampType) -> BatchHeader {
    BatchHeader {
        base_offset: meta.base_offset,
        length: 0,
        partition_leader_epoch: meta.leader_epoch,
        magic: 2,
        crc: 0,
        attributes: Attributes::new(Compression::None, timestamp_type, false, false),
        last_offset_delta: 0,
        base_timestamp: NO_TIMESTAMP,
        max_timestamp: meta.max_timestamp,
        producer_id: NO_PRODUCER_ID,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: 0,
    }
}

#[cfg(test)]
mod tests;
