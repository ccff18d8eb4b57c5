//! The way of one member to the target assignment: revocation before assignment.
//!
//! ```text
//!   Stable ---- something to give up ----> UnrevokedTasks
//!     |  ^                                        | the client says that it has it no more
//!     |  '--- others gave all up --.              v
//!     '--- others still hold some --> UnreleasedTasks (in the epoch of the target)
//! ```
//!
//! An active task runs in one place at a time. A process, which may have many members, has a task
//! in one role only, because the roles share the state on its disk: a standby task becomes active
//! where it is only once it was given up as a standby. Pure: the member goes in, the member as it
//! should be comes out.

use std::collections::{BTreeMap, BTreeSet};

use klamm_protocol::{ByteStr, ErrorCode};

use super::group::StreamsGroup;
use super::member::{MemberState, StreamsMember};
use super::tasks::{ActiveTasks, OwnedTasks, TaskSet, Tasks};
use crate::group::consumer::Refusal;

/// What decides where a member goes.
pub(super) struct Reconciliation<'a> {
    /// Who has which task now.
    pub group: &'a StreamsGroup,
    /// The epoch of the target assignment.
    pub target_epoch: i32,
    /// What the target gives the member.
    pub target: &'a TaskSet,
    /// What the client says it has; none if it does not say.
    pub owned: Option<&'a TaskSet>,
}

/// What becomes of the tasks of one role.
#[derive(Default)]
struct Difference<T> {
    kept: T,
    revoked: T,
    new: T,
    /// Whether others still hold some of what the target gives.
    waits: bool,
}

impl Reconciliation<'_> {
    /// The member as it is after this.
    ///
    /// # Errors
    /// `FENCED_MEMBER_EPOCH` for a member in a state that this version does not know, until it
    /// comes back with nothing.
    pub(super) fn run(&self, member: &StreamsMember) -> Result<StreamsMember, Refusal> {
        let has_given_up = || {
            let owned = self.owned;
            owned.is_some_and(|owned| !owned.shares_any(&member.pending_revocation))
        };
        Ok(match member.state {
            MemberState::Stable if member.epoch == self.target_epoch => member.clone(),
            MemberState::Stable | MemberState::UnreleasedTasks => self.next(member, member.epoch),
            MemberState::UnrevokedTasks if has_given_up() => {
                self.next(member, member.epoch.wrapping_add(1))
            }
            MemberState::UnrevokedTasks => member.clone(),
            MemberState::Unknown if self.owned.is_some_and(TaskSet::is_empty) => {
                self.next(member, self.target_epoch)
            }
            MemberState::Unknown => {
                return Err(Refusal::new(
                    ErrorCode::FencedMemberEpoch,
                    "The streams group member is in a unknown state. The member must abandon all \
                     its tasks and rejoin.",
                ));
            }
        })
    }

    fn next(&self, member: &StreamsMember, epoch: i32) -> StreamsMember {
        let process = &*member.process_id;
        let group = self.group;
        let is_here = |subtopology: &ByteStr, task: i32| {
            group.is_active_in(subtopology, task, process)
                || group.is_copied_in(subtopology, task, process)
        };
        let has = &member.assigned;
        let active = self.active_difference(&has.active, |subtopology, task| {
            group.is_active_held(subtopology, task)
                || group.is_copied_in(subtopology, task, process)
        });
        let standby = difference(&has.standby, &self.target.standby, is_here);
        let warmup = difference(&has.warmup, &self.target.warmup, is_here);
        let waits = active.waits || standby.waits || warmup.waits;
        let revoked = OwnedTasks {
            active: active.revoked,
            standby: standby.revoked,
            warmup: warmup.revoked,
        };
        let mut assigned = OwnedTasks {
            active: active.kept,
            standby: standby.kept,
            warmup: warmup.kept,
        };
        // A client that does not say what it has may have anything.
        let still_has = |owned: &TaskSet| owned.shares_any(&revoked);
        if !revoked.is_empty() && self.owned.is_none_or(still_has) {
            return StreamsMember {
                state: MemberState::UnrevokedTasks,
                assigned,
                pending_revocation: revoked,
                ..member.in_epoch(epoch)
            };
        }
        assigned.extend(OwnedTasks {
            active: active.new,
            standby: standby.new,
            warmup: warmup.new,
        });
        StreamsMember {
            state: if waits {
                MemberState::UnreleasedTasks
            } else {
                MemberState::Stable
            },
            assigned,
            pending_revocation: OwnedTasks::default(),
            ..member.in_epoch(self.target_epoch)
        }
    }

    fn active_difference(
        &self,
        present: &ActiveTasks,
        is_held: impl Fn(&ByteStr, i32) -> bool,
    ) -> Difference<ActiveTasks> {
        let mut found = Difference::<ActiveTasks>::default();
        for (subtopology, tasks) in present {
            let wanted = self.target.active.get(subtopology);
            for (task, since) in tasks {
                let is_kept = wanted.is_some_and(|wanted| wanted.contains(task));
                let place = if is_kept {
                    &mut found.kept
                } else {
                    &mut found.revoked
                };
                place
                    .entry(subtopology.clone())
                    .or_default()
                    .insert(*task, *since);
            }
        }
        for (subtopology, tasks) in &self.target.active {
            let present = present.get(subtopology);
            for task in tasks {
                if present.is_some_and(|present| present.contains_key(task)) {
                    continue;
                }
                if is_held(subtopology, *task) {
                    found.waits = true;
                } else {
                    let new: &mut BTreeMap<_, _> =
                        found.new.entry(subtopology.clone()).or_default();
                    new.insert(*task, self.target_epoch);
                }
            }
        }
        found
    }
}

fn difference(
    present: &Tasks,
    target: &Tasks,
    is_held: impl Fn(&ByteStr, i32) -> bool,
) -> Difference<Tasks> {
    let mut found = Difference::<Tasks>::default();
    let nothing = BTreeSet::new();
    for (subtopology, tasks) in present {
        let wanted = target.get(subtopology).unwrap_or(&nothing);
        for task in tasks {
            let place = if wanted.contains(task) {
                &mut found.kept
            } else {
                &mut found.revoked
            };
            place.entry(subtopology.clone()).or_default().insert(*task);
        }
    }
    for (subtopology, tasks) in target {
        let present = present.get(subtopology).unwrap_or(&nothing);
        for task in tasks.difference(present) {
            if is_held(subtopology, *task) {
                found.waits = true;
            } else {
                let new = found.new.entry(subtopology.clone()).or_default();
                new.insert(*task);
            }
        }
    }
    found
}
