//! **Committed offsets stay.** What a group was told to be committed is what it fetches from then
//! on, or what it asked for later; or nothing, once the time for which offsets are kept is over.
//!
//! Source: the log of `__consumer_offsets`, KIP-211. Known false positives: none. A coordinator that does not
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
    /// When it asked for that, in milliseconds.
    at_ms: i64,
}

/// What a fetch must give at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The offset.
    pub offset: i64,
    /// Since when it is committed, in milliseconds.
    pub at_ms: i64,
}

impl Commits {
    /// A group is about to commit an offset: each is larger than the one before.
    pub fn sent(&mut self, group: i64, offset: i64) {
        self.0.entry(group).or_default().sent = offset;
    }

    /// It was told that what it asked for at a time is committed.
    pub fn told(&mut self, group: i64, offset: i64, at_ms: i64) {
        let commit = self.0.entry(group).or_default();
        (commit.told, commit.at_ms) = (Some(offset), at_ms);
    }

    /// Of how many groups something is committed.
    pub fn groups(&self) -> usize {
        let told = self.0.values().filter(|commit| commit.told.is_some());
        told.count()
    }

    /// What a fetch that begins now must give at least.
    pub fn floor(&self, group: i64) -> Option<Floor> {
        let commit = self.0.get(&group)?;
        let at_ms = commit.at_ms;
        commit.told.map(|offset| Floor { offset, at_ms })
    }

    /// Checks the property for a fetch that began when the floor was `floor`. Without an offset
    /// `fetched` is -1. What was committed before `expired_ms` may be forgotten.
    pub fn check(
        &self,
        group: i64,
        floor: Option<Floor>,
        fetched: i64,
        expired_ms: Option<i64>,
    ) -> Result<(), Violation> {
        let sent = self.0.get(&group).map_or(-1, |commit| commit.sent);
        let least = floor.map_or(-1, |floor| floor.offset);
        if fetched >= least && fetched <= sent.max(-1) {
            return Ok(());
        }
        let expired = floor.zip(expired_ms);
        if fetched < 0 && expired.is_some_and(|(floor, end)| floor.at_ms <= end) {
            return Ok(());
        }
        let detail =
            format!("group {group} fetches {fetched}, was told of {floor:?} and asked for {sent}");
        Err(Violation::new("offsets", detail))
    }
}
