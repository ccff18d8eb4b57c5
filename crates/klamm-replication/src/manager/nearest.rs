//! Which replicas a consumer may read from (KIP-392).

use super::{ReplicaManager, TopicRef};
use crate::partition::Role;

/// A replica that holds what a consumer wants to read, as the leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadableReplica {
    /// Its broker.
    pub broker: i32,
    /// Where its log ends.
    pub log_end_offset: i64,
    /// When it last was caught up, in ms of the wall clock.
    pub caught_up_ms: i64,
    /// Whether it is the leader.
    pub is_leader: bool,
}

impl ReplicaManager {
    /// The in-sync replicas of a partition that have `offset`, the leader among them; `None` if
    /// this broker does not lead the partition.
    pub fn readable_replicas(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        offset: i64,
    ) -> Option<Vec<ReadableReplica>> {
        let found = match topic {
            TopicRef::Name(name) => self.find(name, partition),
            TopicRef::Id(id) => self.find_by_id(id, partition),
        };
        let now_ms = self.0.env.clock.wall_ms();
        found.ok()?.role(|role| {
            let Role::Leader(leader) = role else {
                return None;
            };
            let followers = leader.followers().iter().filter(|follower| {
                leader.isr().members().contains(&follower.id())
                    && follower.log_end_offset() >= offset
                    && follower.log_start_offset() <= offset
            });
            let followers = followers.map(|follower| ReadableReplica {
                broker: follower.id(),
                log_end_offset: follower.log_end_offset(),
                caught_up_ms: follower.caught_up_ms(),
                is_leader: false,
            });
            let own = ReadableReplica {
                broker: leader.local_id(),
                log_end_offset: leader.log_end_offset(),
                caught_up_ms: now_ms,
                is_leader: true,
            };
            Some(std::iter::once(own).chain(followers).collect())
        })
    }
}
