//! Where the members of the quorum are, as the newest committed membership has it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::flusher::lock;
use super::types::{Membership, NodeId, Voter};

/// Clones refer to the same book. Ways to other nodes are made once and outlive changes of where
/// these are, so they look it up for each call.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses(Arc<Mutex<BTreeMap<NodeId, Voter>>>);

impl Addresses {
    pub(super) fn get(&self, id: NodeId) -> Option<Voter> {
        lock(&self.0).get(&id).cloned()
    }

    /// Notes where a member says that it is, until the next membership says so too.
    pub(super) fn note(&self, id: NodeId, voter: Voter) {
        lock(&self.0).insert(id, voter);
    }

    pub(super) fn set(&self, members: &Membership) {
        let nodes = members.nodes().map(|(id, voter)| (*id, voter.clone()));
        *lock(&self.0) = nodes.collect();
    }
}
