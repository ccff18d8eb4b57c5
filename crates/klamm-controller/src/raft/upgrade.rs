//! From the voters of `controller.quorum.voters` to voters in the log: `kraft.version` 0 to 1.
//!
//! A voter that is only configured is known by its id. The log keeps voters by id *and* directory, so
//! each tells the leader of every epoch which directory it has and where it listens
//! (`UpdateRaftVoter`). The leader remembers that as long as it leads. Once it knows all of them, one
//! entry with the same voters and their directories is the upgrade, and from then on voters can be
//! changed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};

use klamm_records::Uuid;
use openraft::ChangeMembers;

use super::RaftNode;
use super::flusher::lock;
use super::types::{NodeId, Voter, VoterEndpoint};
use super::voters::{VoterError, are_kept_in_log, voters_of};

/// What configured voters have told of themselves.
#[derive(Debug)]
pub(super) struct Told {
    /// To this node as the leader of an epoch.
    here: Mutex<(i32, BTreeMap<NodeId, Voter>)>,
    /// The last epoch whose leader was told of this node.
    elsewhere: AtomicI32,
}

impl Default for Told {
    fn default() -> Self {
        Told {
            here: Mutex::default(),
            elsewhere: AtomicI32::new(-1),
        }
    }
}

impl RaftNode {
    /// Whether the voters are those of `controller.quorum.voters` (`kraft.version` 0).
    pub(crate) fn has_configured_voters(&self) -> bool {
        !are_kept_in_log(&voters_of(self.members().membership()))
    }

    /// Remembers what a configured voter tells of itself while this node leads.
    pub(super) fn note_configured(&self, id: NodeId, voter: Voter) -> Result<(), VoterError> {
        let voters = voters_of(self.members().membership());
        if voter.directory_id == Uuid::ZERO || !voters.contains_key(&id) {
            return Err(VoterError::not_found(id, &voter, &voters));
        }
        let epoch = self.status().epoch;
        let mut told = lock(&self.told.here);
        if told.0 != epoch {
            *told = (epoch, BTreeMap::new());
        }
        told.1.insert(id, voter);
        Ok(())
    }

    /// Whether the leader of `epoch` knows of this voter.
    pub(crate) fn is_known_in(&self, epoch: i32) -> bool {
        self.told.elsewhere.load(Ordering::Relaxed) == epoch
    }

    /// The leader of `epoch` knows of this voter.
    pub(crate) fn set_known_in(&self, epoch: i32) {
        self.told.elsewhere.store(epoch, Ordering::Relaxed);
    }

    /// Moves the voters into the log, or only looks whether that can be done. `endpoints` are those of
    /// this node, which leads. Nothing happens where they are in the log already.
    pub(crate) async fn keep_voters_in_log(
        &self,
        endpoints: Vec<VoterEndpoint>,
        validate_only: bool,
    ) -> Result<(), VoterError> {
        let _changing = self.begin_change(false).await?;
        if !self.leads() {
            return Err(VoterError::NotLeader);
        }
        if !self.has_configured_voters() {
            return Ok(());
        }
        let epoch = self.status().epoch;
        let mut nodes = {
            let told = lock(&self.told.here);
            if told.0 == epoch {
                told.1.clone()
            } else {
                BTreeMap::new()
            }
        };
        let own = Voter {
            directory_id: self.directory_id,
            endpoints,
        };
        nodes.insert(self.node, own);
        let voters = voters_of(self.members().membership());
        nodes.retain(|id, _| voters.contains_key(id));
        if nodes.len() < voters.len() {
            let told: Vec<i32> = nodes.keys().map(|id| id.0).collect();
            tracing::info!(?told, "not all voters have told which directory they have");
            return Err(VoterError::NotAllSupport);
        }
        if validate_only {
            return Ok(());
        }
        for (id, voter) in &nodes {
            // They may be needed for the majority that commits this.
            self.addresses.note(*id, voter.clone());
        }
        self.change(ChangeMembers::SetNodes(nodes)).await?;
        tracing::info!("the voters are in the log from now on");
        Ok(())
    }
}
