//! **What is acknowledged stays.** A topic that a broker was told is made, a block of producer ids
//! that it was given, a quota that it was told is set, the epoch of its registration: all are in
//! every image from then on. Blocks and epochs are given out once, and in the order of real time: who
//! asks after another has its answer gets a later one.
//!
//! Source: linearizability of the controller. Known false positives: none. What was not answered may
//! be done at any time, as its message may be under way; so nothing here is ever set twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use klamm_metadata::{MetadataImage, QuotaEntity};
use klamm_records::Uuid;

use super::super::Violation;

/// What brokers were told.
#[derive(Debug, Default)]
pub struct Promises {
    /// Topics that were made, by name.
    topics: BTreeMap<String, Uuid>,
    /// Topics that were deleted, by id.
    deleted: BTreeSet<Uuid>,
    /// Users with a quota.
    users: BTreeMap<String, f64>,
    /// First ids of blocks.
    blocks: BTreeSet<i64>,
    /// Epochs of registrations.
    epochs: BTreeSet<i64>,
    /// The largest block and epoch that was given out, with the time of the answer.
    given: BTreeMap<&'static str, Vec<(Duration, i64)>>,
    /// All answers.
    pub answers: u64,
}

impl Promises {
    /// A topic was made.
    pub fn topic(&mut self, name: &str, id: Uuid) {
        self.answers += 1;
        self.topics.insert(name.to_owned(), id);
    }

    /// A topic is about to be deleted: it may be gone from now on.
    pub fn give_up_topic(&mut self, index: usize) -> Option<(String, Uuid)> {
        let index = index % self.topics.len().max(1);
        let name = self.topics.keys().nth(index)?.clone();
        self.topics.remove_entry(&name)
    }

    /// A topic was deleted.
    pub fn deleted(&mut self, id: Uuid) {
        self.answers += 1;
        self.deleted.insert(id);
    }

    /// A quota was set.
    pub fn quota(&mut self, user: &str, value: f64) {
        self.answers += 1;
        self.users.insert(user.to_owned(), value);
    }

    /// A block of producer ids was given out, between two times.
    pub fn block(&mut self, first: i64, asked: Duration, now: Duration) -> Result<(), Violation> {
        let new = self.blocks.insert(first);
        self.in_order("block", first, new, asked, now)
    }

    /// A broker was registered, between two times.
    pub fn epoch(&mut self, epoch: i64, asked: Duration, now: Duration) -> Result<(), Violation> {
        let new = self.epochs.insert(epoch);
        self.in_order("broker epoch", epoch, new, asked, now)
    }

    fn in_order(
        &mut self,
        what: &'static str,
        number: i64,
        new: bool,
        asked: Duration,
        now: Duration,
    ) -> Result<(), Violation> {
        self.answers += 1;
        let given = self.given.entry(what).or_default();
        let before = given.iter().filter(|(answered, _)| *answered < asked);
        let largest = before.map(|(_, number)| *number).max().unwrap_or(-1);
        given.push((now, number));
        if new && number > largest {
            return Ok(());
        }
        let detail = format!("{what} {number} is given out after {largest}, new: {new}");
        Err(Violation::new("promises", detail))
    }

    /// Checks that an image that is the newest has all of it.
    pub fn check(&self, image: &MetadataImage) -> Result<(), Violation> {
        let at = image.offset();
        let wrong = |what: String| {
            let detail = format!("{what} was promised, and is not so at {at}");
            Err(Violation::new("promises", detail))
        };
        for (name, id) in &self.topics {
            if image.topic(name).is_none_or(|topic| topic.id() != *id) {
                return wrong(format!("topic {name} with id {id}"));
            }
        }
        for id in &self.deleted {
            if image.topic_by_id(*id).is_some() {
                return wrong(format!("that topic {id} is deleted"));
            }
        }
        for (user, value) in &self.users {
            let user_of = ("user".to_owned(), Some(user.clone()));
            let quotas = image.quotas().of(&QuotaEntity(BTreeMap::from([user_of])));
            if quotas.and_then(|quotas| quotas.get(QUOTA)) != Some(value) {
                return wrong(format!("quota {value} of {user}"));
            }
        }
        let last = self.blocks.last().copied().unwrap_or(-1);
        if image.next_producer_id() <= last {
            return wrong(format!("block {last}"));
        }
        Ok(())
    }
}

/// The quota that is set.
pub const QUOTA: &str = "producer_byte_rate";
