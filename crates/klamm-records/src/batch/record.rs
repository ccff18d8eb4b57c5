use bytes::Bytes;

use super::{BatchHeader, increment_sequence};
use crate::varint;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The batch ends inside the record.
    #[error("the batch ends inside the record")]
    UnexpectedEnd,
    /// The record's length is negative or more than what is left of the batch.
    #[error("the record says to be {0} bytes long")]
    InvalidLength(i32),
    /// A variable-length number is cut short or too long.
    #[error("a variable-length number is malformed")]
    InvalidVarint,
    /// The variable-length number that is the record's length has no end.
    #[error("the length of the record is malformed")]
    InvalidLengthVarint,
    /// A key, value or header reaches past the end of the record.
    #[error("a field of {0} bytes reaches past the end of the record")]
    FieldTooLong(i32),
    /// The number of headers is negative or more than the record has bytes.
    #[error("the record says to have {0} headers")]
    InvalidHeaderCount(i32),
    /// A header's key has a negative length; null keys are not allowed.
    #[error("a header key has length {0}")]
    InvalidHeaderKeyLength(i32),
    /// The fields end before the record does.
    #[error("the record says to be {declared} bytes long and its fields take {read}")]
    LengthMismatch {
        /// As the record says.
        declared: usize,
        /// As its fields add up.
        read: usize,
    },
}

/// A record as it lies in a batch (or in the scratch buffer, if the batch was compressed).
#[derive(Clone, Copy, Debug)]
pub struct RecordRef<'a> {
    /// Flags; none is defined.
    pub attributes: i8,
    /// Absolute offset.
    pub offset: i64,
    /// Milliseconds since the epoch; the batch's append time if the broker sets timestamps.
    pub timestamp: i64,
    /// Sequence number, [`NO_SEQUENCE`](super::NO_SEQUENCE) if the producer is not idempotent.
    pub sequence: i32,
    /// Key, if there is one.
    pub key: Option<&'a [u8]>,
    /// Value; a record without one is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// Headers.
    pub headers: Headers<'a>,
}

impl RecordRef<'_> {
    /// A copy that owns its bytes.
    pub fn to_record(&self) -> Record {
        Record {
            offset: self.offset,
            timestamp: self.timestamp,
            key: self.key.map(Bytes::copy_from_slice),
            value: self.value.map(Bytes::copy_from_slice),
            headers: self
                .headers
                .iter()
                .map(|(key, value)| {
                    (
                        Bytes::copy_from_slice(key),
                        value.map(Bytes::copy_from_slice),
                    )
                })
                .collect(),
        }
    }
}

/// A header of a record, borrowed: key (UTF-8 by convention, not checked, as in Kafka) and value.
pub type Header<'a> = (&'a [u8], Option<&'a [u8]>);

/// The headers of a record.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a> {
    count: usize,
    /// Encoded headers, checked when the record was read.
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The headers in their order, collected.
    pub fn to_vec(&self) -> Vec<Header<'a>> {
        self.iter().collect()
    }

    /// The headers in their order.
    pub fn iter(&self) -> impl Iterator<Item = Header<'a>> + use<'a> {
        let mut rest = self.bytes;
        // The fields were checked when the record was read: no step of this can fail.
        (0..self.count).map_while(move |_| read_header(&mut rest).ok())
    }
}

/// A record that owns its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Absolute offset.
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    /// Key, if there is one.
    pub key: Option<Bytes>,
    /// Value, if there is one.
    pub value: Option<Bytes>,
    /// Headers: key and value.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

/// What a record's deltas are relative to, taken from the batch header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base {
    offset: i64,
    timestamp: i64,
    sequence: i32,
    log_append_time: Option<i64>,
}

impl Base {
    pub(crate) fn of(header: &BatchHeader) -> Base {
        Base {
            offset: header.base_offset,
            timestamp: header.base_timestamp,
            sequence: header.base_sequence,
            log_append_time: header.log_append_time(),
        }
    }

    pub(crate) fn offset(&self, delta: i32) -> i64 {
        self.offset.wrapping_add(i64::from(delta))
    }

    pub(crate) fn timestamp(&self, delta: i64) -> i64 {
        self.log_append_time
            .unwrap_or_else(|| self.timestamp.wrapping_add(delta))
    }

    fn sequence(&self, delta: i32) -> i32 {
        if self.sequence >= 0 {
            increment_sequence(self.sequence, delta)
        } else {
            super::NO_SEQUENCE
        }
    }
}

/// Takes one record off the front of `input`.
pub(crate) fn read_record<'a>(
    input: &mut &'a [u8],
    base: &Base,
) -> Result<RecordRef<'a>, RecordError> {
    let declared = varint::read_i32(input).ok_or(if input.len() < varint::VARINT_LEN_MAX {
        RecordError::InvalidVarint
    } else {
        RecordError::InvalidLengthVarint
    })?;
    let body_len = usize::try_from(declared)
        .ok()
        .filter(|&len| len <= input.len())
        .ok_or(RecordError::InvalidLength(declared))?;
    let (body, rest) = input.split_at(body_len);
    *input = rest;
    read_body(body, base)
}

/// Reads a record of which the length has been taken off.
pub(crate) fn read_body<'a>(body: &'a [u8], base: &Base) -> Result<RecordRef<'a>, RecordError> {
    let mut rest = body;
    let (&attributes, after) = rest.split_first().ok_or(RecordError::UnexpectedEnd)?;
    rest = after;
    let timestamp_delta = varint::read_i64(&mut rest).ok_or(RecordError::InvalidVarint)?;
    let offset_delta = read_varint(&mut rest)?;
    let key = read_field(&mut rest)?;
    let value = read_field(&mut rest)?;
    let header_count = read_varint(&mut rest)?;
    let count = usize::try_from(header_count)
        .ok()
        .filter(|&count| count <= rest.len())
        .ok_or(RecordError::InvalidHeaderCount(header_count))?;
    let headers = rest;
    for _ in 0..count {
        read_header(&mut rest)?;
    }
    if !rest.is_empty() {
        return Err(RecordError::LengthMismatch {
            declared: body.len(),
            read: body.len() - rest.len(),
        });
    }
    Ok(RecordRef {
        attributes: attributes as i8,
        offset: base.offset(offset_delta),
        timestamp: base.timestamp(timestamp_delta),
        sequence: base.sequence(offset_delta),
        key,
        value,
        headers: Headers {
            count,
            bytes: headers,
        },
    })
}

fn read_varint(input: &mut &[u8]) -> Result<i32, RecordError> {
    varint::read_i32(input).ok_or(RecordError::InvalidVarint)
}

/// A nullable field; every negative length is null, as in Kafka.
fn read_field<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, RecordError> {
    let len = read_varint(input)?;
    match usize::try_from(len) {
        Err(_) => Ok(None),
        Ok(size) => match input.split_at_checked(size) {
            Some((field, rest)) => {
                *input = rest;
                Ok(Some(field))
            }
            None => Err(RecordError::FieldTooLong(len)),
        },
    }
}

fn read_header<'a>(input: &mut &'a [u8]) -> Result<Header<'a>, RecordError> {
    let mut ahead = *input;
    let key_len = read_varint(&mut ahead)?;
    let Some(key) = read_field(input)? else {
        return Err(RecordError::InvalidHeaderKeyLength(key_len));
    };
    Ok((key, read_field(input)?))
}

/// Appends a record.
pub(crate) fn write_record<'h>(
    out: &mut Vec<u8>,
    offset_delta: i32,
    timestamp_delta: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: impl ExactSizeIterator<Item = Header<'h>> + Clone,
) {
    let body_len = 1
        + varint::len_i64(timestamp_delta)
        + varint::len_i32(offset_delta)
        + field_len(key)
        + field_len(value)
        + varint::len_i32(headers.len() as i32)
        + headers
            .clone()
            .map(|(key, value)| field_len(Some(key)) + field_len(value))
            .sum::<usize>();
    out.reserve(body_len + varint::VARINT_LEN_MAX);
    varint::write_i32(out, body_len as i32);
    out.push(0);
    varint::write_i64(out, timestamp_delta);
    varint::write_i32(out, offset_delta);
    write_field(out, key);
    write_field(out, value);
    varint::write_i32(out, headers.len() as i32);
    for (key, value) in headers {
        write_field(out, Some(key));
        write_field(out, value);
    }
}

fn field_len(field: Option<&[u8]>) -> usize {
    match field {
        None => 1,
        Some(bytes) => varint::len_i32(bytes.len() as i32) + bytes.len(),
    }
}

fn write_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => varint::write_i32(out, -1),
        Some(bytes) => {
            varint::write_i32(out, bytes.len() as i32);
            out.extend_from_slice(bytes);
        }
    }
}
