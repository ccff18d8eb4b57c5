//! Walks the batches of a log file.

use std::path::PathBuf;
use std::sync::Arc;

use klamm_env::{File, FileExt};

use crate::batch::{BatchMeta, HEADER_LEN, verify_checksum};
use crate::error::{BatchFault, IoContext, LogError};

/// Where a batch lies in a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchSpan {
    pub(crate) position: u64,
    pub(crate) meta: BatchMeta,
}

impl BatchSpan {
    pub(crate) fn end(&self) -> u64 {
        self.position + self.meta.size as u64
    }
}

/// What verification found next. Damage is a value rather than an error: for recovery it is the
/// expected way to end.
pub(crate) enum Verified<'a> {
    Batch(BatchSpan, &'a [u8]),
    Damaged(BatchFault),
    End,
}

/// Reads the batches of a file from a position to an end, through a buffer of fixed size (larger
/// only for a batch that is larger).
#[derive(Debug)]
pub(crate) struct BatchScan {
    file: Arc<dyn File>,
    path: PathBuf,
    /// Where the next batch begins.
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    /// Position in the file of the buffer's first byte.
    buffered_from: u64,
    buffered: usize,
}

/// Enough for the headers of a few small batches: lookups between two index entries.
pub(crate) const HEADERS: usize = 4 << 10;
/// Enough for full speed: recovery.
pub(crate) const WHOLE: usize = 1 << 20;

impl BatchScan {
    pub(crate) fn new(
        file: Arc<dyn File>,
        path: PathBuf,
        from: u64,
        end: u64,
        buffer_len: usize,
    ) -> BatchScan {
        BatchScan {
            file,
            path,
            position: from,
            end,
            buffer: vec![0; buffer_len],
            buffered_from: from,
            buffered: 0,
        }
    }

    /// The next batch's header; the batch itself is skipped. None at the end.
    pub(crate) fn next_header(&mut self) -> Result<Option<BatchSpan>, LogError> {
        let span = match self.peek()? {
            Some(Ok(span)) => span,
            Some(Err(fault)) => return Err(self.corrupt(fault)),
            None => return Ok(None),
        };
        self.position = span.end();
        Ok(Some(span))
    }

    /// The next batch, checksum verified, with its bytes.
    pub(crate) fn next_verified(&mut self) -> Result<Verified<'_>, LogError> {
        let span = match self.peek()? {
            Some(Ok(span)) => span,
            Some(Err(fault)) => return Ok(Verified::Damaged(fault)),
            None => return Ok(Verified::End),
        };
        self.fill(span.meta.size)?;
        let from = (span.position - self.buffered_from) as usize;
        let bytes = &self.buffer[from..from + span.meta.size];
        if let Err(fault) = verify_checksum(bytes, span.meta.magic) {
            return Ok(Verified::Damaged(fault));
        }
        self.position = span.end();
        Ok(Verified::Batch(span, bytes))
    }

    pub(crate) fn corrupt(&self, reason: BatchFault) -> LogError {
        LogError::Corrupt {
            file: self.path.clone(),
            position: self.position,
            reason,
        }
    }

    fn peek(&mut self) -> Result<Option<Result<BatchSpan, BatchFault>>, LogError> {
        let left = self.end.saturating_sub(self.position);
        if left == 0 {
            return Ok(None);
        }
        let want = HEADER_LEN.min(usize::try_from(left).unwrap_or(HEADER_LEN));
        self.fill(want)?;
        let from = (self.position - self.buffered_from) as usize;
        let parsed = BatchMeta::parse(&self.buffer[from..from + want]).and_then(|meta| {
            if meta.size as u64 > left {
                Err(BatchFault::Truncated)
            } else {
                Ok(BatchSpan {
                    position: self.position,
                    meta,
                })
            }
        });
        Ok(Some(parsed))
    }

    /// Makes the next `len` bytes available in the buffer.
    fn fill(&mut self, len: usize) -> Result<(), LogError> {
        let buffered_end = self.buffered_from + self.buffered as u64;
        if self.position >= self.buffered_from && self.position + len as u64 <= buffered_end {
            return Ok(());
        }
        if self.position >= self.buffered_from && self.position < buffered_end {
            let from = (self.position - self.buffered_from) as usize;
            self.buffer.copy_within(from..self.buffered, 0);
            self.buffered -= from;
        } else {
            self.buffered = 0;
        }
        self.buffered_from = self.position;
        if self.buffer.len() < len {
            self.buffer.resize(len, 0);
        }
        let left = self.end - (self.buffered_from + self.buffered as u64);
        let room = (self.buffer.len() - self.buffered) as u64;
        let want = left.min(room) as usize;
        let read = self
            .file
            .read_up_to_at(
                &mut self.buffer[self.buffered..self.buffered + want],
                self.buffered_from + self.buffered as u64,
            )
            .at("read", &self.path)?;
        self.buffered += read;
        if self.buffered < len {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof))
                .at("read", &self.path);
        }
        Ok(())
    }
}
