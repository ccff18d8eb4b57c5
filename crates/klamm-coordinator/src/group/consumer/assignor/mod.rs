//! The server's assignors: who of a group gets which partitions. Pure functions of the group's
//! members, their subscriptions and what the last target gave them.
//!
//! - `range`: of each topic a run of neighbours to each member, so that topics with the same
//!   number of partitions go together.
//! - `uniform`: as many partitions to each member as to any other, with as few moves as possible;
//!   `homogeneous` if all subscribe to the same topics, else `heterogeneous`.
//!
//! Results are Kafka's, partition for partition. Its assignors go through Java's hash tables, so
//! members come in the order in which those give them ([`GroupSpec::new`]).

mod balancer;
mod heterogeneous;
mod homogeneous;
mod range;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_protocol::ByteStr;
use klamm_records::Uuid;

use super::member::Partitions;
use crate::group::java;

/// The assignors by the names that clients and `group.consumer.assignors` use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignor {
    /// `uniform`
    Uniform,
    /// `range`
    Range,
}

impl Assignor {
    /// The assignor of this name. Kafka takes the names of its classes too.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "uniform" | "org.apache.kafka.coordinator.group.assignor.UniformAssignor" => {
                Some(Assignor::Uniform)
            }
            "range" | "org.apache.kafka.coordinator.group.assignor.RangeAssignor" => {
                Some(Assignor::Range)
            }
            _ => None,
        }
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Uniform => "uniform",
            Assignor::Range => "range",
        }
    }

    /// Shares the partitions out. Members that get nothing may be missing from the result.
    pub fn assign(self, group: &GroupSpec) -> BTreeMap<ByteStr, Partitions> {
        if group.members.is_empty() {
            return BTreeMap::new();
        }
        match self {
            Assignor::Range => range::assign(group),
            Assignor::Uniform if group.is_homogeneous => homogeneous::assign(group),
            Assignor::Uniform => heterogeneous::assign(group),
        }
    }
}

/// A member as an assignor sees it.
#[derive(Clone, Debug)]
pub struct MemberSpec {
    /// Its id.
    pub id: ByteStr,
    /// The id that the user gave.
    pub instance_id: Option<ByteStr>,
    /// The topics it subscribes to, as far as they exist, in the order of Kafka's sets.
    pub topics: Vec<Uuid>,
    /// What the last target gave it.
    pub assignment: Arc<Partitions>,
}

/// A group as an assignor sees it.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    members: Vec<MemberSpec>,
    is_homogeneous: bool,
    partition_counts: BTreeMap<Uuid, i32>,
    /// What the last target gave to anybody, those included who are leaving with this one.
    assigned: BTreeSet<(Uuid, i32)>,
}

impl GroupSpec {
    /// A group with these members. `partition_counts` holds every topic that one of them
    /// subscribes to, `assigned` every partition of the last target.
    pub fn new(
        members: Vec<MemberSpec>,
        is_homogeneous: bool,
        partition_counts: BTreeMap<Uuid, i32>,
        assigned: BTreeSet<(Uuid, i32)>,
    ) -> Self {
        let members = java::hash_map_order(members, java::HASH_MAP_CAPACITY, |member| {
            java::string_hash(&member.id)
        });
        GroupSpec {
            members,
            is_homogeneous,
            partition_counts,
            assigned,
        }
    }

    /// The members, in the order of Kafka's map.
    pub fn members(&self) -> &[MemberSpec] {
        &self.members
    }

    fn partition_count(&self, topic: Uuid) -> i32 {
        self.partition_counts.get(&topic).copied().unwrap_or(0)
    }
}

/// Topics of an assignment in the order of a Java map that got them one by one.
fn topic_order(assignment: &Partitions) -> Vec<Uuid> {
    let topics = assignment.keys().copied().collect();
    java::hash_map_order(topics, java::HASH_MAP_CAPACITY, |id| java::uuid_hash(*id))
}

/// Partitions in the order of a Java set made of a list of them.
fn partition_order(partitions: &BTreeSet<i32>) -> Vec<i32> {
    let capacity = java::hash_set_capacity(partitions.len());
    java::hash_map_order(partitions.iter().copied().collect(), capacity, |p| *p)
}
