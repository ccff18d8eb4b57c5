//! **One role.** A process has a task in one role only: it works on it, or keeps a copy of its
//! state, once.
//!
//! Source: KIP-1071; the roles share the state on the disk of the process. Known and allowed: a
//! member that may have lost what it has without knowing, as with [`super::ownership`].

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::Violation;
use super::ownership::Ownership;

/// The standby tasks of members, and the processes of these.
#[derive(Debug, Default)]
pub(in super::super) struct Roles(BTreeMap<usize, (String, BTreeSet<i32>)>);

impl Roles {
    /// A member has these standby tasks.
    pub(in super::super) fn has(&mut self, id: usize, process: String, standby: BTreeSet<i32>) {
        self.0.insert(id, (process, standby));
    }

    pub(in super::super) fn gone(&mut self, id: usize) {
        self.0.remove(&id);
    }

    /// Checks that no process has a task twice.
    pub(in super::super) fn check(
        &self,
        ownership: &Ownership,
        now_ms: i64,
    ) -> Result<(), Violation> {
        let mut seen: BTreeMap<(&str, i32), usize> = BTreeMap::new();
        for (id, (process, standby)) in &self.0 {
            if ownership.is_lost(*id, now_ms) {
                continue;
            }
            let active = ownership.of(*id);
            for task in active
                .iter()
                .flat_map(|active| active.iter())
                .chain(standby)
            {
                if let Some(other) = seen.insert((process.as_str(), *task), *id) {
                    let detail = format!("{process} has {task} in both {other} and {id}");
                    return Err(Violation::new("roles", detail));
                }
            }
        }
        Ok(())
    }

    /// A task of which there are fewer copies than there could be: `wanted`, in as many other
    /// processes.
    pub(in super::super) fn without_copy(&self, tasks: &[i32], wanted: usize) -> Option<i32> {
        let processes: BTreeSet<&str> = self.0.values().map(|(process, _)| &**process).collect();
        let wanted = wanted.min(processes.len().saturating_sub(1));
        let copies = |task: &i32| {
            let standby = self.0.values();
            standby.filter(|(_, tasks)| tasks.contains(task)).count()
        };
        tasks.iter().copied().find(|task| copies(task) != wanted)
    }
}
