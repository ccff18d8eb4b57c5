//! Which replica a consumer should read a partition from (KIP-392), by `replica.selector.class`.

use std::cmp::Reverse;

use klamm_metadata::MetadataImage;
use klamm_replication::fetch_session::{FetchPartition, TopicIdPartition};
use klamm_replication::{FetchedPartition, ReadableReplica, TopicRef};

use crate::shared::Shared;

/// The selector that sends consumers to replicas in their rack.
pub(crate) const RACK_AWARE: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
/// The selector that leaves them with the leader, which is what happens without one, too.
pub(crate) const LEADER_SELECTOR: &str = "org.apache.kafka.common.replica.LeaderSelector";

/// The answer that sends a consumer in `rack` to another replica, if there is a better one.
pub(super) fn redirect(
    broker: &Shared,
    image: &MetadataImage,
    rack: &str,
    partition: &TopicIdPartition,
    wish: &FetchPartition,
) -> Option<FetchedPartition> {
    let name = partition.topic.as_deref()?;
    let (topic, index) = (TopicRef::Name(name), partition.partition);
    let replicas = broker
        .replicas
        .readable_replicas(topic, index, wish.fetch_offset)?;
    let rack_of = |id| image.broker(id).and_then(|broker| broker.rack.as_deref());
    let preferred = nearest(rack, &replicas, &rack_of)?;
    let offsets = broker.replicas.offsets(name, index).ok()?;
    Some(FetchedPartition {
        high_watermark: offsets.high_watermark,
        last_stable_offset: offsets.last_stable_offset,
        log_start_offset: offsets.log_start_offset,
        preferred_read_replica: Some(preferred),
        ..FetchedPartition::error(klamm_protocol::ErrorCode::None)
    })
}

/// The replica to read from in `rack`: none if it is the leader. Of several the one that is
/// furthest, then the one that was caught up last.
fn nearest<'a>(
    rack: &str,
    replicas: &[ReadableReplica],
    rack_of: &dyn Fn(i32) -> Option<&'a str>,
) -> Option<i32> {
    let in_rack = || {
        let all = replicas.iter();
        all.filter(|replica| rack_of(replica.broker) == Some(rack))
    };
    if in_rack().any(|replica| replica.is_leader) {
        return None;
    }
    let order = |replica: &&ReadableReplica| {
        let id = Reverse(replica.broker);
        (replica.log_end_offset, replica.caught_up_ms, id)
    };
    in_rack().max_by_key(order).map(|replica| replica.broker)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(broker: i32, log_end_offset: i64) -> ReadableReplica {
        ReadableReplica {
            broker,
            log_end_offset,
            caught_up_ms: 0,
            is_leader: broker == 1,
        }
    }

    #[test]
    fn the_replica_of_the_rack_that_is_furthest_is_read_from() {
        let rack_of = |id| match id {
            1 => Some("a"),
            2..=4 => Some("b"),
            _ => None,
        };
        let replicas = [replica(1, 9), replica(2, 7), replica(3, 8), replica(5, 9)];
        assert_eq!(nearest("b", &replicas, &rack_of), Some(3));
        assert_eq!(nearest("a", &replicas, &rack_of), None, "the leader");
        assert_eq!(nearest("c", &replicas, &rack_of), None, "nobody is there");
        let replicas = [replica(1, 9), replica(3, 8), replica(2, 8)];
        assert_eq!(nearest("b", &replicas, &rack_of), Some(2));
    }
}
