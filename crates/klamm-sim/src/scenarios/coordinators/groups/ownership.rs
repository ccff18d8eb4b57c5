//! **One owner.** No partition is worked on by two members at once.
//!
//! Source: what a consumer group is for; KIP-848: partitions are assigned once they are revoked.
//! A member owns a partition from when it takes it up until it gives it up, whatever the
//! coordinator believes. Known and allowed: a member that was not heard of for as long as its
//! session, or that did not give up partitions within its rebalance timeout, loses them without
//! knowing; one whose static name another member may have taken since it was last heard of as well,
//! be that a newer member or an older one that comes back. Such a one may read an old answer
//! and believe it: it counts again when the coordinator has answered it once more. Times are those at which requests
//! were sent whose answers came, so that the coordinator's are later.

use std::collections::{BTreeMap, BTreeSet};

use super::super::super::Violation;

/// Until when a member may count on what it has.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Lease {
    pub(in super::super) session_ms: i64,
    pub(in super::super) rebalance_ms: i64,
}

#[derive(Debug)]
struct Owner {
    partitions: BTreeSet<i32>,
    instance: Option<String>,
    lease: Lease,
    /// When it sent the last heartbeat that was answered well.
    beat_ms: i64,
    /// The same, of the last after which it had nothing to give up.
    calm_ms: i64,
}

/// Who owns what.
#[derive(Debug, Default)]
pub(in super::super) struct Ownership {
    owners: BTreeMap<usize, Owner>,
    /// Who may have been taken in anew under a name, and when last.
    claims: BTreeMap<String, BTreeMap<usize, i64>>,
}

impl Ownership {
    pub(in super::super) fn came(&mut self, id: usize, instance: Option<String>, lease: Lease) {
        let owner = Owner {
            partitions: BTreeSet::new(),
            instance,
            lease,
            beat_ms: i64::MIN / 2,
            calm_ms: i64::MIN / 2,
        };
        self.owners.entry(id).or_insert(owner);
    }

    pub(in super::super) fn gone(&mut self, id: usize) {
        self.owners.remove(&id);
    }

    /// A coordinator takes a member in anew under its name, or is about to: whoever had the name is
    /// replaced, or will be heard of again. Returns when it did so before.
    pub(in super::super) fn claims(&mut self, id: usize, now_ms: i64) -> Option<i64> {
        let name = self.owners.get(&id)?.instance.clone()?;
        self.claims.entry(name).or_default().insert(id, now_ms)
    }

    /// It did not, so that what was before holds.
    pub(in super::super) fn refused(&mut self, id: usize, before_ms: Option<i64>) {
        let name = self.owners.get(&id).and_then(|o| o.instance.as_ref());
        let Some(claims) = name.and_then(|name| self.claims.get_mut(name)) else {
            return;
        };
        match before_ms {
            Some(before_ms) => claims.insert(id, before_ms),
            None => claims.remove(&id),
        };
    }

    /// A heartbeat was answered well that was sent then. Of who may have lost all before, it proves
    /// nothing: what it still has is to be taken anew.
    pub(in super::super) fn beat(&mut self, id: usize, sent_ms: i64, calm: bool, now_ms: i64) {
        let is_lost = self.is_lost(id, now_ms);
        if let Some(owner) = self.owners.get_mut(&id) {
            if is_lost {
                owner.partitions.clear();
            }
            owner.beat_ms = owner.beat_ms.max(sent_ms);
            if calm {
                owner.calm_ms = owner.calm_ms.max(sent_ms);
            }
        }
    }

    pub(in super::super) fn give_up(&mut self, id: usize, partitions: &BTreeSet<i32>) {
        if let Some(owner) = self.owners.get_mut(&id) {
            owner.partitions.retain(|p| !partitions.contains(p));
        }
    }

    /// What a member has.
    pub(super) fn of(&self, id: usize) -> Option<&BTreeSet<i32>> {
        self.owners.get(&id).map(|owner| &owner.partitions)
    }

    pub(in super::super) fn owns(&self, id: usize, partition: i32) -> bool {
        let owner = self.owners.get(&id);
        owner.is_some_and(|owner| owner.partitions.contains(&partition))
    }

    /// A member was told that it has a partition. Whoever had it may have lost it by now.
    pub(in super::super) fn given(
        &mut self,
        id: usize,
        partition: i32,
        now_ms: i64,
    ) -> Result<(), Violation> {
        if self.is_lost(id, now_ms) {
            return Ok(());
        }
        let holders = self.owners.iter();
        let holders: Vec<usize> = holders
            .filter(|(other, owner)| **other != id && owner.partitions.contains(&partition))
            .map(|(other, _)| *other)
            .collect();
        for other in holders {
            let is_lost = self.is_lost(other, now_ms);
            let Some(owner) = self.owners.get_mut(&other) else {
                continue;
            };
            if !is_lost {
                let detail = format!("{id} is given {partition}, which {other} has: {owner:?}");
                return Err(Violation::new("ownership", detail));
            }
            // All that it had is lost, and only it does not know.
            owner.partitions.clear();
        }
        Ok(())
    }

    /// A member takes a partition up.
    pub(in super::super) fn take(
        &mut self,
        id: usize,
        partition: i32,
        now_ms: i64,
    ) -> Result<(), Violation> {
        if self.is_lost(id, now_ms) {
            return Ok(());
        }
        self.given(id, partition, now_ms)?;
        if let Some(owner) = self.owners.get_mut(&id) {
            owner.partitions.insert(partition);
        }
        Ok(())
    }

    /// Whether a member may have lost all that it has.
    pub(super) fn is_lost(&self, id: usize, now_ms: i64) -> bool {
        let Some(owner) = self.owners.get(&id) else {
            return true;
        };
        let name = owner.instance.as_ref();
        let mut claims = name
            .and_then(|name| self.claims.get(name))
            .into_iter()
            .flatten();
        let Lease {
            session_ms,
            rebalance_ms,
        } = owner.lease;
        now_ms >= owner.beat_ms + session_ms
            || now_ms >= owner.calm_ms + rebalance_ms
            || claims.any(|(other, at_ms)| *other != id && *at_ms >= owner.beat_ms)
    }

    /// One of these partitions that nobody has.
    pub(in super::super) fn without_owner(&self, partitions: &[i32]) -> Option<i32> {
        let is_owned = |p: &i32| self.owners.values().any(|o| o.partitions.contains(p));
        partitions.iter().copied().find(|p| !is_owned(p))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Lease = Lease {
        session_ms: 6_000,
        rebalance_ms: 5_000,
    };

    fn two() -> Ownership {
        let mut ownership = Ownership::default();
        for id in [1, 2] {
            ownership.came(id, None, LEASE);
            ownership.beat(id, 0, true, 0);
        }
        ownership.take(1, 3, 0).unwrap();
        ownership
    }

    #[test]
    fn two_that_are_heard_of_must_not_share() {
        let mut ownership = two();
        ownership.beat(1, 4_000, true, 4_000);
        ownership.beat(2, 4_000, true, 4_000);
        assert!(ownership.given(2, 3, 8_000).is_err());
        assert!(ownership.take(2, 3, 8_000).is_err());
    }

    #[test]
    fn who_was_silent_owns_what_it_takes_anew() {
        let mut ownership = two();
        ownership.beat(1, 7_000, true, 7_000);
        ownership.beat(2, 7_000, true, 7_000);
        ownership.take(2, 3, 7_000).unwrap();
        assert!(ownership.take(1, 3, 7_000).is_err());
        ownership.give_up(2, &BTreeSet::from([3]));
        ownership.take(1, 3, 7_000).unwrap();
        assert!(ownership.given(2, 3, 7_000).is_err());
    }

    /// Two under one name, of which 1 has it, and a third one.
    fn namesakes() -> Ownership {
        let mut ownership = Ownership::default();
        for id in [1, 2] {
            ownership.came(id, Some("name".to_owned()), LEASE);
        }
        ownership.came(3, None, LEASE);
        ownership.claims(1, 0);
        ownership.beat(1, 1, true, 1);
        ownership.beat(3, 1, true, 1);
        ownership.take(1, 5, 1).unwrap();
        ownership
    }

    #[test]
    fn who_only_comes_takes_nobodys_name() {
        let mut ownership = namesakes();
        assert!(ownership.given(3, 5, 2).is_err());
        let before_ms = ownership.claims(2, 2);
        ownership.refused(2, before_ms);
        assert!(ownership.given(3, 5, 3).is_err());
    }

    #[test]
    fn a_name_is_also_taken_by_an_older_member() {
        let mut ownership = namesakes();
        ownership.claims(2, 2);
        ownership.beat(2, 2, true, 3);
        ownership.take(2, 5, 3).unwrap();
        ownership.claims(1, 4);
        ownership.given(3, 5, 5).unwrap();
        assert!(!ownership.owns(2, 5));
    }

    #[test]
    fn who_is_heard_of_again_has_its_name() {
        let mut ownership = namesakes();
        ownership.claims(2, 2);
        ownership.beat(1, 3, true, 4);
        ownership.take(1, 5, 4).unwrap();
        assert!(ownership.given(3, 5, 5).is_err());
    }
}
