use super::header::{CRC_FROM, MAGIC_AT};
use super::record::{Base, read_record};
use super::{BatchError, BatchHeader, HEADER_LEN, LOG_OVERHEAD, RecordRef};
use crate::crc::crc32c;
use crate::legacy;
use crate::scratch::Scratch;

/// A batch of magic 2 that borrows its bytes.
#[derive(Clone, Copy, Debug)]
pub struct BatchView<'a> {
    header: BatchHeader,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// The batch at the front of `bytes`; what follows it is left out. The checksum is not
    /// verified: see [`BatchView::verify_crc`].
    pub fn parse(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        match bytes.get(..header.size()) {
            Some(bytes) => Ok(BatchView { header, bytes }),
            None => Err(BatchError::Truncated {
                needed: header.size(),
                available: bytes.len(),
            }),
        }
    }

    /// The header's fields.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records, compressed if the batch is.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[HEADER_LEN..]
    }

    /// Compares the checksum with the content.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c(&self.bytes[CRC_FROM..]);
        if computed == self.header.crc {
            Ok(())
        } else {
            Err(BatchError::ChecksumMismatch {
                stored: self.header.crc,
                computed,
            })
        }
    }

    /// Walks over the records. Those of an uncompressed batch are slices of it (with
    /// `Bytes::slice_ref` they need no copy); a compressed batch is decompressed into `scratch`
    /// first, up to the scratch's limit.
    ///
    /// The walk ends after the first error. Bytes after the last record are an error, too.
    pub fn records<'s>(&self, scratch: &'s mut Scratch) -> Result<Records<'s>, BatchError>
    where
        'a: 's,
    {
        if self.header.record_count < 0 {
            return Err(BatchError::NegativeCount(self.header.record_count));
        }
        let compression = self.header.compression()?;
        let rest = if self.header.attributes.is_compressed() && self.header.record_count > 0 {
            scratch.decompress(compression, self.body())?
        } else {
            self.body()
        };
        Ok(Records {
            rest,
            base: Base::of(&self.header),
            next: 0,
            count: self.header.record_count,
        })
    }
}

/// The records of a batch.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    base: Base,
    next: i32,
    count: i32,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordRef<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.count {
            return None;
        }
        let index = self.next;
        self.next += 1;
        let record = read_record(&mut self.rest, &self.base)
            .map_err(|error| BatchError::Record { index, error });
        let verdict = match record {
            Ok(_) if self.next == self.count && !self.rest.is_empty() => {
                Err(BatchError::TrailingBytes(self.count))
            }
            verdict => verdict,
        };
        if verdict.is_err() {
            self.next = self.count;
        }
        Some(verdict)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // A count in a header is a claim: every record takes 7 bytes at least.
        let left = usize::try_from(self.count - self.next).unwrap_or(0);
        (0, Some(left.min(self.rest.len() / 7 + 1)))
    }
}

/// Cuts `bytes` into batches of magic 2, one after the other.
///
/// As in Kafka's reader, an incomplete batch at the end is no error: the walk ends before it, and
/// [`Batches::valid_bytes`] tells where. The walk ends after the first error.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches {
        bytes,
        at: 0,
        failed: false,
    }
}

/// Iterator over the batches of a buffer.
#[derive(Clone, Debug)]
pub struct Batches<'a> {
    bytes: &'a [u8],
    at: usize,
    failed: bool,
}

impl Batches<'_> {
    /// Bytes of the batches given so far.
    pub fn valid_bytes(&self) -> usize {
        self.at
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let rest = &self.bytes[self.at..];
        let frame = match Frame::peek(rest) {
            Ok(Some(frame)) if frame.size <= rest.len() => frame,
            Ok(_) => return None,
            Err(error) => {
                self.failed = true;
                return Some(Err(error));
            }
        };
        let view = BatchView::parse(rest);
        match view {
            Ok(_) => self.at += frame.size,
            Err(_) => self.failed = true,
        }
        Some(view)
    }
}

/// What the first bytes of a batch or message of any magic tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Base offset (magic 2) or last offset (magic 0 and 1).
    pub offset: i64,
    /// Bytes of the whole.
    pub size: usize,
    /// Format version, 0 to 2.
    pub magic: i8,
}

impl Frame {
    /// Bytes that [`Frame::peek`] needs.
    pub const PEEK_LEN: usize = MAGIC_AT + 1;

    /// Reads the frame at the front of `bytes`; `None` if there are too few. Judges as Kafka's
    /// reader does: a size below the smallest message or a magic above 2 is an error.
    pub fn peek(bytes: &[u8]) -> Result<Option<Frame>, BatchError> {
        let Some((offset, rest)) = bytes.split_first_chunk::<8>() else {
            return Ok(None);
        };
        let Some(length) = rest.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        let size = i64::from(length) + LOG_OVERHEAD as i64;
        if length < legacy::OVERHEAD_V0 {
            return Err(BatchError::TooSmall { size });
        }
        let Some(&magic) = bytes.get(MAGIC_AT) else {
            return Ok(None);
        };
        let magic = magic as i8;
        if !(0..=2).contains(&magic) {
            return Err(BatchError::UnsupportedMagic(magic));
        }
        Ok(Some(Frame {
            offset: i64::from_be_bytes(*offset),
            size: length as usize + LOG_OVERHEAD,
            magic,
        }))
    }
}
