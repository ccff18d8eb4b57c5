//! Tasks: a subtopology and a number, which is that of the partitions the task reads.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::ByteStr;
use klamm_protocol::group_records::streams_group_current_member_assignment_value::TaskIds as CurrentIds;
use klamm_protocol::group_records::streams_group_target_assignment_member_value::TaskIds as TargetIds;
use klamm_protocol::messages::streams_group_heartbeat_request::TaskIds as RequestIds;

/// Tasks by subtopology. No entry is empty.
pub type Tasks = BTreeMap<ByteStr, BTreeSet<i32>>;

/// Active tasks by subtopology, each with the epoch in which its member got it. No entry is empty.
pub type ActiveTasks = BTreeMap<ByteStr, BTreeMap<i32, i32>>;

/// What a target assignment gives a member, or what a client says it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskSet {
    /// Tasks that process records.
    pub active: Tasks,
    /// Tasks that keep copies of state.
    pub standby: Tasks,
    /// Tasks that catch up to become active. No assignor gives any so far.
    pub warmup: Tasks,
}

/// What a member has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedTasks {
    /// Tasks that process records.
    pub active: ActiveTasks,
    /// Tasks that keep copies of state.
    pub standby: Tasks,
    /// Tasks that catch up to become active.
    pub warmup: Tasks,
}

impl TaskSet {
    /// Whether there are no tasks.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty() && self.warmup.is_empty()
    }

    /// Whether a task is in both, in the same role.
    pub(super) fn shares_any(&self, other: &OwnedTasks) -> bool {
        let active = self.active.iter().any(|(subtopology, tasks)| {
            let others = other.active.get(subtopology);
            others.is_some_and(|others| tasks.iter().any(|task| others.contains_key(task)))
        });
        active || overlap(&self.standby, &other.standby) || overlap(&self.warmup, &other.warmup)
    }

    /// Whether all tasks of the other are in it, in the same roles.
    pub(super) fn has_all(&self, other: &OwnedTasks) -> bool {
        let within = |some: &Tasks, all: &Tasks| {
            let mut some = some.iter();
            some.all(|(part, tasks)| all.get(part).is_some_and(|all| tasks.is_subset(all)))
        };
        within(&without_epochs(&other.active), &self.active)
            && within(&other.standby, &self.standby)
            && within(&other.warmup, &self.warmup)
    }

    /// What a client says it has; none unless it tells of every role.
    pub(super) fn from_request(
        active: Option<&[RequestIds]>,
        standby: Option<&[RequestIds]>,
        warmup: Option<&[RequestIds]>,
    ) -> Option<TaskSet> {
        Some(TaskSet {
            active: tasks_of_request(active?),
            standby: tasks_of_request(standby?),
            warmup: tasks_of_request(warmup?),
        })
    }
}

impl OwnedTasks {
    /// Whether there are no tasks.
    pub fn is_empty(&self) -> bool {
        self.active.is_empty() && self.standby.is_empty() && self.warmup.is_empty()
    }

    /// The epoch since when an active task is in it.
    pub fn active_since(&self, subtopology: &str, task: i32) -> Option<i32> {
        self.active.get(subtopology)?.get(&task).copied()
    }

    /// Adds other tasks.
    pub(super) fn extend(&mut self, other: OwnedTasks) {
        for (subtopology, tasks) in other.active {
            self.active.entry(subtopology).or_default().extend(tasks);
        }
        for (subtopology, tasks) in other.standby {
            self.standby.entry(subtopology).or_default().extend(tasks);
        }
        for (subtopology, tasks) in other.warmup {
            self.warmup.entry(subtopology).or_default().extend(tasks);
        }
    }
}

fn overlap(one: &Tasks, other: &Tasks) -> bool {
    one.iter().any(|(subtopology, tasks)| {
        let others = other.get(subtopology);
        others.is_some_and(|others| !tasks.is_disjoint(others))
    })
}

/// Whether all tasks that a client says it has are among those it was given. Entries without tasks
/// must name a subtopology of which it was given some, as in Kafka.
pub(super) fn are_within<T>(
    owned: Option<&[RequestIds]>,
    given: &BTreeMap<ByteStr, T>,
    has: impl Fn(&T, i32) -> bool,
) -> bool {
    let Some(owned) = owned else {
        return false;
    };
    owned.iter().all(|ids| {
        let given = given.get(&ids.subtopology_id);
        given.is_some_and(|given| ids.partitions.iter().all(|task| has(given, *task)))
    })
}

fn tasks_of_request(ids: &[RequestIds]) -> Tasks {
    collect(ids.iter().map(|ids| (&ids.subtopology_id, &ids.partitions)))
}

pub(super) fn tasks_of_target(ids: &[TargetIds]) -> Tasks {
    collect(ids.iter().map(|ids| (&ids.subtopology_id, &ids.partitions)))
}

pub(super) fn tasks_of_record(ids: &[CurrentIds]) -> Tasks {
    collect(ids.iter().map(|ids| (&ids.subtopology_id, &ids.partitions)))
}

fn collect<'a>(ids: impl Iterator<Item = (&'a ByteStr, &'a Vec<i32>)>) -> Tasks {
    ids.filter(|(_, partitions)| !partitions.is_empty())
        .map(|(subtopology, partitions)| {
            (subtopology.detached(), partitions.iter().copied().collect())
        })
        .collect()
}

/// Tasks of a record that does not say in which epoch they were given, or not of each, count as
/// given in the member's epoch.
pub(super) fn active_of_record(ids: &[CurrentIds], member_epoch: i32) -> ActiveTasks {
    let mut tasks = ActiveTasks::new();
    for ids in ids.iter().filter(|ids| !ids.partitions.is_empty()) {
        let epochs = ids.assignment_epochs.as_deref().unwrap_or_default();
        let epochs = (epochs.len() == ids.partitions.len()).then_some(epochs);
        let with_epochs = ids.partitions.iter().enumerate().map(|(at, task)| {
            let epoch = epochs.and_then(|epochs| epochs.get(at)).copied();
            (*task, epoch.unwrap_or(member_epoch))
        });
        tasks.insert(ids.subtopology_id.detached(), with_epochs.collect());
    }
    tasks
}

pub(super) fn to_target(tasks: &Tasks) -> Vec<TargetIds> {
    let ids = tasks.iter().map(|(subtopology, tasks)| TargetIds {
        subtopology_id: subtopology.clone(),
        partitions: tasks.iter().copied().collect(),
        ..TargetIds::default()
    });
    ids.collect()
}

pub(super) fn to_record(tasks: &Tasks) -> Vec<CurrentIds> {
    let ids = tasks.iter().map(|(subtopology, tasks)| CurrentIds {
        subtopology_id: subtopology.clone(),
        partitions: tasks.iter().copied().collect(),
        ..CurrentIds::default()
    });
    ids.collect()
}

pub(super) fn active_to_record(tasks: &ActiveTasks) -> Vec<CurrentIds> {
    let ids = tasks.iter().map(|(subtopology, tasks)| CurrentIds {
        subtopology_id: subtopology.clone(),
        partitions: tasks.keys().copied().collect(),
        assignment_epochs: Some(tasks.values().copied().collect()),
        ..CurrentIds::default()
    });
    ids.collect()
}

/// The same tasks without their epochs.
pub(super) fn without_epochs(tasks: &ActiveTasks) -> Tasks {
    let plain = tasks
        .iter()
        .map(|(subtopology, tasks)| (subtopology.clone(), tasks.keys().copied().collect()));
    plain.collect()
}
