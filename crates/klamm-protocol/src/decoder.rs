//! Reading the primitive types of the protocol.

use bytes::Bytes;
use klamm_records::Uuid;

use crate::tags::UnknownTag;
use crate::{ByteStr, DecodeError, Message, Records, UnknownTags};

/// The longest string of any form, in bytes.
pub(crate) const STRING_LEN_MAX: usize = i16::MAX as usize;

/// Reads a message from a frame, front to back.
///
/// Strings, bytes and records come out as slices of the frame. Every length is checked against
/// what is left of the frame before memory is taken for it. How lengths are written depends on
/// whether the message is in a flexible version, which the decoder is told once at its start.
#[derive(Clone, Debug)]
pub struct Decoder {
    frame: Bytes,
    position: usize,
    flexible: bool,
}

impl Decoder {
    /// Starts at the front of `frame`, in the encoding before flexible versions.
    pub fn new(frame: Bytes) -> Decoder {
        Decoder {
            frame,
            position: 0,
            flexible: false,
        }
    }

    /// Starts a message: checks its version and sets the encoding to that version's.
    pub fn begin<M: Message>(&mut self, version: i16) -> Result<(), DecodeError> {
        if !M::VERSIONS.contains(version) {
            let (message, supported) = (M::NAME, M::VERSIONS);
            return Err(DecodeError::UnsupportedVersion {
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

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// Bytes not read yet.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.frame.len() - self.position
    }

    /// The bytes not read yet.
    pub fn rest(&self) -> Bytes {
        self.frame.slice(self.position..)
    }

    #[cold]
    fn truncated(&self, needed: usize) -> DecodeError {
        DecodeError::Truncated {
            offset: self.position,
            needed,
            remaining: self.remaining(),
        }
    }

    #[inline]
    fn array_of_bytes<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.frame[self.position..].first_chunk::<N>() {
            Some(bytes) => {
                self.position += N;
                Ok(*bytes)
            }
            None => Err(self.truncated(N)),
        }
    }

    /// The next `len` bytes as a slice of the frame.
    #[inline]
    pub fn take(&mut self, len: usize) -> Result<Bytes, DecodeError> {
        if len > self.remaining() {
            return Err(self.truncated(len));
        }
        let start = self.position;
        self.position += len;
        Ok(self.frame.slice(start..self.position))
    }

    /// A truth value; any byte but 0 is true.
    #[inline]
    pub fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? != 0)
    }

    /// An 8-bit number.
    #[inline]
    pub fn i8(&mut self) -> Result<i8, DecodeError> {
        self.array_of_bytes().map(i8::from_be_bytes)
    }

    /// A 16-bit number.
    #[inline]
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array_of_bytes().map(i16::from_be_bytes)
    }

    /// A 16-bit number without sign.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array_of_bytes().map(u16::from_be_bytes)
    }

    /// A 32-bit number.
    #[inline]
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array_of_bytes().map(i32::from_be_bytes)
    }

    /// A 32-bit number without sign.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array_of_bytes().map(u32::from_be_bytes)
    }

    /// A 64-bit number.
    #[inline]
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array_of_bytes().map(i64::from_be_bytes)
    }

    /// A 64-bit floating point number.
    #[inline]
    pub fn f64(&mut self) -> Result<f64, DecodeError> {
        self.array_of_bytes().map(f64::from_be_bytes)
    }

    /// An id of 16 bytes.
    #[inline]
    pub fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        self.array_of_bytes().map(Uuid::from_bytes)
    }

    /// A number of at most 32 bits, seven to a byte, lowest first.
    #[inline]
    pub fn unsigned_varint(&mut self) -> Result<u32, DecodeError> {
        match self.frame.get(self.position) {
            Some(&byte) if byte < 0x80 => {
                self.position += 1;
                Ok(u32::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u32, DecodeError> {
        let offset = self.position;
        let mut value = 0_u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array_of_bytes()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| DecodeError::InvalidVarint { offset });
            }
        }
        Err(DecodeError::InvalidVarint { offset })
    }

    /// A length one too high, so that 0 means null.
    #[inline]
    fn compact_length(&mut self) -> Result<Option<usize>, DecodeError> {
        Ok(self
            .unsigned_varint()?
            .checked_sub(1)
            .map(|length| length as usize))
    }

    #[inline]
    fn string_length(&mut self) -> Result<Option<usize>, DecodeError> {
        if self.flexible {
            self.compact_length()
        } else {
            // As in Kafka, any negative length is null.
            self.i16().map(|length| usize::try_from(length).ok())
        }
    }

    #[inline]
    fn length(&mut self) -> Result<Option<usize>, DecodeError> {
        if self.flexible {
            self.compact_length()
        } else {
            self.i32().map(|length| usize::try_from(length).ok())
        }
    }

    #[inline]
    fn not_null<T>(&mut self, offset: usize, value: Option<T>) -> Result<T, DecodeError> {
        value.ok_or(DecodeError::UnexpectedNull { offset })
    }

    /// A string.
    #[inline]
    pub fn string(&mut self) -> Result<ByteStr, DecodeError> {
        let offset = self.position;
        let value = self.nullable_string()?;
        self.not_null(offset, value)
    }

    /// A string or null.
    #[inline]
    pub fn nullable_string(&mut self) -> Result<Option<ByteStr>, DecodeError> {
        let offset = self.position;
        match self.string_length()? {
            None => Ok(None),
            Some(length) if length > STRING_LEN_MAX => {
                Err(DecodeError::StringTooLong { offset, length })
            }
            Some(length) => self.take(length).map(ByteStr::from_utf8_lossy).map(Some),
        }
    }

    /// A string or null as it is written before flexible versions, whatever the version.
    pub fn legacy_nullable_string(&mut self) -> Result<Option<ByteStr>, DecodeError> {
        let flexible = std::mem::replace(&mut self.flexible, false);
        let value = self.nullable_string();
        self.flexible = flexible;
        value
    }

    /// Bytes.
    #[inline]
    pub fn bytes(&mut self) -> Result<Bytes, DecodeError> {
        let offset = self.position;
        let value = self.nullable_bytes()?;
        self.not_null(offset, value)
    }

    /// Bytes or null.
    #[inline]
    pub fn nullable_bytes(&mut self) -> Result<Option<Bytes>, DecodeError> {
        match self.length()? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// Record batches.
    pub fn records(&mut self) -> Result<Records, DecodeError> {
        self.bytes().map(Records::Bytes)
    }

    /// Record batches or null.
    pub fn nullable_records(&mut self) -> Result<Option<Records>, DecodeError> {
        Ok(self.nullable_bytes()?.map(Records::Bytes))
    }

    /// The number of elements of an array; `None` for null.
    #[inline]
    fn array_length(&mut self) -> Result<Option<usize>, DecodeError> {
        let offset = self.position;
        let length = self.length()?;
        let remaining = self.remaining();
        match length {
            Some(length) if length > remaining => Err(DecodeError::ArrayTooLong {
                offset,
                length,
                remaining,
            }),
            length => Ok(length),
        }
    }

    fn elements<T>(
        &mut self,
        length: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        // What is taken up front is bounded by the bytes there are, not by the claim; an honest
        // array of small elements grows a few times at most.
        let affordable = self.remaining() / size_of::<T>().max(1);
        let mut values = Vec::with_capacity(length.min(affordable.max(4)));
        for _ in 0..length {
            values.push(read(self)?);
        }
        Ok(values)
    }

    /// An array of primitive values.
    pub fn list<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let offset = self.position;
        let value = self.nullable_list(read)?;
        self.not_null(offset, value)
    }

    /// An array of primitive values, or null.
    pub fn nullable_list<T>(
        &mut self,
        read: impl Fn(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        match self.array_length()? {
            None => Ok(None),
            Some(length) => self.elements(length, read).map(Some),
        }
    }

    /// An array of structs.
    pub fn structs<T>(
        &mut self,
        version: i16,
        read: impl Fn(&mut Self, i16) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let offset = self.position;
        let value = self.nullable_structs(version, read)?;
        self.not_null(offset, value)
    }

    /// An array of structs, or null.
    pub fn nullable_structs<T>(
        &mut self,
        version: i16,
        read: impl Fn(&mut Self, i16) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        match self.array_length()? {
            None => Ok(None),
            Some(length) => self.elements(length, |d| read(d, version)).map(Some),
        }
    }

    /// A struct, or null, told apart by a byte in front.
    pub fn nullable_struct<T>(
        &mut self,
        version: i16,
        read: impl Fn(&mut Self, i16) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.i8()? < 0 {
            Ok(None)
        } else {
            read(self, version).map(Some)
        }
    }

    /// A struct, or null, as the content of a tagged field: there the byte in front is 0 for null.
    pub fn nullable_tagged_struct<T>(
        &mut self,
        version: i16,
        read: impl Fn(&mut Self, i16) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.unsigned_varint()? == 0 {
            Ok(None)
        } else {
            read(self, version).map(Some)
        }
    }

    /// The tagged fields that end a struct in a flexible version; `None` if there are none or the
    /// version has none.
    ///
    /// `known` reads the content of a field it knows and gives `true`, or reads nothing and gives
    /// `false`.
    pub fn tags(
        &mut self,
        mut known: impl FnMut(&mut Self, u32) -> Result<bool, DecodeError>,
    ) -> Result<Option<Box<UnknownTags>>, DecodeError> {
        if !self.flexible {
            return Ok(None);
        }
        let mut unknown = None;
        for _ in 0..self.unsigned_varint()? {
            let (tag, declared) = self.tag_header()?;
            let offset = self.position;
            if !known(self, tag)? {
                let data = self.take(declared)?;
                unknown
                    .get_or_insert_with(Box::<UnknownTags>::default)
                    .0
                    .push(UnknownTag { tag, data });
            } else if self.position - offset != declared {
                let actual = self.position - offset;
                return Err(DecodeError::TagSize {
                    offset,
                    tag,
                    declared,
                    actual,
                });
            }
        }
        Ok(unknown)
    }

    /// The tagged fields of a struct whose schema has none.
    #[inline]
    pub fn unknown_tags(&mut self) -> Result<Option<Box<UnknownTags>>, DecodeError> {
        if !self.flexible {
            return Ok(None);
        }
        // Nearly always there is none, which is worth a short way.
        if self.frame.get(self.position) == Some(&0) {
            self.position += 1;
            return Ok(None);
        }
        self.tags(|_, _| Ok(false))
    }

    /// Number and length of a tagged field.
    fn tag_header(&mut self) -> Result<(u32, usize), DecodeError> {
        let tag = self.unsigned_varint()?;
        let length = self.unsigned_varint()? as usize;
        if length > self.remaining() {
            return Err(self.truncated(length));
        }
        Ok((tag, length))
    }
}
