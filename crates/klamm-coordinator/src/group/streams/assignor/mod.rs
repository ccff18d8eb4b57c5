//! The assignor `sticky`: whoever has a task keeps it as long as nobody has more than their share;
//! the rest goes to the process with the least load, and there to the member with the least.
//! Standby tasks go where their state is already, but never into the process that has the active
//! one.
//!
//! Ties fall as they do in Kafka, whose heaps and hash maps decide them: an upgrade from one to the
//! other moves nothing. `heap` and `process` hold what that takes.

mod heap;
mod process;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use klamm_protocol::ByteStr;

use self::heap::Heap;
use self::process::{Process, hash_map_of_names};
use super::tasks::TaskSet;

/// A member as the assignor sees it.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) id: ByteStr,
    /// The process it is a thread of.
    pub(super) process_id: ByteStr,
    /// What the last target gave it.
    pub(super) assigned: TaskSet,
}

/// A part of the topology as the assignor sees it.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) id: ByteStr,
    pub(super) task_count: i32,
    /// Whether its tasks have state, of which standby tasks keep copies.
    pub(super) is_stateful: bool,
}

/// A task: the part by its place in the order of ids, and the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Task {
    part: usize,
    number: i32,
}

/// A member by its process and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    process: usize,
    member: usize,
}

/// Shares out the tasks of all parts, which come in the order of their ids. Members come in the
/// order in which Kafka's hash map has them. Everybody is in the result.
pub(super) fn assign(
    workers: &[Worker],
    parts: &[Part],
    standby_count: usize,
) -> BTreeMap<ByteStr, TaskSet> {
    let mut work = Sharing::new(workers, parts, standby_count);
    work.assign_active();
    if standby_count > 0 {
        work.assign_standby();
    }
    work.result(workers)
}

/// How many members have less than their share, how many tasks they are to share, and how many
/// that makes for each.
struct Quota {
    members: usize,
    tasks: usize,
    each: usize,
}

impl Quota {
    fn new(members: usize, tasks: usize) -> Self {
        let mut quota = Quota {
            members,
            tasks,
            each: 0,
        };
        quota.update();
        quota
    }

    fn update(&mut self) {
        self.each = if self.members == 0 {
            0
        } else {
            self.tasks.div_ceil(self.members)
        };
    }

    /// A member has so many tasks now.
    fn note(&mut self, has: usize) {
        if has == self.each {
            self.members = self.members.saturating_sub(1);
            self.tasks = self.tasks.saturating_sub(has);
            self.update();
        }
    }
}

struct Sharing<'a> {
    parts: &'a [Part],
    standby_count: usize,
    processes: Vec<Process>,
    /// Their places in it, by their ids.
    places: BTreeMap<ByteStr, usize>,
    /// The processes in the order in which Kafka's hash map has them.
    order: Vec<usize>,
    active_before: BTreeMap<Task, Place>,
    standby_before: BTreeMap<Task, Vec<Place>>,
    active_quota: Quota,
    total_quota: Quota,
}

impl<'a> Sharing<'a> {
    fn new(workers: &[Worker], parts: &'a [Part], standby_count: usize) -> Self {
        let count = |part: &Part| usize::try_from(part.task_count).unwrap_or(0);
        let active: usize = parts.iter().map(count).sum();
        let stateful = parts.iter().filter(|part| part.is_stateful);
        let standby: usize = stateful.map(|part| count(part) * standby_count).sum();
        let mut sharing = Sharing {
            parts,
            standby_count,
            processes: Vec::new(),
            places: BTreeMap::new(),
            order: Vec::new(),
            active_before: BTreeMap::new(),
            standby_before: BTreeMap::new(),
            active_quota: Quota::new(workers.len(), active),
            total_quota: Quota::new(workers.len(), active + standby),
        };
        for worker in workers {
            sharing.add(worker);
        }
        let names: Vec<&str> = sharing.processes.iter().map(Process::id).collect();
        sharing.order = hash_map_of_names(&names, workers.len());
        sharing
    }

    fn add(&mut self, worker: &Worker) {
        let id = &worker.process_id;
        let process = *self.places.entry(id.clone()).or_insert_with(|| {
            self.processes.push(Process::new(id.clone()));
            self.processes.len() - 1
        });
        let member = self.processes[process].add_member(worker.id.clone());
        let place = Place { process, member };
        for (id, tasks) in &worker.assigned.active {
            if let Some(part) = self.part(id) {
                let tasks = tasks.iter().map(|number| Task {
                    part,
                    number: *number,
                });
                self.active_before.extend(tasks.map(|task| (task, place)));
            }
        }
        for (id, tasks) in &worker.assigned.standby {
            if let Some(part) = self.part(id) {
                for number in tasks {
                    let task = Task {
                        part,
                        number: *number,
                    };
                    self.standby_before.entry(task).or_default().push(place);
                }
            }
        }
    }

    fn part(&self, id: &str) -> Option<usize> {
        self.parts.iter().position(|part| part.id == id)
    }

    /// All tasks, part by part.
    fn tasks(&self, only_stateful: bool) -> Vec<Task> {
        let parts = self.parts.iter().enumerate();
        parts
            .filter(|(_, part)| !only_stateful || part.is_stateful)
            .flat_map(|(part, of)| (0..of.task_count).map(move |number| Task { part, number }))
            .collect()
    }

    fn give_active(&mut self, place: Place, task: Task) {
        let has = self.processes[place.process].add_task(place.member, task, true);
        self.active_quota.note(has);
        self.total_quota.note(has);
    }

    fn count_of(&self, place: Place) -> usize {
        self.processes[place.process].count_of(place.member)
    }

    fn assign_active(&mut self) {
        let mut tasks = self.tasks(false);
        tasks.sort_by_key(|task| (task.number, task.part));
        let mut left = Vec::new();
        for task in tasks {
            match self.active_before.get(&task).copied() {
                Some(place) if self.count_of(place) < self.active_quota.each => {
                    self.give_active(place, task);
                }
                _ => left.push(task),
            }
        }
        let mut rest = Vec::new();
        for task in left {
            let before = self.standby_before.get(&task);
            let place = before.and_then(|before| self.least_loaded(before, None));
            match place {
                Some(place) if self.count_of(place) < self.active_quota.each => {
                    self.give_active(place, task);
                }
                _ => rest.push(task),
            }
        }
        rest.sort();
        let mut heap = self.processes_by_load();
        for task in rest {
            let Some(process) = heap.pop(|p| self.processes[*p].load()) else {
                return;
            };
            if let Some(has) = self.processes[process].add_to_least_loaded(task, true) {
                self.active_quota.note(has);
                self.total_quota.note(has);
            }
            heap.push(process, |p| self.processes[*p].load());
        }
    }

    fn processes_by_load(&self) -> Heap<usize> {
        let mut heap = Heap::default();
        for process in &self.order {
            heap.push(*process, |p| self.processes[*p].load());
        }
        heap
    }

    /// Of members that had a task before, the one with the least load, which must not have it in
    /// its process already if `task` says so. Kafka looks at the process of the first alone for
    /// that.
    fn least_loaded(&self, places: &[Place], task: Option<Task>) -> Option<Place> {
        let first = *places.first()?;
        let mut candidate = first;
        let mut load = self.processes[first.process].load();
        let mut count = self.count_of(first);
        for place in places.get(1..).unwrap_or_default() {
            let process = &self.processes[place.process];
            let may = task.is_none_or(|task| !process.has(task));
            if process.load() < load && may && self.count_of(*place) < count {
                load = process.load();
                count = self.count_of(*place);
                candidate = *place;
            }
        }
        let taken = task.is_some_and(|task| self.processes[first.process].has(task));
        (!taken).then_some(candidate)
    }

    fn assign_standby(&mut self) {
        let mut tasks = self.tasks(true);
        tasks.sort_by_key(|task| std::cmp::Reverse((task.number, task.part)));
        let mut left: Vec<(Task, usize)> = Vec::new();
        for task in tasks {
            let mut given = 0;
            while given < self.standby_count {
                let Some(place) = self.standby_place_of_before(task) else {
                    break;
                };
                let has = self.processes[place.process].add_task(place.member, task, false);
                self.total_quota.note(has);
                given += 1;
            }
            left.push((task, self.standby_count - given));
        }
        left.sort_by_key(|(task, _)| std::cmp::Reverse(*task));
        let mut heap = self.processes_by_load();
        for (task, replicas) in left {
            for _ in 0..replicas {
                if !self.give_standby(&mut heap, task) {
                    tracing::warn!(
                        part = %self.parts[task.part].id,
                        task = task.number,
                        "a standby task finds no process: there are too few"
                    );
                    break;
                }
            }
        }
    }

    /// Where a standby task was, or its active one, if there is room.
    fn standby_place_of_before(&self, task: Task) -> Option<Place> {
        let has_room = |place: &Place| self.count_of(*place) < self.total_quota.each;
        let active = self.active_before.get(&task).copied();
        let active = active.filter(|place| !self.processes[place.process].has(task));
        if let Some(place) = active.filter(has_room) {
            return Some(place);
        }
        let before = self.standby_before.get(&task)?;
        let place = self.least_loaded(before, Some(task))?;
        has_room(&place).then_some(place)
    }

    /// Gives a standby task to the process with the least load that does not have it.
    fn give_standby(&mut self, heap: &mut Heap<usize>, task: Task) -> bool {
        let mut passed = Vec::new();
        let mut found = false;
        while let Some(process) = heap.pop(|p| self.processes[*p].load()) {
            passed.push(process);
            if self.processes[process].has(task) {
                continue;
            }
            if let Some(has) = self.processes[process].add_to_least_loaded(task, false) {
                self.total_quota.note(has);
                found = true;
            }
            break;
        }
        for process in passed.into_iter().rev() {
            heap.push(process, |p| self.processes[*p].load());
        }
        found
    }

    fn result(&self, workers: &[Worker]) -> BTreeMap<ByteStr, TaskSet> {
        let mut shares: BTreeMap<ByteStr, TaskSet> = workers
            .iter()
            .map(|worker| (worker.id.clone(), TaskSet::default()))
            .collect();
        for process in &self.processes {
            for (member_id, task, is_active) in process.tasks() {
                let share = shares.entry(member_id.clone()).or_default();
                let role = if is_active {
                    &mut share.active
                } else {
                    &mut share.standby
                };
                let part = &self.parts[task.part];
                role.entry(part.id.clone()).or_default().insert(task.number);
            }
        }
        shares
    }
}
