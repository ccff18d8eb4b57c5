use std::fmt;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::{Entries, Entry, Journal, JournalError};
use crate::log::Log;
use crate::storage::lock;
use crate::watch::EndListener;

/// Longer than anyone waits: the end of the journal wakes whoever sleeps.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

/// Reads entries and sleeps at the end until there are more. The iteration ends when the journal
/// is closed, or after an error.
#[derive(Debug)]
pub struct Follower {
    entries: Entries,
    ended: bool,
}

impl Follower {
    pub(super) fn new(journal: Journal, from: u64) -> Follower {
        Follower {
            entries: Entries::new(journal, from, u64::MAX),
            ended: false,
        }
    }

    /// The next entry, if it is there by the end of `timeout`.
    ///
    /// # Errors
    /// As for [`Entries`]; [`JournalError::is_closed`] tells the end of the journal from others.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<Entry>, JournalError> {
        if let Some(entry) = self.entries.step()? {
            return Ok(Some(entry));
        }
        let journal = self.entries.journal.clone();
        journal.inner.log.wait_for(self.entries.next, timeout);
        journal.inner.log.check_open()?;
        self.entries.step()
    }
}

impl Iterator for Follower {
    type Item = Result<Entry, JournalError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.next_within(FOR_EVER) {
                Ok(None) => {}
                Ok(Some(entry)) => return Some(Ok(entry)),
                Err(error) => {
                    self.ended = true;
                    return (!error.is_closed()).then_some(Err(error));
                }
            }
        }
        None
    }
}

/// Reads entries and, at the end, waits for more without holding a thread. Works with any async
/// runtime, and with the feature `stream` is a `Stream`.
///
/// What has to be read from files is read within the poll, at most 1 MiB at a time and from the
/// page cache unless the reader lags far behind; a reader of old data belongs on a thread, where
/// [`Journal::read`] does.
pub struct Tail {
    entries: Entries,
    ended: bool,
    waker: Arc<Mutex<Option<Waker>>>,
    /// Held for as long as there is something to wake.
    _listener: Arc<EndListener>,
}

impl Tail {
    pub(super) fn new(journal: Journal, from: u64) -> Tail {
        let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
        let listener: Arc<EndListener> = {
            let waker = waker.clone();
            Arc::new(move |_| {
                let waiting = lock(&waker).take();
                if let Some(waiting) = waiting {
                    waiting.wake();
                }
            })
        };
        journal.inner.log.subscribe(&listener);
        Tail {
            entries: Entries::new(journal, from, u64::MAX),
            ended: false,
            waker,
            _listener: listener,
        }
    }

    /// The next entry; none once the journal is closed, or after an error.
    pub async fn next(&mut self) -> Option<Result<Entry, JournalError>> {
        std::future::poll_fn(|context| self.poll_entry(context)).await
    }

    /// The next entry if it is there; else the task is woken when it may be.
    pub fn poll_entry(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Entry, JournalError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut step = self.entries.step();
        if matches!(step, Ok(None)) {
            *lock(&self.waker) = Some(context.waker().clone());
            // An append between the look and the note woke nobody.
            step = self.look_again();
        }
        match step {
            Ok(None) => Poll::Pending,
            Ok(Some(entry)) => Poll::Ready(Some(Ok(entry))),
            Err(error) => {
                self.ended = true;
                Poll::Ready((!error.is_closed()).then_some(Err(error)))
            }
        }
    }

    fn look_again(&mut self) -> Result<Option<Entry>, JournalError> {
        let log: &Log = &self.entries.journal.inner.log;
        log.check_open()?;
        self.entries.step()
    }
}

#[cfg(feature = "stream")]
impl futures_core::Stream for Tail {
    type Item = Result<Entry, JournalError>;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_entry(context)
    }
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail")
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}
