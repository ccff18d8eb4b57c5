//! What one fetch carries from [`FetchSessionCache::begin`](super::FetchSessionCache::begin) to
//! [`finish`](super::FetchSessionCache::finish).

use std::sync::{Arc, Mutex};

use super::session::{Session, SessionError};
use super::{FetchPartition, INVALID_SESSION_ID, TopicIdPartition};

/// A fetch between its two steps.
#[derive(Debug)]
pub struct FetchContext {
    pub(super) kind: Kind,
    pub(super) partitions: Vec<(TopicIdPartition, FetchPartition)>,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Refused as a whole.
    Error(SessionError),
    /// No session, none wanted.
    Sessionless,
    /// Names everything; a session is made of it if there is a slot.
    Full {
        uses_topic_ids: bool,
        from_follower: bool,
    },
    /// Within a session.
    Incremental {
        session: Arc<Mutex<Session>>,
        /// The session's epoch unless another fetch has come in between.
        expected_epoch: i32,
    },
}

/// A fetch's answer after the session has had its say.
#[derive(Debug)]
pub struct Finished<A> {
    /// The session id to answer with; 0 for none.
    pub session_id: i32,
    /// The error of the answer as a whole.
    pub error: Option<SessionError>,
    /// The partitions to answer, in order.
    pub partitions: Vec<(TopicIdPartition, A)>,
}

impl FetchContext {
    /// The session error, if the fetch is refused. Nothing is to be read then.
    pub fn error(&self) -> Option<SessionError> {
        match &self.kind {
            Kind::Error(error) => Some(*error),
            _ => None,
        }
    }

    /// All partitions that the client wants, in the order in which to serve them.
    pub fn partitions(&self) -> &[(TopicIdPartition, FetchPartition)] {
        &self.partitions
    }

    /// The answer to a fetch that is throttled: empty, but the session goes on.
    pub fn throttled<A>(&self) -> Finished<A> {
        let (session_id, error) = match &self.kind {
            Kind::Incremental {
                session,
                expected_epoch,
            } => {
                let session = lock(session);
                let in_turn = session.epoch == *expected_epoch;
                (session.id, (!in_turn).then_some(SessionError::InvalidEpoch))
            }
            Kind::Error(_) | Kind::Sessionless | Kind::Full { .. } => (INVALID_SESSION_ID, None),
        };
        Finished {
            session_id,
            error,
            partitions: Vec::new(),
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}
