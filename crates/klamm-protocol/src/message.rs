//! What every message can do.

use std::fmt::Debug;

use bytes::Bytes;

use crate::{ApiKey, DecodeError, Decoder, EncodeError, Encoder, VersionRange};

/// A message with a schema: a request, a response, a header or a stored record.
///
/// One Rust type stands for all versions. Fields that a version lacks read as their default;
/// writing such a field with another value is an error unless the schema says it may be lost.
pub trait Message: Default + Clone + Debug + PartialEq + Send + Sync + 'static {
    /// Kafka's name of the message.
    const NAME: &'static str;
    /// The versions there are, one that is not yet stable included.
    const VERSIONS: VersionRange;
    /// The versions in the flexible encoding: compact lengths and tagged fields.
    const FLEXIBLE: VersionRange;

    /// Reads the message, leaving the decoder after its last byte.
    fn decode(d: &mut Decoder, version: i16) -> Result<Self, DecodeError>;

    /// Writes the message after what the encoder holds.
    fn encode(&self, e: &mut Encoder, version: i16) -> Result<(), EncodeError>;

    /// The message alone in one piece.
    fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut encoder = Encoder::new();
        self.encode(&mut encoder, version)?;
        encoder.into_bytes()
    }

    /// Reads the message from the start of `bytes`; as in Kafka, what follows it is not looked at.
    fn from_bytes(bytes: Bytes, version: i16) -> Result<Self, DecodeError> {
        Self::decode(&mut Decoder::new(bytes), version)
    }
}

/// A message that asks for a response.
pub trait Request: Message {
    /// The number that names the request on the wire.
    const API_KEY: ApiKey;
    /// What answers it, always in the version of the request.
    type Response: Message;
}

/// The key of a record in an internal topic of a coordinator.
pub trait RecordKey: Message {
    /// The number in front of the key, which tells records of one topic apart.
    const RECORD_TYPE: i16;
    /// What the record holds; a record without it is a tombstone.
    type Value: Message;
}
