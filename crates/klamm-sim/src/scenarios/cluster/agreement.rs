//! **In-sync replicas agree.** Each replica in the controller's ISR holds everything below the
//! leader's high watermark, record by record and epoch by epoch as the leader does; and no replica
//! that runs differs from the leader below both high watermarks.
//!
//! Source: KIP-101, KIP-497. Known false positives: none; a broker that restarted and has not
//! registered yet is in the ISR only because the controller does not know.

use klamm_metadata::PartitionImage;
use klamm_records::TopicPartition;

use super::super::Violation;
use super::view::Replica;

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
        let committed = usize::try_from(committed).unwrap_or(0);
        let held = &replica.entries[..committed.min(replica.entries.len())];
        let wrong = held.iter().zip(&leader.entries).find(|(a, b)| a != b);
        if let Some((held, wanted)) = wrong {
            let detail = format!(
                "{partition}: {} holds {held:?}, {} as leader {wanted:?}, below {committed}",
                replica.broker, leader.broker
            );
            return Err(Violation::new("agreement", detail));
        }
        if held.len() < committed {
            let detail = format!(
                "{partition}: {} is in sync and ends at {}, {} has committed {committed}",
                replica.broker,
                replica.end(),
                leader.broker
            );
            return Err(Violation::new("agreement", detail));
        }
    }
    Ok(())
}
