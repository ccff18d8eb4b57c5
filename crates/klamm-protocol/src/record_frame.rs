//! Frames around the records of internal topics.

use bytes::Bytes;

use crate::{DecodeError, Decoder, EncodeError, Encoder, Message, RecordKey};

/// The only version of the frame around metadata records.
const FRAME_VERSION: u32 = 1;

/// The number in front of a coordinator record's key, which says what kind of record it is.
pub fn record_type(key: &Bytes) -> Result<i16, DecodeError> {
    Decoder::new(key.clone()).i16()
}

/// A key with the record type in front. All keys have version 0 alone.
pub fn encode_key<K: RecordKey>(key: &K) -> Result<Bytes, EncodeError> {
    encode_prefixed(K::RECORD_TYPE, 0, key)
}

/// Reads a key whose type is known to be that of `K`.
pub fn decode_key<K: RecordKey>(key: Bytes) -> Result<K, DecodeError> {
    let mut d = Decoder::new(key);
    let record_type = d.i16()?;
    if record_type != K::RECORD_TYPE {
        return Err(DecodeError::UnknownRecordType { record_type });
    }
    K::decode(&mut d, 0)
}

/// A value, or another message on its own, with its version in front.
pub fn encode_versioned<M: Message>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    encode_prefixed(version, version, message)
}

/// Reads a message with its version in front.
pub fn decode_versioned<M: Message>(bytes: Bytes) -> Result<M, DecodeError> {
    let mut d = Decoder::new(bytes);
    let version = d.i16()?;
    M::decode(&mut d, version)
}

fn encode_prefixed<M: Message>(
    prefix: i16,
    version: i16,
    message: &M,
) -> Result<Bytes, EncodeError> {
    let mut e = Encoder::new();
    e.i16(prefix);
    message.encode(&mut e, version)?;
    e.into_bytes()
}

/// Key and value of a record, the value in `version`.
pub fn encode_pair<K: RecordKey>(
    key: &K,
    value: Option<&K::Value>,
    version: i16,
) -> Result<(Bytes, Option<Bytes>), EncodeError> {
    let value = value
        .map(|value| encode_versioned(value, version))
        .transpose()?;
    Ok((encode_key(key)?, value))
}

/// Reads key and value of a record whose type is known to be that of `K`.
pub fn decode_pair<K: RecordKey>(
    key: Bytes,
    value: Option<Bytes>,
) -> Result<(K, Option<K::Value>), DecodeError> {
    Ok((decode_key(key)?, value.map(decode_versioned).transpose()?))
}

/// A record in the frame of the metadata log: frame version, API key and version in front, all
/// as variable-length numbers.
pub(crate) fn encode_framed(
    api_key: i16,
    version: i16,
    write: impl FnOnce(&mut Encoder) -> Result<(), EncodeError>,
) -> Result<Bytes, EncodeError> {
    let mut e = Encoder::new();
    e.unsigned_varint(FRAME_VERSION);
    e.unsigned_varint(u32::from(api_key.unsigned_abs()));
    e.unsigned_varint(u32::from(version.unsigned_abs()));
    write(&mut e)?;
    e.into_bytes()
}

/// Reads a record in the frame of the metadata log. It has to fill the bytes, as in Kafka.
pub(crate) fn decode_framed<T>(
    value: Bytes,
    read: impl FnOnce(&mut Decoder, i16, i16) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut d = Decoder::new(value);
    let version = d.unsigned_varint()?;
    if version != FRAME_VERSION {
        return Err(DecodeError::UnknownFrameVersion { version });
    }
    let api_key = small_varint(&mut d)?;
    let version = small_varint(&mut d)?;
    let record = read(&mut d, api_key, version)?;
    match d.remaining() {
        0 => Ok(record),
        count => Err(DecodeError::TrailingBytes { count }),
    }
}

fn small_varint(d: &mut Decoder) -> Result<i16, DecodeError> {
    let offset = d.position();
    i16::try_from(d.unsigned_varint()?).map_err(|_| DecodeError::InvalidVarint { offset })
}
