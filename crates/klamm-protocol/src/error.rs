//! What can go wrong between bytes and messages.

use crate::VersionRange;

/// Why bytes are not the message they were taken for.
///
/// `offset` counts bytes from where the [`Decoder`](crate::Decoder) began.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("{needed} more bytes needed at byte {offset}, but only {remaining} are left")]
    Truncated {
        /// Where the value begins.
        offset: usize,
        /// Bytes the value takes.
        needed: usize,
        /// Bytes there are.
        remaining: usize,
    },
    /// An array claims more elements than bytes are left. Kafka's own rule: it bounds memory
    /// before any is taken.
    #[error("an array of {length} elements at byte {offset}, but only {remaining} bytes are left")]
    ArrayTooLong {
        /// Where the array begins.
        offset: usize,
        /// Elements it claims to have.
        length: usize,
        /// Bytes there are.
        remaining: usize,
    },
    /// A string is longer than 32767 bytes, the most any form of it may have.
    #[error("a string of {length} bytes at byte {offset}")]
    StringTooLong {
        /// Where the string begins.
        offset: usize,
        /// Bytes it claims to have.
        length: usize,
    },
    /// Null where this version of the message has no null.
    #[error("null at byte {offset} in a field that cannot be null")]
    UnexpectedNull {
        /// Where the field begins.
        offset: usize,
    },
    /// A variable-length number that goes on after the last byte it may have.
    #[error("a variable-length number at byte {offset} does not end")]
    InvalidVarint {
        /// Where the number begins.
        offset: usize,
    },
    /// A tagged field that the schema knows, but not in this version.
    #[error("tagged field {tag} does not exist in version {version}")]
    TagNotInVersion {
        /// Number of the field.
        tag: u32,
        /// Version of the message.
        version: i16,
    },
    /// A tagged field whose content is not as long as it says.
    #[error("tagged field {tag} at byte {offset} says {declared} bytes and has {actual}")]
    TagSize {
        /// Where the content begins.
        offset: usize,
        /// Number of the field.
        tag: u32,
        /// Bytes it claims to have.
        declared: usize,
        /// Bytes its content took.
        actual: usize,
    },
    /// The message does not exist in this version.
    #[error("{message} has no version {version}, only {supported}")]
    UnsupportedVersion {
        /// Name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
        /// Versions there are.
        supported: VersionRange,
    },
    /// A frame of a metadata record in a format this release does not know.
    #[error("metadata record frame version {version}, where 1 was expected")]
    UnknownFrameVersion {
        /// The version found.
        version: u32,
    },
    /// A record of a kind this release does not know.
    #[error("unknown record type {record_type}")]
    UnknownRecordType {
        /// The type found.
        record_type: i16,
    },
    /// Bytes after the end of a record, which has to fill its value.
    #[error("{count} bytes left over after the end")]
    TrailingBytes {
        /// How many.
        count: usize,
    },
}

/// Why a message cannot be written in the version asked for.
///
/// `field` is `Struct.field` as named in Rust.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The message does not exist in this version.
    #[error("{message} has no version {version}, only {supported}")]
    UnsupportedVersion {
        /// Name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
        /// Versions there are.
        supported: VersionRange,
    },
    /// A field that this version lacks and that must not be lost differs from its default.
    #[error("{field} is set, but version {version} cannot carry it")]
    UnsupportedField {
        /// The field.
        field: &'static str,
        /// Version of the message.
        version: i16,
    },
    /// A field is null that cannot be null in this version.
    #[error("{field} is null, but version {version} cannot carry that")]
    UnexpectedNull {
        /// The field.
        field: &'static str,
        /// Version of the message.
        version: i16,
    },
    /// A string of more than 32767 bytes.
    #[error("a string of {length} bytes is longer than the protocol carries")]
    StringTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// Bytes, an array or a whole frame whose length does not fit 31 bits.
    #[error("a length of {length} is more than the protocol carries")]
    TooLong {
        /// The length.
        length: usize,
    },
    /// Unknown tagged fields on a message whose version has no tagged fields.
    #[error("unknown tagged fields are set, but the version has no tagged fields")]
    TagsNotSupported,
    /// Unknown tagged fields that are not in strictly rising order, or one with the number of a
    /// field that is known.
    #[error("unknown tagged field {tag} is out of order or a known field")]
    TagOrder {
        /// The number at fault.
        tag: u32,
    },
    /// The message names bytes that lie outside of memory, where plain bytes were asked for.
    #[error("the message refers to bytes outside of memory")]
    External,
}

impl EncodeError {
    /// For a field that `version` lacks and that is set all the same.
    pub(crate) fn unsupported(field: &'static str, version: i16) -> EncodeError {
        EncodeError::UnsupportedField { field, version }
    }
}

/// The value of a field that must not be null in `version`.
pub(crate) fn require<'a, T>(
    value: &'a Option<T>,
    field: &'static str,
    version: i16,
) -> Result<&'a T, EncodeError> {
    value
        .as_ref()
        .ok_or(EncodeError::UnexpectedNull { field, version })
}
