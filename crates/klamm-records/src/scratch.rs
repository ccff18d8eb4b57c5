use std::fmt;

use crate::compression::{
    self, Codec, Compression, CompressionError, Contexts, Decoder, PIECE_LEN,
};

/// Buffers and codec contexts that are used again for each batch.
///
/// One per task or thread that reads batches. It keeps at most about 1 MiB of buffer between
/// batches, whatever passed through it, and codec contexts of up to 16 MiB.
pub struct Scratch {
    pub(crate) contexts: Contexts,
    /// The decompressed body of the batch at hand, or one piece of it.
    pub(crate) buffer: Vec<u8>,
    pub(crate) limit: usize,
}

/// Bytes of buffer kept from one batch to the next.
const BUFFER_LEN_KEPT: usize = 1 << 20;

impl Scratch {
    /// Bytes that one decompressed batch may have unless [`Scratch::with_limit`] says otherwise.
    pub const DEFAULT_LIMIT: usize = 256 << 20;

    /// Empty scratch space with the default limit.
    pub fn new() -> Scratch {
        Scratch::with_limit(Scratch::DEFAULT_LIMIT)
    }

    /// Empty scratch space that refuses batches of more than `limit` bytes once decompressed.
    pub fn with_limit(limit: usize) -> Scratch {
        Scratch {
            contexts: Contexts::default(),
            buffer: Vec::new(),
            limit,
        }
    }

    /// Decompresses a whole body.
    pub fn decompress(
        &mut self,
        compression: Compression,
        input: &[u8],
    ) -> Result<&[u8], CompressionError> {
        self.decompress_as(compression, input, false)
    }

    pub(crate) fn decompress_as(
        &mut self,
        compression: Compression,
        input: &[u8],
        legacy_lz4: bool,
    ) -> Result<&[u8], CompressionError> {
        self.trim();
        let limit = self.limit;
        let mut decoder = Decoder::new(&mut self.contexts, compression, input, legacy_lz4)?;
        while decoder.next_piece(&mut self.buffer)? > 0 {
            if self.buffer.len() > limit {
                return Err(CompressionError::TooLarge { limit });
            }
        }
        Ok(&self.buffer)
    }

    /// Compresses a whole body; the result is appended to `out`.
    pub fn compress(
        &mut self,
        codec: Codec,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), CompressionError> {
        compression::compress(&mut self.contexts, codec, input, out)
    }

    /// Empties the buffer and gives back what a large batch made it grow to.
    pub(crate) fn trim(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_LEN_KEPT.max(PIECE_LEN));
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scratch")
            .field("buffer_capacity", &self.buffer.capacity())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}
