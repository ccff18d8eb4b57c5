//! Retention of offsets (`offsets.retention.minutes`).
//!
//! | group | an offset expires after |
//! |---|---|
//! | empty, with a protocol type | the retention since the group became empty |
//! | empty, no protocol type (offsets only) | the retention since the commit |
//! | consumer group, streams group | the retention since the commit, if nobody subscribes to the topic |
//! | stable classic consumers with known subscriptions | the retention since the commit, if nobody subscribes to the topic |
//! | any other | never |
//!
//! An offset whose commit asked for its own retention (OffsetCommit 2-4) expires at that time
//! instead. An empty group whose last offset expired goes too.

use klamm_protocol::ByteStr;

use super::store::CommittedOffset;
use crate::group::classic::{ClassicGroup, ClassicState};
use crate::group::record::GroupRecord;
use crate::group::shard::{Group, GroupEffects, GroupShard};
use crate::runtime::Now;

impl GroupShard {
    /// Tombstones for everything whose time is up.
    pub(in crate::group) fn expire(&mut self, now: Now) -> GroupEffects {
        let mut out = GroupEffects {
            atomic: false,
            ..GroupEffects::default()
        };
        for (group_id, group) in &self.groups {
            let all_expired = self.expire_offsets(group_id, group, now, &mut out);
            if all_expired && group.is_empty() {
                out.records.extend(group.tombstones(group_id));
            }
        }
        out
    }

    /// Whether nothing of the group's offsets is left after this.
    fn expire_offsets(
        &self,
        group_id: &ByteStr,
        group: &Group,
        now: Now,
        out: &mut GroupEffects,
    ) -> bool {
        let transaction_open = self.pending.has_group(group_id);
        let Some(topics) = self.offsets.group(group_id) else {
            return !transaction_open;
        };
        let Some(base) = retention_base(group) else {
            return false;
        };
        let mut left = 0_usize;
        let mut expired = 0_u64;
        for (topic, partitions) in topics {
            let is_subscribed = group.is_subscribed_to(topic);
            for (partition, offset) in partitions {
                let keep = is_subscribed
                    || !self.is_expired(offset, base, now)
                    || self.pending.has_offset(group_id, topic, *partition);
                if keep {
                    left += 1;
                } else {
                    expired += 1;
                    let tombstone = GroupRecord::offset_tombstone(group_id, topic, *partition);
                    out.records.push(tombstone);
                }
            }
        }
        self.metrics.offsets_expired.add(expired);
        left == 0 && !transaction_open
    }

    fn is_expired(&self, offset: &CommittedOffset, base: RetentionBase, now: Now) -> bool {
        if offset.expire_timestamp_ms != -1 {
            return now.wall_ms >= offset.expire_timestamp_ms;
        }
        let since_ms = match base {
            RetentionBase::Commit => offset.commit_timestamp_ms,
            RetentionBase::EmptySince(timestamp_ms) => timestamp_ms,
        };
        now.wall_ms.saturating_sub(since_ms) >= self.config.offsets_retention_ms
    }
}

/// The moment from which an offset's retention counts.
#[derive(Clone, Copy)]
enum RetentionBase {
    Commit,
    EmptySince(i64),
}

fn retention_base(group: &Group) -> Option<RetentionBase> {
    match group {
        Group::Classic(group) => classic_retention_base(group),
        Group::Consumer(_) | Group::Streams(_) => Some(RetentionBase::Commit),
        Group::Share(_) => None,
    }
}

fn classic_retention_base(group: &ClassicGroup) -> Option<RetentionBase> {
    if group.protocol_type().is_none() {
        return Some(RetentionBase::Commit);
    }
    match group.state() {
        ClassicState::Empty => Some(
            group
                .state_timestamp_ms()
                .map_or(RetentionBase::Commit, RetentionBase::EmptySince),
        ),
        ClassicState::Stable if group.uses_consumer_protocol() && group.knows_subscriptions() => {
            Some(RetentionBase::Commit)
        }
        _ => None,
    }
}
