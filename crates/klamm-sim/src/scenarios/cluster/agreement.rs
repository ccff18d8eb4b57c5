//! **In-sync replicas agree.** Each replica in the controller's ISR holds everything below the
//! leader's high watermark, record by record and epoch by epoch as the leader does; and no replica
//! that runs differs from the leader below both high watermarks. Where both logs begin; and in logs
//! that are compacted, which each does on its own, what both have is the same.
//!
//! Source: KIP-58, KIP-101, KIP-497. Known false positives: none; a broker that restarted and has not
//! registered yet is in the ISR only because the controller does not know.

use std::cmp::Ordering;

use klamm_metadata::PartitionImage;
use klamm_records::TopicPartition;

use super::super::Violation;
use super::view::{Entry, Replica};

/// Checks the property for a partition. `is_registered` tells whether a replica is that of the
/// broker's registered process.
pub fn check<'a>(
    partition: &TopicPartition,
    known: &PartitionImage,
    leader: &Replica,
    replicas: impl IntoIterator<Item = &'a Replica>,
    is_registered: &dyn Fn(&Replica) -> bool,
) -> Result<(), Violation> {
    for replica in replicas {
        if replica.broker == leader.broker {
            continue;
        }
        let in_sync = known.isr.contains(&replica.broker) && is_registered(replica);
        let committed = if in_sync {
            leader.high_watermark
        } else {
            leader.high_watermark.min(replica.high_watermark)
        };
        let start = replica.start.max(leader.start);
        let [held, wanted] = [replica, leader].map(|it| it.between(start, committed));
        if let Some((held, wanted)) = first_difference(held, wanted) {
            let detail = format!(
                "{partition}: {} holds {held:?}, {} as leader {wanted:?}, below {committed}",
                replica.broker, leader.broker
            );
            return Err(Violation::new("agreement", detail));
        }
        if replica.end < committed {
            let detail = format!(
                "{partition}: {} is in sync and ends at {}, {} has committed {committed}",
                replica.broker, replica.end, leader.broker
            );
            return Err(Violation::new("agreement", detail));
        }
    }
    Ok(())
}

/// Where two logs differ first. A record with a key may have gone from one of them.
fn first_difference<'a>(held: &'a [Entry], wanted: &'a [Entry]) -> Option<(&'a Entry, &'a Entry)> {
    let (mut held, mut wanted) = (held.iter().peekable(), wanted.iter().peekable());
    loop {
        let (one, other) = match (held.peek(), wanted.peek()) {
            (Some(one), Some(other)) => (*one, *other),
            // What is missing at the end is for the one who asks.
            _ => return None,
        };
        match one.offset.cmp(&other.offset) {
            Ordering::Equal if one == other => {
                held.next();
                wanted.next();
            }
            Ordering::Less if one.key.is_some() => _ = held.next(),
            Ordering::Greater if other.key.is_some() => _ = wanted.next(),
            _ => return Some((one, other)),
        }
    }
}
