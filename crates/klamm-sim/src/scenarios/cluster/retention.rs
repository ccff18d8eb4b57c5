//! **Retention is due, and done.** What is not in the leader's log any more was older than its topic
//! keeps records, or the log was larger than it may be; where records of a key are kept, or all,
//! nothing goes. And what is due does go: once the cluster is well, the leader holds nothing that
//! retention or compaction should have removed.
//!
//! Source: the configs `retention.ms`, `retention.bytes`, `segment.ms`, `max.compaction.lag.ms`;
//! KIP-354. Known false positives: none. Clocks of brokers are off by as much as the plan says, and
//! segments are removed as a whole, a while after they are due.

use klamm_records::TopicPartition;

use super::super::Violation;
use super::history::{History, Kept};
use super::plan::{HOUR_MS, Keeping, Long, Plan};
use super::view::Replica;
use super::world::World;

/// How long after it is due retention may come.
const LATE_MS: i64 = HOUR_MS;

/// Checks that what has gone from a leader's log was due to go.
pub(super) fn check(
    plan: &Plan,
    keeping: Keeping,
    history: &History,
    partition: &TopicPartition,
    leader: &Replica,
    now_ms: i64,
) -> Result<(), Violation> {
    let skew_ms = plan.long.map_or(0, |long| long.skew_ms);
    let allowed = |kept: &Kept| match keeping {
        Keeping::All | Keeping::Compacted => false,
        Keeping::Age(ms) => kept.at_ms + ms <= now_ms + skew_ms,
        // A follower may have removed a segment that the leader cut short.
        Keeping::Bytes(bytes) => leader.bytes as i64 + i64::from(plan.segment_bytes) >= bytes,
    };
    for records in [&history.acknowledged, &history.read] {
        let of_partition = records.get(partition).into_iter();
        let gone = of_partition.flat_map(|it| it.range(..leader.start));
        for (offset, kept) in gone {
            if !allowed(kept) {
                let detail = format!(
                    "{} leads {partition} from {} on, {} bytes: {kept:?} at {offset} is gone at \
                     {now_ms}, {keeping:?}",
                    leader.broker, leader.start, leader.bytes
                );
                return Err(Violation::new("retention", detail));
            }
        }
    }
    Ok(())
}

/// What should have been removed long ago; nothing once all of that is gone.
pub(super) fn overdue(
    world: &World,
    partition: &TopicPartition,
    leader: &Replica,
) -> Option<String> {
    let long = world.plan.long?;
    let keeping = world.topic(&partition.topic)?.keeping;
    let now_ms = world.now_ms();
    let late = match keeping {
        Keeping::All => false,
        Keeping::Age(ms) => {
            let oldest = leader.entries.first();
            let due_ms = |at_ms: i64| at_ms + ms + ms / 4 + long.skew_ms + LATE_MS;
            oldest.is_some_and(|entry| due_ms(entry.at_ms) < now_ms)
        }
        Keeping::Bytes(bytes) => leader.bytes as i64 > bytes + 2 * segment_max(&world.plan),
        Keeping::Compacted => is_uncompacted(&long, leader, now_ms),
    };
    late.then(|| {
        let (start, first) = (leader.start, leader.entries.first());
        let (bytes, id) = (leader.bytes, leader.broker);
        format!(
            "{partition} at {id} is overdue at {now_ms}: {bytes} bytes from {start} on, {first:?}, \
             {keeping:?}"
        )
    })
}

fn segment_max(plan: &Plan) -> i64 {
    i64::from(plan.segment_bytes)
}

/// Whether there is a record that compaction should have removed: it is old, there is a newer one of
/// its key, and the segment that it was written to is not the last.
fn is_uncompacted(long: &Long, leader: &Replica, now_ms: i64) -> bool {
    let slack_ms = 2 * long.skew_ms + LATE_MS;
    let is_due = |at_ms: i64| at_ms + 7 * HOUR_MS + slack_ms < now_ms;
    let rolled = |at_ms: i64| {
        let later = leader.entries.iter();
        later
            .rev()
            .any(|it| it.at_ms > at_ms + HOUR_MS + slack_ms && is_due(it.at_ms))
    };
    leader.entries.iter().any(|entry| {
        let superseded_by = leader
            .between(entry.offset + 1, i64::MAX)
            .iter()
            .find(|it| it.key == entry.key);
        let both_due = superseded_by.is_some_and(|it| is_due(it.at_ms) && rolled(it.at_ms));
        is_due(entry.at_ms) && both_due
    })
}
