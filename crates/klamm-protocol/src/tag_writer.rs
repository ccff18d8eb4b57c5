//! Writing tagged fields.

use crate::{EncodeError, Encoder, UnknownTag};

/// Writes the tagged fields of one struct: the known ones as they are given, in rising order, the
/// unknown ones in between.
#[derive(Debug)]
pub struct TagWriter<'a> {
    encoder: &'a mut Encoder,
    unknown: &'a [UnknownTag],
    count_at: usize,
    count: u32,
    /// The lowest number that the next field may have.
    tag_min: u64,
}

impl<'a> TagWriter<'a> {
    pub(crate) fn new(encoder: &'a mut Encoder, unknown: &'a [UnknownTag]) -> TagWriter<'a> {
        let count_at = encoder.position();
        if encoder.is_flexible() {
            encoder.raw(&[0]);
        }
        TagWriter {
            encoder,
            unknown,
            count_at,
            count: 0,
            tag_min: 0,
        }
    }

    /// Writes a known field.
    pub fn field(
        &mut self,
        tag: u32,
        write: impl FnOnce(&mut Encoder) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.unknown_below(u64::from(tag))?;
        self.start(tag)?;
        let size_at = self.encoder.position();
        self.encoder.raw(&[0]);
        write(self.encoder)?;
        let length = self.encoder.position() - size_at - 1;
        let size = u32::try_from(length).map_err(|_| EncodeError::TooLong { length })?;
        self.encoder.fill_varint(size_at, size);
        Ok(())
    }

    /// Writes the unknown fields that are left.
    pub fn finish(mut self) -> Result<(), EncodeError> {
        if !self.encoder.is_flexible() {
            return if self.unknown.is_empty() {
                Ok(())
            } else {
                Err(EncodeError::TagsNotSupported)
            };
        }
        self.unknown_below(u64::MAX)?;
        if self.count > 0 {
            self.encoder.fill_varint(self.count_at, self.count);
        }
        Ok(())
    }

    fn start(&mut self, tag: u32) -> Result<(), EncodeError> {
        if u64::from(tag) < self.tag_min {
            return Err(EncodeError::TagOrder { tag });
        }
        self.tag_min = u64::from(tag) + 1;
        self.count += 1;
        self.encoder.unsigned_varint(tag);
        Ok(())
    }

    fn unknown_below(&mut self, end: u64) -> Result<(), EncodeError> {
        while let Some((unknown, rest)) = self.unknown.split_first() {
            if u64::from(unknown.tag) >= end {
                break;
            }
            self.start(unknown.tag)?;
            let length = unknown.data.len();
            let size = u32::try_from(length).map_err(|_| EncodeError::TooLong { length })?;
            self.encoder.unsigned_varint(size);
            self.encoder.raw(&unknown.data);
            self.unknown = rest;
        }
        Ok(())
    }
}
