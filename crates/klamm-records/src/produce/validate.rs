use bytes::Bytes;

use super::walk::{PieceReader, WalkError, Walked};
use super::{
    PreparedBatch, ProduceError, ProduceRules, RecordReason, RejectedRecord, RejectedRecords,
    Validation,
};
use crate::batch::{
    Base, BatchBuilder, BatchError, BatchHeader, BatchOptions, CRC_FROM, Frame, HEADER_LEN,
    NO_TIMESTAMP, RecordRef, TimestampType, read_body, read_record,
};
use crate::compression::{Codec, Compression, Decoder};
use crate::crc::{combine, crc32c};
use crate::scratch::Scratch;

/// Bytes that a batch which stays as it is may have once decompressed. Kafka sets no limit; what
/// its consumers hold in memory ends here, too.
const WALK_LIMIT: u64 = i32::MAX as u64;

/// Where the codec's number lies: the low byte of the attributes.
const ATTRIBUTES_LOW_AT: usize = CRC_FROM + 1;

/// Judges what a produce request holds for one partition. `now_ms` is the broker's wall clock in
/// milliseconds.
///
/// Everything is checked that can be without the partition's state; sequence numbers are only
/// checked for presence. A batch that must be rebuilt may decompress to as much as `scratch`
/// allows. Bytes after the batch that do not make another one are dropped, as Kafka
/// does.
pub fn validate(
    records: Bytes,
    rules: &ProduceRules,
    scratch: &mut Scratch,
    now_ms: i64,
) -> Result<PreparedBatch, ProduceError> {
    let batch = single_batch(&records, rules)?;
    let header = BatchHeader::parse(&batch).map_err(ProduceError::Corrupt)?;
    if rules.from_client && header.base_offset != 0 {
        return Err(ProduceError::BaseOffset(header.base_offset));
    }
    check_size(batch.len(), rules)?;
    let body_crc = check_crc(&batch, &header, rules)?;
    let Ok(source) = header.compression() else {
        let id = (header.attributes.0 & 7) as u8;
        return Err(ProduceError::UnknownCompression(id));
    };
    if rules.from_client {
        check_header(&header)?;
    }
    let mut judge = Judge::new(rules, &header, now_ms);
    let target = rules.compression.target(source);
    // Kafka does not compress control records unless they come compressed.
    let keep = source == target.compression()
        || (source == Compression::None && header.attributes.is_control());
    if !keep {
        return rebuild(&batch, &header, target, rules, scratch, judge);
    }
    let body = batch.slice(HEADER_LEN..);
    if source == Compression::None {
        judge.walk_plain(&body, |_| Ok(()))?;
    } else if trusts_header(rules) {
        judge.believe_header();
    } else {
        judge.walk_compressed(source, &body, scratch)?;
    }
    let max_timestamp = judge.finish()?;
    let mut prepared = PreparedBatch::new(header, body, body_crc, false);
    if rules.timestamp_type == TimestampType::CreateTime {
        prepared.set_max_timestamp(TimestampType::CreateTime, max_timestamp);
    } else {
        prepared.set_max_timestamp(TimestampType::LogAppendTime, now_ms);
    }
    Ok(prepared)
}

/// Whether a compressed batch that keeps its codec need not be decompressed. That a record has a
/// key, which a compacted topic needs, no header tells.
fn trusts_header(rules: &ProduceRules) -> bool {
    rules.validation == Validation::Header && rules.from_client && !rules.compacted
}

/// The one batch of a partition, cut off from an incomplete one after it.
fn single_batch(records: &Bytes, rules: &ProduceRules) -> Result<Bytes, ProduceError> {
    let frame = whole_frame(records)?.ok_or(ProduceError::NoBatch)?;
    if frame.magic != 2 {
        return Err(ProduceError::OldMagic(frame.magic));
    }
    if rules.api_version < 7
        && let Some(&attributes) = records.get(ATTRIBUTES_LOW_AT)
        && Compression::from_id(attributes & 7) == Some(Compression::Zstd)
    {
        return Err(ProduceError::ZstdTooEarly(rules.api_version));
    }
    if whole_frame(&records[frame.size..])?.is_some() {
        return Err(ProduceError::ManyBatches);
    }
    Ok(records.slice(..frame.size))
}

fn whole_frame(bytes: &[u8]) -> Result<Option<Frame>, ProduceError> {
    let frame = Frame::peek(bytes).map_err(ProduceError::Frame)?;
    Ok(frame.filter(|frame| frame.size <= bytes.len()))
}

fn check_size(size: usize, rules: &ProduceRules) -> Result<(), ProduceError> {
    let limit = usize::try_from(rules.max_message_bytes).unwrap_or(0);
    if size > limit {
        return Err(ProduceError::TooLarge {
            size: size as u64,
            limit: limit as u64,
        });
    }
    Ok(())
}

/// Verifies the checksum. Gives that of the body alone if the append will need a new one.
fn check_crc(
    batch: &[u8],
    header: &BatchHeader,
    rules: &ProduceRules,
) -> Result<Option<u32>, ProduceError> {
    let (body_crc, computed) = match rules.timestamp_type {
        TimestampType::CreateTime => (None, crc32c(&batch[CRC_FROM..])),
        TimestampType::LogAppendTime => {
            let body = &batch[HEADER_LEN..];
            let body_crc = crc32c(body);
            let header_crc = crc32c(&batch[CRC_FROM..HEADER_LEN]);
            (Some(body_crc), combine(header_crc, body_crc, body.len()))
        }
    };
    if computed == header.crc {
        Ok(body_crc)
    } else {
        Err(ProduceError::Corrupt(BatchError::ChecksumMismatch {
            stored: header.crc,
            computed,
        }))
    }
}

/// What clients may not say in a header.
fn check_header(header: &BatchHeader) -> Result<(), ProduceError> {
    let (delta, count) = (header.last_offset_delta, header.record_count);
    if delta < 0 {
        return Err(ProduceError::OffsetRange(delta));
    }
    if count <= 0 {
        return Err(ProduceError::RecordCount(count));
    }
    if i64::from(delta) + 1 != i64::from(count) {
        return Err(ProduceError::CountMismatch {
            count,
            last_offset_delta: delta,
        });
    }
    if header.attributes.is_control() {
        return Err(ProduceError::ControlBatch);
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return Err(ProduceError::Sequence {
            sequence: header.base_sequence,
            producer_id: header.producer_id,
        });
    }
    Ok(())
}

/// Makes the batch anew with the topic's codec.
fn rebuild(
    batch: &[u8],
    header: &BatchHeader,
    target: Codec,
    rules: &ProduceRules,
    scratch: &mut Scratch,
    mut judge: Judge<'_>,
) -> Result<PreparedBatch, ProduceError> {
    let now_ms = judge.now_ms;
    let mut builder = BatchBuilder::with_capacity(
        BatchOptions {
            codec: target,
            timestamp_type: rules.timestamp_type,
            log_append_time: now_ms,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            transactional: header.attributes.is_transactional(),
            ..BatchOptions::default()
        },
        batch.len(),
    );
    judge.walk_whole(&batch[HEADER_LEN..], scratch, |record| {
        builder
            .append(
                record.timestamp,
                record.key,
                record.value,
                record.headers.to_vec(),
            )
            .map_err(ProduceError::from)
    })?;
    judge.finish()?;
    let rebuilt = builder.build_with(scratch)?;
    check_size(rebuilt.len(), rules)?;
    let header = BatchHeader::parse(&rebuilt).map_err(ProduceError::Corrupt)?;
    let body = rebuilt.slice(HEADER_LEN..);
    Ok(PreparedBatch::new(header, body, None, true))
}

/// Walks over the records of a batch and holds each against the rules.
struct Judge<'a> {
    rules: &'a ProduceRules,
    header: &'a BatchHeader,
    base: Base,
    now_ms: i64,
    max_timestamp: i64,
    rejected: Vec<RejectedRecord>,
}

impl<'a> Judge<'a> {
    fn new(rules: &'a ProduceRules, header: &'a BatchHeader, now_ms: i64) -> Judge<'a> {
        Judge {
            rules,
            header,
            base: Base::of(header),
            now_ms,
            max_timestamp: NO_TIMESTAMP,
            rejected: Vec::new(),
        }
    }

    /// The largest timestamp, unless records were rejected.
    fn finish(self) -> Result<i64, ProduceError> {
        if self.rejected.is_empty() {
            Ok(self.max_timestamp)
        } else {
            Err(ProduceError::Rejected(RejectedRecords {
                records: self.rejected,
            }))
        }
    }

    fn count(&self) -> Result<i32, ProduceError> {
        let count = self.header.record_count;
        if count < 0 {
            return Err(ProduceError::Malformed(BatchError::NegativeCount(count)));
        }
        Ok(count)
    }

    fn judge(&mut self, batch_index: i32, record: &Walked) {
        self.max_timestamp = self.max_timestamp.max(record.timestamp);
        if let Some(reason) = self.reason_against(record) {
            self.rejected.push(RejectedRecord {
                batch_index,
                reason,
            });
        }
    }

    fn reason_against(&self, record: &Walked) -> Option<RecordReason> {
        let rules = self.rules;
        if rules.compacted && !record.has_key {
            return Some(RecordReason::MissingKey);
        }
        if rules.timestamp_type == TimestampType::CreateTime && record.timestamp != NO_TIMESTAMP {
            let age = self.now_ms.wrapping_sub(record.timestamp);
            let in_range = age <= rules.timestamp_before_max_ms
                && age.wrapping_neg() <= rules.timestamp_after_max_ms;
            (!in_range).then(|| RecordReason::TimestampOutOfRange {
                timestamp: record.timestamp,
                offset: record.offset,
                earliest: self.now_ms.wrapping_sub(rules.timestamp_before_max_ms),
                latest: self.now_ms.wrapping_add(rules.timestamp_after_max_ms),
            })
        } else {
            (self.header.attributes.timestamp_type() == TimestampType::LogAppendTime).then_some(
                RecordReason::LogAppendTimeSet {
                    offset: record.offset,
                },
            )
        }
    }

    /// Judges the first record by the batch's base timestamp and the last by the maximum, which is
    /// all that the header tells of them.
    fn believe_header(&mut self) {
        let header = self.header;
        let deltas = [0, header.last_offset_delta];
        let times = [self.base.timestamp(0), header.max_timestamp];
        for (index, timestamp) in deltas.into_iter().zip(times) {
            let record = Walked {
                offset: self.base.offset(index),
                timestamp,
                has_key: true,
            };
            self.judge(index, &record);
            if !self.rejected.is_empty() {
                return;
            }
        }
    }

    /// Walks over the records of an uncompressed batch. As in Kafka their offset deltas are not
    /// looked at. Records before the first rejected one go to `keep`.
    fn walk_plain(
        &mut self,
        body: &[u8],
        mut keep: impl FnMut(&RecordRef<'_>) -> Result<(), ProduceError>,
    ) -> Result<(), ProduceError> {
        let count = self.count()?;
        let mut rest = body;
        for index in 0..count {
            let record = read_record(&mut rest, &self.base)
                .map_err(|error| WalkError::from(error).at(index))?;
            self.judge(index, &Walked::from(&record));
            if self.rejected.is_empty() {
                keep(&record)?;
            }
        }
        if count > 0 && !rest.is_empty() {
            return Err(ProduceError::Malformed(BatchError::TrailingBytes(count)));
        }
        Ok(())
    }

    /// Walks over the records of a compressed batch that is kept, holding one piece in memory.
    fn walk_compressed(
        &mut self,
        source: Compression,
        body: &[u8],
        scratch: &mut Scratch,
    ) -> Result<(), ProduceError> {
        let count = self.count()?;
        if count == 0 {
            return Ok(());
        }
        let decoder = Decoder::new(&mut scratch.contexts, source, body, false)
            .map_err(ProduceError::Undecodable)?;
        let mut reader = PieceReader::new(decoder, &mut scratch.buffer, WALK_LIMIT);
        let mut gap = None;
        for index in 0..count {
            let record = reader
                .walk_record(&self.base)
                .map_err(|error| error.at(index))?;
            self.judge(index, &record);
            if record.offset != i64::from(index) && gap.is_none() {
                gap = Some(ProduceError::OffsetGap {
                    index,
                    offset: record.offset,
                });
            }
        }
        if reader.fill().map_err(|error| error.at(count))? {
            return Err(ProduceError::Malformed(BatchError::TrailingBytes(count)));
        }
        match gap {
            Some(gap) if self.rejected.is_empty() => Err(gap),
            _ => Ok(()),
        }
    }

    /// Walks over the whole records of a batch that is to be rebuilt. Those before the first
    /// rejected one go to `keep`.
    fn walk_whole(
        &mut self,
        body: &[u8],
        scratch: &mut Scratch,
        mut keep: impl FnMut(&RecordRef<'_>) -> Result<(), ProduceError>,
    ) -> Result<(), ProduceError> {
        let count = self.count()?;
        if count == 0 {
            return Ok(());
        }
        let source = self.header.compression().unwrap_or_default();
        if source == Compression::None {
            return self.walk_plain(body, keep);
        }
        let limit = scratch.limit as u64;
        let decoder = Decoder::new(&mut scratch.contexts, source, body, false)
            .map_err(ProduceError::Undecodable)?;
        let mut reader = PieceReader::new(decoder, &mut scratch.buffer, limit);
        let mut room = Vec::new();
        for index in 0..count {
            let body = reader
                .take_record(&mut room)
                .map_err(|error| error.at(index))?;
            let record =
                read_body(body, &self.base).map_err(|error| WalkError::from(error).at(index))?;
            self.judge(index, &Walked::from(&record));
            if self.rejected.is_empty() {
                keep(&record)?;
            }
        }
        if reader.fill().map_err(|error| error.at(count))? {
            return Err(ProduceError::Malformed(BatchError::TrailingBytes(count)));
        }
        Ok(())
    }
}

impl From<&RecordRef<'_>> for Walked {
    fn from(record: &RecordRef<'_>) -> Walked {
        Walked {
            offset: record.offset,
            timestamp: record.timestamp,
            has_key: record.key.is_some(),
        }
    }
}
