//! Share sessions: which partitions a member fetches, so that it need not say so each time, and
//! that requests of a member are taken in their order (KIP-932).

use std::collections::BTreeMap;

use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

/// The epoch of a request that begins a session.
pub const INITIAL_EPOCH: i32 = 0;
/// The epoch of a request that ends one.
pub const FINAL_EPOCH: i32 = -1;

/// A partition: topic and number.
pub type SessionPartition = (Uuid, i32);

/// Whose session: group and member.
pub type SessionKey = (ByteStr, ByteStr);

/// A request that is about to be answered under its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionStep {
    /// Fetch these partitions, in this order.
    Fetch {
        /// The partitions.
        partitions: Vec<SessionPartition>,
        /// Whether the session is new, and the answer is to show every partition.
        is_new: bool,
    },
    /// Nothing is to be fetched: the session ends with this request.
    Final,
}

#[derive(Clone, Debug)]
struct ShareSession {
    /// What the next request must carry.
    epoch: i32,
    /// The connection that it lives on.
    connection: u64,
    partitions: Vec<SessionPartition>,
}

/// A fetch as it concerns its session.
#[derive(Clone, Debug)]
pub struct SessionFetch<'a> {
    /// `ShareSessionEpoch`
    pub epoch: i32,
    /// Partitions that it names.
    pub partitions: &'a [SessionPartition],
    /// Partitions that it wants no more.
    pub forgotten: &'a [SessionPartition],
    /// Whether it acknowledges anything.
    pub acknowledges: bool,
    /// The connection that it came by.
    pub connection: u64,
}

/// The share sessions of a broker.
#[derive(Debug)]
pub struct ShareSessions {
    /// `group.share.max.share.sessions`
    sessions_max: usize,
    sessions: BTreeMap<SessionKey, ShareSession>,
}

impl ShareSessions {
    /// No sessions, with room for `sessions_max`.
    pub fn new(sessions_max: usize) -> Self {
        ShareSessions {
            sessions_max,
            sessions: BTreeMap::new(),
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Whether any member of the group has a session.
    pub fn has_group(&self, group: &str) -> bool {
        self.sessions.keys().any(|(of, _)| *of == *group)
    }

    /// Takes a ShareFetch. A first one makes a new session in the place of the member's old one.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for acknowledgements in a first request, `SHARE_SESSION_LIMIT_REACHED`,
    /// `SHARE_SESSION_NOT_FOUND`, `INVALID_SHARE_SESSION_EPOCH`.
    pub fn fetch(
        &mut self,
        key: &SessionKey,
        request: &SessionFetch<'_>,
    ) -> Result<SessionStep, ErrorCode> {
        if request.epoch == INITIAL_EPOCH {
            return self.begin(key, request);
        }
        let session = self
            .sessions
            .get_mut(key)
            .ok_or(ErrorCode::ShareSessionNotFound)?;
        if request.epoch == FINAL_EPOCH {
            return Ok(SessionStep::Final);
        }
        if session.epoch != request.epoch {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        for partition in request.partitions {
            if !session.partitions.contains(partition) {
                session.partitions.push(*partition);
            }
        }
        session
            .partitions
            .retain(|partition| !request.forgotten.contains(partition));
        session.epoch = next_epoch(request.epoch);
        Ok(SessionStep::Fetch {
            partitions: rotated(&session.partitions, request.epoch),
            is_new: false,
        })
    }

    fn begin(
        &mut self,
        key: &SessionKey,
        request: &SessionFetch<'_>,
    ) -> Result<SessionStep, ErrorCode> {
        if request.acknowledges {
            return Err(ErrorCode::InvalidRequest);
        }
        self.sessions.remove(key);
        if self.sessions.len() >= self.sessions_max {
            return Err(ErrorCode::ShareSessionLimitReached);
        }
        let mut partitions: Vec<SessionPartition> = Vec::with_capacity(request.partitions.len());
        for partition in request.partitions {
            if !partitions.contains(partition) {
                partitions.push(*partition);
            }
        }
        let key = (key.0.detached(), key.1.detached());
        self.sessions.insert(
            key,
            ShareSession {
                epoch: next_epoch(INITIAL_EPOCH),
                connection: request.connection,
                partitions: partitions.clone(),
            },
        );
        Ok(SessionStep::Fetch {
            partitions,
            is_new: true,
        })
    }

    /// Takes a ShareAcknowledge.
    ///
    /// # Errors
    /// `SHARE_SESSION_NOT_FOUND`, `INVALID_SHARE_SESSION_EPOCH`.
    pub fn acknowledge(&mut self, key: &SessionKey, epoch: i32) -> Result<(), ErrorCode> {
        if epoch == INITIAL_EPOCH {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        let session = self
            .sessions
            .get_mut(key)
            .ok_or(ErrorCode::ShareSessionNotFound)?;
        if epoch == FINAL_EPOCH {
            return Ok(());
        }
        if session.epoch != epoch {
            return Err(ErrorCode::InvalidShareSessionEpoch);
        }
        session.epoch = next_epoch(epoch);
        Ok(())
    }

    /// Ends a session; returns the partitions that were fetched in it.
    pub fn end(&mut self, key: &SessionKey) -> Option<Vec<SessionPartition>> {
        Some(self.sessions.remove(key)?.partitions)
    }

    /// Ends the sessions of a connection that is gone.
    pub fn disconnected(&mut self, connection: u64) -> Vec<(SessionKey, Vec<SessionPartition>)> {
        let gone: Vec<SessionKey> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.connection == connection)
            .map(|(key, _)| key.clone())
            .collect();
        gone.into_iter()
            .filter_map(|key| {
                let partitions = self.end(&key)?;
                Some((key, partitions))
            })
            .collect()
    }
}

fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

/// Every request begins with another partition, so that each gets its turn.
fn rotated(partitions: &[SessionPartition], epoch: i32) -> Vec<SessionPartition> {
    let mut partitions = partitions.to_vec();
    if let Ok(by) = usize::try_from(epoch)
        && !partitions.is_empty()
    {
        let by = by % partitions.len();
        partitions.rotate_left(by);
    }
    partitions
}
