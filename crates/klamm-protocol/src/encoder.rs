//! Writing the primitive types of the protocol.

use bytes::Bytes;
use klamm_records::Uuid;

use crate::decoder::STRING_LEN_MAX;
use crate::{ByteStr, EncodeError, Message, Records, Segment, TagWriter, UnknownTags};

/// Records at least this long are passed on as a segment of their own instead of copied: a
/// vectored write of one more piece costs about as much as copying so many bytes.
const SPLICE_LEN_MIN: usize = 1024;

/// Writes messages into memory, leaving record data where it is.
///
/// All that is not record data goes into one buffer; records are spliced in between when the
/// encoder is finished.
#[derive(Debug, Default)]
pub struct Encoder {
    buffer: Vec<u8>,
    /// Pieces to send when the buffer has been sent up to an index, in order.
    splices: Vec<(usize, Segment)>,
    spliced_len: usize,
    flexible: bool,
}

impl Encoder {
    /// Starts with nothing, in the encoding before flexible versions.
    pub fn new() -> Encoder {
        Encoder::default()
    }

    /// Starts with room for `capacity` bytes beside record data.
    pub fn with_capacity(capacity: usize) -> Encoder {
        Encoder {
            buffer: Vec::with_capacity(capacity),
            ..Encoder::default()
        }
    }

    /// Starts a message: checks its version and sets the encoding to that version's.
    pub fn begin<M: Message>(&mut self, version: i16) -> Result<(), EncodeError> {
        if !M::VERSIONS.contains(version) {
            let (message, supported) = (M::NAME, M::VERSIONS);
            return Err(EncodeError::UnsupportedVersion {
                message,
                version,
                supported,
            });
        }
        self.flexible = M::FLEXIBLE.contains(version);
        Ok(())
    }

    /// Whether the encoding is that of flexible versions.
    #[inline]
    pub fn is_flexible(&self) -> bool {
        self.flexible
    }

    /// Sets whether the encoding is that of flexible versions.
    pub fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Bytes written so far, record data included.
    pub fn len(&self) -> usize {
        self.buffer.len() + self.spliced_len
    }

    /// Whether nothing is written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that was written, in the order to send it.
    pub fn finish(self) -> Vec<Segment> {
        let buffer = Bytes::from(self.buffer);
        if self.splices.is_empty() {
            return vec![Segment::Bytes(buffer)];
        }
        let mut segments = Vec::with_capacity(2 * self.splices.len() + 1);
        let mut sent = 0;
        for (at, splice) in self.splices {
            if at > sent {
                segments.push(Segment::Bytes(buffer.slice(sent..at)));
                sent = at;
            }
            segments.push(splice);
        }
        if buffer.len() > sent {
            segments.push(Segment::Bytes(buffer.slice(sent..)));
        }
        segments
    }

    /// All that was written in one piece. An error if some of it is not in memory.
    pub fn into_bytes(self) -> Result<Bytes, EncodeError> {
        if self.splices.is_empty() {
            return Ok(Bytes::from(self.buffer));
        }
        let mut whole = Vec::with_capacity(self.len());
        for segment in self.finish() {
            match segment {
                Segment::Bytes(bytes) => whole.extend_from_slice(&bytes),
                Segment::External { .. } => return Err(EncodeError::External),
            }
        }
        Ok(Bytes::from(whole))
    }

    /// Overwrites the number at `position`, which [`Encoder::i32`] wrote before any record data.
    pub(crate) fn patch_i32(&mut self, position: usize, value: i32) {
        self.buffer[position..position + 4].copy_from_slice(&value.to_be_bytes());
    }

    /// Bytes as they are, without a length.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// A truth value.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.buffer.push(u8::from(value));
    }

    /// An 8-bit number.
    #[inline]
    pub fn i8(&mut self, value: i8) {
        self.raw(&value.to_be_bytes());
    }

    /// A 16-bit number.
    #[inline]
    pub fn i16(&mut self, value: i16) {
        self.raw(&value.to_be_bytes());
    }

    /// A 16-bit number without sign.
    #[inline]
    pub fn u16(&mut self, value: u16) {
        self.raw(&value.to_be_bytes());
    }

    /// A 32-bit number.
    #[inline]
    pub fn i32(&mut self, value: i32) {
        self.raw(&value.to_be_bytes());
    }

    /// A 32-bit number without sign.
    #[inline]
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_be_bytes());
    }

    /// A 64-bit number.
    #[inline]
    pub fn i64(&mut self, value: i64) {
        self.raw(&value.to_be_bytes());
    }

    /// A 64-bit floating point number.
    #[inline]
    pub fn f64(&mut self, value: f64) {
        self.raw(&value.to_be_bytes());
    }

    /// An id of 16 bytes.
    #[inline]
    pub fn uuid(&mut self, value: Uuid) {
        self.raw(value.as_bytes());
    }

    /// A number of at most 32 bits, seven to a byte, lowest first.
    #[inline]
    pub fn unsigned_varint(&mut self, value: u32) {
        if value < 0x80 {
            self.buffer.push(value as u8);
        } else {
            let (bytes, len) = varint_bytes(value);
            self.raw(&bytes[..len]);
        }
    }

    fn length(&mut self, length: usize) -> Result<(), EncodeError> {
        // One less than the protocol could carry, so that the compact form cannot overflow.
        let Some(value) = i32::try_from(length).ok().filter(|&value| value < i32::MAX) else {
            return Err(EncodeError::TooLong { length });
        };
        if self.flexible {
            self.unsigned_varint(value as u32 + 1);
        } else {
            self.i32(value);
        }
        Ok(())
    }

    fn null(&mut self) {
        if self.flexible {
            self.unsigned_varint(0);
        } else {
            self.i32(-1);
        }
    }

    /// A string.
    #[inline]
    pub fn string(&mut self, value: &str) -> Result<(), EncodeError> {
        let length = value.len();
        if length > STRING_LEN_MAX {
            return Err(EncodeError::StringTooLong { length });
        }
        if self.flexible {
            self.unsigned_varint(length as u32 + 1);
        } else {
            self.i16(length as i16);
        }
        self.raw(value.as_bytes());
        Ok(())
    }

    /// A string or null.
    #[inline]
    pub fn nullable_string(&mut self, value: Option<&ByteStr>) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.string(value)?,
            None if self.flexible => self.unsigned_varint(0),
            None => self.i16(-1),
        }
        Ok(())
    }

    /// A string or null as it is written before flexible versions, whatever the version.
    pub fn legacy_nullable_string(&mut self, value: Option<&ByteStr>) -> Result<(), EncodeError> {
        let flexible = std::mem::replace(&mut self.flexible, false);
        let result = self.nullable_string(value);
        self.flexible = flexible;
        result
    }

    /// Bytes.
    pub fn bytes(&mut self, value: &[u8]) -> Result<(), EncodeError> {
        self.length(value.len())?;
        self.raw(value);
        Ok(())
    }

    /// Bytes or null.
    pub fn nullable_bytes(&mut self, value: Option<&Bytes>) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.bytes(value),
            None => {
                self.null();
                Ok(())
            }
        }
    }

    /// Record batches.
    pub fn records(&mut self, value: &Records) -> Result<(), EncodeError> {
        self.length(value.len())?;
        let segment = match value {
            Records::Bytes(bytes) if bytes.len() < SPLICE_LEN_MIN => {
                self.raw(bytes);
                return Ok(());
            }
            Records::Bytes(bytes) => Segment::Bytes(bytes.clone()),
            &Records::External { len, token } => Segment::External { len, token },
        };
        self.spliced_len += segment.len();
        self.splices.push((self.buffer.len(), segment));
        Ok(())
    }

    /// Record batches or null.
    pub fn nullable_records(&mut self, value: Option<&Records>) -> Result<(), EncodeError> {
        match value {
            Some(value) => self.records(value),
            None => {
                self.null();
                Ok(())
            }
        }
    }

    /// An array of primitive values.
    pub fn list<T: Copy>(
        &mut self,
        values: &[T],
        write: impl Fn(&mut Self, T),
    ) -> Result<(), EncodeError> {
        self.length(values.len())?;
        for &value in values {
            write(self, value);
        }
        Ok(())
    }

    /// An array of primitive values, or null.
    pub fn nullable_list<T: Copy>(
        &mut self,
        values: Option<&Vec<T>>,
        write: impl Fn(&mut Self, T),
    ) -> Result<(), EncodeError> {
        match values {
            Some(values) => self.list(values, write),
            None => {
                self.null();
                Ok(())
            }
        }
    }

    /// An array of strings.
    pub fn strings(&mut self, values: &[ByteStr]) -> Result<(), EncodeError> {
        self.length(values.len())?;
        values.iter().try_for_each(|value| self.string(value))
    }

    /// An array of strings, or null.
    pub fn nullable_strings(&mut self, values: Option<&Vec<ByteStr>>) -> Result<(), EncodeError> {
        match values {
            Some(values) => self.strings(values),
            None => {
                self.null();
                Ok(())
            }
        }
    }

    /// An array of structs.
    pub fn structs<T>(
        &mut self,
        values: &[T],
        version: i16,
        write: impl Fn(&T, &mut Self, i16) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.length(values.len())?;
        values
            .iter()
            .try_for_each(|value| write(value, self, version))
    }

    /// An array of structs, or null.
    pub fn nullable_structs<T>(
        &mut self,
        values: Option<&Vec<T>>,
        version: i16,
        write: impl Fn(&T, &mut Self, i16) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        match values {
            Some(values) => self.structs(values, version, write),
            None => {
                self.null();
                Ok(())
            }
        }
    }

    /// A struct, or null, told apart by a byte in front.
    pub fn nullable_struct<T>(
        &mut self,
        value: Option<&T>,
        version: i16,
        write: impl Fn(&T, &mut Self, i16) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        match value {
            Some(value) => {
                self.i8(1);
                write(value, self, version)
            }
            None => {
                self.i8(-1);
                Ok(())
            }
        }
    }

    /// A struct, or null, as the content of a tagged field: there the byte in front is 0 for null.
    pub fn nullable_tagged_struct<T>(
        &mut self,
        value: Option<&T>,
        version: i16,
        write: impl Fn(&T, &mut Self, i16) -> Result<(), EncodeError>,
    ) -> Result<(), EncodeError> {
        self.unsigned_varint(u32::from(value.is_some()));
        value.map_or(Ok(()), |value| write(value, self, version))
    }

    /// The tagged fields of a struct whose schema has none.
    #[inline]
    pub fn unknown_tags(&mut self, unknown: &Option<Box<UnknownTags>>) -> Result<(), EncodeError> {
        match unknown {
            Some(_) => self.tags(unknown).finish(),
            None => {
                if self.flexible {
                    self.buffer.push(0);
                }
                Ok(())
            }
        }
    }

    /// The tagged fields that end a struct in a flexible version. In another version nothing may
    /// be written to them.
    pub fn tags<'a>(&'a mut self, unknown: &'a Option<Box<UnknownTags>>) -> TagWriter<'a> {
        TagWriter::new(self, unknown.as_deref().map_or(&[], |tags| &tags.0))
    }

    /// Bytes written beside record data. A position to come back to with
    /// [`Encoder::fill_varint`].
    pub(crate) fn position(&self) -> usize {
        self.buffer.len()
    }

    /// Puts a number into the one byte kept free for it, making room if it takes more.
    pub(crate) fn fill_varint(&mut self, at: usize, value: u32) {
        debug_assert!(self.splices.last().is_none_or(|(splice, _)| *splice <= at));
        let (bytes, len) = varint_bytes(value);
        self.buffer.splice(at..=at, bytes[..len].iter().copied());
    }
}

fn varint_bytes(mut value: u32) -> ([u8; 5], usize) {
    let mut bytes = [0; 5];
    let mut len = 0;
    while value >= 0x80 {
        bytes[len] = value as u8 | 0x80;
        value >>= 7;
        len += 1;
    }
    bytes[len] = value as u8;
    (bytes, len + 1)
}
