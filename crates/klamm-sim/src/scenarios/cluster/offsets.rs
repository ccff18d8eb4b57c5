//! **Committed offsets stay.** What a group was told to be committed is what it fetches from then
//! on, or what it asked for later.
//!
//! Source: the log of `__consumer_offsets`. Known false positives: none. A coordinator that does not
//! know that it was deposed answers with what was, here as in Kafka, so only those answers count
//! that come from the leader in the newest epoch.

use std::collections::BTreeMap;

use super::super::Violation;

/// What a group knows of a partition of its own.
#[derive(Clone, Debug, Default)]
pub struct Commits(BTreeMap<i64, Commit>);

#[derive(Clone, Debug, Default)]
struct Commit {
    /// The last offset that it asked to commit.
    sent: i64,
    /// The last that it was told to be committed.
    told: Option<i64>,
}

impl Commits {
    /// A group is about to commit an offset: each is larger than the one before.
    pub fn sent(&mut self, group: i64, offset: i64) {
        self.0.entry(group).or_default().sent = offset;
    }

    /// It was told that it is committed.
    pub fn told(&mut self, group: i64, offset: i64) {
        self.0.entry(group).or_default().told = Some(offset);
    }

    /// Of how many groups something is committed.
    pub fn groups(&self) -> usize {
        let told = self.0.values().filter(|commit| commit.told.is_some());
        told.count()
    }

    /// What a fetch that begins now must give at least.
    pub fn floor(&self, group: i64) -> Option<i64> {
        self.0.get(&group)?.told
    }

    /// Checks the property for a fetch that began when the floor was `floor`. Without an offset
    /// `fetched` is -1.
    pub fn check(&self, group: i64, floor: Option<i64>, fetched: i64) -> Result<(), Violation> {
        let sent = self.0.get(&group).map_or(-1, |commit| commit.sent);
        if fetched >= floor.unwrap_or(-1) && fetched <= sent.max(-1) {
            return Ok(());
        }
        let detail =
            format!("group {group} fetches {fetched}, was told of {floor:?} and asked for {sent}");
        Err(Violation::new("offsets", detail))
    }
}
