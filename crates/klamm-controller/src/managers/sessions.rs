use std::collections::BTreeMap;
use std::time::Duration;

use klamm_metadata::MetadataImage;

/// How long brokers may be silent, and when each was last heard of.
///
/// Sessions live in the memory of the active controller only. One that takes over starts a session
/// for each broker that is not fenced, as if all had just been heard of.
#[derive(Clone, Debug)]
pub struct Sessions {
    timeout: Duration,
    brokers: BTreeMap<i32, Session>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    last_contact: Duration,
    /// The metadata offset that the broker has reached.
    pub(super) metadata_offset: i64,
    /// The metadata offset that all others must reach before the broker may go.
    pub(super) shutdown_offset: Option<i64>,
}

impl Sessions {
    /// No sessions yet; each ends `timeout` after its broker was last heard of.
    pub fn new(timeout: Duration) -> Self {
        Sessions {
            timeout,
            brokers: BTreeMap::new(),
        }
    }

    /// Starts sessions for the brokers that are not fenced: a controller has become active.
    pub fn activate(&mut self, image: &MetadataImage, now: Duration) {
        self.brokers.clear();
        for broker in image.cluster().alive_brokers() {
            self.touch(broker.id, -1, now);
        }
    }

    /// When the next session ends, if there is one.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.brokers
            .values()
            .map(|session| session.last_contact + self.timeout)
            .min()
    }

    /// The broker whose session has been over for longest, if any is.
    pub fn expired(&self, now: Duration) -> Option<i32> {
        let (id, session) = self
            .brokers
            .iter()
            .min_by_key(|(_, session)| session.last_contact)?;
        (session.last_contact + self.timeout < now).then_some(*id)
    }

    /// Ends a session: the broker is fenced or gone.
    pub fn end(&mut self, broker: i32) {
        self.brokers.remove(&broker);
    }

    /// Whether a broker has been heard of lately.
    pub(super) fn is_valid(&self, broker: i32, now: Duration) -> bool {
        self.brokers
            .get(&broker)
            .is_some_and(|session| session.last_contact + self.timeout >= now)
    }

    pub(super) fn get(&self, broker: i32) -> Option<&Session> {
        self.brokers.get(&broker)
    }

    /// Notes a sign of life.
    pub(super) fn touch(&mut self, broker: i32, metadata_offset: i64, now: Duration) {
        let shutdown_offset = self
            .brokers
            .get(&broker)
            .and_then(|session| session.shutdown_offset);
        let session = Session {
            last_contact: now,
            metadata_offset,
            shutdown_offset,
        };
        self.brokers.insert(broker, session);
    }

    /// Notes the offset that others must reach before a broker may go, once.
    pub(super) fn set_shutdown_offset(&mut self, broker: i32, offset: i64) {
        if let Some(session) = self.brokers.get_mut(&broker) {
            session.shutdown_offset.get_or_insert(offset);
        }
    }

    /// The lowest metadata offset among the brokers that `active` picks.
    pub(super) fn lowest_offset(&self, active: impl Fn(i32) -> bool) -> i64 {
        let offsets = self.brokers.iter().filter(|(id, _)| active(**id));
        offsets
            .map(|(_, session)| session.metadata_offset)
            .min()
            .unwrap_or(i64::MAX)
    }
}
