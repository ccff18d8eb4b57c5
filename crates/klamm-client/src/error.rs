use std::io;
use std::time::Duration;

use klamm_protocol::{ApiKey, DecodeError, EncodeError, ErrorCode};

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The connection could not be opened, or broke. Whether the broker has seen the request is
    /// not known.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The other side closed the connection, or an earlier failure ended it.
    #[error("the connection is closed")]
    Closed,
    /// No answer came in time. The connection is closed: answers come in order, so all behind this
    /// one would be late as well.
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The broker and this client have no version of the request in common.
    #[error("the broker serves no version of {} that is known here", .0.name())]
    NoCommonVersion(ApiKey),
    /// The broker refused to say which versions it serves.
    #[error("the broker does not tell its versions: {0}")]
    Refused(ErrorCode),
    /// The request cannot be encoded in the agreed version.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The answer cannot be understood.
    #[error("malformed answer: {0}")]
    Decode(#[from] DecodeError),
    /// An answer has an impossible length.
    #[error("an answer of {len} bytes is out of bounds (at most {max})")]
    FrameLength {
        /// What the length field says.
        len: i32,
        /// What is allowed.
        max: usize,
    },
    /// An answer belongs to no request, or to a later one than the first that waits.
    #[error("answer {found} came where {expected:?} was due")]
    OutOfOrder {
        /// Correlation id of the answer.
        found: i32,
        /// That of the request that waits longest.
        expected: Option<i32>,
    },
}
