use klamm_protocol::metadata::{PartitionChangeRecord, PartitionRecord};
use klamm_records::Uuid;

use crate::error::ReplayError;
use crate::version::MetadataVersion;

/// Leader id of a partition that has none.
pub const NO_LEADER: i32 = -1;
/// Leader id in a change record that leaves leader and leader epoch as they are.
const LEADER_UNCHANGED: i32 = -2;

/// Whether a leader still recovers from an unclean election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LeaderRecoveryState {
    /// The leader was elected from the ISR, or has recovered.
    #[default]
    Recovered,
    /// The leader was elected uncleanly and is the whole ISR until it has recovered.
    Recovering,
}

impl LeaderRecoveryState {
    /// The state of a number in a record or request.
    pub fn from_value(value: i8) -> Option<LeaderRecoveryState> {
        match value {
            0 => Some(LeaderRecoveryState::Recovered),
            1 => Some(LeaderRecoveryState::Recovering),
            _ => None,
        }
    }

    /// The number in records and requests.
    pub fn value(self) -> i8 {
        match self {
            LeaderRecoveryState::Recovered => 0,
            LeaderRecoveryState::Recovering => 1,
        }
    }
}

/// One partition: its replicas and who leads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionImage {
    /// Broker ids in order of preference.
    pub replicas: Vec<i32>,
    /// The log directory of each replica, in the order of `replicas`.
    pub directories: Vec<Uuid>,
    /// Replicas in sync with the leader.
    pub isr: Vec<i32>,
    /// Replicas that a reassignment takes away once it completes.
    pub removing_replicas: Vec<i32>,
    /// Replicas that a reassignment adds.
    pub adding_replicas: Vec<i32>,
    /// Replicas outside the ISR that hold all committed records (KIP-966).
    pub elr: Vec<i32>,
    /// The last leader when ISR and ELR are both empty (KIP-966).
    pub last_known_elr: Vec<i32>,
    /// Broker id of the leader, or [`NO_LEADER`].
    pub leader: i32,
    /// Whether the leader recovers from an unclean election.
    pub leader_recovery_state: LeaderRecoveryState,
    /// Grows with each election.
    pub leader_epoch: i32,
    /// Grows with each change.
    pub partition_epoch: i32,
}

impl PartitionImage {
    /// The partition that a record describes.
    pub fn from_record(record: &PartitionRecord) -> Result<PartitionImage, ReplayError> {
        Ok(PartitionImage {
            directories: directories_of(&record.directories, record.replicas.len())?,
            replicas: record.replicas.clone(),
            isr: record.isr.clone(),
            removing_replicas: record.removing_replicas.clone(),
            adding_replicas: record.adding_replicas.clone(),
            elr: record.eligible_leader_replicas.clone().unwrap_or_default(),
            last_known_elr: record.last_known_elr.clone().unwrap_or_default(),
            leader: record.leader,
            leader_recovery_state: recovery_state(record.leader_recovery_state)?,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
        })
    }

    /// The partition after a change. A change that names a leader, even the same one, starts a new
    /// leader epoch; any change starts a new partition epoch.
    pub fn merge(&self, change: &PartitionChangeRecord) -> Result<PartitionImage, ReplayError> {
        let or =
            |new: &Option<Vec<i32>>, old: &Vec<i32>| new.clone().unwrap_or_else(|| old.clone());
        let replicas = or(&change.replicas, &self.replicas);
        let directories = match &change.directories {
            Some(directories) => directories_of(directories, replicas.len())?,
            None => self.directories.clone(),
        };
        let elected = change.leader != LEADER_UNCHANGED;
        Ok(PartitionImage {
            directories: directories_of(&directories, replicas.len())?,
            replicas,
            isr: or(&change.isr, &self.isr),
            removing_replicas: or(&change.removing_replicas, &self.removing_replicas),
            adding_replicas: or(&change.adding_replicas, &self.adding_replicas),
            elr: or(&change.eligible_leader_replicas, &self.elr),
            last_known_elr: or(&change.last_known_elr, &self.last_known_elr),
            leader: if elected { change.leader } else { self.leader },
            leader_recovery_state: match change.leader_recovery_state {
                -1 => self.leader_recovery_state,
                value => recovery_state(value)?,
            },
            leader_epoch: self.leader_epoch + i32::from(elected),
            partition_epoch: self.partition_epoch + 1,
        })
    }

    /// The record that describes the partition, with the fields that `version` knows.
    pub fn to_record(
        &self,
        topic_id: Uuid,
        partition_id: i32,
        version: MetadataVersion,
    ) -> PartitionRecord {
        let or_none =
            |list: &Vec<i32>| (version.supports_elr() && !list.is_empty()).then(|| list.clone());
        PartitionRecord {
            partition_id,
            topic_id,
            replicas: self.replicas.clone(),
            isr: self.isr.clone(),
            removing_replicas: self.removing_replicas.clone(),
            adding_replicas: self.adding_replicas.clone(),
            leader: self.leader,
            leader_recovery_state: self.leader_recovery_state.value(),
            leader_epoch: self.leader_epoch,
            partition_epoch: self.partition_epoch,
            directories: if version.supports_directory_assignment() {
                self.directories.clone()
            } else {
                Vec::new()
            },
            eligible_leader_replicas: or_none(&self.elr),
            last_known_elr: or_none(&self.last_known_elr),
            ..PartitionRecord::default()
        }
    }

    /// Whether the partition has a leader.
    pub fn has_leader(&self) -> bool {
        self.leader != NO_LEADER
    }

    /// Whether the first replica leads.
    pub fn has_preferred_leader(&self) -> bool {
        self.replicas.first() == Some(&self.leader)
    }

    /// Whether replicas are being added or removed.
    pub fn is_reassigning(&self) -> bool {
        !self.adding_replicas.is_empty() || !self.removing_replicas.is_empty()
    }

    /// The log directory of a replica; [`Uuid::UNASSIGNED_DIR`] if it is none.
    pub fn directory(&self, replica: i32) -> Uuid {
        self.replicas
            .iter()
            .position(|&r| r == replica)
            .and_then(|index| self.directories.get(index).copied())
            .unwrap_or(Uuid::UNASSIGNED_DIR)
    }
}

/// A directory for each replica: none at all stand for records from before directories had ids.
fn directories_of(directories: &[Uuid], replicas: usize) -> Result<Vec<Uuid>, ReplayError> {
    if directories.is_empty() {
        return Ok(vec![Uuid::MIGRATING_DIR; replicas]);
    }
    if directories.len() != replicas {
        return Err(ReplayError::DirectoryCount {
            directories: directories.len(),
            replicas,
        });
    }
    Ok(directories.to_vec())
}

fn recovery_state(value: i8) -> Result<LeaderRecoveryState, ReplayError> {
    LeaderRecoveryState::from_value(value).ok_or(ReplayError::LeaderRecoveryState { value })
}
