use std::collections::VecDeque;
use std::fmt;

use bytes::{Buf, Bytes};
use klamm_env::FileExt;
use klamm_records::batch::Frame;
use klamm_records::{BatchError, BatchView, Scratch};

use super::{Journal, JournalError};
use crate::error::{IoContext, LogError};

/// Bytes asked for at first: enough for who wants a record or two.
const CHUNK_BYTES_MIN: usize = 16 << 10;
/// Bytes asked for in the end by who goes on and on.
const CHUNK_BYTES_MAX: usize = 1 << 20;

/// A record with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the journal.
    pub offset: u64,
    /// When it was appended, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key, if it has one. Shares the memory of the piece that was read, as does the value:
    /// copy what is to be kept for long.
    pub key: Option<Bytes>,
    /// Its value; none if the key was [removed](super::Journal::remove).
    pub value: Option<Bytes>,
}

/// Reads entries up to an offset. Ends after the first error.
///
/// Reading takes no lock and hinders no append. A read that waits for the disk blocks the thread.
pub struct Entries {
    pub(super) journal: Journal,
    /// The first offset that was not read yet.
    pub(super) next: i64,
    until: i64,
    /// What was read from files and not decoded yet: batches, the last one possibly cut.
    bytes: Bytes,
    /// How much to ask for next.
    chunk_bytes: usize,
    /// What was decoded and not given out yet.
    decoded: VecDeque<Entry>,
    scratch: Scratch,
    failed: bool,
}

impl Entries {
    pub(super) fn new(journal: Journal, from: u64, until: u64) -> Entries {
        let signed = |offset| i64::try_from(offset).unwrap_or(i64::MAX);
        Entries {
            journal,
            next: signed(from),
            until: signed(until),
            bytes: Bytes::new(),
            chunk_bytes: CHUNK_BYTES_MIN,
            decoded: VecDeque::new(),
            scratch: Scratch::new(),
            failed: false,
        }
    }

    /// The next entry that is there; none at the end, for the time being.
    pub(super) fn step(&mut self) -> Result<Option<Entry>, JournalError> {
        loop {
            if let Some(entry) = self.decoded.pop_front() {
                return Ok(Some(entry));
            }
            if self.decode_batch()? {
                continue;
            }
            if !self.read_chunk()? {
                return Ok(None);
            }
            // A read begins with a whole batch, if its length is what it was.
            if !self.decode_batch()? {
                return Err(JournalError::Damaged {
                    offset: self.next.unsigned_abs(),
                    problem: BatchError::Truncated {
                        needed: self.bytes.len() + 1,
                        available: self.bytes.len(),
                    },
                });
            }
        }
    }

    /// Decodes the batch in front. False if there is no whole one.
    fn decode_batch(&mut self) -> Result<bool, JournalError> {
        let offset = self.next.unsigned_abs();
        let damaged = |problem| JournalError::Damaged { offset, problem };
        match Frame::peek(&self.bytes).map_err(damaged)? {
            Some(frame) if frame.size <= self.bytes.len() => {}
            _ => return Ok(false),
        }
        let bytes = self.bytes.clone();
        let view = BatchView::parse(&bytes).map_err(damaged)?;
        view.verify_crc().map_err(damaged)?;
        let header = *view.header();
        // Markers of transactions, should someone else have written here.
        if !header.attributes.is_control() {
            let own = header.attributes.is_compressed();
            // Uncompressed records lie in the piece that was read.
            let shared = |field: Option<&[u8]>| {
                field.map(|field| {
                    if own {
                        Bytes::copy_from_slice(field)
                    } else {
                        bytes.slice_ref(field)
                    }
                })
            };
            for record in view.records(&mut self.scratch).map_err(damaged)? {
                let record = record.map_err(damaged)?;
                // A batch may begin before the offset that was asked for.
                if (self.next..self.until).contains(&record.offset) {
                    self.decoded.push_back(Entry {
                        offset: record.offset.unsigned_abs(),
                        timestamp_ms: record.timestamp,
                        key: shared(record.key),
                        value: shared(record.value),
                    });
                }
            }
        }
        let after = header
            .base_offset
            .saturating_add(i64::from(header.last_offset_delta))
            + 1;
        if after <= self.next {
            return Err(damaged(BatchError::NegativeCount(header.last_offset_delta)));
        }
        self.next = after;
        self.bytes.advance(header.size());
        Ok(true)
    }

    /// Reads the next piece of the files. False at the end.
    fn read_chunk(&mut self) -> Result<bool, JournalError> {
        // If all entries of the last piece are gone, its memory serves again.
        let old = std::mem::take(&mut self.bytes).try_into_mut();
        let log = &self.journal.inner.log;
        let read = loop {
            self.next = self.next.max(log.log_start_offset());
            if self.next >= self.until.min(log.log_end_offset()) {
                return Ok(false);
            }
            match log.read(self.next, self.chunk_bytes, self.until, true) {
                // Dropped while it was looked for.
                Err(LogError::OffsetOutOfRange { .. }) if self.next < log.log_start_offset() => {}
                read => break read?,
            }
        };
        if read.is_empty() {
            // Compaction left nothing up to the end.
            self.next = self.until.min(read.log_end_offset);
            return Ok(false);
        }
        let mut bytes = old.unwrap_or_default();
        bytes.clear();
        bytes.resize(read.len, 0);
        let mut rest = &mut bytes[..];
        for part in read.parts {
            let (head, tail) = rest.split_at_mut(part.len);
            part.file
                .read_exact_at(head, part.position)
                .at("read", &log.dir())?;
            rest = tail;
        }
        self.bytes = bytes.freeze();
        self.chunk_bytes = (self.chunk_bytes * 4).min(CHUNK_BYTES_MAX);
        Ok(true)
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let step = self.step();
        self.failed = step.is_err();
        step.transpose()
    }
}

impl fmt::Debug for Entries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entries")
            .field("next", &self.next)
            .field("until", &self.until)
            .finish_non_exhaustive()
    }
}
