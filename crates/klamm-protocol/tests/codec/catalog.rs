//! All messages by name, for tests that go through them.

use bytes::Bytes;
use klamm_protocol::{DecodeError, EncodeError, Message, VersionRange};

use crate::all_messages::all_messages;

/// Why a message could not be read and written again.
#[derive(Debug, PartialEq)]
pub(crate) enum Failure {
    /// It could not be read.
    Decode(DecodeError),
    /// It could not be written.
    Encode(EncodeError),
}

/// A message by its name.
pub(crate) struct Entry {
    /// Kafka's name.
    pub(crate) name: &'static str,
    /// The versions there are.
    pub(crate) versions: VersionRange,
    /// Reads bytes in one version and writes the message in another.
    pub(crate) recode: fn(Bytes, i16, i16) -> Result<Bytes, Failure>,
}

macro_rules! entries {
    ($($message:ty,)*) => {
        &[$(Entry {
            name: <$message>::NAME,
            versions: <$message>::VERSIONS,
            recode: recode::<$message>,
        }),*]
    };
}

/// All messages.
pub(crate) const ALL: &[Entry] = all_messages!(entries);

fn recode<M: Message>(bytes: Bytes, from: i16, to: i16) -> Result<Bytes, Failure> {
    let message = M::from_bytes(bytes, from).map_err(Failure::Decode)?;
    message.to_bytes(to).map_err(Failure::Encode)
}
