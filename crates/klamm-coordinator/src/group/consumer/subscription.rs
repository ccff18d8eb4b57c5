//! Who subscribes to what: counts by topic and by regular expression.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::ConsumerGroupRegularExpressionValue;

use super::group::decrement;
use super::member::ConsumerMember;

/// What a regular expression matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResolvedRegex {
    /// The topics.
    pub topics: BTreeSet<ByteStr>,
    /// The offset of the metadata it was held against.
    pub version: i64,
    /// Wall time of the look, in milliseconds.
    pub timestamp_ms: i64,
}

impl ResolvedRegex {
    /// What a record says.
    pub fn from_record(value: &ConsumerGroupRegularExpressionValue) -> Self {
        ResolvedRegex {
            topics: value.topics.iter().map(ByteStr::detached).collect(),
            version: value.version,
            timestamp_ms: value.timestamp,
        }
    }

    /// The value of its record.
    pub fn to_record(&self) -> ConsumerGroupRegularExpressionValue {
        ConsumerGroupRegularExpressionValue {
            topics: self.topics.iter().cloned().collect(),
            version: self.version,
            timestamp: self.timestamp_ms,
            ..ConsumerGroupRegularExpressionValue::default()
        }
    }
}

/// How a topic is subscribed to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SubscriptionCount {
    /// Members that name it.
    pub by_name: usize,
    /// Regular expressions that match it.
    pub by_regex: usize,
}

/// The subscriptions of all members. Entries that count nothing are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SubscriptionCounts {
    pub topics: BTreeMap<ByteStr, SubscriptionCount>,
    /// How many members use each regular expression.
    pub regexes: BTreeMap<ByteStr, usize>,
}

impl SubscriptionCounts {
    pub(super) fn add_member(&mut self, member: &ConsumerMember) {
        for topic in &member.subscribed_topic_names {
            self.topics.entry(topic.clone()).or_default().by_name += 1;
        }
        if let Some(regex) = member.regex() {
            *self.regexes.entry(regex.clone()).or_default() += 1;
        }
    }

    pub(super) fn remove_member(&mut self, member: &ConsumerMember) {
        for topic in &member.subscribed_topic_names {
            self.take(topic, |count| &mut count.by_name);
        }
        if let Some(regex) = member.regex() {
            decrement(&mut self.regexes, regex);
        }
    }

    pub(super) fn add_resolved(&mut self, resolved: &ResolvedRegex) {
        for topic in &resolved.topics {
            self.topics.entry(topic.clone()).or_default().by_regex += 1;
        }
    }

    pub(super) fn remove_resolved(&mut self, resolved: &ResolvedRegex) {
        for topic in &resolved.topics {
            self.take(topic, |count| &mut count.by_regex);
        }
    }

    fn take(&mut self, topic: &ByteStr, part: impl Fn(&mut SubscriptionCount) -> &mut usize) {
        if let Some(count) = self.topics.get_mut(topic) {
            let part = part(count);
            *part = part.saturating_sub(1);
            if *count == SubscriptionCount::default() {
                self.topics.remove(topic);
            }
        }
    }

    /// How many members use a regular expression.
    pub(super) fn members_with(&self, regex: &str) -> usize {
        self.regexes.get(regex).copied().unwrap_or(0)
    }

    /// Whether all of `member_count` members subscribe to the same topics: by name, or by one and
    /// the same regular expression.
    pub(super) fn is_homogeneous(&self, member_count: usize) -> bool {
        match self.regexes.values().next() {
            None => self.topics.values().all(|c| c.by_name == member_count),
            Some(count) => {
                *count == member_count
                    && self
                        .topics
                        .values()
                        .all(|count| count.by_regex == 1 && count.by_name == 0)
            }
        }
    }
}
