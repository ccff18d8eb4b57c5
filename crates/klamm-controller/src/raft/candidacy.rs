//! Whether this node may stand for election.
//!
//! openraft knows voters by their ids. Here a voter is an id *and* a directory: a node that lost its
//! disk is told of itself as a voter while it gets the log from its beginning, and is not meant. If
//! that was a quorum of one, it would elect itself at once, with next to nothing of the log. So openraft
//! starts no election unless this very directory votes.
//!
//! Once it does, it does in all that this node can come to know later: the log tells of a directory
//! that was lost before it tells of the one that takes its place, and what is committed stays.

use klamm_records::Uuid;
use openraft::Raft;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;

use super::state_machine::StateMachine;
use super::types::{Membership, NodeId, TypeConfig};
use crate::runtime::spawn;

/// Whether these members have the node with that directory as a voter. One that is only configured is
/// known by its id.
pub(super) fn votes(members: &Membership, node: NodeId, directory_id: Uuid) -> bool {
    let own = members.get_node(&node);
    members.voter_ids().any(|id| id == node)
        && own.is_some_and(|own| [Uuid::ZERO, directory_id].contains(&own.directory_id))
}

/// Whether this node votes, as far as it knows by now.
pub(super) fn stands(
    raft: &Raft<TypeConfig, StateMachine>,
    node: NodeId,
    directory_id: Uuid,
) -> bool {
    may_stand(&raft.server_metrics().borrow_watched(), node, directory_id)
}

/// Lets openraft stand for election where this node votes, until it stops.
pub(super) fn watch(raft: Raft<TypeConfig, StateMachine>, node: NodeId, directory_id: Uuid) {
    spawn(async move {
        let mut metrics = raft.server_metrics();
        loop {
            raft.runtime_config()
                .elect(may_stand(&metrics.borrow_watched(), node, directory_id));
            if metrics.changed().await.is_err() {
                return;
            }
        }
    });
}

fn may_stand(metrics: &RaftServerMetrics<TypeConfig>, node: NodeId, directory_id: Uuid) -> bool {
    // Who has just lost its vote may be needed until that is committed.
    let known = [
        &metrics.membership_config,
        &metrics.committed_membership_config,
    ];
    known
        .into_iter()
        .any(|it| votes(it.membership(), node, directory_id))
}
