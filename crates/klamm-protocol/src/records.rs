//! Record data inside messages, and the pieces of an encoded message.

use bytes::Bytes;

/// Record batches carried by a message, or where they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Records {
    /// The batches themselves: a slice of the frame they came in, or built in memory.
    Bytes(Bytes),
    /// Batches that lie elsewhere, as a rule in a segment file. The encoder writes their length
    /// and passes the place on as a [`Segment::External`]; whoever sends the frame fills it in.
    External {
        /// Length in bytes.
        len: usize,
        /// What the sender finds them by; has no meaning here.
        token: usize,
    },
}

impl Records {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Records::Bytes(bytes) => bytes.len(),
            Records::External { len, .. } => *len,
        }
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes, if they are in memory.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Records::Bytes(bytes) => Some(bytes),
            Records::External { .. } => None,
        }
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Records {
        Records::Bytes(bytes)
    }
}

/// A piece of an encoded message, to be sent in order with the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// These bytes.
    Bytes(Bytes),
    /// Bytes that the sender has to find by the token of [`Records::External`].
    External {
        /// Length in bytes.
        len: usize,
        /// The token given.
        token: usize,
    },
}

impl Segment {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Segment::Bytes(bytes) => bytes.len(),
            Segment::External { len, .. } => *len,
        }
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
