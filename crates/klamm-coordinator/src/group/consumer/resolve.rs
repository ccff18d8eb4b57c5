//! What the regular expressions of a group match: when to look, and what comes of it.
//!
//! A heartbeat only notes that a look is due, as a timer that fires at once; the look itself goes
//! over all topics and ends in records of its own.

use std::collections::BTreeSet;

use klamm_protocol::{ByteStr, ErrorCode};

use super::Refusal;
use super::member::ConsumerMember;
use super::regex::TopicRegex;
use super::subscription::ResolvedRegex;
use super::timers::ConsumerTimer;
use super::work::Work;
use crate::group::cluster::TopicsView;

/// How soon after one look the next may follow. Kafka's constant.
const LOOK_INTERVAL_MS: i64 = 10_000;

/// What a request changed about a member's regular expression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegexUpdate {
    Unchanged,
    /// It changed; what it matches is not known yet.
    Updated,
    /// It changed, and what it matches is known, or there is none any more.
    Resolved,
}

impl RegexUpdate {
    pub(super) fn is_updated(self) -> bool {
        self != RegexUpdate::Unchanged
    }

    pub(super) fn is_resolved(self) -> bool {
        self == RegexUpdate::Resolved
    }
}

impl Work<'_> {
    /// Takes note of a member's regular expression, and of whether it is time to look again.
    ///
    /// # Errors
    /// `INVALID_REGULAR_EXPRESSION` for one that nobody used before and that cannot be read.
    pub(super) fn update_regexes(
        &mut self,
        old: &ConsumerMember,
        new: &ConsumerMember,
    ) -> Result<RegexUpdate, Refusal> {
        let counts = &self.group.subscriptions;
        let mut update = RegexUpdate::Unchanged;
        let mut is_due = false;
        if old.subscribed_topic_regex != new.subscribed_topic_regex {
            update = RegexUpdate::Updated;
            if let Some(regex) = old.regex()
                && counts.members_with(regex) == 1
            {
                self.records.push(self.record().regex_tombstone(regex));
            }
            match new.regex() {
                Some(regex) if counts.members_with(regex) == 0 => {
                    check(regex)?;
                    is_due = true;
                }
                Some(regex) if self.group.resolved_regex(regex).is_some() => {
                    update = RegexUpdate::Resolved;
                }
                Some(_) => {}
                None if old.regex().is_some() => update = RegexUpdate::Resolved,
                None => {}
            }
        }
        if !is_due && counts.regexes.is_empty() {
            return Ok(update);
        }
        let any = self.group.regexes.values().next();
        let now_ms = self.now.wall_ms;
        // A look at a time to come was by the clock of another coordinator, which is no reason to
        // wait for that time.
        let just_looked = any.is_some_and(|any| {
            (0..=LOOK_INTERVAL_MS).contains(&now_ms.saturating_sub(any.timestamp_ms))
        });
        if just_looked || self.is_scheduled(ConsumerTimer::Regexes) {
            return Ok(update);
        }
        let mut regexes: BTreeSet<&ByteStr> = counts.regexes.keys().collect();
        if let Some(regex) = old.regex()
            && counts.members_with(regex) == 1
        {
            regexes.remove(regex);
        }
        regexes.extend(new.regex());
        is_due |= regexes.len() != self.group.regexes.len();
        is_due |= any.map_or(0, |any| any.version) < self.topics.newest_topic_version();
        is_due |= any.is_none_or(|any| {
            let interval_ms = i64::from(self.config.consumer_regex_refresh_interval_ms);
            now_ms > any.timestamp_ms.saturating_add(interval_ms)
        });
        if is_due && !regexes.is_empty() {
            self.schedule(ConsumerTimer::Regexes, 0);
        }
        Ok(update)
    }

    /// Looks at what the group's regular expressions match, and makes a new group epoch if that
    /// changes what anybody subscribes to.
    pub(super) fn resolve_regexes(&mut self) {
        let mut counts = self.group.subscriptions.clone();
        let regexes: Vec<ByteStr> = counts.regexes.keys().cloned().collect();
        let matches = look(&regexes, &*self.topics);
        let mut bump = false;
        for (regex, topics) in regexes.iter().zip(matches) {
            let resolved = ResolvedRegex {
                topics,
                version: self.topics.version(),
                timestamp_ms: self.now.wall_ms,
            };
            let before = self.group.resolved_regex(regex).cloned();
            let before = before.unwrap_or_default();
            if before.topics != resolved.topics {
                bump = true;
                counts.remove_resolved(&before);
                counts.add_resolved(&resolved);
            }
            self.records.push(self.record().regex(regex, &resolved));
        }
        let hash = self.hash_of(&counts);
        if bump || hash != self.group.metadata_hash {
            let epoch = self.group.epoch.wrapping_add(1);
            self.records.push(self.record().epoch(epoch, hash));
            self.metrics.consumer_rebalances.increment();
            self.note_refresh(epoch);
        }
    }
}

/// The names that each expression matches. One that cannot be read any more, because another
/// version took it, matches nothing.
fn look(regexes: &[ByteStr], topics: &dyn TopicsView) -> Vec<BTreeSet<ByteStr>> {
    let compiled: Vec<Option<TopicRegex>> = regexes
        .iter()
        .map(|regex| TopicRegex::new(regex).ok())
        .collect();
    let mut matches = vec![BTreeSet::new(); regexes.len()];
    topics.for_each_topic(&mut |name| {
        for (regex, matches) in compiled.iter().zip(&mut matches) {
            if regex.as_ref().is_some_and(|regex| regex.matches(name)) {
                matches.insert(ByteStr::from(name));
            }
        }
    });
    matches
}

fn check(regex: &str) -> Result<(), Refusal> {
    TopicRegex::new(regex).map(drop).map_err(|error| {
        let message =
            format!("SubscribedTopicRegex `{regex}` is not a valid regular expression: {error}.");
        Refusal::new(ErrorCode::InvalidRegularExpression, message)
    })
}
