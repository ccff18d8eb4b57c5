//! Walks the batches of a log file, and finds the way behind damage.

use std::path::PathBuf;
use std::sync::Arc;

use klamm_env::{File, FileExt};

use crate::batch::{BatchMeta, HEADER_LEN, verify_checksum};
use crate::error::{BatchFault, IoContext, LogError};
use crate::index::offset::fits;

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
///
/// Offset, length and epoch of a batch are not covered by its checksum, and a walk over headers
/// does not look at checksums at all. So each header is held against the next one: where they do
/// not fit together the checksum says which of the two is damaged.
#[derive(Debug)]
pub(crate) struct BatchScan {
    file: Arc<dyn File>,
    path: PathBuf,
    /// Where the next batch begins.
    position: u64,
    end: u64,
    /// No batch of the file begins below this offset.
    least_offset: i64,
    /// Nor any from here on below this one.
    next_offset: i64,
    buffer: Vec<u8>,
    /// Position in the file of the buffer's first byte.
    buffered_from: u64,
    buffered: usize,
}

/// Enough for the headers of a few small batches: lookups between two index entries.
pub(crate) const HEADERS: usize = 4 << 10;
/// Enough for full speed: recovery.
pub(crate) const WHOLE: usize = 1 << 20;

/// Where in a batch its magic lies.
const MAGIC_AT: usize = 16;
/// The format of batches that are looked for behind damage. Older ones have too little in them
/// that could tell one from other bytes.
const MAGIC: u8 = 2;

impl BatchScan {
    /// A walk over `from..end` of a file whose batches have offsets from `least_offset` on.
    pub(crate) fn new(
        file: Arc<dyn File>,
        path: PathBuf,
        (from, end): (u64, u64),
        least_offset: i64,
        buffer_len: usize,
    ) -> BatchScan {
        // Of ten thousand logs that a crash left, most are small or empty.
        let len = usize::try_from(end.saturating_sub(from)).unwrap_or(usize::MAX);
        BatchScan {
            file,
            path,
            position: from,
            end,
            least_offset,
            next_offset: least_offset,
            buffer: vec![0; buffer_len.min(len)],
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
        if !self.leads_on(&span)? && !self.holds(&span)? {
            return Err(self.corrupt(BatchFault::Checksum));
        }
        self.pass(&span);
        Ok(Some(span))
    }

    /// Whether the batch behind `span` is where `span` ends, with the offset that follows.
    fn leads_on(&mut self, span: &BatchSpan) -> Result<bool, LogError> {
        let next = self.peek_at(span.end(), span.meta.next_offset())?;
        Ok(matches!(next, Some(Ok(next)) if next.meta.base_offset == span.meta.next_offset()))
    }

    /// The header of the next batch that can be read: damage is passed over.
    pub(crate) fn next_readable(&mut self) -> Result<Option<BatchSpan>, LogError> {
        match self.next_header() {
            Err(LogError::Corrupt { .. }) => self.resync(),
            result => result,
        }
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
        self.next_offset = span.meta.next_offset();
        Ok(Verified::Batch(span, bytes))
    }

    /// The next batch whose checksum holds: damage is passed over. [`bytes_of`](Self::bytes_of)
    /// has its bytes.
    pub(crate) fn next_sound(&mut self) -> Result<Option<BatchSpan>, LogError> {
        match self.next_verified()? {
            Verified::Batch(span, _) => Ok(Some(span)),
            Verified::End => Ok(None),
            Verified::Damaged(_) => self.resync(),
        }
    }

    /// The bytes of the batch that was verified last.
    pub(crate) fn bytes_of(&self, span: &BatchSpan) -> &[u8] {
        let from = (span.position - self.buffered_from) as usize;
        &self.buffer[from..from + span.meta.size]
    }

    /// From damage, goes behind the next batch whose checksum holds and whose offsets may follow;
    /// none if there is none. [`seek`](Self::seek) goes back to that batch.
    ///
    /// What is damaged had an offset at least, so what follows begins above it. That is what tells a
    /// batch whose first bytes a power cut left zero from one that belongs to the log's begin.
    pub(crate) fn resync(&mut self) -> Result<Option<BatchSpan>, LogError> {
        // If the header can be believed it says where to go on.
        if let Some(Ok(span)) = self.peek_at(self.position, self.next_offset)?
            && let Some(next) = self.good_at(span.end())?
            && next.meta.base_offset == span.meta.next_offset()
        {
            self.pass(&next);
            return Ok(Some(next));
        }
        self.next_offset = self.next_offset.saturating_add(1);
        while let Some(next) = self.search()? {
            let behind = self.sound_behind(&next, self.next_offset)?;
            if behind.is_none_or(|behind| behind.meta.base_offset >= next.meta.next_offset()) {
                self.pass(&next);
                return Ok(Some(next));
            }
            // Its own offset is what is damaged.
            self.position = next.position;
        }
        self.position = self.end;
        Ok(None)
    }

    /// The next place behind this one where there is a batch beyond doubt.
    fn search(&mut self) -> Result<Option<BatchSpan>, LogError> {
        let mut at = self.position + 1;
        while at + HEADER_LEN as u64 <= self.end {
            self.position = at;
            self.fill(HEADER_LEN)?;
            let from = (at - self.buffered_from) as usize;
            let window = &self.buffer[from + MAGIC_AT..self.buffered];
            let Some(found) = window.iter().position(|&byte| byte == MAGIC) else {
                at += window.len() as u64;
                continue;
            };
            at += found as u64;
            if let Some(next) = self.good_at(at)? {
                return Ok(Some(next));
            }
            at += 1;
        }
        Ok(None)
    }

    /// Goes back to a batch, so that it is the next one, and one that begins at `least` or above.
    pub(crate) fn seek(&mut self, span: &BatchSpan, least: i64) {
        self.position = span.position;
        self.next_offset = least;
    }

    pub(crate) fn corrupt(&self, reason: BatchFault) -> LogError {
        LogError::Corrupt {
            file: self.path.clone(),
            position: self.position,
            offset: self.next_offset,
            reason,
        }
    }

    fn pass(&mut self, span: &BatchSpan) {
        self.position = span.end();
        self.next_offset = span.meta.next_offset();
    }

    /// The batch at a position, if it is beyond doubt.
    fn good_at(&mut self, position: u64) -> Result<Option<BatchSpan>, LogError> {
        let Some(Ok(span)) = self.peek_at(position, self.next_offset)? else {
            return Ok(None);
        };
        let plausible =
            span.meta.magic == MAGIC as i8 && fits(self.least_offset, span.meta.last_offset);
        Ok((plausible && self.holds(&span)?).then_some(span))
    }

    /// Whether the checksum of a batch holds.
    fn holds(&mut self, span: &BatchSpan) -> Result<bool, LogError> {
        let before = std::mem::replace(&mut self.position, span.position);
        let filled = self.fill(span.meta.size);
        self.position = before;
        filled?;
        let from = (span.position - self.buffered_from) as usize;
        let bytes = &self.buffer[from..from + span.meta.size];
        Ok(verify_checksum(bytes, span.meta.magic).is_ok())
    }

    /// The batch that comes next. After a gap it is believed only if what is behind it does not
    /// belong into the gap.
    fn peek(&mut self) -> Result<Option<Result<BatchSpan, BatchFault>>, LogError> {
        let expected = self.next_offset;
        let peeked = self.peek_at(self.position, expected)?;
        if let Some(Ok(span)) = &peeked
            && span.meta.base_offset > expected
            && let Some(behind) = self.sound_behind(span, expected.saturating_add(1))?
            && behind.meta.base_offset < span.meta.next_offset()
        {
            return Ok(Some(Err(BatchFault::Offset(span.meta.base_offset))));
        }
        Ok(peeked)
    }

    /// The first batch behind `span` that is beyond doubt and whose offsets begin at `least` or
    /// above.
    fn sound_behind(
        &mut self,
        span: &BatchSpan,
        least: i64,
    ) -> Result<Option<BatchSpan>, LogError> {
        if span.end() >= self.end {
            return Ok(None);
        }
        if let Some(behind) = self.peek_at(span.end(), least)?
            && let Ok(behind) = behind
            && behind.meta.base_offset == span.meta.next_offset()
        {
            // As it should be.
            return Ok(Some(behind));
        }
        let before = (self.position, self.next_offset);
        (self.position, self.next_offset) = (span.end(), least);
        let found = match self.good_at(span.end()) {
            Ok(None) => self.search(),
            found => found,
        };
        (self.position, self.next_offset) = before;
        found
    }

    /// The header at a position, of a batch whose offsets begin at `least` or above.
    fn peek_at(
        &mut self,
        position: u64,
        least: i64,
    ) -> Result<Option<Result<BatchSpan, BatchFault>>, LogError> {
        let left = self.end.saturating_sub(position);
        if left == 0 {
            return Ok(None);
        }
        let want = HEADER_LEN.min(usize::try_from(left).unwrap_or(HEADER_LEN));
        let before = std::mem::replace(&mut self.position, position);
        let filled = self.fill(want);
        self.position = before;
        filled?;
        let from = (position - self.buffered_from) as usize;
        let parsed = BatchMeta::parse(&self.buffer[from..from + want]).and_then(|meta| {
            // Of old formats the last offset alone is known.
            if meta.base_offset < least {
                Err(BatchFault::Offset(meta.base_offset))
            } else if meta.size as u64 > left {
                Err(BatchFault::Truncated)
            } else {
                Ok(BatchSpan { position, meta })
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
