//! The next state of a partition: who leads, who is in sync, which replicas it has.
//!
//! A [`PartitionChange`] starts from a partition as it is, is told what should become of it, and
//! gives the record that takes it there, with the election that follows. The order of the steps is
//! Kafka's, as it shows in the records.

use std::collections::BTreeSet;

use klamm_metadata::{LeaderRecoveryState, NO_LEADER, PartitionImage};
use klamm_protocol::metadata::PartitionChangeRecord;
use klamm_records::Uuid;

use super::Context;

/// Leader id in a change record that leaves the leader as it is.
const LEADER_UNCHANGED: i32 = -2;

/// How a leader is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Election {
    /// The first replica, if it may lead; else as [`Election::Online`].
    Preferred,
    /// The leader as it is, if it may still lead; else the first replica in sync that may.
    Online,
    /// As [`Election::Online`]; if none in sync may lead, any replica that is alive.
    Unclean,
}

struct Elected {
    leader: i32,
    unclean: bool,
}

/// A change to a partition in the making.
pub(crate) struct PartitionChange<'a> {
    context: &'a Context<'a>,
    partition: &'a PartitionImage,
    topic_id: Uuid,
    partition_id: i32,
    min_isr: usize,
    may_lead: &'a dyn Fn(i32) -> bool,
    election: Election,
    isr: Vec<i32>,
    replicas: Vec<i32>,
    removing: Vec<i32>,
    adding: Vec<i32>,
    elr: Vec<i32>,
    directory: Option<(i32, Uuid)>,
    uncleanly_shut_down: Option<i32>,
    recovery_state: LeaderRecoveryState,
}

impl<'a> PartitionChange<'a> {
    /// No change so far. `may_lead` says which brokers are fit to lead as far as their liveness
    /// goes; that the replica's directory is online is seen to here.
    pub(crate) fn new(
        context: &'a Context<'a>,
        topic: &str,
        topic_id: Uuid,
        partition_id: i32,
        partition: &'a PartitionImage,
        may_lead: &'a dyn Fn(i32) -> bool,
    ) -> Self {
        PartitionChange {
            context,
            partition,
            topic_id,
            partition_id,
            min_isr: context.min_isr(topic, partition.replicas.len()),
            may_lead,
            election: Election::Online,
            isr: partition.isr.clone(),
            replicas: partition.replicas.clone(),
            removing: partition.removing_replicas.clone(),
            adding: partition.adding_replicas.clone(),
            elr: partition.elr.clone(),
            directory: None,
            uncleanly_shut_down: None,
            recovery_state: partition.leader_recovery_state,
        }
    }

    pub(crate) fn election(mut self, election: Election) -> Self {
        self.election = election;
        self
    }

    pub(crate) fn isr(mut self, isr: Vec<i32>) -> Self {
        self.isr = isr;
        self
    }

    pub(crate) fn replicas(mut self, replicas: Vec<i32>) -> Self {
        self.replicas = replicas;
        self
    }

    pub(crate) fn removing(mut self, removing: Vec<i32>) -> Self {
        self.removing = removing;
        self
    }

    pub(crate) fn adding(mut self, adding: Vec<i32>) -> Self {
        self.adding = adding;
        self
    }

    /// The directory that one replica is in now.
    pub(crate) fn directory(mut self, replica: i32, directory: Uuid) -> Self {
        self.directory = Some((replica, directory));
        self
    }

    /// A broker that came back without having shut down: it may lack the end of its logs.
    pub(crate) fn uncleanly_shut_down(mut self, broker: Option<i32>) -> Self {
        self.uncleanly_shut_down = broker;
        self
    }

    pub(crate) fn recovery_state(mut self, state: LeaderRecoveryState) -> Self {
        self.recovery_state = state;
        self
    }

    /// The record, unless all stays as it is.
    pub(crate) fn build(mut self) -> Option<PartitionChangeRecord> {
        let unchanged = PartitionChangeRecord {
            topic_id: self.topic_id,
            partition_id: self.partition_id,
            ..PartitionChangeRecord::default()
        };
        let mut record = unchanged.clone();
        self.complete_reassignment();
        self.refill_elr();
        self.elect(&mut record);
        if record.leader == LEADER_UNCHANGED && !contains(&self.replicas, &self.partition.replicas)
        {
            // A replica is gone: the new epoch makes the leader forget it.
            record.leader = self.partition.leader;
        }
        self.note_elr(&mut record);
        let may_empty = !self.isr.is_empty() || self.context.image.elr_enabled();
        if record.isr.is_none() && may_empty && self.isr != self.partition.isr {
            record.isr = Some(self.isr.clone());
        }
        self.bump_epoch_for_isr_shrink(&mut record);
        self.note_last_known_leader(&mut record);
        self.note_assignment(&mut record);
        if self.recovery_state != self.partition.leader_recovery_state {
            record.leader_recovery_state = self.recovery_state.value();
        }
        (record != unchanged).then_some(record)
    }

    /// Once all added replicas are in sync, those being removed go.
    fn complete_reassignment(&mut self) {
        if self.removing.is_empty() && self.adding.is_empty() {
            return;
        }
        let without_removed = |list: &[i32]| -> Vec<i32> {
            list.iter()
                .copied()
                .filter(|replica| !self.removing.contains(replica))
                .collect()
        };
        let (isr, replicas) = (without_removed(&self.isr), without_removed(&self.replicas));
        if isr.is_empty() || replicas.is_empty() || !contains(&isr, &replicas) {
            return;
        }
        self.isr = isr;
        self.replicas = replicas;
        self.removing.clear();
        self.adding.clear();
    }

    /// With fewer replicas in sync than `min.insync.replicas`, nothing is acknowledged: those that
    /// leave the ISR still hold all that ever was, and stay eligible (KIP-966).
    fn refill_elr(&mut self) {
        if !self.context.image.elr_enabled() {
            return;
        }
        if self.isr.len() >= self.min_isr {
            self.elr.clear();
            return;
        }
        let candidates: BTreeSet<i32> = self
            .elr
            .iter()
            .chain(&self.partition.isr)
            .copied()
            .collect();
        // Unlike Kafka, which lets a replica stay eligible that a reassignment took away: should it
        // ever be added again, it would be elected without a log.
        self.elr = candidates
            .into_iter()
            .filter(|replica| self.replicas.contains(replica))
            .filter(|replica| !self.isr.contains(replica))
            .filter(|replica| self.uncleanly_shut_down != Some(*replica))
            .collect();
    }

    fn elect(&mut self, record: &mut PartitionChangeRecord) {
        let elected = self.choose_leader();
        if elected.leader == self.partition.leader {
            return;
        }
        if self.elr.contains(&elected.leader) {
            self.isr = vec![elected.leader];
            self.elr.retain(|&replica| replica != elected.leader);
        }
        record.leader = elected.leader;
        if elected.unclean {
            record.isr = Some(vec![elected.leader]);
            if self.partition.leader_recovery_state != LeaderRecoveryState::Recovering {
                record.leader_recovery_state = LeaderRecoveryState::Recovering.value();
            }
        }
    }

    fn choose_leader(&self) -> Elected {
        let clean = |leader| Elected {
            leader,
            unclean: false,
        };
        let unclean = |leader| Elected {
            leader,
            unclean: true,
        };
        let current = Some(self.partition.leader);
        let preferred = self.replicas.first().copied();
        let candidates = match self.election {
            Election::Preferred => [preferred, current],
            Election::Online | Election::Unclean => [current, None],
        };
        if let Some(leader) = candidates
            .into_iter()
            .flatten()
            .find(|&r| self.may_be_leader(r))
        {
            return clean(leader);
        }
        if let Some(&leader) = self
            .replicas
            .iter()
            .find(|&&replica| self.may_be_leader(replica))
        {
            return clean(leader);
        }
        if let Some(leader) = self.last_known_leader() {
            return unclean(leader);
        }
        if self.election == Election::Unclean
            && let Some(&leader) = self.replicas.iter().find(|&&replica| self.is_fit(replica))
        {
            return unclean(leader);
        }
        clean(NO_LEADER)
    }

    /// Nobody is in sync or eligible: the last leader, alive again, knows most. Unless a reassignment
    /// took the partition from it meanwhile, which Kafka does not ask.
    fn last_known_leader(&self) -> Option<i32> {
        let [only] = self.partition.last_known_elr[..] else {
            return None;
        };
        let nobody_left = self.elr.is_empty() && self.isr.is_empty();
        let may_lead = self.replicas.contains(&only) && self.is_fit(only);
        (self.context.image.elr_enabled() && nobody_left && may_lead).then_some(only)
    }

    fn may_be_leader(&self, replica: i32) -> bool {
        let in_sync =
            self.isr.contains(&replica) || self.isr.is_empty() && self.elr.contains(&replica);
        in_sync && self.is_fit(replica)
    }

    fn is_fit(&self, replica: i32) -> bool {
        (self.may_lead)(replica) && self.context.has_online_dir(replica, self.partition)
    }

    fn note_elr(&mut self, record: &mut PartitionChangeRecord) {
        let clean_election = record.isr.is_none();
        if !clean_election || !self.context.image.elr_enabled() {
            self.elr.clear();
        }
        if self.elr != self.partition.elr {
            record.eligible_leader_replicas = Some(self.elr.clone());
        }
    }

    fn note_last_known_leader(&self, record: &mut PartitionChangeRecord) {
        if !self.context.image.elr_enabled() {
            return;
        }
        let known = &self.partition.last_known_elr;
        let leader = self.partition.leader;
        let emptied = record.isr.as_ref().is_some_and(Vec::is_empty);
        if emptied && known[..] != [leader] {
            record.last_known_elr = Some(vec![leader]);
        } else if !emptied
            && !known.is_empty()
            && (record.leader >= 0 || leader != NO_LEADER && record.leader != NO_LEADER)
        {
            record.last_known_elr = Some(Vec::new());
        }
    }

    fn bump_epoch_for_isr_shrink(&self, record: &mut PartitionChangeRecord) {
        let Some(isr) = &record.isr else { return };
        if record.leader == LEADER_UNCHANGED
            && self
                .context
                .image
                .metadata_version()
                .bumps_leader_epoch_on_isr_shrink()
            && !contains(isr, &self.partition.isr)
        {
            record.leader = self.partition.leader;
        }
    }

    fn note_assignment(&self, record: &mut PartitionChangeRecord) {
        if !self.replicas.is_empty() {
            if self
                .context
                .image
                .metadata_version()
                .supports_directory_assignment()
            {
                let directories: Vec<Uuid> = self
                    .replicas
                    .iter()
                    .map(|&replica| self.directory_of(replica))
                    .collect();
                if directories != self.partition.directories {
                    record.directories = Some(directories);
                }
            }
            if self.replicas != self.partition.replicas {
                record.replicas = Some(self.replicas.clone());
            }
        }
        if self.removing != self.partition.removing_replicas {
            record.removing_replicas = Some(self.removing.clone());
        }
        if self.adding != self.partition.adding_replicas {
            record.adding_replicas = Some(self.adding.clone());
        }
    }

    fn directory_of(&self, replica: i32) -> Uuid {
        match self.directory {
            Some((moved, directory)) if moved == replica => directory,
            _ if self.partition.replicas.contains(&replica) => self.partition.directory(replica),
            _ => self.context.default_dir(replica),
        }
    }
}

/// Whether all of `some` are in `all`.
fn contains(all: &[i32], some: &[i32]) -> bool {
    some.iter().all(|replica| all.contains(replica))
}
