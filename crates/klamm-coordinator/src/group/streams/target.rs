//! Target assignments: who is to run what, once everybody gave up what is not theirs.

use std::collections::BTreeMap;

use klamm_protocol::ByteStr;

use super::assignor::{self, Part, Worker};
use super::configured::ConfiguredTopology;
use super::group::{AssignmentConfigs, StreamsGroup};
use super::member::StreamsMember;
use super::record::RecordsOf;
use super::tasks::TaskSet;
use crate::group::cluster::{StreamsGroupSettings, is_assignment_due};
use crate::group::java;
use crate::group::record::GroupRecord;
use crate::runtime::Now;

/// What every member is to have.
pub(super) struct Target {
    tasks: BTreeMap<ByteStr, TaskSet>,
    /// The members in the order in which Kafka goes through them.
    order: Vec<ByteStr>,
}

impl Target {
    /// Shares all tasks out among the members, `updated` in the place of its former self. Nobody
    /// gets anything as long as the topology is not ready.
    pub(super) fn make(
        group: &StreamsGroup,
        updated: Option<&StreamsMember>,
        configured: &ConfiguredTopology,
        configs: &AssignmentConfigs,
    ) -> Target {
        let others = group.members().map(|member| &**member);
        let others = others.filter(|member| updated.is_none_or(|new| new.id != member.id));
        let members = others.chain(updated).collect();
        let members = java::hash_map_order(members, java::HASH_MAP_CAPACITY, |member| {
            java::string_hash(&member.id)
        });
        let workers: Vec<Worker> = members.iter().map(|m| worker(group, m)).collect();
        let order = members.iter().map(|member| member.id.clone()).collect();
        let parts = configured.subtopologies.as_ref();
        let tasks = match parts.filter(|_| configured.is_ready()) {
            None => BTreeMap::new(),
            Some(parts) => {
                let parts: Vec<Part> = parts
                    .iter()
                    .map(|(id, part)| Part {
                        id: id.clone(),
                        task_count: part.task_count,
                        is_stateful: !part.state_changelog_topics.is_empty(),
                    })
                    .collect();
                assignor::assign(&workers, &parts, standby_count(configs))
            }
        };
        Target { tasks, order }
    }

    /// What a member is to have.
    pub(super) fn of(&self, member_id: &str) -> TaskSet {
        self.tasks.get(member_id).cloned().unwrap_or_default()
    }

    /// The records of what changes, and of the epoch that it was made for.
    pub(super) fn records(&self, group: &StreamsGroup, epoch: i32, now: Now) -> Vec<GroupRecord> {
        let record = RecordsOf(&group.id);
        let mut records = Vec::new();
        for member_id in &self.order {
            let target = self.of(member_id);
            let present = group.targets.get(member_id);
            if present.is_none_or(|present| **present != target) {
                records.push(record.target(member_id, &target));
            }
        }
        records.push(record.assignment(epoch, now.wall_ms));
        records
    }
}

impl StreamsGroup {
    pub(super) fn may_assign(&self, settings: StreamsGroupSettings, now: Now) -> bool {
        let made_ms = self.assignment_timestamp_ms;
        is_assignment_due(made_ms, settings.assignment_interval_ms, now)
    }
}

fn worker(group: &StreamsGroup, member: &StreamsMember) -> Worker {
    let target = group.targets.get(&member.id);
    Worker {
        id: member.id.clone(),
        process_id: member.process_id.clone(),
        assigned: target.map(|target| (**target).clone()).unwrap_or_default(),
    }
}

fn standby_count(configs: &AssignmentConfigs) -> usize {
    let count = configs.get("num.standby.replicas");
    count.and_then(|count| count.parse().ok()).unwrap_or(0)
}
