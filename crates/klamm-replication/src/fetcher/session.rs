//! The asking side of a fetch session.

use std::collections::BTreeMap;

use klamm_protocol::ErrorCode;
use klamm_records::Uuid;

use crate::fetch_session::{FetchPartition, INITIAL_EPOCH, INVALID_SESSION_ID, next_epoch};

/// A partition, by the id of its topic: sessions of followers are always by id.
pub type PartitionKey = (Uuid, i32);

/// What a fetch says of its session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionFetch {
    /// The session, 0 for none.
    pub session_id: i32,
    /// The turn within the session; 0 asks for a new one.
    pub epoch: i32,
    /// Partitions to name: all of them at first, then those that changed.
    pub named: Vec<(PartitionKey, FetchPartition)>,
    /// Partitions that are no longer wanted.
    pub forgotten: Vec<PartitionKey>,
}

/// A fetch session as the one who fetches knows it.
///
/// # Invariants
/// `told` is what the leader knows of this follower's wishes once the request in flight arrives.
#[derive(Debug, Default)]
pub struct ClientSession {
    id: i32,
    epoch: i32,
    told: BTreeMap<PartitionKey, FetchPartition>,
}

impl ClientSession {
    /// The next request for `wanted`, all that is wanted of this leader.
    pub fn next(&mut self, wanted: &BTreeMap<PartitionKey, FetchPartition>) -> SessionFetch {
        let mut fetch = SessionFetch {
            session_id: self.id,
            epoch: self.epoch,
            ..SessionFetch::default()
        };
        if self.epoch == INITIAL_EPOCH {
            fetch.named = wanted.iter().map(|(key, wish)| (*key, *wish)).collect();
            self.told.clone_from(wanted);
            return fetch;
        }
        for (key, wish) in wanted {
            if self.told.get(key) != Some(wish) {
                fetch.named.push((*key, *wish));
                self.told.insert(*key, *wish);
            }
        }
        self.told.retain(|key, _| {
            let keep = wanted.contains_key(key);
            if !keep {
                fetch.forgotten.push(*key);
            }
            keep
        });
        fetch
    }

    /// Takes note of an answer without an error for the request as a whole.
    pub fn answered(&mut self, session_id: i32) {
        if self.epoch != INITIAL_EPOCH {
            self.epoch = next_epoch(self.epoch);
        } else if session_id == INVALID_SESSION_ID {
            // The leader keeps no session for us: name everything each time.
            self.id = INVALID_SESSION_ID;
        } else {
            self.id = session_id;
            self.epoch = next_epoch(INITIAL_EPOCH);
        }
    }

    /// Takes note that the leader refused the request as a whole.
    pub fn refused(&mut self, error: ErrorCode) {
        if error == ErrorCode::FetchSessionIdNotFound {
            self.id = INVALID_SESSION_ID;
        }
        self.start_over();
    }

    /// The answer is lost, or was refused: what the leader thinks of the session is not known. The
    /// next request names everything and closes the session there, if there is one.
    pub fn start_over(&mut self) {
        self.epoch = INITIAL_EPOCH;
    }
}
