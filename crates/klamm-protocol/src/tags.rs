//! Tagged fields that the schema does not know.

use bytes::Bytes;

/// A tagged field of a newer release, kept as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownTag {
    /// Number of the field.
    pub tag: u32,
    /// Its content, without the length.
    pub data: Bytes,
}

/// The tagged fields of one struct that the schema does not know, in the order they came in.
///
/// They are written back among the known ones. Kafka writes tags only in rising order and reads
/// them in any, and so does this crate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownTags(pub Vec<UnknownTag>);

impl UnknownTags {
    /// The content of the field with this number.
    pub fn get(&self, tag: u32) -> Option<&Bytes> {
        self.0
            .iter()
            .find(|unknown| unknown.tag == tag)
            .map(|unknown| &unknown.data)
    }
}
