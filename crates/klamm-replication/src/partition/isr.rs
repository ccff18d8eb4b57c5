//! The in-sync replicas as the controller committed them, and the one change in flight.
//!
//! The leader proposes, the controller decides. Until it has answered, the leader acts on the
//! *maximal* ISR, the larger of the old and the proposed set: a joining replica already counts, a
//! leaving one still does. Each error on the way is then on the safe side (KIP-497).

/// The committed ISR and what has been proposed on top of it.
#[derive(Clone, Debug)]
pub struct IsrState {
    committed: Vec<i32>,
    pending: Option<Pending>,
}

#[derive(Clone, Debug)]
struct Pending {
    change: IsrChange,
    id: u64,
}

/// A change of the ISR.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IsrChange {
    /// This replica has caught up.
    Expand(i32),
    /// These replicas lag.
    Shrink(Vec<i32>),
}

/// One member of a proposed ISR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsrMember {
    /// The broker.
    pub id: i32,
    /// Its incarnation, so that the controller can refuse one that restarted meanwhile (KIP-903);
    /// -1 if unknown.
    pub broker_epoch: i64,
}

/// What to ask the controller for with AlterPartition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrProposal {
    /// Names the proposal within this replica, to match the answer.
    pub id: u64,
    /// The leader epoch in which it is made.
    pub leader_epoch: i32,
    /// The partition epoch it builds on.
    pub partition_epoch: i32,
    /// The whole new ISR. The leader's own broker epoch is -1: the sender knows it.
    pub isr: Vec<IsrMember>,
}

/// An error of AlterPartition, by what the leader does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlterPartitionError {
    /// `OPERATION_NOT_ATTEMPTED` or `INELIGIBLE_REPLICA`: certainly not applied, and the
    /// partition epoch is right. The committed ISR holds again.
    Refused,
    /// The controller knows newer state than the leader, or the leader is wrong about the
    /// partition (`FENCED_LEADER_EPOCH`, `INVALID_UPDATE_VERSION`, `UNKNOWN_TOPIC_OR_PARTITION`,
    /// `UNKNOWN_TOPIC_ID`, `INVALID_REQUEST`, `NEW_LEADER_ELECTED`): the proposal may or may not
    /// have been applied. It stays pending until metadata settles it.
    AwaitMetadata,
    /// Anything else: ask again.
    Retry,
}

impl IsrState {
    /// An ISR with nothing in flight.
    pub fn committed(isr: &[i32]) -> Self {
        IsrState {
            committed: isr.to_vec(),
            pending: None,
        }
    }

    /// The ISR that the controller committed last.
    pub fn members(&self) -> &[i32] {
        &self.committed
    }

    /// Whether a proposal awaits its answer.
    pub fn is_in_flight(&self) -> bool {
        self.pending.is_some()
    }

    /// The id of the proposal in flight.
    pub fn pending_id(&self) -> Option<u64> {
        self.pending.as_ref().map(|pending| pending.id)
    }

    /// Whether `id` is in the maximal ISR.
    pub fn maximal_contains(&self, id: i32) -> bool {
        self.committed.contains(&id)
            || matches!(&self.pending, Some(Pending { change: IsrChange::Expand(joining), .. }) if *joining == id)
    }

    /// Size of the maximal ISR.
    pub fn maximal_len(&self) -> usize {
        match &self.pending {
            Some(Pending {
                change: IsrChange::Expand(_),
                ..
            }) => self.committed.len() + 1,
            _ => self.committed.len(),
        }
    }

    /// Notes `change` as proposed under `id` and returns the ISR to ask for. Callers check
    /// [`IsrState::is_in_flight`] first.
    pub(super) fn propose(&mut self, change: IsrChange, id: u64) -> Vec<i32> {
        debug_assert!(self.pending.is_none(), "one proposal at a time");
        let proposed = self.apply(&change);
        self.pending = Some(Pending { change, id });
        proposed
    }

    /// The ISR that the proposal in flight asks for.
    pub(super) fn proposed(&self) -> Option<Vec<i32>> {
        self.pending
            .as_ref()
            .map(|pending| self.apply(&pending.change))
    }

    /// Drops the proposal in flight; the committed ISR holds.
    pub(super) fn withdraw(&mut self) {
        self.pending = None;
    }

    fn apply(&self, change: &IsrChange) -> Vec<i32> {
        match change {
            IsrChange::Expand(joining) => {
                let mut isr = self.committed.clone();
                isr.push(*joining);
                isr
            }
            IsrChange::Shrink(leaving) => self
                .committed
                .iter()
                .copied()
                .filter(|id| !leaving.contains(id))
                .collect(),
        }
    }
}
