//! A process with its members and what was given to them so far.

use std::collections::BTreeSet;

use klamm_protocol::ByteStr;

use super::Task;
use super::heap::Heap;
use crate::group::java;

#[derive(Debug)]
pub(super) struct Process {
    id: ByteStr,
    members: Vec<Member>,
    tasks: BTreeSet<Task>,
    task_count: usize,
    /// Members by load with the counts they had when they were put there, as long as nobody was
    /// given a task by name.
    by_load: Option<Heap<(usize, usize)>>,
}

#[derive(Debug)]
struct Member {
    id: ByteStr,
    count: usize,
    active: BTreeSet<Task>,
    standby: BTreeSet<Task>,
}

impl Process {
    pub(super) fn new(id: ByteStr) -> Self {
        Process {
            id,
            members: Vec::new(),
            tasks: BTreeSet::new(),
            task_count: 0,
            by_load: None,
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Adds a member; returns its place.
    pub(super) fn add_member(&mut self, id: ByteStr) -> usize {
        self.members.push(Member {
            id,
            count: 0,
            active: BTreeSet::new(),
            standby: BTreeSet::new(),
        });
        self.members.len() - 1
    }

    /// Tasks for each member, on average.
    pub(super) fn load(&self) -> f64 {
        self.task_count as f64 / self.members.len().max(1) as f64
    }

    /// Whether one of the members has the task, in any role.
    pub(super) fn has(&self, task: Task) -> bool {
        self.tasks.contains(&task)
    }

    /// How many tasks a member has.
    pub(super) fn count_of(&self, member: usize) -> usize {
        self.members[member].count
    }

    /// Gives a task to a member; returns how many it has then.
    pub(super) fn add_task(&mut self, member: usize, task: Task, is_active: bool) -> usize {
        self.by_load = None;
        self.give(member, task, is_active)
    }

    /// Gives a task to the member with the fewest; returns how many it has then, or none if there
    /// is no member.
    pub(super) fn add_to_least_loaded(&mut self, task: Task, is_active: bool) -> Option<usize> {
        if self.members.len() <= 1 {
            return (!self.members.is_empty()).then(|| self.give(0, task, is_active));
        }
        let mut heap = self.by_load.take().unwrap_or_else(|| {
            let names: Vec<&str> = self.members.iter().map(|m| &*m.id).collect();
            let mut heap = Heap::default();
            for member in hash_map_of_names(&names, java::HASH_MAP_CAPACITY) {
                heap.push((member, self.members[member].count), |(_, count)| *count);
            }
            heap
        });
        let (member, _) = heap.pop(|(_, count)| *count)?;
        let has = self.give(member, task, is_active);
        heap.push((member, has), |(_, count)| *count);
        self.by_load = Some(heap);
        Some(has)
    }

    fn give(&mut self, member: usize, task: Task, is_active: bool) -> usize {
        self.task_count += 1;
        self.tasks.insert(task);
        let member = &mut self.members[member];
        let role = if is_active {
            &mut member.active
        } else {
            &mut member.standby
        };
        role.insert(task);
        member.count += 1;
        member.count
    }

    /// All tasks: member, task, whether it is active.
    pub(super) fn tasks(&self) -> impl Iterator<Item = (&ByteStr, Task, bool)> {
        self.members.iter().flat_map(|member| {
            let active = member.active.iter().map(|task| (&member.id, *task, true));
            let standby = member.standby.iter().map(|task| (&member.id, *task, false));
            active.chain(standby)
        })
    }
}

/// The places of names in the order in which a hash map made for `capacity` has them.
pub(super) fn hash_map_of_names(names: &[&str], capacity: usize) -> Vec<usize> {
    let places = (0..names.len()).collect();
    java::hash_map_order(places, capacity, |place| {
        names.get(*place).map_or(0, |name| java::string_hash(name))
    })
}
